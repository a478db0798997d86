/* 16-bit floats: bits in memory, float32 in registers. A GPU converts by instructions, the host by kernels/dtype.h;
 * same rounding. */
#ifndef TROUPE_KERNELS_CUDA_NUMBER_CUH
#define TROUPE_KERNELS_CUDA_NUMBER_CUH

#include "kernels/dtype.h"

#include <cuda_runtime.h>
#ifndef KERN_CUDA_ON_HOST
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

struct f16 {
    uint16_t bits;
};

struct bf16 {
    uint16_t bits;
};

static __device__ __forceinline__ float to_float(float value)
{
    return value;
}

static __device__ __forceinline__ float to_float(bf16 value)
{
    return kern_float_of_bf16(value.bits);
}

static __device__ __forceinline__ float to_float(f16 value)
{
#ifdef KERN_CUDA_ON_HOST
    return kern_float_of_f16(value.bits);
#else
    return __half2float(__ushort_as_half(value.bits));
#endif
}

static __device__ __forceinline__ void from_float(float value, float *to)
{
    *to = value;
}

static __device__ __forceinline__ void from_float(float value, bf16 *to)
{
#ifdef KERN_CUDA_ON_HOST
    to->bits = kern_bf16_of_float(value);
#else
    to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
#endif
}

static __device__ __forceinline__ void from_float(float value, f16 *to)
{
#ifdef KERN_CUDA_ON_HOST
    to->bits = kern_f16_of_float(value);
#else
    to->bits = __half_as_ushort(__float2half_rn(value));
#endif
}

/* Four neighbours, loaded and widened at once. */
template <typename T> struct alignas(4 * sizeof(T)) four_of {
    T values[4];
};

template <typename T> static __device__ __forceinline__ float4 load_four(const T *address)
{
    four_of<T> four = *reinterpret_cast<const four_of<T> *>(address);
    return make_float4(to_float(four.values[0]), to_float(four.values[1]), to_float(four.values[2]),
                       to_float(four.values[3]));
}

#endif
