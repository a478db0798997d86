/* The paged cache on a GPU: [n_blocks][n_layers][k, v][n_kv_heads][KERN_KV_BLOCK_TOKENS][head_dim].
 *
 * A block with all its layers is contiguous, so a copy is one sweep; a head's 16 keys are contiguous, so attention
 * reads whole cache lines. Both operators are bound by memory. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/number.cuh"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_THREADS = 256, COPY_PAIRS_MAX = 64, HEAD_DIM_MAX = 256 };

static uint32_t element_bytes(kern_dtype dtype)
{
    return dtype == KERN_F32 ? 4 : 2;
}

static size_t block_bytes(const kern_kv_shape *shape)
{
    return (size_t)shape->n_layers * 2 * shape->n_kv_heads * KERN_KV_BLOCK_TOKENS * shape->head_dim *
           element_bytes(shape->dtype);
}

kern_kv_cache *cuda_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why)
{
    if (dtype_is_quantized(shape->dtype)) {
        cuda_refuse(why, "the KV cache is of F32, F16 or BF16, not of type %d", (int)shape->dtype);
        return NULL;
    }
    if (shape->head_dim == 0 || shape->head_dim % 4 != 0 || shape->head_dim > HEAD_DIM_MAX) {
        cuda_refuse(why, "heads of %u dimensions; CUDA attention takes multiples of 4 up to %d", shape->head_dim,
                    HEAD_DIM_MAX);
        return NULL;
    }
    if (shape->n_layers == 0 || shape->n_blocks == 0 || shape->n_kv_heads == 0) {
        cuda_refuse(why, "a KV cache needs at least one layer, block and head");
        return NULL;
    }
    kern_kv_cache *cache = static_cast<kern_kv_cache *>(calloc(1, sizeof *cache));
    size_t         bytes = block_bytes(shape) * shape->n_blocks;
    if (cache)
        cache->memory = cuda_allocate(bytes);
    if (!cache || !cache->memory) {
        cuda_refuse(why, "no %zu bytes of GPU memory for a KV cache of %u blocks", bytes, shape->n_blocks);
        free(cache);
        return NULL;
    }
    cache->shape = *shape;
    CUDA_MUST(cudaMemsetAsync(cache->memory, 0, bytes, device->stream));
    return cache;
}

void cuda_kv_cache_free(kern_device *device, kern_kv_cache *cache)
{
    CUDA_MUST(cudaStreamSynchronize(device->stream));
    CUDA_MUST(cudaFree(cache->memory));
    free(cache);
}

template <typename T> static __global__ void write_rows(kern_kv_shape shape, void *memory, kern_kv_write_args a)
{
    uint32_t     token = blockIdx.x, values = blockIdx.y, slot = a.slots[token];
    uint32_t     n_row = shape.n_kv_heads * shape.head_dim;
    const float *from  = (values ? a.v : a.k) + (size_t)token * n_row;
    size_t       plane = ((size_t)(slot / KERN_KV_BLOCK_TOKENS) * shape.n_layers + a.layer) * 2 + values;
    T           *to    = static_cast<T *>(memory) + plane * n_row * KERN_KV_BLOCK_TOKENS;
    for (uint32_t i = threadIdx.x; i < n_row; i += BLOCK_THREADS) {
        uint32_t head = i / shape.head_dim, d = i % shape.head_dim;
        from_float(from[i],
                   to + ((size_t)head * KERN_KV_BLOCK_TOKENS + slot % KERN_KV_BLOCK_TOKENS) * shape.head_dim + d);
    }
}

void cuda_kv_write(kern_device *device, const kern_kv_write_args *args)
{
    kern_kv_cache *cache = args->cache;
    auto          *entry = cache->shape.dtype == KERN_F32   ? write_rows<float>
                           : cache->shape.dtype == KERN_F16 ? write_rows<f16>
                                                            : write_rows<bf16>;
    if (args->n_tokens > 0)
        LAUNCH(entry, dim3(args->n_tokens, 2), BLOCK_THREADS, 0, device->stream, cache->shape, cache->memory, *args);
}

struct copy_pairs {
    uint32_t from[COPY_PAIRS_MAX], to[COPY_PAIRS_MAX];
};

static __global__ void copy_blocks(unsigned char *memory, uint64_t n_words, copy_pairs pairs)
{
    const uint2 *from = reinterpret_cast<const uint2 *>(memory) + pairs.from[blockIdx.y] * n_words;
    uint2       *to   = reinterpret_cast<uint2 *>(memory) + pairs.to[blockIdx.y] * n_words;
    for (uint64_t i = (uint64_t)blockIdx.x * BLOCK_THREADS + threadIdx.x; i < n_words;
         i += (uint64_t)gridDim.x * BLOCK_THREADS)
        to[i] = from[i];
}

void cuda_kv_copy(kern_device *device, const kern_kv_copy_args *args)
{
    /* head_dim is a multiple of 4, so a block is of whole 8-byte words */
    uint64_t n_words = block_bytes(&args->cache->shape) / sizeof(uint2),
             n_wide  = (n_words + BLOCK_THREADS - 1) / BLOCK_THREADS;
    for (uint32_t done = 0; done < args->n_blocks;) {
        copy_pairs pairs;
        uint32_t   n = args->n_blocks - done < COPY_PAIRS_MAX ? args->n_blocks - done : (uint32_t)COPY_PAIRS_MAX;
        memset(&pairs, 0, sizeof pairs);
        memcpy(pairs.from, args->host_from + done, n * sizeof(uint32_t));
        memcpy(pairs.to, args->host_to + done, n * sizeof(uint32_t));
        dim3 grid(n_wide < 256 ? (uint32_t)n_wide : 256, n);
        LAUNCH(copy_blocks, grid, BLOCK_THREADS, 0, device->stream, args->cache->memory, n_words, pairs);
        done += n;
    }
}
