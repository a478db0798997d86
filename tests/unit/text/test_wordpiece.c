#include "support_reference.h"

#include "text/trie.h"
#include "text/wordpiece.h"

static const char *const spellings[] = {"[UNK]",      "un", "##aff", "##able", "##a",
                                        "##\xC3\xA9", "u",  "##n",   "[SEP]",  "##"};
static const uint32_t    kinds[]     = {TOKEN_SPECIAL, TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_NORMAL,  TOKEN_NORMAL,
                                        TOKEN_NORMAL,  TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_SPECIAL, TOKEN_NORMAL};

static wordpiece *make(vocabulary **v, uint32_t unknown, const char *prefix, size_t n_characters_max)
{
    *v = vocabulary_new(COUNT(spellings), NULL);
    for (size_t i = 0; i < COUNT(spellings); i++)
        assert_true(vocabulary_append(*v, span_of(spellings[i]), kinds[i], NULL));
    wordpiece *w = wordpiece_new(&(wordpiece_options){*v, span_of(prefix), unknown, n_characters_max}, NULL);
    assert_non_null(w);
    return w;
}

static void words_are_cut_longest_first(void **state)
{
    (void)state;
    static const struct {
        const char *word, *prefix;
        uint32_t    unknown;
        size_t      n_characters_max;
        uint32_t    tokens[8], n;
    } cases[] = {
        {"unaffable", "##", 0, 100, {1, 2, 3}, 3},
        {"unaf", "##", 0, 100, {0}, 1}, /* what can't be cut to its end is unknown as a whole */
        {"un\xC3\xA9", "##", 0, 100, {1, 5}, 2},
        {"x", "##", 0, 100, {0}, 1},
        {"x", "##", VOCABULARY_NONE, 100, {0}, 0},
        {"un\xC3\xA9", "##", 0, 3, {1, 5}, 2}, /* characters, not bytes */
        {"un\xC3\xA9"
         "a",
         "##",
         0,
         3,
         {0},
         1},
        {"[SEP]", "##", 0, 100, {0}, 1}, /* no text of a user's becomes a control token */
        {"##a", "##", 0, 100, {4}, 1},   /* as in `tokenizers` */
        {"un\xC3", "##", 0, 100, {0}, 1},
        {"unun", "", 0, 100, {1, 1}, 2},
        {"una", "@@", 0, 100, {0}, 1}, /* no token continues a word */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        vocabulary *v;
        uint32_t    tokens[8];
        size_t      n;
        wordpiece  *w = make(&v, cases[i].unknown, cases[i].prefix, cases[i].n_characters_max);
        assert_true(wordpiece_encode(w, span_of(cases[i].word), tokens, 8, &n, NULL));
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(tokens, cases[i].tokens, n * sizeof *tokens);
        wordpiece_free(&w);
        vocabulary_free(&v);
    }
}

static void limits_are_errors(void **state)
{
    (void)state;
    static char large[TRIE_TEXT_BYTES_MAX + 1];
    vocabulary *v;
    uint32_t    tokens[2];
    size_t      n;
    error       err;
    wordpiece  *w = make(&v, 0, "##", 100);
    assert_false(wordpiece_encode(w, SPAN("unaffable"), tokens, 2, &n, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_true(wordpiece_encode(w, SPAN("unaffablex"), tokens, 1, &n, &err)); /* is one unknown token */
    wordpiece_free(&w);
    vocabulary_free(&v);
    memset(large, 'a', sizeof large);
    v = vocabulary_new(1, NULL);
    assert_true(vocabulary_append(v, (span){large, sizeof large}, TOKEN_NORMAL, NULL));
    assert_null(wordpiece_new(&(wordpiece_options){v, SPAN("##"), 0, 100}, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    vocabulary_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_cut_longest_first),
        cmocka_unit_test(limits_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
