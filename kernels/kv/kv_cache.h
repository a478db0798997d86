/* The KV cache of the CPU and reference backends.
 *
 * Layer, then block, then KV head: keys, then values. As floats: keys [head_dim][16 positions], so that a vector holds
 * one dimension of a block's 16 keys; values [16 positions][head_dim].
 *
 * Quantised (kernels/kv/kv_quant.h): codes, then scales [groups][16 positions] and, in 4 bits, mins alike, as float16.
 * Words of 32 bits feed dot products of 16-bit integers: a word of keys has 4 or 8 dimensions of a position, a word of
 * values 4 positions of one dimension, or of two that are 16 apart. */
#ifndef TROUPE_KERNELS_KV_KV_CACHE_H
#define TROUPE_KERNELS_KV_KV_CACHE_H

#include "kernels/backend.h"
#include "kernels/kv/kv_quant.h"

enum { HOST_KV_WORDS_BYTES = 64 }; /* 16 words: of 16 positions, or of 16 dimensions */

typedef struct {
    kern_kv_shape shape;
    size_t element_bytes, head_bytes, block_bytes, layer_bytes; /* one head's keys and values; one block's of a layer */
    size_t code_bytes;                                          /* quantised: of one head's keys or values */
    unsigned char *data;
} host_kv_cache;

kern_kv_cache *host_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why);
void           host_kv_cache_free(kern_device *device, kern_kv_cache *cache);
void           host_kv_copy(kern_device *device, const kern_kv_copy_args *args);
void           host_kv_block(kern_device *device, const kern_kv_block_args *args);

/* Keys of one (layer, block, KV head); its values follow. */
static inline unsigned char *host_kv_keys(const host_kv_cache *cache, uint32_t layer, uint32_t block, uint32_t head)
{
    return cache->data + cache->layer_bytes * layer + cache->block_bytes * block + cache->head_bytes * head;
}

static inline unsigned char *host_kv_values(const host_kv_cache *cache, uint32_t layer, uint32_t block, uint32_t head)
{
    return host_kv_keys(cache, layer, block, head) + cache->head_bytes / 2;
}

/* Where the code of one dimension of one position stands in quantised keys: a byte, or a half of it, from bit `shift`.
 */
typedef struct {
    uint32_t byte, shift;
} host_kv_place;

static inline host_kv_place host_kv_key_place(kern_dtype dtype, uint32_t place, uint32_t d)
{
    if (dtype == KERN_Q8_0) {
        return (host_kv_place){d / 4 * HOST_KV_WORDS_BYTES + place * 4 + d % 4, 0};
    }
    uint32_t pair = d % 8 / 2, byte = (pair & 1) << 1 | pair >> 1; /* 0, 2, 1, 3 */
    return (host_kv_place){d / 8 * HOST_KV_WORDS_BYTES + place * 4 + byte, d % 2 * 4};
}

static inline host_kv_place host_kv_value_place(kern_dtype dtype, uint32_t n_groups, uint32_t place, uint32_t d)
{
    if (dtype == KERN_Q8_0) {
        return (host_kv_place){(place / 4 * 2 * n_groups + d / 16) * HOST_KV_WORDS_BYTES + d % 16 * 4 + place % 4, 0};
    }
    return (host_kv_place){(place / 4 * n_groups + d / 32) * HOST_KV_WORDS_BYTES + d % 16 * 4 + place % 4,
                           d % 32 / 16 * 4};
}

/* Scales of a group of quantised keys or values, [16 positions]; those of the next group follow, then all mins. */
static inline uint16_t *host_kv_scales(const host_kv_cache *cache, const unsigned char *matrix, uint32_t group)
{
    return (uint16_t *)(matrix + cache->code_bytes) + group * KERN_KV_BLOCK_TOKENS;
}

static inline uint16_t *host_kv_mins(const host_kv_cache *cache, const unsigned char *matrix, uint32_t group)
{
    return host_kv_scales(cache, matrix, kv_n_groups(cache->shape.head_dim) + group);
}

/* Quantises a head [head_dim] of one position into keys, which are rotated, or values. Writes no bit of another
 * position. */
void host_kv_put_quantized(const host_kv_cache *cache, unsigned char *matrix, bool is_keys, uint32_t place,
                           const float *from);

/* A number as it was stored: of rotated keys, d counts to the filled-up head's end. */
float host_kv_get_quantized(const host_kv_cache *cache, const unsigned char *matrix, bool is_keys, uint32_t place,
                            uint32_t d);

#endif
