/* What every .cu file begins with: launching, shared memory, and the few warp operations that all kernels use.
 *
 * The files compile as CUDA by nvcc and as C++17 by the host's compiler (kernels/cuda/host/cuda_runtime.h), so the
 * three things that C++ has no syntax for are macros: a launch, a piece of shared memory, an unrolled loop. */
#ifndef TROUPE_KERNELS_CUDA_LAUNCH_CUH
#define TROUPE_KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* Prints what failed and aborts. For errors after which a GPU context is of no use: the process is restarted by its
 * supervisor. */
#define CUDA_MUST(call) cuda_must((call), #call, __FILE__, __LINE__)
void cuda_must(cudaError_t status, const char *call, const char *file, int line);

#ifdef KERN_CUDA_ON_HOST
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    do {                                                                                                               \
        (void)(stream);                                                                                                \
        auto launch_body = [&]() { kernel(__VA_ARGS__); };                                                             \
        host_launch(                                                                                                   \
            grid, block, shared_bytes, [](void *body) { (*static_cast<decltype(launch_body) *>(body))(); },            \
            &launch_body);                                                                                             \
    } while (0)
#define SHARED(type, name, count)                                                                                      \
    type *const name = static_cast<type *>(host_shared(__FILE__, __LINE__, (count) * sizeof(type)))
#define SHARED_DYNAMIC(type, name) type *const name = static_cast<type *>(host_shared_dynamic())
#define UNROLL
#define UNROLL_BY_2
#else
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    do {                                                                                                               \
        kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);                                                    \
        CUDA_MUST(cudaGetLastError());                                                                                 \
    } while (0)
#define SHARED(type, name, count) __shared__ type name[count]
#define SHARED_DYNAMIC(type, name)                                                                                     \
    extern __shared__ uint4 dynamic_shared_memory[];                                                                   \
    type *const             name = reinterpret_cast<type *>(dynamic_shared_memory)
#define UNROLL _Pragma("unroll")
#define UNROLL_BY_2 _Pragma("unroll 2")
#endif

enum { WARP_LANES = 32 };

static inline uint32_t divide_up(uint32_t value, uint32_t by)
{
    return (value + by - 1) / by;
}

/* Sum and maximum over a warp by a butterfly: the same tree, so the same bits, in every lane and at every call. */
static __device__ inline float warp_sum(float value)
{
    UNROLL for (int bits = 16; bits > 0; bits /= 2) value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

static __device__ inline float warp_max(float value)
{
    UNROLL for (int bits = 16; bits > 0; bits /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

/* Sum over a block of at most 1024 threads, the same in every thread. scratch: 32 values of shared memory that no
 * thread still reads. */
static __device__ inline float block_sum(float value, float *scratch)
{
    uint32_t lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES, n_warps = blockDim.x / WARP_LANES;
    value = warp_sum(value);
    if (lane == 0)
        scratch[warp] = value;
    __syncthreads();
    return warp_sum(lane < n_warps ? scratch[lane] : 0.0f);
}

#endif
