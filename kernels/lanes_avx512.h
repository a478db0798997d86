/* The vectors of lanes_portable.h as one AVX-512 register each: needs F, BW, DQ, VL; VNNI where LANES_VNNI is defined.
 * See lanes_portable.h for what each operation means. */
#ifndef TROUPE_KERNELS_LANES_H
#define TROUPE_KERNELS_LANES_H

#include <immintrin.h>
#include <math.h>

#include "kernels/dtype.h"

#define LANES static inline __attribute__((always_inline, unused))

enum {
    LANES_TILE_TOKENS    = 8,
    LANES_FLOAT_ROWS     = 4,
    LANES_FLOAT_TOKENS   = 4,
    LANES_ATTENTION_ROWS = 8,
    LANES_MANY_REGISTERS = 1,
};

typedef struct {
    __m512 all;
} f32x16;
typedef struct {
    __m512i all;
} i32x16;
typedef struct {
    __m512i all;
} i16x32;
typedef struct {
    __mmask16 bits;
} mask16;

LANES f32x16 f32x16_set(float value)
{
    return (f32x16){_mm512_set1_ps(value)};
}

LANES f32x16 f32x16_load(const float *from)
{
    return (f32x16){_mm512_loadu_ps(from)};
}

LANES void f32x16_store(float *to, f32x16 a)
{
    _mm512_storeu_ps(to, a.all);
}

LANES f32x16 f32x16_load_f16(const uint16_t *from)
{
    return (f32x16){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from))};
}

LANES void f32x16_store_f16(uint16_t *to, f32x16 a)
{
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(a.all, _MM_FROUND_TO_NEAREST_INT));
}

LANES f32x16 f32x16_load_bf16(const uint16_t *from)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return (f32x16){_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_add_ps(a.all, b.all)};
}

LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_sub_ps(a.all, b.all)};
}

LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_mul_ps(a.all, b.all)};
}

LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_div_ps(a.all, b.all)};
}

LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    return (f32x16){_mm512_fmadd_ps(a.all, b.all, c.all)};
}

LANES f32x16 f32x16_max(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_max_ps(a.all, b.all)};
}

LANES f32x16 f32x16_min(f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_min_ps(a.all, b.all)};
}

LANES float f32x16_sum(f32x16 a)
{
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.all), _mm512_extractf32x8_ps(a.all, 1));
    __m128 four  = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two   = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

LANES float f32x16_largest(f32x16 a)
{
    __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.all), _mm512_extractf32x8_ps(a.all, 1));
    __m128 four  = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two   = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

LANES mask16 f32x16_less(f32x16 a, f32x16 b)
{
    return (mask16){_mm512_cmp_ps_mask(a.all, b.all, _CMP_LT_OQ)};
}

LANES mask16 f32x16_equal(f32x16 a, f32x16 b)
{
    return (mask16){_mm512_cmp_ps_mask(a.all, b.all, _CMP_EQ_OQ)};
}

LANES mask16 mask16_range(uint32_t first, uint32_t end)
{
    return (mask16){(__mmask16)(((1u << end) - 1) & ~((1u << first) - 1))};
}

LANES uint32_t mask16_bits(mask16 mask)
{
    return mask.bits;
}

LANES f32x16 f32x16_select(mask16 mask, f32x16 a, f32x16 b)
{
    return (f32x16){_mm512_mask_blend_ps(mask.bits, b.all, a.all)};
}

LANES f32x16 f32x16_abs(f32x16 a)
{
    return (f32x16){_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.all)};
}

LANES i32x16 i32x16_of_f32x16(f32x16 a)
{
    return (i32x16){_mm512_cvtps_epi32(a.all)};
}

LANES f32x16 f32x16_of_i32x16(i32x16 a)
{
    return (f32x16){_mm512_cvtepi32_ps(a.all)};
}

LANES f32x16 f32x16_times_power_of_2(f32x16 a, i32x16 exponent)
{
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a.all), _mm512_slli_epi32(exponent.all, 23));
    return (f32x16){_mm512_castsi512_ps(bits)};
}

LANES i32x16 i32x16_set(int32_t value)
{
    return (i32x16){_mm512_set1_epi32(value)};
}

LANES i32x16 i32x16_load(const int32_t *from)
{
    return (i32x16){_mm512_loadu_si512(from)};
}

LANES i32x16 i32x16_load_i8(const int8_t *from)
{
    return (i32x16){_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from))};
}

LANES i32x16 i32x16_and(i32x16 a, int32_t b)
{
    return (i32x16){_mm512_and_si512(a.all, _mm512_set1_epi32(b))};
}

LANES i32x16 i32x16_shift_right(i32x16 a, int n)
{
    return (i32x16){_mm512_srai_epi32(a.all, (unsigned)n)};
}

LANES i32x16 i32x16_shift_left(i32x16 a, int n)
{
    return (i32x16){_mm512_slli_epi32(a.all, (unsigned)n)};
}

LANES void i32x16_store_bytes(int8_t *to, i32x16 a)
{
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(a.all));
}

LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    return (i32x16){_mm512_add_epi32(a.all, b.all)};
}

LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    return (i32x16){_mm512_sub_epi32(a.all, b.all)};
}

LANES i32x16 i32x16_magnitude_bits(f32x16 a)
{
    return (i32x16){_mm512_castps_si512(f32x16_abs(a).all)};
}

LANES i32x16 i32x16_max(i32x16 a, i32x16 b)
{
    return (i32x16){_mm512_max_epi32(a.all, b.all)};
}

LANES int32_t i32x16_largest(i32x16 a)
{
    return _mm512_reduce_max_epi32(a.all);
}

LANES int32_t i32x16_sum(i32x16 a)
{
    return _mm512_reduce_add_epi32(a.all);
}

LANES __m256i evens_first(__m256i a)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7,
                                           8, 9, 12, 13, 10, 11, 14, 15);
    return _mm256_shuffle_epi8(a, order);
}

LANES void store_quants(int16_t *to, i32x16 first, i32x16 second)
{
    _mm256_storeu_si256((__m256i *)to, evens_first(_mm512_cvtepi32_epi16(first.all)));
    _mm256_storeu_si256((__m256i *)(to + 16), evens_first(_mm512_cvtepi32_epi16(second.all)));
}

LANES i16x32 i16x32_set_pair(const int16_t *a)
{
    int32_t pair;
    memcpy(&pair, a, 4);
    return (i16x32){_mm512_set1_epi32(pair)};
}

LANES i32x16 i16x32_dot(i32x16 sum, i16x32 a, i16x32 b)
{
#ifdef LANES_VNNI
    return (i32x16){_mm512_dpwssd_epi32(sum.all, a.all, b.all)};
#else
    __m512i added = _mm512_add_epi32(sum.all, _mm512_madd_epi16(a.all, b.all));
    __asm__("" : "+v"(added)); /* as in lanes_avx2.h */
    return (i32x16){added};
#endif
}

LANES i16x32 i16x32_load(const void *from)
{
    return (i16x32){_mm512_loadu_si512(from)};
}

LANES void i16x32_store(void *to, i16x32 a)
{
    _mm512_storeu_si512(to, a.all);
}

LANES i16x32 i16x32_and(i16x32 a, int16_t b)
{
    return (i16x32){_mm512_and_si512(a.all, _mm512_set1_epi16(b))};
}

LANES i16x32 i16x32_or(i16x32 a, i16x32 b)
{
    return (i16x32){_mm512_or_si512(a.all, b.all)};
}

LANES i16x32 i16x32_shift_left(i16x32 a, int n)
{
    return (i16x32){_mm512_slli_epi16(a.all, (unsigned)n)};
}

LANES i16x32 i16x32_sub(i16x32 a, int16_t b)
{
    return (i16x32){_mm512_sub_epi16(a.all, _mm512_set1_epi16(b))};
}

LANES i16x32 i16x32_shift_right(i16x32 a, int n)
{
    return (i16x32){_mm512_srli_epi16(a.all, (unsigned)n)};
}

LANES i16x32 bytes_sub(i16x32 a, uint8_t b)
{
    return (i16x32){_mm512_sub_epi8(a.all, _mm512_set1_epi8((char)b))};
}

LANES i16x32 bytes_lookup(const uint8_t *table, i16x32 a)
{
    __m128i once = _mm_loadu_si128((const __m128i *)table);
    return (i16x32){_mm512_shuffle_epi8(_mm512_broadcast_i32x4(once), a.all)};
}

#endif
