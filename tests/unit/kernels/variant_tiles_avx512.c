#include "modelled_variants.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")

#define LANES_TILES "tiles_model.h"
#include "kernels/lanes_avx512.h"

#include "kernels/gemm/gemm_tiles.h"

static void gemm(kern_device *device, const kern_gemm_args *args)
{
    if (!gemm_over_tiles(device, args)) {
        cpu_backend_avx512.gemm(device, args);
    }
}

const kern_backend *tiles_over_avx512(void)
{
    static kern_backend backend;
    backend      = cpu_backend_avx512;
    backend.gemm = gemm;
    return &backend;
}
#endif
