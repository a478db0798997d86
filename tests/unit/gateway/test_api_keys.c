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
    return api_keys_load(path, NULL, err);
}

static void keys_have_the_tenant_of_their_line_or_one_of_their_own(void **state)
{
    (void)state;
    error     err;
    api_keys *keys = load("# people\n\n  first-key   acme \nsecond-key\r\nthird-key\n", &err);
    if (!keys)
        fail_msg("%s", err.text);
    assert_int_equal(api_keys_count(keys), 3);
    assert_string_equal(api_keys_find(keys, SPAN("first-key"), NULL), "acme");
    const char *second = api_keys_find(keys, SPAN("second-key"), NULL),
               *third  = api_keys_find(keys, SPAN("third-key"), NULL);
    assert_memory_equal(second, "key-", 4);
    assert_string_not_equal(second, third);
    static const char *const unknown[] = {"", "first-ke", "first-keyy", "First-key", "# people", "acme"};
    for (size_t i = 0; i < COUNT(unknown); i++)
        assert_null(api_keys_find(keys, span_of(unknown[i]), NULL));
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
                 {"good-key-1 rpm=3\n", "requests-per-minute=N"},
                 {"good-key-1 a requests-per-minute=\n", "a number from 1"},
                 {"good-key-1 a tokens-per-minute=0\n", "a number from 1"},
                 {"good-key-1 a tokens-per-minute=-5\n", "a number from 1"},
                 {"good-key-1 concurrent-requests=2x b\n", "a number from 1"},
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
    assert_null(api_keys_load("/nonexistent/keys", NULL, &err));
    assert_int_equal(err.code, ERR_IO);
}

static void limits_change_with_the_file_and_what_was_used_stays_used(void **state)
{
    (void)state;
    error      err;
    uint32_t   wait_ms;
    key_usage *usage, *again;
    api_keys  *first = load("key-number-1 requests-per-minute=2 acme\n", &err);
    assert_non_null(first);
    assert_string_equal(api_keys_find(first, SPAN("key-number-1"), &usage), "acme");
    assert_true(key_usage_take(usage, 1, &wait_ms, &err) && key_usage_take(usage, 1, &wait_ms, &err));
    FILE *f = fopen(path, "w");
    fputs("key-number-0\nkey-number-1 requests-per-minute=2\n", f);
    fclose(f);
    api_keys *second = api_keys_load(path, first, &err);
    api_keys_free(&first);
    api_keys_find(second, SPAN("key-number-1"), &again);
    assert_ptr_equal(again, usage);
    assert_false(key_usage_take(again, 1, &wait_ms, &err));
    api_keys_find(second, SPAN("key-number-0"), &again);
    for (int i = 0; i < 100; i++)
        assert_true(key_usage_take(again, 1, &wait_ms, &err)); /* it has no limit */
    api_keys_free(&second);
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
        cmocka_unit_test(limits_change_with_the_file_and_what_was_used_stays_used),
        cmocka_unit_test(the_header_gives_its_key),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
