/* What the three lanes_*.h share: the ends of rows, and loops that must vanish. */
#ifndef TROUPE_KERNELS_LANES_PARTIAL_H
#define TROUPE_KERNELS_LANES_PARTIAL_H

#ifndef TROUPE_KERNELS_LANES_H
#error "include a lanes_*.h first"
#endif

/* Before a loop over sums that live in registers. Plain C has no such registers. */
#if defined(LANES_PORTABLE)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The first n < 16 lanes; the others are 0. */
LANES f32x16 f32x16_load_first(const float *from, uint32_t n)
{
    float lanes[16] = {0};
    memcpy(lanes, from, n * sizeof(float));
    return f32x16_load(lanes);
}

LANES void f32x16_store_first(float *to, f32x16 a, uint32_t n)
{
    float lanes[16];
    f32x16_store(lanes, a);
    memcpy(to, lanes, n * sizeof(float));
}

#endif
