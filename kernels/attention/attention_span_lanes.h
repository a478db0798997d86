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
    uint32_t             n_blocks;
} attention_span;

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
