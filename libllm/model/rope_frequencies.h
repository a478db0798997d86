/* The angle by which each pair of dimensions turns from one position to the next (Su et al. 2021, arXiv 2104.09864),
 * theta^(-2i/d), and the ways of stretching it over contexts longer than those of the training. */
#ifndef TROUPE_MODEL_ROPE_FREQUENCIES_H
#define TROUPE_MODEL_ROPE_FREQUENCIES_H

#include <stdint.h>

enum { ROPE_PAIRS_MAX = 512 };

typedef enum {
    ROPE_PLAIN,
    ROPE_LINEAR,   /* all frequencies divided by `factor` (Chen et al. 2023, arXiv 2306.15595) */
    ROPE_DYNAMIC,  /* theta grows with the length of the longest sequence */
    ROPE_LLAMA3,   /* only wavelengths over n_ctx_original / high_freq_factor are stretched (arXiv 2407.21783) */
    ROPE_YARN,     /* stretched from beta_slow turns within n_ctx_original, not at all from beta_fast
                      (Peng et al. 2023, arXiv 2309.00071) */
    ROPE_LONGROPE, /* each frequency divided by a factor of its own (Ding et al. 2024, arXiv 2402.13753) */
} rope_scaling;

/* What the scaling doesn't use means nothing. */
typedef struct {
    rope_scaling scaling;
    float        theta, factor;
    float        attention_factor; /* cosines and sines are multiplied by it: 1 for most */
    float        low_freq_factor, high_freq_factor;
    float        beta_fast, beta_slow;
    uint32_t     n_ctx_original;                                              /* positions before the stretching */
    float        short_factors[ROPE_PAIRS_MAX], long_factors[ROPE_PAIRS_MAX]; /* [n_dims / 2] */
} rope_config;

/* Fills frequencies[n_dims / 2]. Sequences will have up to n_positions: dynamic and longrope depend on it. One length
 * for all sequences, so that a token depends on its own sequence alone. */
void rope_frequencies(const rope_config *rope, uint32_t n_dims, uint32_t n_positions, double *frequencies);

#endif
