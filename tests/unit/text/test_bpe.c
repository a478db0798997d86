#include "support_reference.h"

#include "text/bpe.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LETTERS = 4, TOKENS_MAX = 96, PIECE_MAX = 400 };

/* A vocabulary of a, b, c, d (d is left out on request) and random merges, and the textbook's way to apply them. */
typedef struct {
    vocabulary *vocabulary;
    bpe        *bpe;
    uint32_t    left[TOKENS_MAX], right[TOKENS_MAX], merged[TOKENS_MAX], n_merges;
} model;

static void make_model(model *m, uint64_t seed, bool ignore_merges)
{
    char     texts[TOKENS_MAX][64] = {"a", "b", "c", "d"};
    uint32_t n                     = LETTERS;
    memset(m, 0, sizeof *m);
    m->vocabulary = vocabulary_new(TOKENS_MAX, NULL);
    for (uint32_t i = 0; i < LETTERS; i++)
        assert_true(vocabulary_append(m->vocabulary, span_of(texts[i]), TOKEN_NORMAL, NULL));
    while (n < TOKENS_MAX) {
        uint32_t left = reference_random(&seed, n), right = reference_random(&seed, n);
        if (strlen(texts[left]) + strlen(texts[right]) > 20)
            continue;
        char joined[sizeof texts[0]];
        snprintf(joined, sizeof joined, "%s%s", texts[left], texts[right]);
        memcpy(texts[n], joined, sizeof joined);
        uint32_t known = vocabulary_find(m->vocabulary, span_of(texts[n]), TOKEN_NORMAL);
        bool     again = false;
        for (uint32_t i = 0; i < m->n_merges; i++)
            again |= m->left[i] == left && m->right[i] == right;
        if (again)
            continue;
        m->left[m->n_merges] = left, m->right[m->n_merges] = right;
        m->merged[m->n_merges++] = known == VOCABULARY_NONE ? n : known;
        if (known != VOCABULARY_NONE)
            continue;
        assert_true(vocabulary_append(m->vocabulary, span_of(texts[n]), TOKEN_NORMAL, NULL));
        n++;
        if (m->n_merges == TOKENS_MAX)
            break;
    }
    bpe_options options = {.vocabulary    = m->vocabulary,
                           .n_merges      = m->n_merges,
                           .unknown       = VOCABULARY_NONE,
                           .ignore_merges = ignore_merges};
    m->bpe              = bpe_new(&options, NULL);
    for (uint32_t i = 0; i < m->n_merges; i++)
        assert_true(bpe_add_merge(m->bpe, (bpe_merge){span_of(texts[m->left[i]]), span_of(texts[m->right[i]])}, NULL));
    bpe_finish(m->bpe);
}

static void free_model(model *m)
{
    bpe_free(&m->bpe);
    vocabulary_free(&m->vocabulary);
}

/* Best rank first, leftmost first, one merge at a time. */
static size_t textbook(const model *m, span piece, uint32_t *tokens)
{
    size_t n = piece.size;
    for (size_t i = 0; i < n; i++)
        tokens[i] = (uint32_t)(piece.data[i] - 'a');
    for (uint32_t rank = 0; rank < m->n_merges; rank++)
        for (size_t i = 0; i + 1 < n; i++)
            if (tokens[i] == m->left[rank] && tokens[i + 1] == m->right[rank]) {
                tokens[i] = m->merged[rank];
                memmove(tokens + i + 1, tokens + i + 2, (n - i - 2) * sizeof *tokens);
                n--;
                rank = UINT32_MAX; /* from the first rank again */
                break;
            }
    return n;
}

static void merges_as_the_textbook_does(void **state)
{
    (void)state;
    arena *scratch = arena_new(1 << 20, NULL);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        model    m;
        uint64_t random = seed;
        make_model(&m, seed, false);
        for (uint32_t i = 0; i < 200; i++) {
            char     text[PIECE_MAX];
            uint32_t got[PIECE_MAX], want[PIECE_MAX];
            size_t   n_got, size = 1 + reference_random(&random, i % 10 ? 60 : PIECE_MAX - 1);
            uint32_t letters = 1 + reference_random(&random, LETTERS);
            for (size_t j = 0; j < size; j++)
                text[j] = (char)('a' + reference_random(&random, letters));
            error err = {0};
            assert_true(bpe_encode(m.bpe, (span){text, size}, scratch, got, PIECE_MAX, &n_got, &err));
            size_t n_want = textbook(&m, (span){text, size}, want);
            if (n_got != n_want || memcmp(got, want, n_got * sizeof *got) != 0)
                fail_msg("seed %u: %.*s", (unsigned)seed, (int)size, text);
            assert_int_equal(arena_used(scratch), 0);
        }
        free_model(&m);
    }
    arena_free(&scratch);
}

/* a b c ab bc abc, with the merge b+c before a+b, and abc not to be reached by merges. */
static bpe *three_letters(vocabulary **v, bpe_options options)
{
    static const char *const tokens[] = {"a", "b", "c", "ab", "bc", "abc", "?"};
    *v                                = vocabulary_new(COUNT(tokens), NULL);
    for (size_t i = 0; i < COUNT(tokens); i++)
        assert_true(vocabulary_append(*v, span_of(tokens[i]), i < 6 ? TOKEN_NORMAL : TOKEN_SPECIAL, NULL));
    options.vocabulary = *v;
    options.n_merges   = 2;
    bpe *b             = bpe_new(&options, NULL);
    assert_true(bpe_add_merge(b, (bpe_merge){SPAN("b"), SPAN("c")}, NULL));
    assert_true(bpe_add_merge(b, (bpe_merge){SPAN("a"), SPAN("b")}, NULL));
    bpe_finish(b);
    return b;
}

static void options_decide_about_whole_pieces_and_unknown_bytes(void **state)
{
    (void)state;
    static const struct {
        bpe_options options;
        const char *piece;
        uint32_t    tokens[8], n;
    } cases[] = {
        {{.unknown = VOCABULARY_NONE}, "abc", {0, 4}, 2},
        {{.unknown = VOCABULARY_NONE, .ignore_merges = true}, "abc", {5}, 1},
        {{.unknown = VOCABULARY_NONE, .ignore_merges = true}, "abcabc", {0, 4, 0, 4}, 4},
        {{.unknown = VOCABULARY_NONE}, "axb", {3}, 1}, /* what is dropped does not separate */
        {{.unknown = VOCABULARY_NONE}, "?", {0}, 0},   /* a special token is no bytes' token */
        {{.unknown = 6}, "axxb", {0, 6, 6, 1}, 4},
        {{.unknown = 6, .fuse_unknown = true}, "axxbx", {0, 6, 1, 6}, 4},
    };
    arena *scratch = arena_new(1 << 16, NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        vocabulary *v;
        uint32_t    tokens[8];
        size_t      n;
        bpe        *b = three_letters(&v, cases[i].options);
        assert_true(bpe_encode(b, span_of(cases[i].piece), scratch, tokens, 8, &n, NULL));
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(tokens, cases[i].tokens, n * sizeof *tokens);
        bpe_free(&b);
        vocabulary_free(&v);
    }
    arena_free(&scratch);
}

/* Merges that lead to a special token, or on from one, are left out: no text of a user's becomes one. */
static void a_special_token_is_not_made_by_merges(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "c", "ab", "abc"};
    arena                   *scratch  = arena_new(1 << 16, NULL);
    vocabulary              *v        = vocabulary_new(COUNT(tokens), NULL);
    uint32_t                 out[8];
    size_t                   n;
    for (size_t i = 0; i < COUNT(tokens); i++)
        assert_true(vocabulary_append(v, span_of(tokens[i]), i == 3 ? TOKEN_SPECIAL : TOKEN_NORMAL, NULL));
    for (int ignore_merges = 0; ignore_merges < 2; ignore_merges++) {
        bpe *b = bpe_new(
            &(bpe_options){.vocabulary = v, .n_merges = 2, .unknown = VOCABULARY_NONE, .ignore_merges = ignore_merges},
            NULL);
        assert_true(bpe_add_merge(b, (bpe_merge){SPAN("a"), SPAN("b")}, NULL));
        assert_true(bpe_add_merge(b, (bpe_merge){SPAN("ab"), SPAN("c")}, NULL));
        bpe_finish(b);
        assert_true(bpe_encode(b, SPAN("ab"), scratch, out, 8, &n, NULL));
        assert_int_equal(n, 2);
        assert_true(bpe_encode(b, SPAN("abc"), scratch, out, 8, &n, NULL));
        assert_int_equal(n, ignore_merges ? 1 : 3);
        bpe_free(&b);
    }
    vocabulary_free(&v);
    arena_free(&scratch);
}

static void limits_are_errors(void **state)
{
    (void)state;
    vocabulary *v;
    error       err = {0};
    uint32_t    tokens[128];
    size_t      n;
    char        text[100];
    bpe        *b      = three_letters(&v, (bpe_options){.unknown = VOCABULARY_NONE});
    arena      *little = arena_new(100, NULL);
    memset(text, 'c', sizeof text);
    assert_false(bpe_encode(b, SPAN("cccc"), little, tokens, 3, &n, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_false(bpe_encode(b, (span){text, sizeof text}, little, tokens, 128, &n, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    bpe_free(&b);
    b = bpe_new(&(bpe_options){.vocabulary = v, .n_merges = 1, .unknown = VOCABULARY_NONE}, NULL);
    assert_false(bpe_add_merge(b, (bpe_merge){SPAN("c"), SPAN("a")}, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, "\"c\" and \"a\""));
    bpe_free(&b);
    vocabulary_free(&v);
    arena_free(&little);
}

/* 2 MB of one letter, or of few: quadratic time would be hours. */
static void a_piece_of_megabytes_takes_seconds(void **state)
{
    (void)state;
    enum { BYTES = 2 << 20 };
    model     m;
    uint64_t  random  = 3;
    arena    *scratch = arena_new((size_t)BYTES * BPE_SCRATCH_BYTES_PER_BYTE + 1024, NULL);
    char     *text    = malloc(BYTES);
    uint32_t *tokens  = malloc(BYTES * sizeof *tokens);
    make_model(&m, 1, false);
    for (uint32_t letters = 1; letters <= LETTERS; letters++) {
        size_t n, n_bytes = 0;
        for (size_t i = 0; i < BYTES; i++)
            text[i] = (char)('a' + reference_random(&random, letters));
        struct timespec start, end;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
        assert_true(bpe_encode(m.bpe, (span){text, BYTES}, scratch, tokens, BYTES, &n, NULL));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        assert_true(end.tv_sec - start.tv_sec < 20);
        for (size_t i = 0; i < n; i++)
            n_bytes += vocabulary_bytes(m.vocabulary, tokens[i]).size;
        assert_int_equal(n_bytes, BYTES);
    }
    free(tokens);
    free(text);
    free_model(&m);
    arena_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_as_the_textbook_does),
        cmocka_unit_test(options_decide_about_whole_pieces_and_unknown_bytes),
        cmocka_unit_test(a_special_token_is_not_made_by_merges),
        cmocka_unit_test(limits_are_errors),
        cmocka_unit_test(a_piece_of_megabytes_takes_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
