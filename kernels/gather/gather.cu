/* Copies chosen rows: one block of threads a row. Bound by memory. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void gather_rows(kern_gather_args a)
{
    const float *from = a.x + (size_t)a.rows[blockIdx.x] * a.n_cols;
    float       *to   = a.out + (size_t)blockIdx.x * a.n_cols;
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        to[c] = from[c];
}

void cuda_gather(kern_device *device, const kern_gather_args *args)
{
    if (args->n_rows > 0)
        LAUNCH(gather_rows, args->n_rows, BLOCK_THREADS, 0, device->stream, *args);
}
