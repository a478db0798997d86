/* gemm and attention with the integer dot products of AVX-VNNI, for CPUs without AVX-512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

#define LANES_VNNI
#include "kernels/lanes_avx2.h"

#include "kernels/attention/attention_lanes.h"
#include "kernels/gemm/gemm_lanes.h"

void cpu_gemm_avx2_vnni(kern_device *device, const kern_gemm_args *args)
{
    cpu_gemm(device, args);
}

void cpu_attention_avx2_vnni(kern_device *device, const kern_attention_args *args)
{
    cpu_attention(device, args);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
