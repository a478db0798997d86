/* RMS normalisation: one block of threads a row. Reads x twice (the second time from L2) and writes it once: bound by
 * memory. A thread sums every BLOCK_THREADS-th column, then a butterfly adds the threads: the order depends on n_cols
 * alone. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void rmsnorm_rows(kern_rmsnorm_args a)
{
    SHARED(float, scratch, WARP_LANES);
    const float *x   = a.x + (size_t)blockIdx.x * a.row_stride;
    float       *out = a.out + (size_t)blockIdx.x * a.row_stride;
    float        sum = 0.0f;
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        sum = __fmaf_rn(x[c], x[c], sum);
    sum         = block_sum(sum, scratch);
    float scale = 1.0f / sqrtf(sum / (float)a.n_cols + a.epsilon);
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        out[c] = x[c] * scale * a.weight[c] + (a.accumulate ? out[c] : 0.0f);
}

void cuda_rmsnorm(kern_device *device, const kern_rmsnorm_args *args)
{
    if (args->n_tokens > 0)
        LAUNCH(rmsnorm_rows, args->n_tokens, BLOCK_THREADS, 0, device->stream, *args);
}
