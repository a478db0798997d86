/* Soft cap of logits, element by element, in place. Bound by memory: 8 bytes an element. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void softcap_elements(float *x, uint64_t n, float cap)
{
    for (uint64_t i = (uint64_t)blockIdx.x * BLOCK_THREADS + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * BLOCK_THREADS)
        x[i] = cap * tanhf(x[i] / cap);
}

void cuda_softcap(kern_device *device, const kern_softcap_args *args)
{
    uint64_t n = (uint64_t)args->n_tokens * args->n_cols, n_blocks = (n + BLOCK_THREADS - 1) / BLOCK_THREADS;
    uint32_t grid = n_blocks < device->n_multiprocessors * 16 ? (uint32_t)n_blocks : device->n_multiprocessors * 16;
    if (n > 0)
        LAUNCH(softcap_elements, grid, BLOCK_THREADS, 0, device->stream, args->x, n, args->cap);
}
