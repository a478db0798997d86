#include "kernels/kv/kv_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu_device.h"

/* 0 when the product is more than a size can say. */
static size_t cache_bytes(const kern_kv_shape *shape)
{
    const uint32_t factors[] = {2 * KERN_KV_BLOCK_TOKENS, kern_dtype_block_bytes(shape->dtype),
                                shape->n_layers,          shape->n_blocks,
                                shape->n_kv_heads,        shape->head_dim};
    size_t         bytes     = 1;
    for (uint32_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        if (__builtin_mul_overflow(bytes, (size_t)factors[i], &bytes)) {
            return 0;
        }
    }
    return bytes;
}

kern_kv_cache *host_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why)
{
    if (shape->dtype != KERN_F32 && shape->dtype != KERN_F16 && shape->dtype != KERN_BF16) {
        snprintf(why, KERN_WHY_BYTES, "a KV cache of %s: expected F32, F16 or BF16", kern_dtype_name(shape->dtype));
        return NULL;
    }
    if (shape->n_layers == 0 || shape->n_blocks == 0 || shape->n_kv_heads == 0 || shape->head_dim == 0) {
        snprintf(why, KERN_WHY_BYTES, "a KV cache of %u layers, %u blocks, %u heads of %u: expected positive numbers",
                 shape->n_layers, shape->n_blocks, shape->n_kv_heads, shape->head_dim);
        return NULL;
    }
    host_kv_cache *cache = malloc(sizeof *cache);
    size_t         bytes = cache_bytes(shape);
    if (cache && bytes) {
        *cache             = (host_kv_cache){.shape = *shape, .element_bytes = kern_dtype_block_bytes(shape->dtype)};
        cache->head_bytes  = (size_t)2 * KERN_KV_BLOCK_TOKENS * shape->head_dim * cache->element_bytes;
        cache->block_bytes = cache->head_bytes * shape->n_kv_heads;
        cache->layer_bytes = cache->block_bytes * shape->n_blocks;
        /* Vectors may read up to 15 elements past the last value. */
        cache->data = host_alloc(device, bytes + 16 * sizeof(float));
    }
    if (!cache || !bytes || !cache->data) {
        free(cache);
        snprintf(why, KERN_WHY_BYTES, "not enough memory for a KV cache of %u blocks of %zu bytes", shape->n_blocks,
                 kern_kv_block_bytes(shape));
        return NULL;
    }
    return (kern_kv_cache *)cache;
}

void host_kv_cache_free(kern_device *device, kern_kv_cache *cache)
{
    host_free(device, ((host_kv_cache *)cache)->data);
    free(cache);
}

void host_kv_copy(kern_device *device, const kern_kv_copy_args *args)
{
    (void)device;
    const host_kv_cache *cache = (const host_kv_cache *)args->cache;
    for (uint32_t layer = 0; layer < cache->shape.n_layers; layer++) {
        for (uint32_t i = 0; i < args->n_blocks; i++) {
            memcpy(host_kv_keys(cache, layer, args->host_to[i], 0), host_kv_keys(cache, layer, args->host_from[i], 0),
                   cache->block_bytes);
        }
    }
}
