/* A quantised cache on a GPU (kernels/kv/kv_quant.h): codes [16 positions][dimensions], in 4 bits two a byte, the even
 * one in the low half; then scales [16 positions][groups] and, in 4 bits, mins alike, as float16. */
#ifndef TROUPE_KERNELS_KV_KV_QUANT_CUH
#define TROUPE_KERNELS_KV_KV_QUANT_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/number.cuh"
#include "kernels/kv/kv_quant.h"

/* Stand for the dtypes in templates, as float, f16 and bf16 do. */
struct q8_0 {
    static constexpr kern_dtype DTYPE = KERN_Q8_0;
};

struct q4_1 {
    static constexpr kern_dtype DTYPE = KERN_Q4_1;
};

/* Dimensions that are in memory for a head. */
static __device__ __host__ inline uint32_t kv_filled(uint32_t head_dim)
{
    return kv_n_groups(head_dim) * KV_GROUP;
}

template <typename T> static __device__ __host__ inline uint32_t kv_code_bytes(uint32_t head_dim)
{
    return kv_filled(head_dim) / (T::DTYPE == KERN_Q8_0 ? 1 : 2);
}

template <typename T>
static __device__ inline const uint16_t *kv_scale(const unsigned char *matrix, uint32_t head_dim, uint32_t place,
                                                  uint32_t group)
{
    return reinterpret_cast<const uint16_t *>(matrix + KERN_KV_BLOCK_TOKENS * kv_code_bytes<T>(head_dim)) +
           place * kv_n_groups(head_dim) + group;
}

/* Four neighbouring numbers of a position, from dimension d on, a multiple of 4. */
template <typename T> struct kv_reader {
    static __device__ __forceinline__ float4 four(const unsigned char *matrix, uint32_t head_dim, uint32_t place,
                                                  uint32_t d)
    {
        return load_four(reinterpret_cast<const T *>(matrix) + place * head_dim + d);
    }
};

template <> struct kv_reader<q8_0> {
    static __device__ __forceinline__ float4 four(const unsigned char *matrix, uint32_t head_dim, uint32_t place,
                                                  uint32_t d)
    {
        uint32_t codes = *reinterpret_cast<const uint32_t *>(matrix + place * kv_code_bytes<q8_0>(head_dim) + d);
        uint16_t scale = *kv_scale<q8_0>(matrix, head_dim, place, d / KV_GROUP);
        return make_float4(kv_value(KERN_Q8_0, codes & 255, scale, 0), kv_value(KERN_Q8_0, codes >> 8 & 255, scale, 0),
                           kv_value(KERN_Q8_0, codes >> 16 & 255, scale, 0),
                           kv_value(KERN_Q8_0, codes >> 24, scale, 0));
    }
};

template <> struct kv_reader<q4_1> {
    static __device__ __forceinline__ float4 four(const unsigned char *matrix, uint32_t head_dim, uint32_t place,
                                                  uint32_t d)
    {
        uint32_t codes = *reinterpret_cast<const uint16_t *>(matrix + place * kv_code_bytes<q4_1>(head_dim) + d / 2);
        const uint16_t *at    = kv_scale<q4_1>(matrix, head_dim, place, d / KV_GROUP);
        uint16_t        scale = *at, min = at[KERN_KV_BLOCK_TOKENS * kv_n_groups(head_dim)];
        return make_float4(
            kv_value(KERN_Q4_1, codes & 15, scale, min), kv_value(KERN_Q4_1, codes >> 4 & 15, scale, min),
            kv_value(KERN_Q4_1, codes >> 8 & 15, scale, min), kv_value(KERN_Q4_1, codes >> 12, scale, min));
    }
};

#endif
