#include "support_reference.h"

#include "text/normalize.h"

enum { SCRATCH = 1 << 16 };

/* Runs the steps named by letters: n form C, p prepend "_", r replace "ab" by "xyz", b replace "a" by "-+", x replace
 * digits by "#", t trim, < and > strip an end, a strip accents. */
static normalizer *make(const char *steps)
{
    normalizer *n = normalizer_new(NULL);
    for (; *steps; steps++)
        assert_true(*steps == 'n'   ? normalizer_add_form(n, NORMAL_FORM_C, NULL)
                    : *steps == 'p' ? normalizer_add_prepend(n, SPAN("_"), NULL)
                    : *steps == 'r' ? normalizer_add_replace(n, SPAN("ab"), SPAN("xyz"), NULL)
                    : *steps == 'b' ? normalizer_add_replace(n, SPAN("a"), SPAN("-+"), NULL)
                    : *steps == 'x' ? normalizer_add_replace_regex(n, SPAN("[0-9]+"), SPAN("#"), NULL)
                    : *steps == '<' ? normalizer_add_strip(n, true, false, NULL)
                    : *steps == '>' ? normalizer_add_strip(n, false, true, NULL)
                    : *steps == 'a' ? normalizer_add_strip_accents(n, NULL)
                                    : normalizer_add_trim(n, NULL));
    return n;
}

static void steps_follow_one_another_and_carry_trust(void **state)
{
    (void)state;
    static const struct {
        const char *steps, *text, *trusted, *normal, *normal_trusted;
    } cases[] = {
        {"", "abab", "1100", "abab", "1100"},
        {"r", "ababa", "11001", "xyzxyza", "1110001"},
        {"r", "cab", "110", "cxyz", "1000"}, /* trusted where all of it is */
        {"b", "aba", "100", "-+b-+", "11000"},
        {"x", "a12b3", "11011", "a#b#", "1011"},
        {"x", "12", "11", "#", "1"},
        {"<",
         " \xC2\xA0"
         "a ",
         "00011", "a ", "11"},
        {">", " a\n \xE3\x80\x80", "0111111", " a", "01"},
        {"<>", "\n ", "01", "", ""},
        {"a", "e\xCC\x81x\xCC", "01101", "ex\xCC", "001"},
        {"p", "ab", "01", "_ab", "001"},
        {"p", "", "", "", ""},
        {"pr", "ab", "11", "_xyz", "1111"},
        {"t", "  a   b  ", "110000111", "a b", "001"},
        {"tp", "    ", "1111", "", ""},
        {"n", "e\xCC\x81", "111", "\xC3\xA9", "11"},
        {"n", "e\xCC\x81", "100", "e\xCC\x81", "100"}, /* two origins do not compose */
    };
    arena *scratch = arena_new(SCRATCH, NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        normalizer *n    = make(cases[i].steps);
        size_t      size = strlen(cases[i].text), n_normal = strlen(cases[i].normal);
        uint8_t     trusted[16];
        for (size_t j = 0; j < size; j++)
            trusted[j] = cases[i].trusted[j] == '1';
        marked_text text = {cases[i].text, trusted, size};
        assert_true(normalizer_run(n, &text, scratch, NULL));
        assert_int_equal(text.size, n_normal);
        assert_true(text.size <= normalizer_bytes_max(n, size));
        assert_true(arena_used(scratch) <= normalizer_scratch_bytes(n, size));
        assert_memory_equal(text.data, cases[i].normal, n_normal);
        for (size_t j = 0; j < n_normal; j++)
            assert_int_equal(text.trusted[j], cases[i].normal_trusted[j] == '1');
        arena_reset(scratch);
        normalizer_free(&n);
    }
    arena_free(&scratch);
}

static void accents_are_what_tokenizers_strips(void **state)
{
    (void)state;
    enum { STRIPPED = 4 };
    json_t     *cases   = reference_json("forms.json");
    arena      *scratch = arena_new(SCRATCH, NULL);
    normalizer *n       = make("a");
    uint8_t     trusted[1024];
    memset(trusted, 1, sizeof trusted);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        span        text   = reference_text(json_array_get(json_array_get(cases, i), 0));
        span        want   = reference_text(json_array_get(json_array_get(cases, i), STRIPPED));
        marked_text marked = {text.data, trusted, text.size};
        assert_true(text.size <= sizeof trusted);
        assert_true(normalizer_run(n, &marked, scratch, NULL));
        assert_true(span_equal((span){marked.data, marked.size}, want));
        arena_reset(scratch);
    }
    normalizer_free(&n);
    arena_free(&scratch);
    json_decref(cases);
}

static void limits_are_errors(void **state)
{
    (void)state;
    static char large[NORMALIZER_STRING_BYTES_MAX + 1];
    error       err;
    normalizer *n      = make("rrr");
    arena      *little = arena_new(64, NULL);
    uint8_t     trusted[40];
    marked_text text = {large, trusted, sizeof trusted};
    memset(large, 'a', sizeof large);
    memset(trusted, 1, sizeof trusted);
    assert_false(normalizer_add_prepend(n, (span){large, sizeof large}, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_false(normalizer_add_replace(n, SPAN(""), SPAN("a"), &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_true(normalizer_add_replace(n, SPAN("a"), (span){large, 64}, &err));
    assert_false(normalizer_add_replace(n, SPAN("a"), (span){large, 64}, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_false(normalizer_run(n, &text, little, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    normalizer_free(&n);
    assert_false(normalizer_add_charsmap(n = make(""), SPAN("x"), CHARSMAP_LONGEST, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(normalizer_add_replace_regex(n, SPAN("["), SPAN("x"), &err));
    assert_int_equal(err.code, ERR_INVALID);
    normalizer_free(&n);
    n = make("pppppppp");
    assert_false(normalizer_add_form(n, NORMAL_FORM_C, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    normalizer_free(&n);
    arena_free(&little);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_one_another_and_carry_trust),
        cmocka_unit_test(accents_are_what_tokenizers_strips),
        cmocka_unit_test(limits_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
