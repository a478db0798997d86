#include "support_reference.h"

#include "text/trie.h"
#include "text/unigram.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TOKENS_MAX = 60, PIECE_MAX = 24 };

typedef struct {
    vocabulary *vocabulary;
    unigram    *unigram;
    double      scores[TOKENS_MAX], lowest;
} model;

static void make_model(model *m, const char *const *texts, const uint32_t *kinds, uint32_t n, uint64_t seed,
                       unigram_options options)
{
    m->vocabulary = vocabulary_new(n, NULL);
    m->lowest     = 0;
    for (uint32_t i = 0; i < n; i++) {
        m->scores[i] = -(double)reference_random(&seed, 1000) / 100;
        m->lowest    = m->scores[i] < m->lowest ? m->scores[i] : m->lowest;
        assert_true(vocabulary_append(m->vocabulary, span_of(texts[i]), kinds ? kinds[i] : TOKEN_NORMAL, NULL));
    }
    options.vocabulary   = m->vocabulary;
    options.scores       = m->scores;
    options.lowest_score = m->lowest;
    m->unigram           = unigram_new(&options, NULL);
    assert_non_null(m->unigram);
}

static void free_model(model *m)
{
    unigram_free(&m->unigram);
    vocabulary_free(&m->vocabulary);
}

/* The best sum over all ways to cut `text`, tried one by one. */
static double best_of_all(const model *m, span text)
{
    double best = text.size == 0 ? 0 : -1e9;
    for (size_t n = 1; n <= text.size; n++) {
        uint32_t token = vocabulary_find(m->vocabulary, (span){text.data, n}, TOKEN_NORMAL);
        double   score = token != VOCABULARY_NONE ? m->scores[token] : n == 1 ? m->lowest - 10 : -1e9;
        double   whole = score < -1e8 ? score : score + best_of_all(m, (span){text.data + n, text.size - n});
        best           = whole > best ? whole : best;
    }
    return best;
}

static void the_most_probable_way_to_cut_is_found(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "b", "ab", "ba", "aa", "aba", "abab", "bb", "bbb", "aab", "cc", "acb"};
    arena                   *scratch = arena_new(1 << 16, NULL);
    uint64_t                 random  = 5;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        model m;
        make_model(&m, texts, NULL, COUNT(texts), seed, (unigram_options){.unknown = 0});
        for (uint32_t i = 0; i < 30; i++) {
            char     text[PIECE_MAX / 2];
            uint32_t tokens[PIECE_MAX];
            double   got = 0;
            size_t   n, n_bytes = 0, size = 1 + reference_random(&random, sizeof text - 1);
            for (size_t j = 0; j < size; j++)
                text[j] = (char)('a' + reference_random(&random, 2)); /* each letter is a token */
            assert_true(unigram_encode(m.unigram, (span){text, size}, scratch, tokens, PIECE_MAX, &n, NULL));
            for (size_t j = 0; j < n; j++) {
                span bytes = vocabulary_bytes(m.vocabulary, tokens[j]);
                assert_memory_equal(bytes.data, text + n_bytes, bytes.size);
                n_bytes += bytes.size;
                got += m.scores[tokens[j]];
            }
            assert_int_equal(n_bytes, size);
            assert_true(got > best_of_all(&m, (span){text, size}) - 1e-9);
            assert_int_equal(arena_used(scratch), 0);
        }
        free_model(&m);
    }
    arena_free(&scratch);
}

static void runs_of_unknown_characters_become_bytes_or_one_token(void **state)
{
    (void)state;
    static const char *const texts[] = {"<unk>", "a", "b", "<0xC3>", "<0xA9>", "</s>", "\xC3\xB6"};
    static const uint32_t    kinds[] = {TOKEN_SPECIAL, TOKEN_NORMAL,  TOKEN_NORMAL, TOKEN_BYTE,
                                        TOKEN_BYTE,    TOKEN_SPECIAL, TOKEN_NORMAL};
    static const struct {
        const char *text;
        bool        bytes;
        uint32_t    unknown, tokens[8], n;
    } cases[] = {
        {"a\xC3\xA9"
         "b",
         true,
         0,
         {1, 3, 4, 2},
         4},
        {"a\xC3\xA9\xC3\xA9"
         "b",
         false,
         0,
         {1, 0, 2},
         3},
        {"a\xC3\xA9\xC3\xBC"
         "b",
         true,
         0,
         {1, 0, 2},
         3}, /* one byte of the run has no token */
        {"a\xC3\xBC"
         "b",
         true,
         VOCABULARY_NONE,
         {1, 2},
         2},
        {"\xC3\xB6\xC3", true, 0, {6, 3}, 2}, /* an invalid byte is a character */
        {"</s>", true, 0, {0}, 1},            /* no text of a user's becomes a control token */
        {"<0xC3>", true, 0, {0}, 1},
    };
    arena *scratch = arena_new(1 << 16, NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        model    m;
        uint32_t tokens[8];
        size_t   n;
        make_model(&m, texts, kinds, COUNT(texts), 1,
                   (unigram_options){.unknown = cases[i].unknown, .byte_fallback = cases[i].bytes});
        assert_true(unigram_encode(m.unigram, span_of(cases[i].text), scratch, tokens, 8, &n, NULL));
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(tokens, cases[i].tokens, n * sizeof *tokens);
        free_model(&m);
    }
    arena_free(&scratch);
}

static void limits_are_errors(void **state)
{
    (void)state;
    enum { LONG = 5000 };
    static const char *const texts[] = {"ab", "ba", "a", "b"};
    static char              large[TRIE_TEXT_BYTES_MAX + 1], overlapping[LONG];
    arena                   *little = arena_new(100, NULL), *scratch = arena_new(1024, NULL);
    uint32_t                 tokens[4];
    size_t                   n;
    error                    err;
    model                    m;
    make_model(&m, texts, NULL, COUNT(texts), 1, (unigram_options){.unknown = 0});
    for (size_t i = 0; i < LONG; i++)
        overlapping[i] = (char)('a' + i % 2);
    assert_false(unigram_encode(m.unigram, (span){overlapping, LONG}, little, tokens, 4, &n, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_false(unigram_encode(m.unigram, SPAN("abababababa"), scratch, tokens, 4, &n, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_int_equal(arena_used(scratch), 0);
    free_model(&m);
    memset(large, 'a', sizeof large);
    m.vocabulary = vocabulary_new(1, NULL);
    assert_true(vocabulary_append(m.vocabulary, (span){large, sizeof large}, TOKEN_NORMAL, NULL));
    m.unigram = unigram_new(&(unigram_options){.vocabulary = m.vocabulary, .scores = m.scores}, &err);
    assert_null(m.unigram);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    free_model(&m);
    arena_free(&little);
    arena_free(&scratch);
}

/* 256 KB of one letter, with every token of it up to the longest. */
static void the_longest_tokens_everywhere_take_seconds(void **state)
{
    (void)state;
    enum { BYTES = 256 << 10 };
    static double   scores[TRIE_TEXT_BYTES_MAX];
    char           *text    = malloc(BYTES);
    uint32_t       *tokens  = malloc(BYTES * sizeof *tokens);
    arena          *scratch = arena_new((size_t)BYTES * UNIGRAM_SCRATCH_BYTES_PER_BYTE + 1024, NULL);
    vocabulary     *v       = vocabulary_new(TRIE_TEXT_BYTES_MAX, NULL);
    size_t          n;
    struct timespec start, end;
    memset(text, 'a', BYTES);
    for (size_t i = 0; i < TRIE_TEXT_BYTES_MAX; i++) {
        scores[i] = -1 - (double)i;
        assert_true(vocabulary_append(v, (span){text, i + 1}, TOKEN_NORMAL, NULL));
    }
    unigram *u = unigram_new(&(unigram_options){.vocabulary = v, .scores = scores, .lowest_score = -600}, NULL);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    assert_true(unigram_encode(u, (span){text, BYTES}, scratch, tokens, BYTES, &n, NULL));
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    assert_true(end.tv_sec - start.tv_sec < 60);
    unigram_free(&u);
    vocabulary_free(&v);
    arena_free(&scratch);
    free(tokens);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_probable_way_to_cut_is_found),
        cmocka_unit_test(runs_of_unknown_characters_become_bytes_or_one_token),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(the_longest_tokens_everywhere_take_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
