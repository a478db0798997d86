#include <assert.h>
#include <string.h>

#include "kernels/dtype.h"
#include "kernels/kv/kv_cache.h"
#include "kernels/ref_device.h"

static void store(kern_dtype dtype, unsigned char *to, float value)
{
    uint16_t half = dtype == KERN_F16 ? kern_f16_of_float(value) : kern_bf16_of_float(value);
    if (dtype == KERN_F32) {
        memcpy(to, &value, 4);
    } else {
        memcpy(to, &half, 2);
    }
}

void ref_kv_write(kern_device *device, const kern_kv_write_args *args)
{
    (void)device;
    const host_kv_cache *cache = (const host_kv_cache *)args->cache;
    const kern_kv_shape *shape = &cache->shape;
    const float         *k = args->k, *v = args->v;
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        uint32_t block = args->slots[t] / KERN_KV_BLOCK_TOKENS, place = args->slots[t] % KERN_KV_BLOCK_TOKENS;
        assert(block < shape->n_blocks);
        for (uint32_t head = 0; head < shape->n_kv_heads; head++) {
            unsigned char *keys   = host_kv_keys(cache, args->layer, block, head);
            unsigned char *values = host_kv_values(cache, args->layer, block, head);
            if (kv_is_quantized(shape->dtype)) {
                host_kv_put_quantized(cache, keys, true, place, k);
                host_kv_put_quantized(cache, values, false, place, v);
                k += shape->head_dim;
                v += shape->head_dim;
                continue;
            }
            for (uint32_t d = 0; d < shape->head_dim; d++) {
                store(shape->dtype, keys + (d * KERN_KV_BLOCK_TOKENS + place) * cache->element_bytes, *k++);
                store(shape->dtype, values + (place * shape->head_dim + d) * cache->element_bytes, *v++);
            }
        }
    }
}
