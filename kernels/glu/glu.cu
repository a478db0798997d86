/* Gated activations, element by element. Bound by memory: 12 bytes an element. */
#include "kernels/cuda/device.cuh"

enum { BLOCK_THREADS = 256 };

static __device__ float activate(kern_activation activation, float x)
{
    if (activation == KERN_ACT_SILU)
        return x / (1.0f + expf(-x));
    if (activation == KERN_ACT_GELU_ERF)
        return 0.5f * x * erfcf(-0.70710678118654752440f * x);
    /* Hendrycks and Gimpel 2016, arXiv 1606.08415: the tanh approximation, sqrt(2 / pi) = 0.79788456 */
    return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * x * (1.0f + 0.044715f * x * x)));
}

static __global__ void glu_elements(const float *gate, const float *up, float *out, uint64_t n,
                                    kern_activation activation)
{
    for (uint64_t i = (uint64_t)blockIdx.x * BLOCK_THREADS + threadIdx.x; i < n;
         i += (uint64_t)gridDim.x * BLOCK_THREADS)
        out[i] = activate(activation, gate[i]) * (up ? up[i] : 1.0f);
}

void cuda_glu(kern_device *device, const kern_glu_args *args)
{
    uint64_t n = (uint64_t)args->n_tokens * args->n_cols, n_blocks = (n + BLOCK_THREADS - 1) / BLOCK_THREADS;
    uint32_t grid = n_blocks < device->n_multiprocessors * 16 ? (uint32_t)n_blocks : device->n_multiprocessors * 16;
    if (n > 0)
        LAUNCH(glu_elements, grid, BLOCK_THREADS, 0, device->stream, args->gate, args->up, args->out, n,
               args->activation);
}
