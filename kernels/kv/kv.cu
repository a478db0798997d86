/* The paged cache on a GPU: [n_blocks][n_layers][k, v][n_kv_heads][KERN_KV_BLOCK_TOKENS][head_dim], or of a quantised
 * cache what kernels/kv/kv_quant.cuh says for each head.
 *
 * A block with all its layers is contiguous, so a copy is one sweep; a head's 16 keys are contiguous, so attention
 * reads whole cache lines. Both operators are bound by memory. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/number.cuh"
#include "kernels/kv/kv_quant.cuh"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_THREADS = 256, COPY_PAIRS_MAX = 64, HEAD_DIM_MAX = 256, GROUPS_MAX = HEAD_DIM_MAX / KV_GROUP };

static size_t block_bytes(const kern_kv_shape *shape)
{
    return shape->n_layers * 2 * shape->n_kv_heads * kv_matrix_bytes(shape->dtype, shape->head_dim);
}

kern_kv_cache *cuda_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why)
{
    if (dtype_is_quantized(shape->dtype) && !kv_is_quantized(shape->dtype)) {
        cuda_refuse(why, "the KV cache is of F32, F16, BF16, Q8_0 or Q4_1, not of %s", kern_formats[shape->dtype].name);
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

/* kv_rotate on a warp: lane i of x[g] is dimension 32 g + i. Lanes exchange the bits that tell dimensions of a group
 * apart, registers the others. */
static __device__ void rotate_head(float (&x)[GROUPS_MAX], uint32_t width)
{
    uint32_t lane = threadIdx.x % WARP_LANES;
    for (uint32_t apart = 1; apart < WARP_LANES; apart *= 2)
        UNROLL for (uint32_t g = 0; g < GROUPS_MAX; g++)
        {
            float other = __shfl_xor_sync(0xffffffffu, x[g], apart);
            x[g]        = lane & apart ? other - x[g] : x[g] + other;
        }
    UNROLL for (uint32_t apart = 1; apart < GROUPS_MAX; apart *= 2) if (apart * WARP_LANES < width)
        UNROLL for (uint32_t g = 0; g < GROUPS_MAX; g++) if (!(g & apart))
    {
        float a = x[g], b = x[g + apart];
        x[g]         = a + b;
        x[g + apart] = a - b;
    }
    UNROLL for (uint32_t g = 0; g < GROUPS_MAX; g++) x[g] *= kv_key_factor(width);
}

/* A warp's 32 numbers, of which those of lanes that don't count are zero, become a group of a position. */
template <typename T>
static __device__ void put_group(unsigned char *matrix, uint32_t head_dim, uint32_t place, uint32_t group, float x,
                                 bool counts)
{
    uint32_t  lane = threadIdx.x % WARP_LANES, d = group * KV_GROUP + lane;
    bool      broken = __ballot_sync(0xffffffffu, !(fabsf(x) < INFINITY)) != 0;
    float     lowest = -warp_max(counts ? -x : -INFINITY), highest = warp_max(counts ? x : -INFINITY);
    float     largest = broken ? INFINITY : warp_max(fabsf(x));
    kv_coding coding  = kv_coding_of(T::DTYPE, lowest, highest, largest);
    uint32_t  code = counts ? kv_code(&coding, x) : 0, neighbour = __shfl_xor_sync(0xffffffffu, code, 1);
    auto     *codes = matrix + place * kv_code_bytes<T>(head_dim);
    if (T::DTYPE == KERN_Q8_0)
        codes[d] = (unsigned char)code;
    else if (lane % 2 == 0)
        codes[d / 2] = (unsigned char)(code | neighbour << 4);
    if (lane == 0) {
        auto *at = const_cast<uint16_t *>(kv_scale<T>(matrix, head_dim, place, group));
        *at      = coding.scale;
        if (T::DTYPE == KERN_Q4_1)
            at[KERN_KV_BLOCK_TOKENS * kv_n_groups(head_dim)] = coding.min;
    }
}

/* A warp a head. */
template <typename T>
static __global__ void write_quantized(kern_kv_shape shape, size_t matrix_bytes, unsigned char *memory,
                                       kern_kv_write_args a)
{
    uint32_t     token = blockIdx.x, values = blockIdx.y, slot = a.slots[token], lane = threadIdx.x % WARP_LANES;
    const float *from  = (values ? a.v : a.k) + (size_t)token * shape.n_kv_heads * shape.head_dim;
    size_t       plane = ((size_t)(slot / KERN_KV_BLOCK_TOKENS) * shape.n_layers + a.layer) * 2 + values;
    for (uint32_t head = threadIdx.x / WARP_LANES; head < shape.n_kv_heads; head += BLOCK_THREADS / WARP_LANES) {
        unsigned char *matrix = memory + (plane * shape.n_kv_heads + head) * matrix_bytes;
        float          x[GROUPS_MAX];
        UNROLL for (uint32_t g = 0; g < GROUPS_MAX; g++)
        {
            uint32_t d = g * KV_GROUP + lane;
            x[g]       = d < shape.head_dim ? from[head * shape.head_dim + d] : 0.0f;
        }
        if (!values)
            rotate_head(x, kv_rotation_width(shape.head_dim));
        UNROLL for (uint32_t g = 0; g < GROUPS_MAX; g++) if (g * KV_GROUP < shape.head_dim)
            put_group<T>(matrix, shape.head_dim, slot % KERN_KV_BLOCK_TOKENS, g, x[g],
                         !values || g * KV_GROUP + lane < shape.head_dim);
    }
}

void cuda_kv_write(kern_device *device, const kern_kv_write_args *args)
{
    kern_kv_cache *cache = args->cache;
    if (args->n_tokens == 0)
        return;
    dim3 grid(args->n_tokens, 2);
    if (kv_is_quantized(cache->shape.dtype)) {
        auto *entry = cache->shape.dtype == KERN_Q8_0 ? write_quantized<q8_0> : write_quantized<q4_1>;
        LAUNCH(entry, grid, BLOCK_THREADS, 0, device->stream, cache->shape,
               kv_matrix_bytes(cache->shape.dtype, cache->shape.head_dim), cache->memory, *args);
        return;
    }
    auto *entry = cache->shape.dtype == KERN_F32   ? write_rows<float>
                  : cache->shape.dtype == KERN_F16 ? write_rows<f16>
                                                   : write_rows<bf16>;
    LAUNCH(entry, grid, BLOCK_THREADS, 0, device->stream, cache->shape, cache->memory, *args);
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
    /* head_dim is a multiple of 4, and a group of 16 positions takes 320 or 544 bytes: whole 8-byte words */
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

void cuda_kv_block(kern_device *device, const kern_kv_block_args *args)
{
    size_t         bytes = block_bytes(&args->cache->shape);
    unsigned char *here  = args->cache->memory + args->block * bytes;
    if (args->into_cache)
        cuda_upload(device, here, args->host, bytes);
    else
        cuda_download(device, args->host, here, bytes);
}
