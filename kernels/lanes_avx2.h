/* The vectors of lanes_portable.h as two AVX registers each: needs AVX2, FMA, F16C; AVX-VNNI where LANES_VNNI is
 * defined. See there for what each operation means. */
#ifndef TROUPE_KERNELS_LANES_H
#define TROUPE_KERNELS_LANES_H

#include <immintrin.h>
#include <math.h>

#include "kernels/dtype.h"

#define LANES static inline __attribute__((always_inline, unused))

enum {
    LANES_TILE_TOKENS    = 4,
    LANES_FLOAT_ROWS     = 2,
    LANES_FLOAT_TOKENS   = 2,
    LANES_ATTENTION_ROWS = 4,
    LANES_MANY_REGISTERS = 0,
};

typedef struct {
    __m256 low, high;
} f32x16;
typedef struct {
    __m256i low, high;
} i32x16;
typedef struct {
    __m256i low, high;
} i16x32;
typedef struct {
    __m256 low, high;
} mask16;

#define BOTH(type, f, a, ...) ((type){f((a).low, ##__VA_ARGS__), f((a).high, ##__VA_ARGS__)})
#define BOTH_2(type, f, a, b) ((type){f((a).low, (b).low), f((a).high, (b).high)})

LANES f32x16 f32x16_set(float value)
{
    return (f32x16){_mm256_set1_ps(value), _mm256_set1_ps(value)};
}

LANES f32x16 f32x16_load(const float *from)
{
    return (f32x16){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}

LANES void f32x16_store(float *to, f32x16 a)
{
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
}

LANES f32x16 f32x16_load_f16(const uint16_t *from)
{
    return (f32x16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)),
                    _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)))};
}

LANES void f32x16_store_f16(uint16_t *to, f32x16 a)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(to + 8), _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}

LANES __m256 load_bf16(const uint16_t *from)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

LANES f32x16 f32x16_load_bf16(const uint16_t *from)
{
    return (f32x16){load_bf16(from), load_bf16(from + 8)};
}

LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_add_ps, a, b);
}

LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_sub_ps, a, b);
}

LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_mul_ps, a, b);
}

LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_div_ps, a, b);
}

LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    return (f32x16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

LANES f32x16 f32x16_max(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_max_ps, a, b);
}

LANES f32x16 f32x16_min(f32x16 a, f32x16 b)
{
    return BOTH_2(f32x16, _mm256_min_ps, a, b);
}

LANES float f32x16_sum(f32x16 a)
{
    __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four  = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two   = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

LANES float f32x16_largest(f32x16 a)
{
    __m256 eight = _mm256_max_ps(a.low, a.high);
    __m128 four  = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two   = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

LANES mask16 f32x16_less(f32x16 a, f32x16 b)
{
    return (mask16){_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)};
}

LANES mask16 f32x16_equal(f32x16 a, f32x16 b)
{
    return (mask16){_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ)};
}

LANES __m256 mask_range(int first, int end)
{
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), place),
                                                   _mm256_cmpgt_epi32(_mm256_set1_epi32(end), place)));
}

LANES mask16 mask16_range(uint32_t first, uint32_t end)
{
    return (mask16){mask_range((int)first, (int)end), mask_range((int)first - 8, (int)end - 8)};
}

LANES uint32_t mask16_bits(mask16 mask)
{
    return (uint32_t)_mm256_movemask_ps(mask.low) | (uint32_t)_mm256_movemask_ps(mask.high) << 8;
}

LANES f32x16 f32x16_select(mask16 mask, f32x16 a, f32x16 b)
{
    return (f32x16){_mm256_blendv_ps(b.low, a.low, mask.low), _mm256_blendv_ps(b.high, a.high, mask.high)};
}

LANES f32x16 f32x16_abs(f32x16 a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (f32x16){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

LANES i32x16 i32x16_of_f32x16(f32x16 a)
{
    return BOTH(i32x16, _mm256_cvtps_epi32, a);
}

LANES f32x16 f32x16_of_i32x16(i32x16 a)
{
    return BOTH(f32x16, _mm256_cvtepi32_ps, a);
}

LANES __m256 times_power_of_2(__m256 a, __m256i exponent)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(exponent, 23)));
}

LANES f32x16 f32x16_times_power_of_2(f32x16 a, i32x16 exponent)
{
    return BOTH_2(f32x16, times_power_of_2, a, exponent);
}

LANES i32x16 i32x16_set(int32_t value)
{
    return (i32x16){_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}

LANES i32x16 i32x16_load(const int32_t *from)
{
    const __m256i *p = (const __m256i *)from;
    return (i32x16){_mm256_loadu_si256(p), _mm256_loadu_si256(p + 1)};
}

LANES i32x16 i32x16_load_i8(const int8_t *from)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    return (i32x16){_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}

LANES i32x16 i32x16_and(i32x16 a, int32_t b)
{
    __m256i all = _mm256_set1_epi32(b);
    return (i32x16){_mm256_and_si256(a.low, all), _mm256_and_si256(a.high, all)};
}

LANES i32x16 i32x16_shift_right(i32x16 a, int n)
{
    return BOTH(i32x16, _mm256_srai_epi32, a, n);
}

LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    return BOTH_2(i32x16, _mm256_add_epi32, a, b);
}

LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    return BOTH_2(i32x16, _mm256_sub_epi32, a, b);
}

LANES i32x16 i32x16_magnitude_bits(f32x16 a)
{
    f32x16 magnitude = f32x16_abs(a);
    return BOTH(i32x16, _mm256_castps_si256, magnitude);
}

LANES i32x16 i32x16_max(i32x16 a, i32x16 b)
{
    return BOTH_2(i32x16, _mm256_max_epi32, a, b);
}

LANES int32_t i32x16_largest(i32x16 a)
{
    __m256i eight = _mm256_max_epi32(a.low, a.high);
    __m128i four  = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two   = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

LANES int32_t i32x16_sum(i32x16 a)
{
    __m256i eight = _mm256_add_epi32(a.low, a.high);
    __m128i four  = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two   = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

LANES void store_16_quants(int16_t *to, i32x16 a)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7,
                                           8, 9, 12, 13, 10, 11, 14, 15);
    __m256i       whole = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8);
    _mm256_storeu_si256((__m256i *)to, _mm256_shuffle_epi8(whole, order));
}

LANES void store_quants(int16_t *to, i32x16 first, i32x16 second)
{
    store_16_quants(to, first);
    store_16_quants(to + 16, second);
}

LANES i16x32 i16x32_load(const void *from)
{
    const __m256i *p = from;
    return (i16x32){_mm256_loadu_si256(p), _mm256_loadu_si256(p + 1)};
}

LANES i16x32 i16x32_set_pair(const int16_t *a)
{
    int32_t pair;
    memcpy(&pair, a, 4);
    __m256i all = _mm256_set1_epi32(pair);
    return (i16x32){all, all};
}

LANES i16x32 i16x32_and(i16x32 a, int16_t b)
{
    __m256i all = _mm256_set1_epi16(b);
    return (i16x32){_mm256_and_si256(a.low, all), _mm256_and_si256(a.high, all)};
}

LANES i16x32 i16x32_or(i16x32 a, i16x32 b)
{
    return BOTH_2(i16x32, _mm256_or_si256, a, b);
}

LANES i16x32 i16x32_shift_left(i16x32 a, int n)
{
    return BOTH(i16x32, _mm256_slli_epi16, a, n);
}

LANES void i16x32_store(void *to, i16x32 a)
{
    _mm256_storeu_si256(to, a.low);
    _mm256_storeu_si256((__m256i *)to + 1, a.high);
}

LANES i16x32 i16x32_sub(i16x32 a, int16_t b)
{
    __m256i all = _mm256_set1_epi16(b);
    return (i16x32){_mm256_sub_epi16(a.low, all), _mm256_sub_epi16(a.high, all)};
}

LANES i16x32 i16x32_shift_right(i16x32 a, int n)
{
    return BOTH(i16x32, _mm256_srli_epi16, a, n);
}

LANES i16x32 bytes_lookup(const uint8_t *table, i16x32 a)
{
    __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (i16x32){_mm256_shuffle_epi8(twice, a.low), _mm256_shuffle_epi8(twice, a.high)};
}

/* The empty asm keeps GCC from regrouping the sums of a whole block as a tree, which runs out of registers. */
LANES i32x16 i16x32_dot(i32x16 sum, i16x32 a, i16x32 b)
{
#ifdef LANES_VNNI
    return (i32x16){_mm256_dpwssd_avx_epi32(sum.low, a.low, b.low), _mm256_dpwssd_avx_epi32(sum.high, a.high, b.high)};
#else
    __m256i low  = _mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, b.low));
    __m256i high = _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, b.high));
    __asm__("" : "+x"(low), "+x"(high));
    return (i32x16){low, high};
#endif
}

#endif
