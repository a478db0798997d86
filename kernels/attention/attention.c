#include <assert.h>
#include <math.h>

#include "kernels/kv/kv_cache.h"
#include "kernels/ref_device.h"

/* What one row reads: its sequence's blocks, in one layer and KV head. */
typedef struct {
    const kern_attention_args *args;
    const host_kv_cache       *cache;
    const uint32_t            *table;
    uint32_t                   kv_head;
    bool                       is_quantized;
    uint32_t                   n_query_dims; /* of quantised keys, those that fill up the last group too */
} view;

static float read(const view *v, const unsigned char *matrix, uint32_t index)
{
    float value;
    kern_dequantize(v->cache->shape.dtype, matrix + index * v->cache->element_bytes, &value, 1);
    return value;
}

static float read_key(const view *v, const unsigned char *keys, uint32_t place, uint32_t d)
{
    return v->is_quantized ? host_kv_get_quantized(v->cache, keys, true, place, d)
                           : read(v, keys, d * KERN_KV_BLOCK_TOKENS + place);
}

static float read_value(const view *v, const unsigned char *values, uint32_t place, uint32_t d)
{
    return v->is_quantized ? host_kv_get_quantized(v->cache, values, false, place, d)
                           : read(v, values, place * v->cache->shape.head_dim + d);
}

static double score(const view *v, const float *q, uint32_t j)
{
    const unsigned char *keys = host_kv_keys(v->cache, v->args->layer, v->table[j / KERN_KV_BLOCK_TOKENS], v->kv_head);
    double               dot  = 0;
    for (uint32_t d = 0; d < v->n_query_dims; d++) {
        dot += (double)q[d] * read_key(v, keys, j % KERN_KV_BLOCK_TOKENS, d);
    }
    double softcap = v->args->softcap;
    dot *= v->args->scale;
    return softcap > 0 ? softcap * tanh(dot / softcap) : dot;
}

/* Softmax in two passes over the keys [first, last]. */
static void attend(const view *v, const float *q, float *out, uint32_t first, uint32_t last, double *scores,
                   double *sums)
{
    uint32_t head_dim = v->cache->shape.head_dim;
    double   largest = -INFINITY, total = 0;
    for (uint32_t j = first; j <= last; j++) {
        scores[j] = score(v, q, j);
        largest   = fmax(largest, scores[j]);
    }
    for (uint32_t d = 0; d < head_dim; d++) {
        sums[d] = 0;
    }
    for (uint32_t j = first; j <= last; j++) {
        const unsigned char *values =
            host_kv_values(v->cache, v->args->layer, v->table[j / KERN_KV_BLOCK_TOKENS], v->kv_head);
        double p = exp(scores[j] - largest);
        total += p;
        for (uint32_t d = 0; d < head_dim; d++) {
            sums[d] += p * read_value(v, values, j % KERN_KV_BLOCK_TOKENS, d);
        }
    }
    for (uint32_t d = 0; d < head_dim; d++) {
        out[d] = (float)(sums[d] / total);
    }
}

/* The query, rotated as the keys are. */
static const float *rotated(const float *q, uint32_t head_dim, float *out)
{
    uint32_t filled = kv_n_groups(head_dim) * KV_GROUP, width = kv_rotation_width(head_dim);
    for (uint32_t d = 0; d < filled; d++) {
        out[d] = d < head_dim ? q[d] : 0;
    }
    kv_rotate(out, filled, width, kv_query_factor(width));
    return out;
}

void ref_attention(kern_device *device, const kern_attention_args *args)
{
    const host_kv_cache *cache    = (const host_kv_cache *)args->cache;
    uint32_t             head_dim = cache->shape.head_dim, group = args->n_heads / cache->shape.n_kv_heads;
    bool                 is_quantized = kv_is_quantized(cache->shape.dtype);
    uint32_t             n_query_dims = is_quantized ? kv_n_groups(head_dim) * KV_GROUP : head_dim;
    float                query[KV_GROUP * KV_GROUPS_MAX];
    for (uint32_t s = 0; s < args->n_sequences; s++) {
        const kern_sequence *sequence = &args->sequences[s];
        double *scores = ref_scratch(device, (sequence->position + sequence->n_q + head_dim) * sizeof(double));
        for (uint32_t i = 0; i < sequence->n_q * args->n_heads; i++) {
            uint32_t     row  = args->bidirectional ? sequence->n_q - 1 : i / args->n_heads;
            uint32_t     last = sequence->position + row, head = i % args->n_heads;
            uint32_t     first = args->window && last + 1 > args->window ? last + 1 - args->window : 0;
            size_t       at    = ((size_t)sequence->q_start * args->n_heads + i) * head_dim;
            view         v     = {args,         cache,        args->block_tables + sequence->table_start,
                                  head / group, is_quantized, n_query_dims};
            const float *q     = is_quantized ? rotated(args->q + at, head_dim, query) : args->q + at;
            attend(&v, q, args->out + at, first, last, scores, scores + last + 1);
        }
    }
}
