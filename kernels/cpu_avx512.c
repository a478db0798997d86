/* The CPU backend for x86 with AVX-512 F, BW, DQ and VL; cpu_avx512_vnni.c is what VNNI adds, gemm/gemm_avx512_amx.c
 * what AMX does. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))),              \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define LANES_WIDE_TILES
#include "kernels/lanes_avx512.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_avx512      = CPU_BACKEND(cpu_gemm, cpu_attention);
const kern_backend cpu_backend_avx512_vnni = CPU_BACKEND(cpu_gemm_avx512_vnni, cpu_attention_avx512_vnni);
const kern_backend cpu_backend_avx512_amx  = CPU_BACKEND(cpu_gemm_avx512_amx, cpu_attention_avx512_vnni);

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
