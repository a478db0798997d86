/* Layer norm: one block of threads a row. Reads x three times (from L2 after the first) and writes it once: bound by
 * memory. A thread sums every BLOCK_THREADS-th column, then a butterfly adds the threads: the order depends on n_cols
 * alone. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void layernorm_rows(kern_layernorm_args a)
{
    SHARED(float, sums, WARP_LANES);
    SHARED(float, squares, WARP_LANES);
    const float *x   = a.x + (size_t)blockIdx.x * a.n_cols;
    float       *out = a.out + (size_t)blockIdx.x * a.n_cols;
    float        sum = 0.0f, square = 0.0f;
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        sum = __fadd_rn(sum, x[c]);
    float mean = block_sum(sum, sums) / (float)a.n_cols;
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        square = __fmaf_rn(x[c] - mean, x[c] - mean, square);
    float scale = 1.0f / sqrtf(block_sum(square, squares) / (float)a.n_cols + a.epsilon);
    for (uint32_t c = threadIdx.x; c < a.n_cols; c += BLOCK_THREADS)
        out[c] = __fmaf_rn((x[c] - mean) * scale, a.weight[c], a.bias[c]);
}

void cuda_layernorm(kern_device *device, const kern_layernorm_args *args)
{
    if (args->n_tokens > 0)
        LAUNCH(layernorm_rows, args->n_tokens, BLOCK_THREADS, 0, device->stream, *args);
}
