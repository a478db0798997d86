/* Errors carry a code and one sentence; context goes in front; nothing overruns. */
#include "base/error.h"

#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void setting_an_error_returns_false_and_keeps_code_and_sentence(void **state)
{
    (void)state;
    error err = {0};
    assert_false(error_set(&err, ERR_NOT_FOUND, "no model named \"%s\"", "x"));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.text, "no model named \"x\"");
    error_clear(&err);
    assert_int_equal(err.code, ERR_NONE);
    assert_string_equal(err.text, "");
}

static void wrapping_puts_context_before_the_cause_and_keeps_the_code(void **state)
{
    (void)state;
    error err;
    error_set(&err, ERR_IO, "read failed");
    assert_false(error_wrap(&err, "tensor %d", 3));
    assert_false(error_wrap(&err, "model.gguf"));
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.text, "model.gguf: tensor 3: read failed");
}

static void long_texts_are_cut_inside_the_buffer(void **state)
{
    (void)state;
    char long_text[2 * ERROR_TEXT_BYTES];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    struct {
        error err;
        char  guard[16];
    } box;
    memset(&box, 0x5A, sizeof box);
    error_set(&box.err, ERR_INVALID, "%s", long_text);
    assert_int_equal(strlen(box.err.text), ERROR_TEXT_BYTES - 1);
    error_wrap(&box.err, "context");
    assert_int_equal(strlen(box.err.text), ERROR_TEXT_BYTES - 1);
    assert_memory_equal(box.err.text, "context: xxx", 12);
    error_wrap(&box.err, "%s", long_text);
    assert_int_equal(strlen(box.err.text), ERROR_TEXT_BYTES - 1);
    for (size_t i = 0; i < sizeof box.guard; i++)
        assert_int_equal(box.guard[i], 0x5A);
}

static void a_cut_never_splits_a_utf8_sequence(void **state)
{
    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        char  text[2 * ERROR_TEXT_BYTES] = "";
        error err;
        for (int i = 0; i < shift; i++)
            strcat(text, "x");
        for (int i = 0; i < 150; i++)
            strcat(text, "\xF0\x9F\x98\x80");
        error_set(&err, ERR_INVALID, "%s", text);
        assert_true(utf8_is_valid(span_of(err.text)));
        assert_true(strlen(err.text) >= ERROR_TEXT_BYTES - UTF8_BYTES_MAX);
    }
}

static void a_caller_without_interest_passes_null(void **state)
{
    (void)state;
    assert_false(error_set(NULL, ERR_IO, "x"));
    assert_false(error_wrap(NULL, "x"));
    error_clear(NULL);
}

static void every_code_has_name_status_and_sentence(void **state)
{
    (void)state;
    for (int code = 0; code < N_ERRORS; code++) {
        assert_memory_equal(error_name((error_code)code), "ERR_", 4);
        assert_in_range(error_http_status((error_code)code), 200, 599);
        assert_true(strlen(error_sentence((error_code)code)) > 3);
    }
    assert_int_equal(error_http_status(ERR_OVERLOADED), 429);
    assert_true(error_may_retry(ERR_OVERLOADED));
    assert_false(error_may_retry(ERR_INVALID));
    assert_string_equal(error_name((error_code)999), "ERR_INTERNAL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setting_an_error_returns_false_and_keeps_code_and_sentence),
        cmocka_unit_test(wrapping_puts_context_before_the_cause_and_keeps_the_code),
        cmocka_unit_test(long_texts_are_cut_inside_the_buffer),
        cmocka_unit_test(a_cut_never_splits_a_utf8_sequence),
        cmocka_unit_test(a_caller_without_interest_passes_null),
        cmocka_unit_test(every_code_has_name_status_and_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
