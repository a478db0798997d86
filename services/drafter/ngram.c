/* See ngram.h. One table for all n: an n-gram's place holds the position behind its latest occurrence but the newest. A
 * place may be taken over by another n-gram, or point behind a cut: every hit is compared with the tokens, so that is a
 * missed guess, never a wrong read. */
#include "drafter/ngram.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct ngram_index {
    uint32_t  n_tokens, n_tokens_max, mask;
    uint32_t *tokens;
    uint32_t *behind; /* hash -> position behind an occurrence; 0: none */
};

ngram_index *ngram_new(uint32_t n_tokens_max, error *err)
{
    uint32_t size = 64;
    while (size < 4 * (uint64_t)n_tokens_max && size < UINT32_C(1) << 24)
        size *= 2;
    ngram_index *index = calloc(1, sizeof *index);
    if (index) {
        index->tokens = malloc((n_tokens_max + 1) * sizeof *index->tokens);
        index->behind = calloc(size, sizeof *index->behind);
    }
    if (!index || !index->tokens || !index->behind) {
        ngram_free(&index);
        error_set(err, ERR_NO_MEMORY, "no memory to look up n-grams of %u tokens", n_tokens_max);
        return NULL;
    }
    index->n_tokens_max = n_tokens_max;
    index->mask         = size - 1;
    return index;
}

void ngram_free(ngram_index **index)
{
    if (*index) {
        free((*index)->tokens);
        free((*index)->behind);
        free(*index);
        *index = NULL;
    }
}

uint32_t ngram_n_tokens(const ngram_index *index)
{
    return index->n_tokens;
}

static uint32_t *place_of(const ngram_index *index, const uint32_t *gram, uint32_t n)
{
    uint64_t hash = n;
    for (uint32_t i = 0; i < n; i++)
        hash = (hash ^ gram[i]) * UINT64_C(0x9E3779B97F4A7C15) ^ hash >> 29;
    return &index->behind[(hash >> 20) & index->mask];
}

/* Enters the n-grams that end before the newest token: they have a follower now. */
static void enter_ngrams(ngram_index *index)
{
    uint32_t end = index->n_tokens - 1;
    for (uint32_t n = NGRAM_SHORTEST; n <= NGRAM_LONGEST && n <= end; n++)
        *place_of(index, index->tokens + end - n, n) = end;
}

bool ngram_extend(ngram_index *index, uint32_t n, const uint32_t *tokens, uint32_t n_tokens)
{
    assert(n <= index->n_tokens);
    if ((uint64_t)n + n_tokens > index->n_tokens_max)
        return false;
    index->n_tokens = n;
    for (uint32_t i = 0; i < n_tokens; i++) {
        index->tokens[index->n_tokens++] = tokens[i];
        enter_ngrams(index);
    }
    return true;
}

uint32_t ngram_propose(const ngram_index *index, uint32_t *drafts, uint32_t n_max)
{
    for (uint32_t n = NGRAM_LONGEST; n >= NGRAM_SHORTEST; n--) {
        if (n >= index->n_tokens)
            continue;
        const uint32_t *last   = index->tokens + index->n_tokens - n;
        uint32_t        behind = *place_of(index, last, n);
        if (behind < n || behind >= index->n_tokens || memcmp(index->tokens + behind - n, last, n * sizeof *last) != 0)
            continue;
        uint32_t n_drafts = index->n_tokens - behind < n_max ? index->n_tokens - behind : n_max;
        memcpy(drafts, index->tokens + behind, n_drafts * sizeof *drafts);
        return n_drafts;
    }
    return 0;
}
