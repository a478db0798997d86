/* Formulas as transformers has them (modeling_rope_utils.py), in double. */
#include "model/rope_frequencies.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

static double grown_theta(const rope_config *rope, uint32_t n_dims, uint32_t n_positions)
{
    if (rope->scaling != ROPE_DYNAMIC || n_positions <= rope->n_ctx_original)
        return rope->theta;
    double factor = rope->factor, stretch = (double)n_positions / rope->n_ctx_original;
    return rope->theta * pow(factor * stretch - (factor - 1), n_dims / (n_dims - 2.0));
}

static double clamp(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

static double llama3_frequency(const rope_config *rope, double frequency)
{
    double turns = rope->n_ctx_original * frequency / (2 * PI);
    double kept  = (turns - rope->low_freq_factor) / ((double)rope->high_freq_factor - rope->low_freq_factor);
    kept         = clamp(kept, 0, 1);
    return kept * frequency + (1 - kept) * frequency / rope->factor;
}

/* The dimension, of n_dims / 2, that turns `turns` times within the original context. */
static double yarn_dimension(const rope_config *rope, uint32_t n_dims, double turns)
{
    return n_dims * log(rope->n_ctx_original / (turns * 2 * PI)) / (2 * log(rope->theta));
}

static double yarn_frequency(const rope_config *rope, uint32_t n_dims, uint32_t i, double frequency)
{
    double first = fmax(floor(yarn_dimension(rope, n_dims, rope->beta_fast)), 0);
    double last  = fmin(ceil(yarn_dimension(rope, n_dims, rope->beta_slow)), n_dims - 1);
    if (last == first)
        last += 0.001;
    double stretched = clamp((i - first) / (last - first), 0, 1);
    return (1 - stretched) * frequency + stretched * frequency / rope->factor;
}

void rope_frequencies(const rope_config *rope, uint32_t n_dims, uint32_t n_positions, double *frequencies)
{
    double       theta   = grown_theta(rope, n_dims, n_positions);
    const float *factors = n_positions > rope->n_ctx_original ? rope->long_factors : rope->short_factors;
    for (uint32_t i = 0; i < n_dims / 2; i++) {
        double frequency = pow(theta, -2.0 * i / n_dims);
        frequencies[i]   = rope->scaling == ROPE_LINEAR     ? frequency / rope->factor
                           : rope->scaling == ROPE_LLAMA3   ? llama3_frequency(rope, frequency)
                           : rope->scaling == ROPE_YARN     ? yarn_frequency(rope, n_dims, i, frequency)
                           : rope->scaling == ROPE_LONGROPE ? frequency / factors[i]
                                                            : frequency;
    }
}
