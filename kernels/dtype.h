/* Number formats: the block layouts of GGUF files, and conversions between float32 and the 16-bit floats.
 *
 * A block of 32 holds consecutive elements of a row. Two of them share a byte of `nibbles`: element j in the low half
 * of byte j, element j + 16 in its high half. `fifth` has bit 4 of element j at bit j.
 *
 * A block of 256 (the K formats and IQ4_XS) is eight such: of block i, h = i / 4, j = i % 4, and l an element in it.
 * Two bits of it are at bit 2 j of pairs[32 h + l]; a single one at bit i of ones[l]. The comments below have `scale`
 * and `min` times the small integers of a part, 16 or 32 elements. All scalars are little-endian, unaligned. */
#ifndef TROUPE_KERNELS_DTYPE_H
#define TROUPE_KERNELS_DTYPE_H

#include <string.h>

#include "kernels/kernels.h"

#ifdef __CUDACC__
#define KERN_HOST_DEVICE __host__ __device__
#else
#define KERN_HOST_DEVICE
#endif

enum { KERN_BLOCK = 32 }; /* elements that are read at once; a block of the file is so many, or 256 */

typedef struct {
    uint8_t scale[2], nibbles[16]; /* scale * (q - 8) */
} kern_block_q4_0;

typedef struct {
    uint8_t scale[2], min[2], nibbles[16]; /* scale * q + min */
} kern_block_q4_1;

typedef struct {
    uint8_t scale[2], fifth[4], nibbles[16]; /* scale * (q - 16) */
} kern_block_q5_0;

typedef struct {
    uint8_t scale[2], min[2], fifth[4], nibbles[16]; /* scale * q + min */
} kern_block_q5_1;

typedef struct {
    uint8_t scale[2];
    int8_t  quants[32]; /* scale * q */
} kern_block_q8_0;

typedef struct {
    uint8_t parts[16], pairs[64], scale[2], min[2]; /* parts: scale in the low, min in the high nibble */
} kern_block_q2_k;                                  /* scale * q - min */

typedef struct {
    uint8_t ones[32], pairs[64], parts[12], scale[2]; /* ones: bit 2 of the quants; parts: 16 of 6 bits, 32 too high */
} kern_block_q3_k;                                    /* scale * (q - 4) */

typedef struct {
    uint8_t scale[2], min[2], parts[12], nibbles[128]; /* parts: 8 scales and 8 mins of 6 bits */
} kern_block_q4_k;                                     /* scale * q - min */

typedef struct {
    uint8_t scale[2], min[2], parts[12], ones[32], nibbles[128]; /* ones: bit 4 */
} kern_block_q5_k;                                               /* scale * q - min */

typedef struct {
    uint8_t nibbles[128], pairs[64]; /* pairs: bits 4 and 5 */
    int8_t  parts[16];
    uint8_t scale[2]; /* scale * (q - 32) */
} kern_block_q6_k;

typedef struct {
    uint8_t scale[2], nibbles[16]; /* scale * value */
} kern_block_iq4_nl;

typedef struct {
    uint8_t scale[2], parts_high[2], parts_low[4], nibbles[128]; /* parts: 8 of 6 bits, 32 too high */
} kern_block_iq4_xs;                                             /* scale * value */

/* What the nibbles of IQ4_NL and IQ4_XS stand for, plus 128. */
extern const uint8_t kern_iq4_values[16];

static inline bool kern_dtype_is_quantized(kern_dtype dtype)
{
    return dtype >= KERN_Q4_0;
}

/* 32 elements as integers and two float16 numbers: see kernels/format.h. A format that subtracts its min has it here
 * with the other sign. */
typedef struct {
    uint8_t  quants[KERN_BLOCK];
    int8_t   part_scales[2], part_mins[2]; /* of the first and the last 16; 1 where the format has none */
    uint16_t scale_bits, min_bits;         /* min_bits is 0 where the format has no min */
} kern_block_quants;

/* Reads elements 32 i .. 32 i + 31 of one block of a quantised format; i is 0 in blocks of 32. */
void kern_block_read(kern_dtype dtype, const void *block, uint32_t i, kern_block_quants *out);

/* Their values, exactly as kern_dequantize's. */
void kern_block_values(kern_dtype dtype, const kern_block_quants *block, float *out);

KERN_HOST_DEVICE static inline float kern_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

KERN_HOST_DEVICE static inline uint32_t kern_bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* Exact; a signalling NaN becomes quiet, as in hardware. */
KERN_HOST_DEVICE static inline float kern_float_of_f16(uint16_t half)
{
    uint32_t sign     = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 31, mantissa = half & 1023;
    if (exponent == 31) {
        return kern_float_of_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0));
    }
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return kern_float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN (quiet). */
KERN_HOST_DEVICE static inline uint16_t kern_f16_of_float(float value)
{
    uint32_t bits = kern_bits_of_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    }
    if (bits >= 0x477ff000u) { /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00);
    }
    if (bits <
        0x38800000u) { /* below 2^-14: adding 0.5 leaves the subnormal's integer in the low bits, rounded by the FPU */
        float shifted = kern_float_of_bits(bits) + 0.5f;
        return (uint16_t)(sign | (kern_bits_of_float(shifted) - 0x3f000000u));
    }
    uint32_t odd = bits >> 13 & 1;
    return (uint16_t)(sign | ((bits + 0xfff + odd - 0x38000000u) >> 13));
}

KERN_HOST_DEVICE static inline float kern_float_of_bf16(uint16_t bits)
{
    return kern_float_of_bits((uint32_t)bits << 16);
}

/* Rounds to nearest, ties to even; NaN stays NaN (quiet). */
KERN_HOST_DEVICE static inline uint16_t kern_bf16_of_float(float value)
{
    uint32_t bits = kern_bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
