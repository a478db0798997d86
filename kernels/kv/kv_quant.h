/* Keys and values in 8 or 4 bits: how one head of one position becomes integers. All backends store the same numbers.
 *
 * A head is cut into groups of 32 dimensions, the last filled up with zeros. Eight bits (Q8_0) are scale * (code -
 * 128), four bits (Q4_1) scale * code + min. They depend on this position alone, so what is appended, copied or
 * computed again is the same (groups a channel, as in Liu et al. 2024, arXiv 2402.02750, wait for later positions).
 *
 * Some dimensions of keys are large at every position and would take their group's codes for themselves. So keys are
 * rotated by a Hadamard matrix, which spreads them, and queries alike: dot products stay what they were (Ashkboos et
 * al. 2024, arXiv 2404.00456). */
#ifndef TROUPE_KERNELS_KV_KV_QUANT_H
#define TROUPE_KERNELS_KV_KV_QUANT_H

#include "kernels/dtype.h"
#include "kernels/format.h"

enum { KV_GROUP = 32, KV_GROUPS_MAX = 16 };

typedef struct {
    uint8_t  codes[KV_GROUP];
    uint16_t scale, min; /* float16; NaN says that a number of the group was NaN or infinite */
} kv_group;

KERN_HOST_DEVICE static inline bool kv_is_quantized(kern_dtype dtype)
{
    return dtype == KERN_Q8_0 || dtype == KERN_Q4_1;
}

KERN_HOST_DEVICE static inline uint32_t kv_n_groups(uint32_t head_dim)
{
    return (head_dim + KV_GROUP - 1) / KV_GROUP;
}

/* One head's keys, or values, of a block. */
static inline size_t kv_matrix_bytes(kern_dtype dtype, uint32_t head_dim)
{
    size_t n = kv_is_quantized(dtype) ? kv_n_groups(head_dim) : head_dim;
    return n * KERN_KV_BLOCK_TOKENS * kern_formats[dtype].block_bytes;
}

/* Dimensions that are rotated together: the largest power of two that divides the filled-up head. */
KERN_HOST_DEVICE static inline uint32_t kv_rotation_width(uint32_t head_dim)
{
    uint32_t filled = kv_n_groups(head_dim) * KV_GROUP;
    return filled & (0 - filled);
}

/* Sums and differences make numbers sqrt(width) larger; the powers of two nearest to that take it back, so that nothing
 * is rounded. */
KERN_HOST_DEVICE static inline float kv_key_factor(uint32_t width)
{
    float factor = 1;
    for (; width >= 4; width /= 4) {
        factor /= 2;
    }
    return factor;
}

KERN_HOST_DEVICE static inline float kv_query_factor(uint32_t width)
{
    return 1 / (kv_key_factor(width) * (float)width);
}

/* x[n] in place, n a multiple of `width`: sums and differences of pairs 1, 2, 4 ... apart, times `factor`. */
static inline void kv_rotate(float *x, uint32_t n, uint32_t width, float factor)
{
    for (uint32_t apart = 1; apart < width; apart *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * apart) {
            for (uint32_t j = i; j < i + apart; j++) {
                float a = x[j], b = x[j + apart];
                x[j]         = a + b;
                x[j + apart] = a - b;
            }
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        x[i] *= factor;
    }
}

/* How the numbers of a group become codes: nearest integer of (x - shift) * inverse + offset. */
typedef struct {
    float    shift, inverse, offset, most;
    uint16_t scale, min;
} kv_coding;

KERN_HOST_DEVICE static inline kv_coding kv_coding_8(float largest)
{
    kv_coding c = {0, 0, 128, 255, kern_f16_of_float(largest / 127), 0};
    float     s = kern_float_of_f16(c.scale);
    c.inverse   = s > 0 ? 1 / s : 0;
    return c;
}

KERN_HOST_DEVICE static inline kv_coding kv_coding_4(float lowest, float highest)
{
    kv_coding c = {0, 0, 0, 15, 0, kern_f16_of_float(lowest)};
    c.shift     = kern_float_of_f16(c.min);
    c.scale     = highest > c.shift ? kern_f16_of_float((highest - c.shift) / 15) : (uint16_t)0;
    float s     = kern_float_of_f16(c.scale);
    c.inverse   = s > 0 ? 1 / s : 0;
    return c;
}

/* `largest` is the magnitude of the group's numbers; one that is not finite leaves NaN. */
KERN_HOST_DEVICE static inline kv_coding kv_coding_of(kern_dtype dtype, float lowest, float highest, float largest)
{
    kv_coding c = dtype == KERN_Q8_0 ? kv_coding_8(largest) : kv_coding_4(lowest, highest);
    if (!(largest < kern_float_of_bits(0x7f800000u))) {
        c.inverse = 0;
        c.scale = c.min = 0x7e00;
    }
    return c;
}

KERN_HOST_DEVICE static inline uint8_t kv_code(const kv_coding *c, float x)
{
    float place = (x - c->shift) * c->inverse + c->offset;
    place       = place > 0 ? place : 0; /* NaN too */
    place       = place < c->most ? place : c->most;
    return (uint8_t)((place + 0x1.8p23f) - 0x1.8p23f);
}

KERN_HOST_DEVICE static inline float kv_value(kern_dtype dtype, uint32_t code, uint16_t scale, uint16_t min)
{
    float s = kern_float_of_f16(scale);
    return dtype == KERN_Q8_0 ? s * ((float)code - 128) : s * (float)code + kern_float_of_f16(min);
}

/* The first n of 32 numbers count; the others are filled up. */
static inline void kv_quantize(kern_dtype dtype, const float *x, uint32_t n, kv_group *out)
{
    float    lowest = x[0], highest = x[0];
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t magnitude = kern_bits_of_float(x[i]) & 0x7fffffff;
        largest            = magnitude > largest ? magnitude : largest;
        lowest             = x[i] < lowest ? x[i] : lowest;
        highest            = x[i] > highest ? x[i] : highest;
    }
    kv_coding c = kv_coding_of(dtype, lowest, highest, kern_float_of_bits(largest));
    out->scale  = c.scale;
    out->min    = c.min;
    for (uint32_t i = 0; i < KV_GROUP; i++) {
        out->codes[i] = i < n ? kv_code(&c, x[i]) : 0;
    }
}

#endif
