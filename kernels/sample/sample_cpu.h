/* Sampling on the CPU: the scratch of one row, and the steps that do not depend on the instruction set.
 *
 * A row's processed logits are kept as z = (logit - largest) / temperature, so z <= 0 and a dropped token is -infinity;
 * for numbers <= 0 the bits without the sign grow as the likelihood falls, which makes them the keys of a radix
 * selection. */
#ifndef TROUPE_KERNELS_SAMPLE_SAMPLE_CPU_H
#define TROUPE_KERNELS_SAMPLE_SAMPLE_CPU_H

#include "kernels/backend.h"

enum { SAMPLE_BUCKETS = 2048 };

typedef struct {
    uint32_t  n;       /* n_vocab */
    uint32_t  n_lanes; /* rounded up to 64; the tail of z is -infinity */
    float    *z;       /* [n_lanes] */
    float    *weights; /* [n_lanes] e^z */
    uint32_t *keys;    /* [n_lanes] */
    double   *masses;  /* [SAMPLE_BUCKETS] */
    uint32_t *counts;  /* [SAMPLE_BUCKETS] */
} sample_scratch;

size_t         sample_scratch_bytes(uint32_t n_vocab);
sample_scratch sample_scratch_at(void *memory, uint32_t n_vocab);

/* Penalties, bias and bans, in place. NaN becomes -infinity, overflow the largest float. */
void sample_edit(const kern_sample_row *row, const kern_logit_edit *edits, float *logits, uint32_t n);

/* Keeps the first tokens by rising key, lower id first on a tie, until their weights reach `target`; at least one.
 * Tokens with z of -infinity have no part in it. `weights` NULL: each weighs 1. Dropped tokens get z = -infinity and
 * weight 0. */
void sample_keep(sample_scratch *scratch, const float *weights, double target);

/* The filters of `row` that are not neutral, in order. */
void sample_filter(const kern_sample_row *row, sample_scratch *scratch);

/* How many logits are larger than logits[token], or equal with a lower id. */
uint32_t sample_rank(const float *logits, uint32_t n, uint32_t token);

#endif
