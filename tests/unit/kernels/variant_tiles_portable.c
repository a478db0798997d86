#include "modelled_variants.h"

#define LANES_TILES "tiles_model.h"
#include "kernels/lanes_portable.h"

#include "kernels/gemm/gemm_tiles.h"

static void gemm(kern_device *device, const kern_gemm_args *args)
{
    if (!gemm_over_tiles(device, args)) {
        cpu_backend_portable.gemm(device, args);
    }
}

const kern_backend *tiles_over_portable(void)
{
    static kern_backend backend;
    backend      = cpu_backend_portable;
    backend.gemm = gemm;
    return &backend;
}
