/* The forward pass: for each layer
 *
 *     x += O attention(rope(Q norm(x)), rope(K norm(x)), V norm(x))          (Vaswani et al. 2017, arXiv 1706.03762;
 *     x += Down (silu(Gate norm(x)) * Up norm(x))                             Touvron et al. 2023, arXiv 2302.13971)
 *
 * on all rows of a ragged batch at once, then the logits of the rows that are wanted, and the pooled output of
 * sequences. model_config says what a model has beside it: norms of queries and keys and of what is added to x,
 * windows, layers without rope, GELU, scales, soft caps. An encoder (Devlin et al. 2018, arXiv 1810.04805) also has
 * embeddings of positions and token types, no gate, and norms of x itself behind each addition. Where the added parts
 * are multiplied by residual_scale, x stands for the stream divided by it: norms undo that, with an epsilon divided by
 * its square. All memory is taken in forward_new. */
#include "model/model.h"

#include "model/weights.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_BYTES = 64 };

/* Device memory of activations; T tokens, R logit rows, S sequences, all float32. */
typedef struct {
    float *x;         /* [T][n_embd] the residual stream */
    float *normed;    /* [T][n_embd] */
    float *q, *k, *v; /* [T][n_q], [T][n_kv] twice */
    float *attention; /* [T][n_q] */
    float *gate, *up; /* [T][n_ff] */
    float *logit_x;   /* [R][n_embd] rows of x whose logits are wanted */
    float *logits;    /* [R][n_vocab] */
    float *pooled;    /* [S][n_embd] */
    float *dense;     /* [S][n_embd] what labels are computed from */
    float *scores;    /* [S][n_labels] */
} activations;

/* A step's small arrays: packed on the host one behind the other, uploaded in one copy. These are device addresses. */
typedef struct {
    const uint32_t      *tokens, *slots, *block_tables, *logit_rows;
    const kern_sequence *sequences;
    const float         *cos_sin; /* [n_ropes][T][rope_dim / 2][2] */
    const uint32_t      *positions, *types;
    const kern_rows     *pooled;
} step_arrays;

struct forward {
    const model   *m;
    forward_limits limits;
    activations    a;
    char          *memory; /* device: the activations, then the step's arrays */
    size_t         memory_bytes;
    char          *device_step; /* device: where the step's arrays begin */
    char          *host_step;   /* host: the same bytes */
    size_t         step_bytes_max;
    double        *frequencies; /* [n_ropes][rope_dim / 2] angle a position */
    float          stream_epsilon;
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Gives every activation its place; with memory == NULL it only counts. Returns the bytes. */
static size_t plan(activations *a, char *memory, const model_config *c, const forward_limits *limits)
{
    size_t n_tokens = limits->n_tokens_max, n_rows = c->encoder ? 0 : limits->n_logit_rows_max;
    size_t n_q = (size_t)c->n_heads * c->head_dim, n_kv = (size_t)c->n_kv_heads * c->head_dim;
    size_t n_pooled = limits->pooling ? limits->n_sequences_max : 0, n_scored = c->n_labels ? n_pooled : 0;
    const struct {
        float **place;
        size_t  n_floats;
    } parts[] = {
        {&a->x, n_tokens * c->n_embd},
        {&a->normed, n_tokens * c->n_embd},
        {&a->q, n_tokens * n_q},
        {&a->k, n_tokens * n_kv},
        {&a->v, n_tokens * n_kv},
        {&a->attention, n_tokens * n_q},
        {&a->gate, n_tokens * c->n_ff},
        {&a->up, n_tokens * c->n_ff},
        {&a->logit_x, n_rows * c->n_embd},
        {&a->logits, n_rows * c->n_vocab},
        {&a->pooled, n_pooled * c->n_embd},
        {&a->dense, n_scored * c->n_embd},
        {&a->scores, n_scored * c->n_labels},
    };
    size_t bytes = 0;
    for (size_t i = 0; i < COUNT(parts); i++) {
        if (memory)
            *parts[i].place = (float *)(memory + bytes);
        bytes += aligned(parts[i].n_floats * sizeof(float));
    }
    return bytes;
}

static size_t step_bytes(const model_config *c, const forward_limits *limits)
{
    return aligned(limits->n_tokens_max * sizeof(uint32_t)) * 2 +
           aligned(limits->n_sequences_max * sizeof(kern_sequence)) +
           aligned(limits->n_table_entries_max * sizeof(uint32_t)) +
           aligned(limits->n_logit_rows_max * sizeof(uint32_t)) +
           aligned(limits->n_tokens_max * sizeof(uint32_t)) * (c->learned_positions + (c->n_types > 0)) +
           aligned(limits->n_sequences_max * sizeof(kern_rows)) +
           aligned((size_t)c->n_ropes * limits->n_tokens_max * c->rope_dim * sizeof(float));
}

static bool reserve_scratch(const model *m, const forward_limits *limits, error *err)
{
    const model_config *c      = &m->config;
    uint32_t            n_q    = c->n_heads * c->head_dim;
    uint32_t            n_cols = c->n_embd > c->n_ff ? c->n_embd : c->n_ff;
    kern_limits         needed = {
                .n_tokens = limits->n_tokens_max > limits->n_logit_rows_max ? limits->n_tokens_max : limits->n_logit_rows_max,
                .n_cols        = n_cols > n_q ? n_cols : n_q,
                .n_sequences   = limits->n_sequences_max,
                .n_heads       = c->n_heads,
                .head_dim      = c->head_dim,
                .n_vocab       = c->n_vocab,
                .n_sample_rows = c->encoder ? 0 : limits->n_logit_rows_max,
    };
    char why[KERN_WHY_BYTES] = "";
    return kern_reserve(m->device, &needed, why) ||
           error_set(err, ERR_NO_MEMORY, "scratch memory for steps of %u tokens: %s", limits->n_tokens_max, why);
}

forward *forward_new(const model *m, const forward_limits *limits, error *err)
{
    const model_config *c = &m->config;
    assert(limits->n_tokens_max > 0 && limits->n_sequences_max > 0);
    if (!reserve_scratch(m, limits, err))
        return NULL;
    forward *f = calloc(1, sizeof *f);
    if (!f) {
        error_set(err, ERR_NO_MEMORY, "no memory for a forward pass");
        return NULL;
    }
    size_t activation_bytes = plan(&f->a, NULL, c, limits);
    f->m                    = m;
    f->limits               = *limits;
    f->step_bytes_max       = step_bytes(c, limits);
    f->memory_bytes         = activation_bytes + f->step_bytes_max;
    f->memory               = kern_alloc(m->device, f->memory_bytes);
    f->host_step            = malloc(f->step_bytes_max);
    f->frequencies          = malloc((c->n_ropes * c->rope_dim / 2 + 1) * sizeof(double));
    f->stream_epsilon       = c->rms_epsilon / (c->residual_scale * c->residual_scale);
    if (!f->memory || !f->host_step || !f->frequencies) {
        error_set(err, ERR_NO_MEMORY,
                  "%zu bytes for the activations of %u tokens a step: the device has not enough memory",
                  f->memory_bytes, limits->n_tokens_max);
        forward_free(&f);
        return NULL;
    }
    plan(&f->a, f->memory, c, limits);
    f->device_step       = f->memory + activation_bytes;
    uint32_t n_positions = limits->n_positions_max ? limits->n_positions_max : c->n_ctx_train;
    for (uint32_t i = 0; i < c->n_ropes; i++)
        rope_frequencies(&c->ropes[i], c->rope_dim, n_positions, f->frequencies + i * (c->rope_dim / 2));
    return f;
}

void forward_free(forward **f)
{
    forward *old = *f;
    if (!old)
        return;
    if (old->memory)
        kern_free(old->m->device, old->memory);
    free(old->host_step);
    free(old->frequencies);
    free(old);
    *f = NULL;
}

size_t forward_bytes(const forward *f)
{
    return f->memory_bytes;
}

/* ---- a step ---------------------------------------------------------------------------------------------------- */

/* Takes `bytes` behind what is packed so far; returns where on the host, and where on the device in *on_device. */
static void *pack(forward *f, size_t *used, size_t bytes, const void **on_device)
{
    assert(bytes <= f->step_bytes_max - *used);
    void *on_host = f->host_step + *used;
    *on_device    = f->device_step + *used;
    *used += aligned(bytes);
    return on_host;
}

static const void *pack_copy(forward *f, size_t *used, const void *from, size_t bytes)
{
    const void *on_device;
    void       *on_host = pack(f, used, bytes, &on_device);
    if (bytes)
        memcpy(on_host, from, bytes);
    return on_device;
}

/* Angles grow with the position: float32 would lose their low bits after some thousand tokens. */
static void fill_cos_sin(const forward *f, const uint32_t *positions, uint32_t n_tokens, float *cos_sin)
{
    const model_config *c           = &f->m->config;
    const double       *frequencies = f->frequencies;
    for (uint32_t r = 0; r < c->n_ropes; r++, frequencies += c->rope_dim / 2)
        for (uint32_t t = 0; t < n_tokens; t++)
            for (uint32_t i = 0; i < c->rope_dim / 2; i++, cos_sin += 2) {
                double angle = positions[t] * frequencies[i], factor = c->ropes[r].attention_factor;
                cos_sin[0] = (float)(cos(angle) * factor);
                cos_sin[1] = (float)(sin(angle) * factor);
            }
}

/* A sequence's rows that its pooled output is the mean of. */
static kern_rows pooled_rows(model_pooling pooling, const kern_sequence *s)
{
    switch (pooling) {
    case MODEL_POOLING_CLS:
        return (kern_rows){s->q_start, 1};
    case MODEL_POOLING_LAST:
        return (kern_rows){s->q_start + s->n_q - 1, 1};
    default:
        return (kern_rows){s->q_start, s->n_q};
    }
}

static const uint32_t *pack_types(forward *f, size_t *used, const forward_batch *b)
{
    const void *on_device;
    uint32_t   *types = pack(f, used, b->n_tokens * sizeof *types, &on_device);
    for (uint32_t i = 0; i < b->n_tokens; i++)
        types[i] = b->types ? b->types[i] : 0;
    return on_device;
}

static const kern_rows *pack_pooled(forward *f, size_t *used, const forward_batch *b)
{
    const void *on_device;
    kern_rows  *rows = pack(f, used, b->n_pooled * sizeof *rows, &on_device);
    for (uint32_t i = 0; i < b->n_pooled; i++)
        rows[i] = pooled_rows(f->limits.pooling, &b->sequences[b->pooled[i]]);
    return on_device;
}

static step_arrays upload_step(forward *f, const forward_batch *b)
{
    step_arrays s         = {0};
    size_t      used      = 0;
    size_t      n_angles  = (size_t)f->m->config.n_ropes * b->n_tokens * f->m->config.rope_dim;
    const void *on_device = NULL;
    float      *cos_sin   = pack(f, &used, n_angles * sizeof(float), &on_device);
    fill_cos_sin(f, b->positions, b->n_tokens, cos_sin);
    s.cos_sin      = on_device;
    s.tokens       = pack_copy(f, &used, b->tokens, b->n_tokens * sizeof *b->tokens);
    s.slots        = pack_copy(f, &used, b->slots, b->n_tokens * sizeof *b->slots);
    s.sequences    = pack_copy(f, &used, b->sequences, b->n_sequences * sizeof *b->sequences);
    s.block_tables = pack_copy(f, &used, b->block_tables, b->n_table_entries * sizeof *b->block_tables);
    s.logit_rows   = pack_copy(f, &used, b->logit_rows, b->n_logit_rows * sizeof *b->logit_rows);
    if (f->m->config.learned_positions)
        s.positions = pack_copy(f, &used, b->positions, b->n_tokens * sizeof *b->positions);
    if (f->m->config.n_types > 0)
        s.types = pack_types(f, &used, b);
    s.pooled = pack_pooled(f, &used, b);
    kern_upload(f->m->device, f->device_step, f->host_step, used);
    return s;
}

/* Tokens, and what stands for positions and types of tokens. */
static void embed(const forward *f, const forward_batch *b, const step_arrays *s)
{
    const model        *m = f->m;
    const model_config *c = &m->config;
    float              *x = f->a.x;
    kern_embed(m->device, &(kern_embed_args){m->embedding, s->tokens, x, c->embedding_scale / c->residual_scale,
                                             b->n_tokens, false});
    if (m->position_embedding)
        kern_embed(m->device, &(kern_embed_args){m->position_embedding, s->positions, x, 1, b->n_tokens, true});
    if (m->type_embedding)
        kern_embed(m->device, &(kern_embed_args){m->type_embedding, s->types, x, 1, b->n_tokens, true});
    if (m->embedding_norm)
        kern_layernorm(m->device, &(kern_layernorm_args){x, m->embedding_norm, m->embedding_norm_bias, x,
                                                         c->rms_epsilon, b->n_tokens, c->n_embd});
}

/* x = norm(x) where the model norms its stream. */
static void norm_sum(const forward *f, const float *weight, const float *bias, uint32_t n)
{
    const model_config *c = &f->m->config;
    if (weight)
        kern_layernorm(f->m->device,
                       &(kern_layernorm_args){f->a.x, weight, bias, f->a.x, c->rms_epsilon, n, c->n_embd});
}

/* What attention or the MLP reads: the stream, normed where the model has weights for it. */
static const float *norm_stream(const forward *f, const float *x, const float *weight, float *out, uint32_t n_rows)
{
    uint32_t n_embd = f->m->config.n_embd;
    if (!weight)
        return x;
    kern_rmsnorm(f->m->device, &(kern_rmsnorm_args){x, weight, out, f->stream_epsilon, n_rows, n_embd, n_embd, false});
    return out;
}

/* x += W y, or x += norm(W y) where the model has weights for it. */
static void add_to_stream(const forward *f, const float *y, const kern_weight *weight, const float *bias,
                          const float *norm, uint32_t n)
{
    const model_config *c = &f->m->config;
    const activations  *a = &f->a;
    kern_gemm(f->m->device, &(kern_gemm_args){y, n, 1, !norm, {{weight, bias, norm ? a->normed : a->x}}});
    if (norm)
        kern_rmsnorm(f->m->device,
                     &(kern_rmsnorm_args){a->normed, norm, a->x, c->rms_epsilon, n, c->n_embd, c->n_embd, true});
}

/* Queries or keys, in place: normed head by head or all as one row, then rotated. */
static void norm_and_rotate(const forward *f, float *x, const float *norm, uint32_t layer, const step_arrays *s,
                            uint32_t n_tokens, uint32_t n_heads)
{
    const model_config *c    = &f->m->config;
    uint32_t            rope = c->layers[layer].rope, heads_a_row = c->qk_norm == MODEL_QK_NORM_WHOLE ? n_heads : 1;
    uint32_t            n_rows = n_tokens * n_heads / heads_a_row, n_cols = heads_a_row * c->head_dim;
    if (norm)
        kern_rmsnorm(f->m->device, &(kern_rmsnorm_args){x, norm, x, c->rms_epsilon, n_rows, n_cols, n_cols, false});
    if (rope == MODEL_NO_ROPE)
        return;
    const float *cos_sin = s->cos_sin + (size_t)rope * n_tokens * c->rope_dim;
    kern_rope(f->m->device, &(kern_rope_args){x, cos_sin, n_tokens, n_heads, c->head_dim, c->rope_dim, c->rope_pairs});
}

static void attend(const forward *f, kern_kv_cache *cache, uint32_t l, const forward_batch *b, const step_arrays *s)
{
    const model_config *c      = &f->m->config;
    const model_layer  *layer  = &f->m->layers[l];
    const activations  *a      = &f->a;
    kern_device        *device = f->m->device;
    uint32_t            n      = b->n_tokens;

    const float *normed = norm_stream(f, a->x, layer->attention_norm, a->normed, n);
    kern_gemm(device,
              &(kern_gemm_args){
                  normed,
                  n,
                  3,
                  false,
                  {{layer->q, layer->q_bias, a->q}, {layer->k, layer->k_bias, a->k}, {layer->v, layer->v_bias, a->v}}});
    norm_and_rotate(f, a->q, layer->q_norm, l, s, n, c->n_heads);
    norm_and_rotate(f, a->k, layer->k_norm, l, s, n, c->n_kv_heads);
    kern_kv_write(device, &(kern_kv_write_args){cache, l, a->k, a->v, s->slots, n});
    kern_attention(device, &(kern_attention_args){.cache         = cache,
                                                  .layer         = l,
                                                  .q             = a->q,
                                                  .out           = a->attention,
                                                  .sequences     = s->sequences,
                                                  .block_tables  = s->block_tables,
                                                  .n_sequences   = b->n_sequences,
                                                  .n_tokens      = n,
                                                  .n_heads       = c->n_heads,
                                                  .scale         = c->attention_scale,
                                                  .softcap       = c->attention_softcap,
                                                  .window        = c->layers[l].window,
                                                  .bidirectional = c->encoder});
    add_to_stream(f, a->attention, layer->o, layer->o_bias, layer->attention_post_norm, n);
    norm_sum(f, layer->attention_stream_norm, layer->attention_stream_norm_bias, n);
}

static void feed_forward(const forward *f, uint32_t l, uint32_t n)
{
    const model_config *c      = &f->m->config;
    const model_layer  *layer  = &f->m->layers[l];
    const activations  *a      = &f->a;
    kern_device        *device = f->m->device;

    const float *normed = norm_stream(f, a->x, layer->ffn_norm, a->normed, n);
    if (c->plain_mlp)
        kern_gemm(device, &(kern_gemm_args){normed, n, 1, false, {{layer->up, layer->up_bias, a->gate}}});
    else
        kern_gemm(device,
                  &(kern_gemm_args){normed, n, 2, false, {{layer->gate, NULL, a->gate}, {layer->up, NULL, a->up}}});
    kern_glu(device, &(kern_glu_args){a->gate, c->plain_mlp ? NULL : a->up, a->gate, n, c->n_ff, c->activation});
    add_to_stream(f, a->gate, layer->down, layer->down_bias, layer->ffn_post_norm, n);
    norm_sum(f, layer->ffn_stream_norm, layer->ffn_stream_norm_bias, n);
}

static void check_pooled(const forward *f, const forward_batch *b)
{
    const model_config *c = &f->m->config;
    assert(b->n_pooled == 0 || (f->limits.pooling != MODEL_POOLING_NONE && b->n_pooled <= b->n_sequences));
    for (uint32_t i = 0; i < b->n_pooled; i++)
        assert(b->pooled[i] < b->n_sequences && b->sequences[b->pooled[i]].position == 0 &&
               b->sequences[b->pooled[i]].n_q > 0);
    for (uint32_t t = 0; t < b->n_tokens; t++)
        assert((!c->learned_positions || b->positions[t] < c->n_ctx_train) &&
               (!b->types || c->n_types == 0 || b->types[t] < c->n_types));
    assert(!c->encoder || b->n_logit_rows == 0);
}

/* Kernels read and write where these numbers say: a wrong one must stop here. */
static void check_batch(const forward *f, const forward_batch *b)
{
    assert(b->n_tokens > 0 && b->n_tokens <= f->limits.n_tokens_max);
    assert(b->n_sequences > 0 && b->n_sequences <= f->limits.n_sequences_max);
    assert(b->n_table_entries <= f->limits.n_table_entries_max && b->n_logit_rows <= f->limits.n_logit_rows_max);
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        const kern_sequence *s = &b->sequences[i];
        assert(s->q_start == row && s->n_q <= b->n_tokens - row);
        if (s->n_q == 0)
            continue;
        uint32_t last = s->position + s->n_q - 1;
        assert(s->table_start < b->n_table_entries &&
               last / KERN_KV_BLOCK_TOKENS < b->n_table_entries - s->table_start);
        for (uint32_t j = 0; j < s->n_q; j++)
            assert(b->positions[row + j] == s->position + j);
        row += s->n_q;
    }
    assert(row == b->n_tokens);
    for (uint32_t t = 0; t < b->n_tokens; t++)
        assert(b->tokens[t] < f->m->config.n_vocab);
    for (uint32_t i = 0; i < b->n_logit_rows; i++)
        assert(b->logit_rows[i] < b->n_tokens);
    check_pooled(f, b);
}

/* Logits of the rows that are wanted. */
static void predict(const forward *f, const step_arrays *s, uint32_t n)
{
    const model        *m = f->m;
    const model_config *c = &m->config;
    const activations  *a = &f->a;
    kern_gather(m->device, &(kern_gather_args){a->x, s->logit_rows, a->logit_x, n, c->n_embd});
    norm_stream(f, a->logit_x, m->output_norm, a->logit_x, n);
    kern_gemm(m->device, &(kern_gemm_args){a->logit_x, n, 1, false, {{m->head, NULL, a->logits}}});
    if (c->logit_softcap > 0)
        kern_softcap(m->device, &(kern_softcap_args){a->logits, c->logit_softcap, n, c->n_vocab});
}

/* Pooled hidden states, and scores: w tanh(W pooled + B) + b. A soft cap of 1 is tanh. */
static void pool(const forward *f, const step_arrays *s, uint32_t n_tokens, uint32_t n)
{
    const model        *m = f->m;
    const model_config *c = &m->config;
    const activations  *a = &f->a;
    const float        *x = norm_stream(f, a->x, m->output_norm, a->normed, n_tokens);
    kern_pool(m->device, &(kern_pool_args){x, s->pooled, a->pooled, n, c->n_embd});
    if (c->n_labels == 0)
        return;
    kern_gemm(m->device, &(kern_gemm_args){a->pooled, n, 1, false, {{m->pooler, m->pooler_bias, a->dense}}});
    kern_softcap(m->device, &(kern_softcap_args){a->dense, 1, n, c->n_embd});
    kern_gemm(m->device, &(kern_gemm_args){a->dense, n, 1, false, {{m->classifier, m->classifier_bias, a->scores}}});
}

const float *forward_pooled(const forward *f)
{
    return f->m->config.n_labels > 0 ? f->a.scores : f->a.pooled;
}

float *forward_run(forward *f, kern_kv_cache *cache, const forward_batch *b)
{
    const model        *m = f->m;
    const model_config *c = &m->config;
    check_batch(f, b);
    step_arrays s = upload_step(f, b);
    embed(f, b, &s);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        attend(f, cache, l, b, &s);
        feed_forward(f, l, b->n_tokens);
    }
    if (b->n_logit_rows > 0)
        predict(f, &s, b->n_logit_rows);
    if (b->n_pooled > 0)
        pool(f, &s, b->n_tokens, b->n_pooled);
    return f->a.logits;
}
