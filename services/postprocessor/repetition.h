/* Notices a model that says the same thing again and again.
 *
 * For every block length L up to REPETITION_BLOCK_MAX it counts how many of the last tokens equal the one L before
 * them: the tail is one block of L tokens r times over exactly when that run has reached (r - 1) * L. A token costs
 * REPETITION_BLOCK_MAX comparisons, however long the text. */
#ifndef TROUPE_POSTPROCESSOR_REPETITION_H
#define TROUPE_POSTPROCESSOR_REPETITION_H

#include <stdbool.h>
#include <stdint.h>

enum { REPETITION_BLOCK_MAX = 64 };

/* Zero-initialised it has seen nothing. */
typedef struct {
    uint32_t recent[REPETITION_BLOCK_MAX]; /* a ring of the last tokens */
    uint32_t runs[REPETITION_BLOCK_MAX];   /* [L - 1]: the newest so many tokens equal the one L before */
    uint64_t n_tokens;
} repetition;

/* Adds one token. True when the tail now is one block, of 1 to REPETITION_BLOCK_MAX tokens, `limit` times over.
 * `limit` is at least 2. */
bool repetition_add(repetition *r, uint32_t token, uint32_t limit);

#endif
