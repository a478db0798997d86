/* Means of rows: one block of threads an output, a thread for every BLOCK_THREADS-th column. Bound by memory. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void pool_rows(kern_pool_args a)
{
    kern_rows    rows = a.rows[blockIdx.x];
    const float *x    = a.x + (size_t)rows.first * a.n_cols;
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS) {
        float sum = x[c];
        for (uint32_t r = 1; r < rows.n; r++)
            sum = __fadd_rn(sum, x[(size_t)r * a.n_cols + c]);
        a.out[(size_t)blockIdx.x * a.n_cols + c] = sum / (float)rows.n;
    }
}

void cuda_pool(kern_device *device, const kern_pool_args *args)
{
    if (args->n_outputs > 0)
        LAUNCH(pool_rows, args->n_outputs, BLOCK_THREADS, 0, device->stream, *args);
}
