#include "kernels/kv/kv_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu_device.h"

/* 0 when the product is more than a size can say. */
static size_t cache_bytes(const kern_kv_shape *shape)
{
    const size_t factors[] = {2, kv_matrix_bytes(shape->dtype, shape->head_dim), shape->n_layers, shape->n_blocks,
                              shape->n_kv_heads};
    size_t       bytes     = 1;
    for (uint32_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        if (__builtin_mul_overflow(bytes, factors[i], &bytes)) {
            return 0;
        }
    }
    return bytes;
}

static bool has_dtype(const kern_kv_shape *shape, char *why)
{
    bool quantized = kv_is_quantized(shape->dtype);
    if (!quantized && shape->dtype != KERN_F32 && shape->dtype != KERN_F16 && shape->dtype != KERN_BF16) {
        snprintf(why, KERN_WHY_BYTES, "a KV cache of %s: expected F32, F16, BF16, Q8_0 or Q4_1",
                 kern_dtype_name(shape->dtype));
        return false;
    }
    if (quantized && shape->head_dim > KV_GROUP * KV_GROUPS_MAX) {
        snprintf(why, KERN_WHY_BYTES, "a KV cache of %s with heads of %u dimensions: at most %u",
                 kern_dtype_name(shape->dtype), shape->head_dim, KV_GROUP * KV_GROUPS_MAX);
        return false;
    }
    return true;
}

kern_kv_cache *host_kv_cache_new(kern_device *device, const kern_kv_shape *shape, char *why)
{
    if (!has_dtype(shape, why)) {
        return NULL;
    }
    if (shape->n_layers == 0 || shape->n_blocks == 0 || shape->n_kv_heads == 0 || shape->head_dim == 0) {
        snprintf(why, KERN_WHY_BYTES, "a KV cache of %u layers, %u blocks, %u heads of %u: expected positive numbers",
                 shape->n_layers, shape->n_blocks, shape->n_kv_heads, shape->head_dim);
        return NULL;
    }
    host_kv_cache *cache = calloc(1, sizeof *cache);
    size_t         bytes = cache_bytes(shape);
    if (cache && bytes) {
        *cache            = (host_kv_cache){.shape = *shape, .element_bytes = kern_dtype_block_bytes(shape->dtype)};
        cache->head_bytes = 2 * kv_matrix_bytes(shape->dtype, shape->head_dim);
        cache->code_bytes = (size_t)kv_n_groups(shape->head_dim) * KV_GROUP * KERN_KV_BLOCK_TOKENS /
                            (shape->dtype == KERN_Q8_0 ? 1 : 2);
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

void host_kv_block(kern_device *device, const kern_kv_block_args *args)
{
    (void)device;
    const host_kv_cache *cache = (const host_kv_cache *)args->cache;
    for (uint32_t layer = 0; layer < cache->shape.n_layers; layer++) {
        unsigned char *here = host_kv_keys(cache, layer, args->block, 0);
        unsigned char *host = (unsigned char *)args->host + layer * cache->block_bytes;
        memcpy(args->into_cache ? here : host, args->into_cache ? host : here, cache->block_bytes);
    }
}

static void put_code(kern_dtype dtype, unsigned char *matrix, host_kv_place at, uint8_t code)
{
    unsigned char *byte = matrix + at.byte;
    *byte               = dtype == KERN_Q8_0 ? code : (unsigned char)((*byte & 0xf0 >> at.shift) | code << at.shift);
}

void host_kv_put_quantized(const host_kv_cache *cache, unsigned char *matrix, bool is_keys, uint32_t place,
                           const float *from)
{
    const kern_dtype dtype    = cache->shape.dtype;
    const uint32_t   head_dim = cache->shape.head_dim, n_groups = kv_n_groups(head_dim), filled = n_groups * KV_GROUP;
    float            x[KV_GROUP * KV_GROUPS_MAX];
    memcpy(x, from, head_dim * sizeof *x);
    memset(x + head_dim, 0, (filled - head_dim) * sizeof *x);
    if (is_keys) {
        uint32_t width = kv_rotation_width(head_dim);
        kv_rotate(x, filled, width, kv_key_factor(width));
    }
    for (uint32_t g = 0; g < n_groups; g++) {
        kv_group group;
        uint32_t first = g * KV_GROUP, n = is_keys || head_dim - first > KV_GROUP ? KV_GROUP : head_dim - first;
        kv_quantize(dtype, x + first, n, &group);
        for (uint32_t i = 0; i < KV_GROUP; i++) {
            put_code(dtype, matrix,
                     is_keys ? host_kv_key_place(dtype, place, first + i)
                             : host_kv_value_place(dtype, n_groups, place, first + i),
                     group.codes[i]);
        }
        host_kv_scales(cache, matrix, g)[place] = group.scale;
        if (dtype == KERN_Q4_1) {
            host_kv_mins(cache, matrix, g)[place] = group.min;
        }
    }
}

float host_kv_get_quantized(const host_kv_cache *cache, const unsigned char *matrix, bool is_keys, uint32_t place,
                            uint32_t d)
{
    const kern_dtype dtype    = cache->shape.dtype;
    const uint32_t   n_groups = kv_n_groups(cache->shape.head_dim), g = d / KV_GROUP;
    host_kv_place    at = is_keys ? host_kv_key_place(dtype, place, d) : host_kv_value_place(dtype, n_groups, place, d);
    uint32_t         code = dtype == KERN_Q8_0 ? matrix[at.byte] : matrix[at.byte] >> at.shift & 15;
    return kv_value(dtype, code, host_kv_scales(cache, matrix, g)[place],
                    dtype == KERN_Q4_1 ? host_kv_mins(cache, matrix, g)[place] : 0);
}
