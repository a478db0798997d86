#include "support_reference.h"

#include "base/utf8.h"
#include "text/nfc.h"
#include "text/unicode.h"

static bool in_ranges(const json_t *ranges, uint32_t c, size_t *at)
{
    while (*at < json_array_size(ranges) &&
           (uint32_t)json_integer_value(json_array_get(json_array_get(ranges, *at), 1)) < c)
        ++*at;
    return *at < json_array_size(ranges) &&
           (uint32_t)json_integer_value(json_array_get(json_array_get(ranges, *at), 0)) <= c;
}

static void every_code_point_has_the_classes_that_tokenizers_gives_it(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t    bit;
    } classes[] = {
        {"letter", UNICODE_LETTER}, {"upper", UNICODE_UPPER}, {"lower", UNICODE_LOWER},
        {"number", UNICODE_NUMBER}, {"mark", UNICODE_MARK},   {"punctuation", UNICODE_PUNCTUATION},
        {"symbol", UNICODE_SYMBOL}, {"space", UNICODE_SPACE}, {"word", UNICODE_WORD},
    };
    json_t *root = reference_json("classes.json");
    for (size_t i = 0; i < COUNT(classes); i++) {
        const json_t *ranges = json_object_get(root, classes[i].name);
        size_t        at     = 0;
        assert_true(json_array_size(ranges) > 5);
        for (uint32_t c = 0; c < 0x110000; c++)
            if (in_ranges(ranges, c, &at) != !!(unicode_classes(c) & classes[i].bit))
                fail_msg("U+%04X should %sbe of class %s", c, in_ranges(ranges, c, &at) ? "" : "not ", classes[i].name);
    }
    assert_int_equal(unicode_classes(0x110000), 0);
    assert_int_equal(unicode_classes(UINT32_MAX), 0);
    json_decref(root);
}

static void a_character_is_read_from_either_side(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char   bytes[2 + UTF8_BYTES_MAX] = {'a'};
        size_t n                         = utf8_encode(c, bytes + 1);
        if (n == 0)
            continue;
        bytes[1 + n]            = 'b';
        span              text  = {bytes, n + 2};
        unicode_character there = unicode_at(text, 1), back = unicode_before(text, 1 + n);
        assert_int_equal(there.n_bytes, n);
        assert_int_equal(back.n_bytes, n);
        assert_int_equal(there.classes, unicode_classes(c));
        assert_int_equal(back.classes, unicode_classes(c));
    }
}

static void a_byte_that_is_not_utf8_is_a_character_without_classes(void **state)
{
    (void)state;
    static const char *const texts[] = {"\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xED\xA0\x80", "\xC0\xAF", "\xFF"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        span text = span_of(texts[i]);
        for (size_t at = 0; at < text.size; at++) {
            unicode_character c = unicode_at(text, at);
            assert_int_equal(c.n_bytes, 1);
            assert_int_equal(c.classes, 0);
            c = unicode_before(text, at + 1);
            assert_int_equal(c.n_bytes, 1);
            assert_int_equal(c.classes, 0);
        }
    }
}

static span normalized(span text, arena *memory)
{
    error err = {0};
    span  out;
    arena_reset(memory);
    if (!normal_form_of(text, NORMAL_FORM_C, memory, &out, &err))
        fail_msg("%s", err.text);
    return out;
}

static void normalizes_as_tokenizers_does(void **state)
{
    (void)state;
    json_t *cases  = reference_json("nfc.json");
    arena  *memory = arena_new(1 << 16, NULL);
    assert_true(json_array_size(cases) > 2000);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        span text = reference_text(json_array_get(json_array_get(cases, i), 0));
        span want = reference_text(json_array_get(json_array_get(cases, i), 1));
        span got  = normalized(text, memory);
        if (!span_equal(got, want))
            fail_msg("case %zu: \"%.*s\" became \"%.*s\", not \"%.*s\"", i, SPAN_ARG(text), SPAN_ARG(got),
                     SPAN_ARG(want));
        if (!span_equal(normalized(want, memory), want))
            fail_msg("case %zu: \"%.*s\" is not stable", i, SPAN_ARG(want));
    }
    arena_free(&memory);
    json_decref(cases);
}

static void each_form_is_what_tokenizers_makes(void **state)
{
    (void)state;
    static const normal_form forms[] = {NORMAL_FORM_D, NORMAL_FORM_KC, NORMAL_FORM_KD};
    json_t                  *cases   = reference_json("forms.json");
    arena                   *memory  = arena_new(1 << 16, NULL);
    assert_true(json_array_size(cases) > 60);
    for (size_t i = 0; i < json_array_size(cases) * COUNT(forms); i++) {
        const json_t *entry = json_array_get(cases, i / COUNT(forms));
        size_t        which = i % COUNT(forms);
        span          text  = reference_text(json_array_get(entry, 0)), want, got;
        arena_reset(memory);
        assert_true(normal_form_of(text, forms[which], memory, &got, NULL));
        want = reference_text(json_array_get(entry, which + 1));
        assert_true(got.size <= normal_form_growth(forms[which]) * text.size);
        if (!span_equal(got, want))
            fail_msg("form %zu: \"%.*s\" became \"%.*s\", not \"%.*s\"", which, SPAN_ARG(text), SPAN_ARG(got),
                     SPAN_ARG(want));
    }
    arena_free(&memory);
    json_decref(cases);
}

static void keeps_a_normal_text_and_invalid_bytes(void **state)
{
    (void)state;
    arena *memory = arena_new(1 << 16, NULL);
    span   plain  = SPAN("plain caf\xC3\xA9 \xE6\x97\xA5");
    assert_ptr_equal(normalized(plain, memory).data, plain.data);
    assert_true(span_is(normalized(SPAN("e\xCC\x81\xFF"
                                        "e\xCC\x81\xCC"),
                                   memory),
                        "\xC3\xA9\xFF\xC3\xA9\xCC"));
    assert_true(span_is(normalized(SPAN("e\xFF\xCC\x81"), memory), "e\xFF\xCC\x81"));
    error  err = {0};
    span   out;
    arena *little = arena_new(64, NULL);
    assert_false(
        normal_form_of(SPAN("e\xCC\x81 is too long for the memory there is"), NORMAL_FORM_C, little, &out, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    arena_free(&little);
    arena_free(&memory);
}

/* utf8proc alone would take minutes. */
static void a_long_run_of_marks_is_sorted_in_linear_time(void **state)
{
    (void)state;
    enum { MARKS = 200000 };
    arena *memory = arena_new(64 << 20, NULL);
    char  *text   = arena_take(memory, 1 + 2 * MARKS);
    text[0]       = 'q';
    for (size_t i = 0; i < MARKS; i++)
        memcpy(text + 1 + 2 * i, i % 2 ? "\xCC\xA3" : "\xCC\x81", 2); /* U+0323 sorts before U+0301 */
    span  out;
    error err = {0};
    assert_true(normal_form_of((span){text, 1 + 2 * MARKS}, NORMAL_FORM_C, memory, &out, &err));
    assert_int_equal(out.size, 1 + 2 * MARKS);
    for (size_t i = 0; i < MARKS; i++)
        assert_memory_equal(out.data + 1 + 2 * i, i < MARKS / 2 ? "\xCC\xA3" : "\xCC\x81", 2);
    arena_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_has_the_classes_that_tokenizers_gives_it),
        cmocka_unit_test(a_character_is_read_from_either_side),
        cmocka_unit_test(a_byte_that_is_not_utf8_is_a_character_without_classes),
        cmocka_unit_test(normalizes_as_tokenizers_does),
        cmocka_unit_test(each_form_is_what_tokenizers_makes),
        cmocka_unit_test(keeps_a_normal_text_and_invalid_bytes),
        cmocka_unit_test(a_long_run_of_marks_is_sorted_in_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
