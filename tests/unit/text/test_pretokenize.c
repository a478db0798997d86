#include "support_reference.h"

#include "text/pretokenize.h"
#include <stdio.h>

#define B "\xE2\x96\x81" /* U+2581 */

/* Pieces joined by '|'. */
typedef struct {
    char   text[4096];
    size_t n;
} pieces;

static bool take_piece(void *context, span piece, error *err)
{
    (void)err;
    pieces *p = context;
    assert_true(piece.size > 0);
    assert_true(p->n + piece.size + 1 < sizeof p->text);
    if (p->n)
        p->text[p->n++] = '|';
    memcpy(p->text + p->n, piece.data, piece.size);
    p->n += piece.size;
    return true;
}

static void run(const pretokenizer *p, span text, pieces *out)
{
    error  err     = {0};
    arena *scratch = arena_new(1 << 16, NULL);
    out->n         = 0;
    if (!pretokenizer_run(p, text, true, scratch, take_piece, out, &err))
        fail_msg("%s", err.text);
    assert_int_equal(arena_used(scratch), 0);
    out->text[out->n] = 0;
    arena_free(&scratch);
}

static void rules_cut_where_their_expressions_do(void **state)
{
    (void)state;
    static const struct {
        pretokenize_rule rule;
        const char      *text, *pieces;
    } cases[] = {
        {PRETOKENIZE_GPT2, "Hello  world, it's 2024!\n\n x", "Hello| | world|,| it|'s| 2024|!|\n\n| x"},
        {PRETOKENIZE_GPT2, "''s'S 'Ll 'll", "''|s|'|S| '|Ll| '|ll"},
        {PRETOKENIZE_GPT2, " \t\n", " \t\n"},
        {PRETOKENIZE_GPT2, "a\xC2\xA0 b\xE2\x80\x83", "a|\xC2\xA0| b|\xE2\x80\x83"},
        {PRETOKENIZE_LLAMA3, "Hello  world, IT'S 12345!\r\n\n x", "Hello| | world|,| IT|'S| |123|45|!\r\n\n| x"},
        {PRETOKENIZE_LLAMA3, "it'\xC5\xBFx (word \t\n \n  y", "it|'\xC5\xBF|x| (|word| \t\n \n| | y"},
        {PRETOKENIZE_LLAMA3, "\tx  \n", "\tx|  \n"},
        {PRETOKENIZE_QWEN2, "a 123 \xC2\xBD", "a| |1|2|3| |\xC2\xBD"},
        {PRETOKENIZE_DIGITS, "a12 b", "a|1|2| b"},
        {PRETOKENIZE_DIGIT_RUNS, "a12 b", "a|12| b"},
        {PRETOKENIZE_PREFIX_SPACE, "a", " a"},
        {PRETOKENIZE_PREFIX_SPACE, " a", " a"},
        {PRETOKENIZE_PREFIX_SPACE, "\na", " \na"},
        {PRETOKENIZE_GPT2, "\xFF\xFE a\x80z \xC3", "\xFF\xFE| a|\x80|z| \xC3"},
        {PRETOKENIZE_WHITESPACE, " a, b\n\xC2\xA0\xC2\x85 \xFF ", "a,|b|\xFF"},
        {PRETOKENIZE_BERT, " it's $5.\xE3\x80\x82x\xFF-\n", "it|'|s|$|5|.|\xE3\x80\x82|x\xFF|-"},
        {PRETOKENIZE_BLANK_WORDS, "a" B B "b \xE2\x96" B, "a|" B "|" B "b \xE2\x96|" B},
        {PRETOKENIZE_BLANK_RUNS, B B "a" B B "b \xE2\x96" B, B B "a|" B B "b \xE2\x96|" B},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pieces        out;
        pretokenizer *p = pretokenizer_new(NULL);
        assert_true(pretokenizer_add(p, cases[i].rule, NULL));
        run(p, span_of(cases[i].text), &out);
        assert_string_equal(out.text, cases[i].pieces);
        pretokenizer_free(&p);
    }
}

static void steps_cut_the_pieces_of_the_step_before(void **state)
{
    (void)state;
    pieces        out;
    pretokenizer *p = pretokenizer_new(NULL);
    assert_true(pretokenizer_add(p, PRETOKENIZE_DIGITS, NULL) && pretokenizer_add(p, PRETOKENIZE_GPT2, NULL));
    run(p, SPAN("a  12 b\n3"), &out); /* the spaces before a digit are not followed by anything */
    assert_string_equal(out.text, "a|  |1|2| b|\n|3");
    pretokenizer_free(&p);
    p = pretokenizer_new(NULL);
    run(p, SPAN("no steps"), &out);
    assert_string_equal(out.text, "no steps");
    run(p, SPAN(""), &out);
    assert_string_equal(out.text, "");
    for (uint32_t i = 0; i < PRETOKENIZER_STEPS_MAX; i++)
        assert_true(pretokenizer_add(p, PRETOKENIZE_DIGIT_RUNS, NULL));
    error err;
    assert_false(pretokenizer_add(p, PRETOKENIZE_DIGIT_RUNS, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    pretokenizer_free(&p);
}

static void metaspace_turns_blanks_and_may_prepend_one(void **state)
{
    (void)state;
    static const struct {
        metaspace_prefix prefix;
        const char      *text, *pieces;
    } cases[] = {
        {METASPACE_NEVER, "a b", "a" B "b"}, {METASPACE_ALWAYS, "a  b", B "a" B B "b"}, {METASPACE_ALWAYS, " a", B "a"},
        {METASPACE_ALWAYS, B "a", B "a"},    {METASPACE_FIRST, "a 1b", B "a" B "|1|b"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pieces        out;
        pretokenizer *p = pretokenizer_new(NULL);
        assert_int_equal(pretokenizer_growth(p), 1);
        if (cases[i].prefix == METASPACE_FIRST)
            assert_true(pretokenizer_add(p, PRETOKENIZE_DIGITS, NULL));
        assert_true(pretokenizer_add_metaspace(p, cases[i].prefix, NULL));
        assert_int_equal(pretokenizer_growth(p), 3);
        run(p, span_of(cases[i].text), &out);
        assert_string_equal(out.text, cases[i].pieces);
        pretokenizer_free(&p);
    }
}

#define LLAMA3(digits)                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                                         \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The hand-written rule and the same expression in PCRE2: written with a group around it, it is not recognized. */
static void hand_written_rules_agree_with_their_expressions(void **state)
{
    (void)state;
    static const struct {
        pretokenize_rule rule;
        const char      *pattern;
    } cases[] = {
        {PRETOKENIZE_GPT2, "(?:'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+)"},
        {PRETOKENIZE_LLAMA3, "(?:" LLAMA3("{1,3}") ")"},
        {PRETOKENIZE_QWEN2, "(?:" LLAMA3("") ")"},
        {PRETOKENIZE_DIGITS, "(?:\\p{N})"},
        {PRETOKENIZE_DIGIT_RUNS, "(?:\\p{N}+)"},
    };
    json_t *corpus = reference_json("corpus.json");
    for (size_t i = 0; i < COUNT(cases); i++) {
        pretokenizer *hand = pretokenizer_new(NULL), *expression = pretokenizer_new(NULL);
        assert_true(pretokenizer_add(hand, cases[i].rule, NULL));
        assert_true(pretokenizer_add_regex(expression, span_of(cases[i].pattern), PRETOKENIZE_ISOLATED, NULL));
        for (size_t line = 0; line < 284; line++) { /* later lines have code points that PCRE2 does not know */
            pieces a, b;
            run(hand, reference_text(json_array_get(corpus, line)), &a);
            run(expression, reference_text(json_array_get(corpus, line)), &b);
            if (a.n != b.n || memcmp(a.text, b.text, a.n) != 0)
                fail_msg("%s, line %zu:\n%s\n%s", cases[i].pattern, line, a.text, b.text);
        }
        pretokenizer_free(&hand);
        pretokenizer_free(&expression);
    }
    json_decref(corpus);
}

static void behaviors_keep_matches_gaps_or_both(void **state)
{
    (void)state;
    static const struct {
        const char          *pattern, *text, *pieces;
        pretokenize_behavior behavior;
    } cases[] = {
        {"b+", "abbcb", "a|bb|c|b", PRETOKENIZE_ISOLATED},
        {"b+", "abbcb", "a|c", PRETOKENIZE_KEEP_GAPS},
        {"b+", "abbcb", "bb|b", PRETOKENIZE_KEEP_MATCHES},
        {"b", "babbc", "b|ab|b|c", PRETOKENIZE_JOIN_TO_GAPS},
        {"b*", "abc", "a|b|c", PRETOKENIZE_ISOLATED},
        {"\\s", "a\xE1\xA0\x8E\xC2\x85z", "a\xE1\xA0\x8E|\xC2\x85|z", PRETOKENIZE_ISOLATED},
        {"[^\\S\\n]+", "a \n\t b", "a| |\n|\t |b", PRETOKENIZE_ISOLATED},
        {"\\[\\]", "[][", "[]|[", PRETOKENIZE_ISOLATED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pieces        out;
        error         err = {0};
        pretokenizer *p   = pretokenizer_new(NULL);
        if (!pretokenizer_add_regex(p, span_of(cases[i].pattern), cases[i].behavior, &err))
            fail_msg("%s", err.text);
        run(p, span_of(cases[i].text), &out);
        assert_string_equal(out.text, cases[i].pieces);
        pretokenizer_free(&p);
    }
}

static void expressions_that_would_mean_something_else_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *named;
        error_code  code;
    } cases[] = {
        {"\\w+", "\\w", ERR_UNSUPPORTED},      {"a\\b", "\\b", ERR_UNSUPPORTED}, {"\\h", "\\h", ERR_UNSUPPORTED},
        {"[a-z&&[b]]", "&&", ERR_UNSUPPORTED}, {"[a[b]]", "[", ERR_UNSUPPORTED}, {"^a", "^", ERR_UNSUPPORTED},
        {"a$", "$", ERR_UNSUPPORTED},          {"\\Ka", "\\K", ERR_UNSUPPORTED}, {"(a)\\1", "\\1", ERR_UNSUPPORTED},
        {"(a", "missing", ERR_INVALID},        {"[a", "missing", ERR_INVALID},   {"a{2,1}", "{2,1}", ERR_INVALID},
        {"\\p{Nonsense}", "", ERR_INVALID},    {"a\\", "\\", ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error         err = {0};
        pretokenizer *p   = pretokenizer_new(NULL);
        assert_false(pretokenizer_add_regex(p, span_of(cases[i].pattern), PRETOKENIZE_ISOLATED, &err));
        if (err.code != cases[i].code || !strstr(err.text, cases[i].named))
            fail_msg("%s: %s", cases[i].pattern, err.text);
        pretokenizer_free(&p);
    }
}

static void an_expression_that_backtracks_without_end_meets_its_limit(void **state)
{
    (void)state;
    char text[64];
    memset(text, 'a', sizeof text);
    error         err     = {0};
    pieces        out     = {.n = 0};
    arena        *scratch = arena_new(1 << 16, NULL);
    pretokenizer *p       = pretokenizer_new(NULL);
    assert_true(pretokenizer_add_regex(p, SPAN("(?:a+)+\\p{N}"), PRETOKENIZE_ISOLATED, NULL));
    assert_false(pretokenizer_run(p, (span){text, sizeof text}, true, scratch, take_piece, &out, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "(?:a+)+\\p{N}"));
    pretokenizer_free(&p);
    arena_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_cut_where_their_expressions_do),
        cmocka_unit_test(steps_cut_the_pieces_of_the_step_before),
        cmocka_unit_test(metaspace_turns_blanks_and_may_prepend_one),
        cmocka_unit_test(hand_written_rules_agree_with_their_expressions),
        cmocka_unit_test(behaviors_keep_matches_gaps_or_both),
        cmocka_unit_test(expressions_that_would_mean_something_else_are_refused),
        cmocka_unit_test(an_expression_that_backtracks_without_end_meets_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
