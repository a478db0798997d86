#include "support_inputs.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"

/* SplitMix64. */
uint64_t input_word(uint64_t seed, uint32_t stream, uint64_t index)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + ((uint64_t)stream << 40) + index * 0xbf58476d1ce4e5b9u;
    z          = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z          = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float input_float(uint64_t seed, uint32_t stream, uint64_t index)
{
    double sum = 0;
    for (uint32_t i = 0; i < 4; i++) {
        sum += (double)(input_word(seed, stream * 4 + i, index) >> 11) * 0x1p-53 - 0.5;
    }
    return (float)(sum * 1.7);
}

float *input_floats(const kernel_case *c, uint32_t stream, size_t n)
{
    float *out = malloc(n * sizeof *out + 1);
    for (size_t i = 0; i < n; i++) {
        out[i] = input_float(c->seed, stream, i) * c->magnitude;
    }
    return out;
}

/* Where a block has its float16 scale and min, as far as it has them. */
static const struct {
    uint32_t scale, min;
} scale_places[KERN_N_DTYPES] = {[KERN_Q4_1] = {0, 2},
                                 [KERN_Q5_1] = {0, 2},
                                 [KERN_Q2_K] = {offsetof(kern_block_q2_k, scale), offsetof(kern_block_q2_k, min)},
                                 [KERN_Q3_K] = {offsetof(kern_block_q3_k, scale), 0},
                                 [KERN_Q4_K] = {0, 2},
                                 [KERN_Q5_K] = {0, 2},
                                 [KERN_Q6_K] = {offsetof(kern_block_q6_k, scale), 0}};

unsigned char *input_matrix(const kernel_case *c, uint32_t stream, kern_dtype dtype, size_t n)
{
    size_t         block_bytes = kern_dtype_block_bytes(dtype), bytes = kern_dtype_bytes(dtype, n);
    unsigned char *out = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (unsigned char)input_word(c->seed, stream, i);
    }
    for (size_t i = 0; i < n / kern_dtype_block(dtype); i++) {
        unsigned char *block = out + i * block_bytes;
        float          value = input_float(c->seed, stream + 1, i), min = input_float(c->seed, stream + 2, i);
        uint16_t       half = dtype == KERN_BF16  ? kern_bf16_of_float(value)
                              : dtype == KERN_F16 ? kern_f16_of_float(value)
                                                  : kern_f16_of_float(value * 0.1f);
        if (dtype == KERN_F32) {
            memcpy(block, &value, 4);
            continue;
        }
        memcpy(block + scale_places[dtype].scale, &half, 2);
        if (scale_places[dtype].min) {
            half = kern_f16_of_float(min);
            memcpy(block + scale_places[dtype].min, &half, 2);
        }
    }
    return out;
}
