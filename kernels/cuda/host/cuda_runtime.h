/* CUDA without a GPU: what the .cu files use of the CUDA runtime, for a host C++17 compiler.
 *
 * The same sources that nvcc compiles for a GPU are compiled by the host's compiler with this folder in front of the
 * include path. Every CUDA thread of a block is a fiber (kernels/cuda/host/fibers.cpp); __syncthreads, __syncwarp and
 * the shuffles are the places where fibers change. What it finds that a GPU may hide: reads of shared memory that
 * nobody wrote (each block's is poisoned), missing barriers (the order of warps is drawn from TROUPE_CUDA_HOST_SEED),
 * barriers that not every thread reaches, and, under AddressSanitizer, every access out of bounds, shared memory
 * included. What it cannot find: races between blocks, and the rounding of real tensor cores. Blocks run one after
 * another on the calling thread. */
#ifndef TROUPE_KERNELS_CUDA_HOST_CUDA_RUNTIME_H
#define TROUPE_KERNELS_CUDA_HOST_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERN_CUDA_ON_HOST 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

/* ---- vector types ------------------------------------------------------------------------------------------------ */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct uint3 {
    unsigned x, y, z;
};

struct alignas(8) float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

struct alignas(8) int2 {
    int x, y;
};

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* Of the fiber that runs now. */
extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3  blockDim, gridDim;

/* Runs a kernel: body is called once a thread. Returns when all blocks have run. */
void host_launch(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*body)(void *context), void *context);

/* Shared memory of the running block that belongs to one place in the source: the same for all of its threads. */
void *host_shared(const char *file, int line, size_t bytes);
void *host_shared_dynamic();

/* Waits for all threads of the block. */
void host_block_barrier(const char *file, int line);

/* All 32 lanes of a warp give `bytes` each and meet; returns what the lanes gave, one after another in lane order.
 * Valid until the lane's next but one meeting. */
const void *host_warp_meet(const char *file, int line, unsigned mask, const void *give, size_t bytes);

#define __syncthreads() host_block_barrier(__FILE__, __LINE__)
#define __syncwarp() host_warp_meet(__FILE__, __LINE__, 0xffffffffu, "", 1)
#define __shfl_sync(mask, value, lane) host_shuffle(__FILE__, __LINE__, mask, value, (unsigned)(lane)&31u)
#define __shfl_xor_sync(mask, value, bits)                                                                             \
    host_shuffle(__FILE__, __LINE__, mask, value, (threadIdx.x & 31u) ^ (unsigned)(bits))
#define __ballot_sync(mask, predicate) host_ballot(__FILE__, __LINE__, mask, (predicate) != 0)

template <typename T>
static inline T host_shuffle(const char *file, int line, unsigned mask, T value, unsigned from_lane)
{
    return static_cast<const T *>(host_warp_meet(file, line, mask, &value, sizeof value))[from_lane];
}

static inline unsigned host_ballot(const char *file, int line, unsigned mask, bool predicate)
{
    const bool *votes = static_cast<const bool *>(host_warp_meet(file, line, mask, &predicate, sizeof predicate));
    unsigned    bits  = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        bits |= (unsigned)votes[lane] << lane;
    return bits;
}

/* One operating-system thread runs all fibers, so plain arithmetic is atomic. */
template <typename T> static inline T atomicAdd(T *to, T value)
{
    T old = *to;
    *to   = old + value;
    return old;
}

template <typename T> static inline T atomicMax(T *to, T value)
{
    T old = *to;
    if (value > old)
        *to = value;
    return old;
}

template <typename T> static inline T atomicMin(T *to, T value)
{
    T old = *to;
    if (value < old)
        *to = value;
    return old;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)(((uint64_t)a * b) >> 32);
}

static inline int __float2int_rn(float value)
{
    return (int)nearbyintf(value);
}

template <typename T> static inline T __ldg(const T *address)
{
    return *address;
}

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

typedef enum {
    cudaSuccess               = 0,
    cudaErrorInvalidValue     = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNoDevice         = 100
} cudaError_t;
typedef enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice } cudaMemcpyKind;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };

typedef struct host_stream *cudaStream_t;
typedef struct host_event  *cudaEvent_t;

struct cudaDeviceProp {
    char name[256];
    int  multiProcessorCount, major, minor;
};

cudaError_t cudaGetDeviceCount(int *n_devices);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);

/* Shared memory is bounded at the launch (host_launch). */
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <typename T> static inline cudaError_t cudaFuncSetAttribute(T *, int, int)
{
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

#endif
