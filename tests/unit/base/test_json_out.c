/* The JSON writer: structure, escaping, numbers, and what happens at the end of the buffer. */
#include "base/json_out.h"

#include "base/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void commas_and_colons_are_put_where_they_belong(void **state)
{
    (void)state;
    char     out[512];
    span     text;
    error    err;
    json_out j = json_out_into(out, sizeof out);
    json_out_object(&j);
    json_out_member_string(&j, "id", SPAN("x"));
    json_out_key(&j, SPAN("list"));
    json_out_array(&j);
    json_out_u64(&j, UINT64_MAX);
    json_out_i64(&j, INT64_MIN);
    json_out_object(&j);
    json_out_end(&j);
    json_out_array(&j);
    json_out_end(&j);
    json_out_null(&j);
    json_out_end(&j);
    json_out_member_bool(&j, "yes", true);
    json_out_member_bool(&j, "no", false);
    json_out_member_null(&j, "nothing");
    json_out_member_u64(&j, "u", 7);
    json_out_member_i64(&j, "i", -7);
    json_out_member_double(&j, "d", 0.1);
    json_out_key(&j, SPAN("raw"));
    json_out_raw(&j, SPAN("{\"a\":1}"));
    json_out_end(&j);
    assert_true(json_out_finish(&j, &text, &err));
    assert_string_equal(text.data,
                        "{\"id\":\"x\",\"list\":[18446744073709551615,-9223372036854775808,{},[],null],\"yes\":true,"
                        "\"no\":false,\"nothing\":null,\"u\":7,\"i\":-7,\"d\":0.1,\"raw\":{\"a\":1}}");
    assert_int_equal(text.size, strlen(text.data));
}

static void strings_are_escaped_and_always_utf8(void **state)
{
    (void)state;
    static const struct {
        span        input;
        const char *expected;
    } rows[] = {
        {SPAN(""), "\"\""},
        {SPAN("plain"), "\"plain\""},
        {SPAN("\"\\/"), "\"\\\"\\\\/\""},
        {SPAN("\b\t\n\f\r"), "\"\\b\\t\\n\\f\\r\""},
        {SPAN("\0\x01\x1f\x7f"), "\"\\u0000\\u0001\\u001f\\u007f\""},
        {SPAN("h\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), "\"h\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {SPAN("a\xFFz"), "\"a\xEF\xBF\xBDz\""},
        {SPAN("\xF0\x9F\x98"), "\"\xEF\xBF\xBD\""},
        {SPAN("\xF0\x9F\x98\xFF\xC0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {SPAN("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char     out[128];
        span     text;
        error    err;
        json_out j = json_out_into(out, sizeof out);
        json_out_string(&j, rows[i].input);
        assert_true(json_out_finish(&j, &text, &err));
        assert_string_equal(text.data, rows[i].expected);
    }
}

static void doubles_take_their_shortest_form(void **state)
{
    (void)state;
    static const struct {
        double      value;
        const char *expected;
    } rows[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {1e21, "1e+21"},
        {123456789012345678.0, "1.2345678901234568e+17"},
        {5e-324, "5e-324"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {0.1 + 0.2, "0.30000000000000004"},
        {-2.5, "-2.5"},
        {NAN, "null"},
        {INFINITY, "null"},
        {-INFINITY, "null"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char     out[64];
        span     text;
        json_out j = json_out_into(out, sizeof out);
        json_out_double(&j, rows[i].value);
        assert_true(json_out_finish(&j, &text, NULL));
        assert_string_equal(text.data, rows[i].expected);
    }
    char     out[64];
    span     text;
    json_out j = json_out_into(out, sizeof out);
    json_out_float(&j, -0.7f);
    assert_true(json_out_finish(&j, &text, NULL));
    assert_string_equal(text.data, "-0.7");
}

static void random_doubles_and_floats_read_back_the_same(void **state)
{
    (void)state;
    random_seeded r = random_from_seed(11);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_u64(&r);
        double   value;
        float    single;
        memcpy(&value, &bits, sizeof value);
        memcpy(&single, &bits, sizeof single);
        char     out[64];
        span     text;
        json_out j = json_out_into(out, sizeof out);
        if (isfinite(value)) {
            json_out_double(&j, value);
            assert_true(json_out_finish(&j, &text, NULL));
            assert_true(strtod(text.data, NULL) == value);
        }
        j = json_out_into(out, sizeof out);
        if (isfinite(single)) {
            json_out_float(&j, single);
            assert_true(json_out_finish(&j, &text, NULL));
            assert_true(strtof(text.data, NULL) == single);
        }
    }
}

static void write_sample(json_out *j)
{
    json_out_object(j);
    json_out_member_string(j, "text", SPAN("tab\there, \xFF"));
    json_out_member_double(j, "p", 0.25);
    json_out_end(j);
}

static void a_text_that_does_not_fit_is_reported_with_its_size_and_never_overruns(void **state)
{
    (void)state;
    char     whole[128];
    span     text;
    error    err;
    json_out j = json_out_into(whole, sizeof whole);
    write_sample(&j);
    assert_true(json_out_finish(&j, &text, &err));
    for (size_t room = 0; room <= text.size + 1; room++) {
        char out[128];
        span result;
        memset(out, 0x5A, sizeof out);
        j = json_out_into(out, room);
        write_sample(&j);
        assert_int_equal(j.used, text.size);
        if (room == text.size + 1) {
            assert_true(json_out_finish(&j, &result, &err));
            assert_string_equal(result.data, text.data);
        } else {
            char needed[16];
            snprintf(needed, sizeof needed, " %zu bytes", text.size + 1);
            assert_false(json_out_finish(&j, &result, &err));
            assert_int_equal(err.code, ERR_NO_MEMORY);
            assert_non_null(strstr(err.text, needed));
            assert_null(result.data);
        }
        for (size_t i = room; i < sizeof out; i++)
            assert_int_equal(out[i], 0x5A);
    }
}

static void what_does_not_fit_can_be_left_out_by_restoring_a_copy(void **state)
{
    (void)state;
    char     out[24];
    span     text;
    json_out j = json_out_into(out, sizeof out);
    json_out_array(&j);
    json_out_string(&j, SPAN("short"));
    json_out before = j;
    json_out_string(&j, SPAN("much too long for this buffer"));
    assert_true(j.overflowed);
    j = before;
    json_out_u64(&j, 1);
    json_out_end(&j);
    assert_true(json_out_finish(&j, &text, NULL));
    assert_string_equal(text.data, "[\"short\",1]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_colons_are_put_where_they_belong),
        cmocka_unit_test(strings_are_escaped_and_always_utf8),
        cmocka_unit_test(doubles_take_their_shortest_form),
        cmocka_unit_test(random_doubles_and_floats_read_back_the_same),
        cmocka_unit_test(a_text_that_does_not_fit_is_reported_with_its_size_and_never_overruns),
        cmocka_unit_test(what_does_not_fit_can_be_left_out_by_restoring_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
