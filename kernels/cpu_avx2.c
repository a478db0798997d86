/* The CPU backend for x86 with AVX2, FMA and F16C; cpu_avx2_vnni.c is what AVX-VNNI adds. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#include "kernels/lanes_avx2.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_avx2      = CPU_BACKEND(cpu_gemm, cpu_attention);
const kern_backend cpu_backend_avx2_vnni = CPU_BACKEND(cpu_gemm_avx2_vnni, cpu_attention_avx2_vnni);

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
