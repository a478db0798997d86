/* What attention computes on at once: some query rows against some blocks of the cache. */
#ifndef TROUPE_KERNELS_ATTENTION_ATTENTION_SPAN_LANES_H
#define TROUPE_KERNELS_ATTENTION_ATTENTION_SPAN_LANES_H

#include "kernels/attention/attention_cpu.h"
#include "kernels/lanes_partial.h"

enum {
    ATTENTION_ROWS   = LANES_ATTENTION_ROWS, /* query rows whose sums are in registers together */
    ATTENTION_BLOCKS = 4,
    ATTENTION_SPAN   = ATTENTION_BLOCKS * KERN_KV_BLOCK_TOKENS,
};

/* Blocks of the cache that follow each other in a sequence, from a multiple of ATTENTION_SPAN on. */
typedef struct {
    const unsigned char *keys[ATTENTION_BLOCKS], *values[ATTENTION_BLOCKS];
    const unsigned char *ahead[ATTENTION_BLOCKS]; /* what the next span reads: fetched while this one is computed */
    uint32_t             n_blocks, ahead_lines;   /* lines of each block of `ahead`; 0: nothing to fetch */
} attention_span;

/* The cache scatters a head's blocks by whole pages, across which the CPU does not prefetch on its own. */
LANES void fetch_ahead(const attention_span *span, uint32_t block, uint32_t line, uint32_t n)
{
    for (uint32_t end = line + n < span->ahead_lines ? line + n : span->ahead_lines; line < end; line++) {
        __builtin_prefetch(span->ahead[block] + 64 * line, 0, 2);
    }
}

/* Query rows against one span: pointers to each row's state, and its visible places [first, end) of the span. */
typedef struct {
    const float           *q[ATTENTION_ROWS];
    const attention_query *query[ATTENTION_ROWS]; /* of a quantised cache */
    float                 *sums[ATTENTION_ROWS];  /* [head_dim rounded up to 16] */
    float                 *largest[ATTENTION_ROWS], *total[ATTENTION_ROWS];
    uint32_t               first[ATTENTION_ROWS], end[ATTENTION_ROWS];
} attention_rows;

/* Places [first, end) of a span as places of its block. */
LANES uint32_t place_in(uint32_t place, uint32_t block)
{
    uint32_t start = block * KERN_KV_BLOCK_TOKENS;
    return place < start ? 0 : place - start < KERN_KV_BLOCK_TOKENS ? place - start : KERN_KV_BLOCK_TOKENS;
}

#endif
