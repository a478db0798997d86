/* Vectors of 16 lanes in C with the vector types of GCC and clang, which become what the target has: what every
 * operator of the CPU backend is written over (the *_lanes.h files).
 *
 * lanes_avx2.h and lanes_avx512.h define the same names with instructions. An operation here is one IEEE operation a
 * lane, rounded to nearest, so the three give the same bits; anything that sums across lanes says its order.
 *
 *   f32x16 floats   i32x16 signed integers   i16x32 32 signed 16-bit integers   mask16 one truth a lane */
#ifndef TROUPE_KERNELS_LANES_H
#define TROUPE_KERNELS_LANES_H
#define LANES_PORTABLE

#include <math.h>

#include "kernels/dtype.h"

#define LANES static inline __attribute__((always_inline, unused))

enum {
    LANES_TILE_TOKENS    = 4, /* rows of x that a gemm tile of quantised weights keeps in registers */
    LANES_FLOAT_ROWS     = 1, /* rows of W and of x in a tile of float weights */
    LANES_FLOAT_TOKENS   = 1,
    LANES_ATTENTION_ROWS = 4,
    LANES_MANY_REGISTERS = 0,
};

/* Vectors wider than the target's registers have no stable calling convention; these functions are always inlined. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

typedef float   f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef int16_t i16x32 __attribute__((vector_size(64)));
typedef int32_t mask16 __attribute__((vector_size(64))); /* -1 or 0 */

typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x32 __attribute__((vector_size(64)));

#define EACH_LANE for (int i = 0; i < 16; i++)

LANES f32x16 f32x16_set(float value)
{
    return (f32x16){0} + value;
}

LANES f32x16 f32x16_load(const float *from)
{
    f32x16 out;
    memcpy(&out, from, sizeof out);
    return out;
}

LANES void f32x16_store(float *to, f32x16 a)
{
    memcpy(to, &a, sizeof a);
}

LANES f32x16 f32x16_load_f16(const uint16_t *from)
{
    float     out[16];
    EACH_LANE out[i] = kern_float_of_f16(from[i]);
    return f32x16_load(out);
}

LANES void f32x16_store_f16(uint16_t *to, f32x16 a)
{
    EACH_LANE to[i] = kern_f16_of_float(a[i]);
}

LANES f32x16 f32x16_load_bf16(const uint16_t *from)
{
    float     out[16];
    EACH_LANE out[i] = kern_float_of_bf16(from[i]);
    return f32x16_load(out);
}

LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    return a + b;
}

LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    return a - b;
}

LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    return a * b;
}

LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    return a / b;
}

/* a * b + c, rounded once. */
static __attribute__((noinline, unused)) void fma_each(const float *a, const float *b, float *c)
{
    EACH_LANE c[i] = fmaf(a[i], b[i], c[i]);
}

LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    fma_each((const float *)&a, (const float *)&b, (float *)&c);
    return c;
}

/* mask ? a : b */
LANES f32x16 f32x16_select(mask16 mask, f32x16 a, f32x16 b)
{
    return (f32x16)(((i32x16)a & mask) | ((i32x16)b & ~mask));
}

/* The second operand when either is NaN, as x86's maxps. */
LANES f32x16 f32x16_max(f32x16 a, f32x16 b)
{
    return f32x16_select(a > b, a, b);
}

LANES f32x16 f32x16_min(f32x16 a, f32x16 b)
{
    return f32x16_select(a < b, a, b);
}

/* Lane i of the result is a[i] + a[i + 8], then + 4, + 2, + 1. */
LANES float f32x16_sum(f32x16 a)
{
    float lane[16];
    f32x16_store(lane, a);
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) {
            lane[i] += lane[i + step];
        }
    }
    return lane[0];
}

LANES float f32x16_largest(f32x16 a)
{
    float lane[16];
    f32x16_store(lane, a);
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) {
            lane[i] = lane[i] > lane[i + step] ? lane[i] : lane[i + step];
        }
    }
    return lane[0];
}

LANES mask16 f32x16_less(f32x16 a, f32x16 b)
{
    return a < b;
}

LANES mask16 f32x16_equal(f32x16 a, f32x16 b)
{
    return a == b;
}

/* Lanes first .. end - 1. */
LANES mask16 mask16_range(uint32_t first, uint32_t end)
{
    const i32x16 place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (place >= (int32_t)first) & (place < (int32_t)end);
}

LANES uint32_t mask16_bits(mask16 mask)
{
    uint32_t  bits = 0;
    EACH_LANE bits |= (uint32_t)(mask[i] & 1) << i;
    return bits;
}

LANES f32x16 f32x16_abs(f32x16 a)
{
    return (f32x16)((i32x16)a & 0x7fffffff);
}

/* Nearest integer, ties to even; |a| < 2^22. */
LANES i32x16 i32x16_of_f32x16(f32x16 a)
{
    return __builtin_convertvector((a + 0x1.8p23f) - 0x1.8p23f, i32x16);
}

LANES f32x16 f32x16_of_i32x16(i32x16 a)
{
    return __builtin_convertvector(a, f32x16);
}

/* a * 2^exponent for a in [0.5, 4) and a result that is a normal number. */
LANES f32x16 f32x16_times_power_of_2(f32x16 a, i32x16 exponent)
{
    return (f32x16)((u32x16)a + ((u32x16)exponent << 23));
}

LANES i32x16 i32x16_set(int32_t value)
{
    return (i32x16){0} + value;
}

LANES i32x16 i32x16_load(const int32_t *from)
{
    i32x16 out;
    memcpy(&out, from, sizeof out);
    return out;
}

LANES i32x16 i32x16_load_i8(const int8_t *from)
{
    i32x16    out;
    EACH_LANE out[i] = from[i];
    return out;
}

LANES i32x16 i32x16_and(i32x16 a, int32_t b)
{
    return a & b;
}

/* The sign comes in from the left. */
LANES i32x16 i32x16_shift_right(i32x16 a, int n)
{
    return a >> n;
}

LANES i32x16 i32x16_shift_left(i32x16 a, int n)
{
    return (i32x16)((u32x16)a << (uint32_t)n);
}

/* The low byte of each lane. */
LANES void i32x16_store_bytes(int8_t *to, i32x16 a)
{
    EACH_LANE to[i] = (int8_t)a[i];
}

LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    return a + b;
}

LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    return a - b;
}

/* Bits of floats without their sign, as integers: ordered as their magnitudes, infinity and NaN at the top. */
LANES i32x16 i32x16_magnitude_bits(f32x16 a)
{
    return (i32x16)a & 0x7fffffff;
}

LANES i32x16 i32x16_max(i32x16 a, i32x16 b)
{
    mask16 larger = a > b;
    return (a & larger) | (b & ~larger);
}

LANES int32_t i32x16_largest(i32x16 a)
{
    int32_t   largest = a[0];
    EACH_LANE largest = a[i] > largest ? a[i] : largest;
    return largest;
}

LANES int32_t i32x16_sum(i32x16 a)
{
    int32_t   sum = 0;
    EACH_LANE sum += a[i];
    return sum;
}

/* A block of 32 activations, rounded to 16 bits, for the dot products of gemm_lanes.h. 64 bytes. Of each four columns
 * the even ones come first: what is in the low and the high halves of a weight's 16-bit lanes. */
LANES void store_quants(int16_t *to, i32x16 first, i32x16 second)
{
    for (int i = 0; i < 16; i++) {
        int place      = (i & ~3) | (i & 1) << 1 | (i >> 1 & 1);
        to[place]      = (int16_t)first[i];
        to[place + 16] = (int16_t)second[i];
    }
}

LANES i16x32 i16x32_load(const void *from)
{
    i16x32 out;
    memcpy(&out, from, sizeof out);
    return out;
}

LANES void i16x32_store(void *to, i16x32 a)
{
    memcpy(to, &a, sizeof a);
}

/* (a[0], a[1], a[0], a[1], ...) */
LANES i16x32 i16x32_set_pair(const int16_t *a)
{
    int32_t pair;
    memcpy(&pair, a, 4);
    return (i16x32)i32x16_set(pair);
}

LANES i16x32 i16x32_and(i16x32 a, int16_t b)
{
    return a & b;
}

LANES i16x32 i16x32_or(i16x32 a, i16x32 b)
{
    return a | b;
}

LANES i16x32 i16x32_shift_left(i16x32 a, int n)
{
    return (i16x32)((u16x32)a << (uint16_t)n);
}

LANES i16x32 i16x32_sub(i16x32 a, int16_t b)
{
    return a - b;
}

/* Zeros come in from the left. */
LANES i16x32 i16x32_shift_right(i16x32 a, int n)
{
    return (i16x32)((u16x32)a >> (uint16_t)n);
}

/* Each byte of a, less b, modulo 256. */
LANES i16x32 bytes_sub(i16x32 a, uint8_t b)
{
    uint8_t bytes[64];
    memcpy(bytes, &a, sizeof bytes);
    for (int i = 0; i < 64; i++) {
        bytes[i] = (uint8_t)(bytes[i] - b);
    }
    return i16x32_load(bytes);
}

/* Of each byte of a, which is below 16, the one in that place of the table. */
LANES i16x32 bytes_lookup(const uint8_t *table, i16x32 a)
{
    uint8_t bytes[64];
    memcpy(bytes, &a, sizeof bytes);
    for (int i = 0; i < 64; i++) {
        bytes[i] = table[bytes[i]];
    }
    return i16x32_load(bytes);
}

/* sum[i] + a[2i] * b[2i] + a[2i + 1] * b[2i + 1], exact while it fits 32 bits. Lanes of 16 bits are taken from lanes of
 * 32: the even one by shifting up and down, which keeps its sign. */
LANES i32x16 i16x32_dot(i32x16 sum, i16x32 a, i16x32 b)
{
    i32x16 a_even = (i32x16)((u32x16)a << 16) >> 16, b_even = (i32x16)((u32x16)b << 16) >> 16;
    return sum + a_even * b_even + ((i32x16)a >> 16) * ((i32x16)b >> 16);
}

#endif
