#include "support_reference.h"

#include "text/spm_bpe.h"
#include <math.h>
#include <stdio.h>

enum { LETTERS = 4, TOKENS_MAX = 80, PIECE_MAX = 300 };

/* a, b, c and é, random tokens of them with few different scores, and the textbook's way to use them. */
typedef struct {
    vocabulary *vocabulary;
    bpe        *bpe;
    char        texts[TOKENS_MAX][64];
    float       scores[TOKENS_MAX];
} model;

static const char *const letters[LETTERS] = {"a", "b", "c", "\xC3\xA9"};

static void make_model(model *m, uint64_t seed)
{
    m->vocabulary = vocabulary_new(TOKENS_MAX, NULL);
    for (uint32_t i = 0; i < TOKENS_MAX;) {
        char *text = m->texts[i];
        if (i < LETTERS)
            snprintf(text, sizeof m->texts[i], "%s", letters[i]);
        else
            snprintf(text, sizeof m->texts[i], "%.20s%.20s", m->texts[reference_random(&seed, i)],
                     m->texts[reference_random(&seed, i)]);
        if (vocabulary_find(m->vocabulary, span_of(text), TOKEN_NORMAL) != VOCABULARY_NONE)
            continue;
        m->scores[i] = -(float)reference_random(&seed, TOKENS_MAX / 2);
        assert_true(vocabulary_append(m->vocabulary, span_of(text), TOKEN_NORMAL, NULL));
        i++;
    }
    bpe_options options = {.vocabulary = m->vocabulary, .unknown = VOCABULARY_NONE, .characters = true};
    m->bpe              = spm_bpe_new(&options, m->scores, NULL);
    assert_non_null(m->bpe);
}

static void free_model(model *m)
{
    bpe_free(&m->bpe);
    vocabulary_free(&m->vocabulary);
}

/* The token of two neighbours, or VOCABULARY_NONE. */
static uint32_t joined(const model *m, uint32_t left, uint32_t right)
{
    char text[128];
    snprintf(text, sizeof text, "%s%s", m->texts[left], m->texts[right]);
    return vocabulary_find(m->vocabulary, span_of(text), TOKEN_NORMAL);
}

/* The best score first, leftmost first, one merge at a time. */
static size_t textbook(const model *m, uint32_t *tokens, size_t n)
{
    for (;;) {
        size_t   best  = n;
        uint32_t token = VOCABULARY_NONE;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t merged = joined(m, tokens[i], tokens[i + 1]);
            if (merged != VOCABULARY_NONE && (best == n || m->scores[merged] > m->scores[token])) {
                best  = i;
                token = merged;
            }
        }
        if (best == n)
            return n;
        tokens[best] = token;
        memmove(tokens + best + 1, tokens + best + 2, (n - best - 2) * sizeof *tokens);
        n--;
    }
}

static void scores_decide_as_the_textbook_says(void **state)
{
    (void)state;
    arena *scratch = arena_new(1 << 20, NULL);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        model    m;
        uint64_t random = seed;
        make_model(&m, seed);
        for (uint32_t i = 0; i < 100; i++) {
            char     text[2 * PIECE_MAX];
            uint32_t got[PIECE_MAX], want[PIECE_MAX];
            size_t   n_got, n = 1 + reference_random(&random, i % 10 ? 40 : PIECE_MAX - 1), size = 0;
            for (size_t j = 0; j < n; j++) {
                want[j] = reference_random(&random, LETTERS);
                size += (size_t)snprintf(text + size, sizeof text - size, "%s", letters[want[j]]);
            }
            assert_true(bpe_encode(m.bpe, (span){text, size}, scratch, got, PIECE_MAX, &n_got, NULL));
            size_t n_want = textbook(&m, want, n);
            if (n_got != n_want || memcmp(got, want, n_got * sizeof *got) != 0)
                fail_msg("seed %u: %.*s", (unsigned)seed, (int)size, text);
            assert_int_equal(arena_used(scratch), 0);
        }
        free_model(&m);
    }
    arena_free(&scratch);
}

/* 0 a, 1 b, 2 ab, 3 <0xC3>, 4 <0xA9>, 5 <unk>; é has all its bytes, ü (C3 BC) has not. */
static void what_is_no_token_becomes_bytes_or_is_unknown(void **state)
{
    (void)state;
    static const char *const spellings[] = {"a", "b", "ab", "<0xC3>", "<0xA9>", "<unk>"};
    static const uint32_t kinds[] = {TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_NORMAL, TOKEN_BYTE, TOKEN_BYTE, TOKEN_SPECIAL};
    static const struct {
        const char *text;
        bool        bytes, fuse;
        uint32_t    unknown, tokens[8], n;
    } cases[] = {
        {"ab\xC3\xA9"
         "ab",
         true,
         true,
         5,
         {2, 3, 4, 2},
         4},
        {"\xC3\xA9", false, true, 5, {5}, 1},
        {"\xC3\xBC\xC3\xBC"
         "ab",
         true,
         true,
         5,
         {5, 2},
         2},
        {"\xC3\xBC\xC3\xBC"
         "ab",
         true,
         false,
         5,
         {5, 5, 2},
         3},
        {"\xC3\xBC\xC3\xA9"
         "b",
         true,
         true,
         5,
         {3, 4, 5, 1},
         4}, /* bytes overtake, as in `tokenizers` */
        {"a\xC3\xBC"
         "b",
         true,
         true,
         VOCABULARY_NONE,
         {2},
         1},
        {"\xA9\xC3", true, true, 5, {4, 3}, 2}, /* bytes that are no character */
        {"<0xC3>", true, true, 5, {5}, 1},      /* a user's text names no byte */
    };
    vocabulary *v                        = vocabulary_new(COUNT(spellings), NULL);
    arena      *scratch                  = arena_new(1 << 16, NULL);
    float       scores[COUNT(spellings)] = {0};
    for (size_t i = 0; i < COUNT(spellings); i++)
        assert_true(vocabulary_append(v, span_of(spellings[i]), kinds[i], NULL));
    for (size_t i = 0; i < COUNT(cases); i++) {
        bpe_options options = {.vocabulary    = v,
                               .unknown       = cases[i].unknown,
                               .fuse_unknown  = cases[i].fuse,
                               .characters    = true,
                               .byte_fallback = cases[i].bytes};
        bpe        *b       = spm_bpe_new(&options, scores, NULL);
        uint32_t    tokens[8];
        size_t      n;
        assert_true(bpe_encode(b, span_of(cases[i].text), scratch, tokens, 8, &n, NULL));
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(tokens, cases[i].tokens, n * sizeof *tokens);
        bpe_free(&b);
    }
    vocabulary_free(&v);
    arena_free(&scratch);
}

static void bad_scores_and_huge_tokens_are_errors(void **state)
{
    (void)state;
    static char large[SPM_TOKEN_BYTES_MAX + 1];
    vocabulary *v        = vocabulary_new(2, NULL);
    float       scores[] = {NAN, 0};
    error       err;
    bpe_options options = {.vocabulary = v, .unknown = VOCABULARY_NONE, .characters = true};
    memset(large, 'a', sizeof large);
    assert_true(vocabulary_append(v, SPAN("a"), TOKEN_NORMAL, NULL));
    assert_null(spm_bpe_new(&options, scores, &err));
    assert_int_equal(err.code, ERR_INVALID);
    scores[0] = 0;
    assert_true(vocabulary_append(v, (span){large, sizeof large}, TOKEN_NORMAL, NULL));
    assert_null(spm_bpe_new(&options, scores, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    vocabulary_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_decide_as_the_textbook_says),
        cmocka_unit_test(what_is_no_token_becomes_bytes_or_is_unknown),
        cmocka_unit_test(bad_scores_and_huge_tokens_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
