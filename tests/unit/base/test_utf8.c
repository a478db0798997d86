/* Strict UTF-8: table 3-7 byte by byte, and every code point there and back. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/error.h"

static void every_code_point_survives_encoding_and_decoding(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF + 10; c++) {
        char     bytes[UTF8_BYTES_MAX];
        uint32_t back;
        size_t   n = utf8_encode(c, bytes);
        if ((c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF) {
            assert_int_equal(n, 0);
            continue;
        }
        assert_int_equal(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        assert_int_equal(utf8_decode((span){bytes, n}, &back), n);
        assert_int_equal(back, c);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(utf8_decode((span){bytes, cut}, &back), 0);
    }
}

/* Counts the sequences of 1, 2, 3 and 4 bytes that decode: exactly as many as there are scalar values of that length.
 */
static void exactly_the_sequences_of_table_3_7_decode(void **state)
{
    (void)state;
    uint32_t n_valid[5] = {0};
    for (uint32_t first = 0; first < 0x10000; first++) {
        for (uint32_t second = 0; second < 0x10000; second += second < 0x100 || (first >> 8) >= 0xE0 ? 1 : 0x10000) {
            unsigned char b[4] = {(unsigned char)(first >> 8), (unsigned char)first, (unsigned char)(second >> 8),
                                  (unsigned char)second};
            if ((b[0] < 0xF0 && b[3]) || (b[0] < 0xE0 && b[2]) || (b[0] < 0x80 && b[1]) ||
                (b[0] >= 0x80 && b[0] < 0xC0 && b[1]))
                continue;
            if (b[0] >= 0xE0 && (b[1] & 0xC0) != 0x80)
                break; /* judged by the table of bad sequences below */
            uint32_t c;
            size_t   n = utf8_decode((span){(const char *)b, b[0] < 0x80   ? 1
                                                             : b[0] < 0xE0 ? 2
                                                             : b[0] < 0xF0 ? 3
                                                                           : 4},
                                     &c);
            n_valid[n]++;
        }
    }
    assert_int_equal(n_valid[1], 0x80);
    assert_int_equal(n_valid[2], 0x800 - 0x80);
    assert_int_equal(n_valid[3], 0x10000 - 0x800 - 0x800);
    assert_int_equal(n_valid[4], 0x110000 - 0x10000);
}

static void malformed_sequences_are_refused_and_measured(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t      n_invalid;
        bool        may_continue;
    } rows[] = {
        {"\x80", 1, false}, /* a continuation alone */
        {"\xBF"
         "a",
         1, false},
        {"\xC0\x80", 1, false}, /* overlong NUL */
        {"\xC1\xBF", 1, false},
        {"\xC2", 1, true},
        {"\xC2"
         "a",
         1, false},
        {"\xE0\x80\x80", 1, false}, /* overlong */
        {"\xE0\x9F\xBF", 1, false},
        {"\xE0\xA0", 2, true},
        {"\xED\xA0\x80", 1, false}, /* a surrogate */
        {"\xED\xBF\xBF", 1, false},
        {"\xE2\x82"
         "a",
         2, false},
        {"\xF0\x8F\xBF\xBF", 1, false}, /* overlong */
        {"\xF0\x90\x80", 3, true},
        {"\xF0\x9F\x98"
         "a",
         3, false},
        {"\xF4\x90\x80\x80", 1, false}, /* past U+10FFFF */
        {"\xF5\x80\x80\x80", 1, false},
        {"\xFE", 1, false},
        {"\xFF", 1, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint32_t c;
        bool     may_continue;
        span     text = span_of(rows[i].text);
        assert_int_equal(utf8_decode(text, &c), 0);
        assert_int_equal(c, UTF8_REPLACEMENT);
        assert_int_equal(utf8_invalid_length(text, &may_continue), rows[i].n_invalid);
        assert_int_equal(may_continue, rows[i].may_continue);
        assert_false(utf8_is_valid(text));
    }
}

static void the_valid_prefix_ends_before_the_first_bad_or_cut_sequence(void **state)
{
    (void)state;
    assert_int_equal(utf8_valid_prefix(SPAN("")), 0);
    assert_int_equal(utf8_valid_prefix(SPAN("abc")), 3);
    assert_int_equal(utf8_valid_prefix(SPAN("a\xC3\xA9\xF0\x9F\x98\x80")), 7);
    assert_int_equal(utf8_valid_prefix(SPAN("a\xC3\xA9\xF0\x9F\x98")), 3);
    assert_int_equal(utf8_valid_prefix(SPAN("ab\xFFzz")), 2);
    assert_true(utf8_is_valid(SPAN("nul \0 inside")));
    assert_true(utf8_is_valid((span){NULL, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_encoding_and_decoding),
        cmocka_unit_test(exactly_the_sequences_of_table_3_7_decode),
        cmocka_unit_test(malformed_sequences_are_refused_and_measured),
        cmocka_unit_test(the_valid_prefix_ends_before_the_first_bad_or_cut_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
