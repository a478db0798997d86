/* The CPU backend for x86 with AVX-512 and its integer dot products (VNNI). */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))),   \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#define LANES_WIDE_TILES
#define LANES_VNNI
#include "kernels/lanes_avx512.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_avx512_vnni = CPU_BACKEND;

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
