#include "services/gateway/api_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/api-keys-XXXXXX";

static int prepare(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int clean_up(void **state)
{
    (void)state;
    return unlink(path);
}

static api_keys *load(const char *text, error *err)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return api_keys_load(path, err);
}

static void keys_have_the_tenant_of_their_line_or_one_of_their_own(void **state)
{
    (void)state;
    error     err;
    api_keys *keys = load("# people\n\n  first-key   acme \nsecond-key\r\nthird-key\n", &err);
    if (!keys)
        fail_msg("%s", err.text);
    assert_int_equal(api_keys_count(keys), 3);
    assert_string_equal(api_keys_find(keys, SPAN("first-key")), "acme");
    const char *second = api_keys_find(keys, SPAN("second-key")), *third = api_keys_find(keys, SPAN("third-key"));
    assert_memory_equal(second, "key-", 4);
    assert_string_not_equal(second, third);
    static const char *const unknown[] = {"", "first-ke", "first-keyy", "First-key", "# people", "acme"};
    for (size_t i = 0; i < COUNT(unknown); i++)
        assert_null(api_keys_find(keys, span_of(unknown[i])));
    api_keys_free(&keys);
    assert_null(keys);
}

static void bad_files_are_refused_with_their_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {{"", "no key"},
                 {"# only this\n", "no key"},
                 {"good-key-1\nshort\n", "line 2"},
                 {"good-key-1 a b\n", "line 1"},
                 {"good-key-1\ngood-key-1 again\n", "line 2"},
                 {"caf\xc3\xa9-caf\xc3\xa9\n", "line 1"}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err;
        assert_null(load(cases[i].text, &err));
        if (!strstr(err.text, cases[i].says) || !strstr(err.text, path))
            fail_msg("%s", err.text);
    }
    error err;
    assert_null(api_keys_load("/nonexistent/keys", &err));
    assert_int_equal(err.code, ERR_IO);
}

static void the_header_gives_its_key(void **state)
{
    static const struct {
        const char *header, *key;
    } cases[] = {{"Bearer abc", "abc"},
                 {"bearer abc", "abc"},
                 {"Bearer  abc", "abc"},
                 {"Bearer abc def", ""},
                 {"Basic abc", ""},
                 {"Bearer", ""},
                 {"", ""},
                 {"Bearer ", ""}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_true(span_is(api_key_of(span_of(cases[i].header)), cases[i].key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_have_the_tenant_of_their_line_or_one_of_their_own),
        cmocka_unit_test(bad_files_are_refused_with_their_line),
        cmocka_unit_test(the_header_gives_its_key),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
