/* Number formats: the block layouts of GGUF files, and conversions between float32 and the 16-bit floats.
 *
 * A quantised block holds 32 consecutive elements of a row. Two elements share a byte of `nibbles`: element j in the
 * low half of byte j, element j + 16 in its high half. `fifth` has bit 4 of element j at bit j. All scalars are
 * little-endian, unaligned. */
#ifndef TROUPE_KERNELS_DTYPE_H
#define TROUPE_KERNELS_DTYPE_H

#include <string.h>

#include "kernels/kernels.h"

#ifdef __CUDACC__
#define KERN_HOST_DEVICE __host__ __device__
#else
#define KERN_HOST_DEVICE
#endif

enum { KERN_BLOCK = 32 }; /* elements of a quantised block */

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

/* True for the formats of blocks of 32. */
static inline bool kern_dtype_is_quantized(kern_dtype dtype)
{
    return dtype >= KERN_Q4_0 && dtype <= KERN_Q8_0;
}

/* One block (32 elements) as integers and two float16 numbers: element = scale * (quants[j] - offset), or
 * scale * quants[j] + min where the format has a min (min_bits is 0 where not). */
typedef struct {
    int8_t   quants[KERN_BLOCK];
    uint16_t scale_bits, min_bits;
} kern_block_quants;

bool    kern_dtype_has_min(kern_dtype dtype);
int32_t kern_dtype_offset(kern_dtype dtype); /* 8 for Q4_0, 16 for Q5_0, else 0 */

/* Reads one block of a quantised format. */
void kern_block_read(kern_dtype dtype, const void *block, kern_block_quants *out);

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
