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
} view;

static float read(const view *v, const unsigned char *matrix, uint32_t index)
{
    float value;
    kern_dequantize(v->cache->shape.dtype, matrix + index * v->cache->element_bytes, &value, 1);
    return value;
}

static double score(const view *v, const float *q, uint32_t j)
{
    const unsigned char *keys = host_kv_keys(v->cache, v->args->layer, v->table[j / KERN_KV_BLOCK_TOKENS], v->kv_head);
    double               dot  = 0;
    for (uint32_t d = 0; d < v->cache->shape.head_dim; d++) {
        dot += (double)q[d] * read(v, keys, d * KERN_KV_BLOCK_TOKENS + j % KERN_KV_BLOCK_TOKENS);
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
            sums[d] += p * read(v, values, j % KERN_KV_BLOCK_TOKENS * head_dim + d);
        }
    }
    for (uint32_t d = 0; d < head_dim; d++) {
        out[d] = (float)(sums[d] / total);
    }
}

void ref_attention(kern_device *device, const kern_attention_args *args)
{
    const host_kv_cache *cache    = (const host_kv_cache *)args->cache;
    uint32_t             head_dim = cache->shape.head_dim, group = args->n_heads / cache->shape.n_kv_heads;
    for (uint32_t s = 0; s < args->n_sequences; s++) {
        const kern_sequence *sequence = &args->sequences[s];
        double *scores = ref_scratch(device, (sequence->position + sequence->n_q + head_dim) * sizeof(double));
        for (uint32_t i = 0; i < sequence->n_q * args->n_heads; i++) {
            uint32_t row  = args->bidirectional ? sequence->n_q - 1 : i / args->n_heads;
            uint32_t last = sequence->position + row, head = i % args->n_heads;
            uint32_t first = args->window && last + 1 > args->window ? last + 1 - args->window : 0;
            size_t   at    = ((size_t)sequence->q_start * args->n_heads + i) * head_dim;
            view     v     = {args, cache, args->block_tables + sequence->table_start, head / group};
            attend(&v, args->q + at, args->out + at, first, last, scores, scores + last + 1);
        }
    }
}
