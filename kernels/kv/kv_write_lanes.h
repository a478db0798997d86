/* Writes keys and values into the cache: two passes over 2 n_kv_heads head_dim numbers a token; keys are scattered by
 * dimension. */
#include <assert.h>

#include "kernels/cpu_device.h"
#include "kernels/kv/kv_cache.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

typedef struct {
    const kern_kv_write_args *args;
    const host_kv_cache      *cache;
} kv_write_job;

/* Converts n <= 16 numbers to the cache's dtype: `stride` elements apart in `to`. */
LANES void kv_store(kern_dtype dtype, void *to, uint32_t stride, const float *from, uint32_t n)
{
    if (dtype == KERN_F32) {
        for (uint32_t i = 0; i < n; i++) {
            ((float *)to)[i * stride] = from[i];
        }
        return;
    }
    uint16_t halves[16];
    if (dtype == KERN_F16) {
        f32x16_store_f16(halves, n == 16 ? f32x16_load(from) : f32x16_load_first(from, n));
    } else {
        for (uint32_t i = 0; i < n; i++) {
            halves[i] = kern_bf16_of_float(from[i]);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        ((uint16_t *)to)[i * stride] = halves[i];
    }
}

static void kv_write_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kv_write_job       *job      = argument;
    const kern_kv_write_args *args     = job->args;
    const host_kv_cache      *cache    = job->cache;
    const uint32_t            head_dim = cache->shape.head_dim, block = args->slots[token] / KERN_KV_BLOCK_TOKENS,
                   place = args->slots[token] % KERN_KV_BLOCK_TOKENS;
    assert(block < cache->shape.n_blocks && args->layer < cache->shape.n_layers);
    for (uint32_t head = 0; head < cache->shape.n_kv_heads; head++) {
        size_t         from   = ((size_t)token * cache->shape.n_kv_heads + head) * head_dim;
        unsigned char *keys   = host_kv_keys(cache, args->layer, block, head);
        unsigned char *values = host_kv_values(cache, args->layer, block, head);
        if (kv_is_quantized(cache->shape.dtype)) {
            host_kv_put_quantized(cache, keys, true, place, args->k + from);
            host_kv_put_quantized(cache, values, false, place, args->v + from);
            continue;
        }
        keys += place * cache->element_bytes;
        values += place * head_dim * cache->element_bytes;
        for (uint32_t d = 0; d < head_dim; d += 16) {
            uint32_t n = head_dim - d < 16 ? head_dim - d : 16;
            kv_store(cache->shape.dtype, keys + d * KERN_KV_BLOCK_TOKENS * cache->element_bytes, KERN_KV_BLOCK_TOKENS,
                     args->k + from + d, n);
            kv_store(cache->shape.dtype, values + d * cache->element_bytes, 1, args->v + from + d, n);
        }
    }
}

static void cpu_kv_write(kern_device *device, const kern_kv_write_args *args)
{
    kv_write_job job = {.args = args, .cache = (const host_kv_cache *)args->cache};
    cpu_run((cpu_device *)device, kv_write_slice, &job, args->n_tokens,
            (uint64_t)args->n_tokens * job.cache->shape.n_kv_heads * job.cache->shape.head_dim);
}
