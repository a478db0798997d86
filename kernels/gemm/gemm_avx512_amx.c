/* gemm over the tiles of AMX; where vectors do better, with VNNI. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8"))),                     \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-int8")
#endif

#define LANES_TILES "kernels/gemm/tiles_amx.h"
#include "kernels/lanes_avx512.h"

#include "kernels/gemm/gemm_tiles.h"

void cpu_gemm_avx512_amx(kern_device *device, const kern_gemm_args *args)
{
    if (!gemm_over_tiles(device, args)) {
        cpu_gemm_avx512_vnni(device, args);
    }
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
