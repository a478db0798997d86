/* The CPU backend for x86 with AVX2 and its integer dot products (AVX-VNNI): CPUs without AVX-512. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

#define LANES_VNNI
#include "kernels/lanes_avx2.h"

#include "kernels/cpu_operators.h"

const kern_backend cpu_backend_avx2_vnni = CPU_BACKEND;

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
