#include "modelled_variants.h"

#define LANES_TILES "tiles_model.h"
#include "kernels/lanes_portable.h"

#include "kernels/gemm/gemm_lanes.h"

const kern_backend *tiles_over_portable(void)
{
    static kern_backend backend;
    backend      = cpu_backend_portable;
    backend.gemm = cpu_gemm;
    return &backend;
}
