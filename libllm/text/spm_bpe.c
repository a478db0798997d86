/* A token can be made of each pair of tokens that it is the concatenation of; its rank is the place of its score. */
#include "text/spm_bpe.h"

#include "base/utf8.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    float    score;
    uint32_t token;
} scored;

typedef struct {
    uint32_t left, right, rank, token;
} pair;

typedef struct {
    scored *order; /* normal tokens by falling score */
    pair   *pairs;
    size_t  n_order, n_pairs;
} merges;

static int by_falling_score(const void *a, const void *b)
{
    float first = ((const scored *)a)->score, second = ((const scored *)b)->score;
    return (first < second) - (first > second);
}

static bool order_by_score(merges *m, const vocabulary *v, const float *scores, size_t *n_bytes, error *err)
{
    uint32_t n = vocabulary_n_tokens(v);
    m->order   = calloc((size_t)n + 1, sizeof *m->order);
    if (!m->order)
        return error_set(err, ERR_NO_MEMORY, "no memory for the scores of %u tokens", n);
    for (uint32_t token = 0; token < n; token++) {
        if (!(vocabulary_kinds(v, token) & TOKEN_NORMAL))
            continue;
        size_t size = vocabulary_bytes(v, token).size;
        if (!isfinite(scores[token]))
            return error_set(err, ERR_INVALID, "the score of token %u is no number", token);
        if (size > SPM_TOKEN_BYTES_MAX)
            return error_set(err, ERR_UNSUPPORTED, "token %u has %zu bytes; at most %d are supported", token, size,
                             SPM_TOKEN_BYTES_MAX);
        m->order[m->n_order++] = (scored){scores[token], token};
        *n_bytes += size;
    }
    qsort(m->order, m->n_order, sizeof *m->order, by_falling_score);
    return true;
}

static void add_pairs(merges *m, const vocabulary *v, uint32_t token, uint32_t rank)
{
    span bytes = vocabulary_bytes(v, token);
    for (size_t at = 0; at < bytes.size;) {
        uint32_t c;
        size_t   n = utf8_decode((span){bytes.data + at, bytes.size - at}, &c);
        at += n ? n : 1;
        uint32_t left  = vocabulary_find(v, (span){bytes.data, at}, TOKEN_NORMAL);
        uint32_t right = vocabulary_find(v, (span){bytes.data + at, bytes.size - at}, TOKEN_NORMAL);
        if (left != VOCABULARY_NONE && right != VOCABULARY_NONE)
            m->pairs[m->n_pairs++] = (pair){left, right, rank, token};
    }
}

static bool find_merges(merges *m, const vocabulary *v, const float *scores, error *err)
{
    size_t   n_bytes = 0;
    uint32_t rank    = 0;
    if (!order_by_score(m, v, scores, &n_bytes, err))
        return false;
    m->pairs = calloc(n_bytes + 1, sizeof *m->pairs);
    if (!m->pairs || n_bytes > UINT32_MAX / 4)
        return error_set(err, ERR_NO_MEMORY, "no memory for the merges of %zu bytes of tokens", n_bytes);
    for (size_t i = 0; i < m->n_order; i++) {
        rank += i > 0 && m->order[i].score != m->order[i - 1].score;
        add_pairs(m, v, m->order[i].token, rank);
    }
    return true;
}

bpe *spm_bpe_new(const bpe_options *options, const float *scores, error *err)
{
    merges      m       = {0};
    bpe        *b       = NULL;
    bpe_options counted = *options;
    if (find_merges(&m, options->vocabulary, scores, err)) {
        counted.n_merges = (uint32_t)m.n_pairs;
        b                = bpe_new(&counted, err);
    }
    for (size_t i = 0; b && i < m.n_pairs; i++)
        bpe_add_ranked_merge(b, m.pairs[i].rank, m.pairs[i].left, m.pairs[i].right, m.pairs[i].token);
    if (b)
        bpe_finish(b);
    free(m.order);
    free(m.pairs);
    return b;
}
