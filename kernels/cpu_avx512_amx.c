/* The CPU backend for x86 with AVX-512, VNNI, and AMX tiles for the matrix products of larger batches. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8"))),          \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")
#endif

#define LANES_WIDE_TILES
#define LANES_VNNI
#define LANES_TILES "kernels/gemm/tiles_amx.h"
#include "kernels/lanes_avx512.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_avx512_amx = CPU_BACKEND;

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
