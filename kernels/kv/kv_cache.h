/* The KV cache of the CPU and reference backends.
 *
 * Layer, then block, then KV head: keys [head_dim][16 positions], so that a vector holds one dimension of a block's 16
 * keys, then values [16 positions][head_dim]. */
#ifndef TROUPE_KERNELS_KV_KV_CACHE_H
#define TROUPE_KERNELS_KV_KV_CACHE_H

#include "kernels/backend.h"

typedef struct {
    kern_kv_shape shape;
    size_t element_bytes, head_bytes, block_bytes, layer_bytes; /* one head's keys and values; one block's of a layer */
    unsigned char *data;
} host_kv_cache;

kern_kv_cache *host_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why);
void           host_kv_cache_free(kern_device *device, kern_kv_cache *cache);
void           host_kv_copy(kern_device *device, const kern_kv_copy_args *args);

/* Keys of one (layer, block, KV head), [head_dim][16]; its values, [16][head_dim], follow. */
static inline unsigned char *host_kv_keys(const host_kv_cache *cache, uint32_t layer, uint32_t block, uint32_t head)
{
    return cache->data + cache->layer_bytes * layer + cache->block_bytes * block + cache->head_bytes * head;
}

static inline unsigned char *host_kv_values(const host_kv_cache *cache, uint32_t layer, uint32_t block, uint32_t head)
{
    return host_kv_keys(cache, layer, block, head) + cache->head_bytes / 2;
}

#endif
