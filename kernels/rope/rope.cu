/* Rotary positions: one thread a pair, in place. Bound by memory: 8 bytes read and written a pair. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __global__ void rope_pairs(kern_rope_args a)
{
    uint32_t n_pairs = a.rope_dim / 2, n_row_pairs = a.n_heads * n_pairs, token = blockIdx.x;
    uint32_t i = blockIdx.y * BLOCK_THREADS + threadIdx.x;
    if (i >= n_row_pairs)
        return;
    uint32_t     head = i / n_pairs, pair = i % n_pairs;
    float       *x        = a.x + ((size_t)token * a.n_heads + head) * a.head_dim;
    float       *first    = x + (a.pairs == KERN_ROPE_ADJACENT ? 2 * pair : pair);
    float       *second   = x + (a.pairs == KERN_ROPE_ADJACENT ? 2 * pair + 1 : pair + n_pairs);
    const float *rotation = a.cos_sin + ((size_t)token * n_pairs + pair) * 2;
    float        from = *first, to = *second;
    *first  = from * rotation[0] - to * rotation[1];
    *second = from * rotation[1] + to * rotation[0];
}

void cuda_rope(kern_device *device, const kern_rope_args *args)
{
    dim3 grid(args->n_tokens, divide_up(args->n_heads * args->rope_dim / 2, BLOCK_THREADS));
    if (args->n_tokens > 0)
        LAUNCH(rope_pairs, grid, BLOCK_THREADS, 0, device->stream, *args);
}
