/* The forward pass of a llama: for each layer
 *
 *     x += O attention(rope(Q norm(x)), rope(K norm(x)), V norm(x))          (Vaswani et al. 2017, arXiv 1706.03762;
 *     x += Down (silu(Gate norm(x)) * Up norm(x))                             Touvron et al. 2023, arXiv 2302.13971)
 *
 * on all rows of a ragged batch at once, then the logits of the rows that are wanted. All memory is taken in
 * forward_new. */
#include "model/model.h"

#include "model/weights.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_BYTES = 64 };

/* Device memory of activations; T tokens, R logit rows, all float32. */
typedef struct {
    float *x;         /* [T][n_embd] the residual stream */
    float *normed;    /* [T][n_embd] */
    float *q, *k, *v; /* [T][n_q], [T][n_kv] twice */
    float *attention; /* [T][n_q] */
    float *gate, *up; /* [T][n_ff] */
    float *logit_x;   /* [R][n_embd] rows of x whose logits are wanted */
    float *logits;    /* [R][n_vocab] */
} activations;

/* A step's small arrays: packed on the host one behind the other, uploaded in one copy. These are device addresses. */
typedef struct {
    const uint32_t      *tokens, *slots, *block_tables, *logit_rows;
    const kern_sequence *sequences;
    const float         *cos_sin;
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
    double        *frequencies; /* [rope_dim / 2] angle a position */
};

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Gives every activation its place; with memory == NULL it only counts. Returns the bytes. */
static size_t plan(activations *a, char *memory, const model_config *c, const forward_limits *limits)
{
    size_t n_tokens = limits->n_tokens_max, n_rows = limits->n_logit_rows_max;
    size_t n_q = (size_t)c->n_heads * c->head_dim, n_kv = (size_t)c->n_kv_heads * c->head_dim;
    const struct {
        float **place;
        size_t  n_floats;
    } parts[] = {
        {&a->x, n_tokens * c->n_embd},     {&a->normed, n_tokens * c->n_embd}, {&a->q, n_tokens * n_q},
        {&a->k, n_tokens * n_kv},          {&a->v, n_tokens * n_kv},           {&a->attention, n_tokens * n_q},
        {&a->gate, n_tokens * c->n_ff},    {&a->up, n_tokens * c->n_ff},       {&a->logit_x, n_rows * c->n_embd},
        {&a->logits, n_rows * c->n_vocab},
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
           aligned((size_t)limits->n_tokens_max * c->rope_dim * sizeof(float));
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
                .n_sample_rows = limits->n_logit_rows_max,
    };
    char why[KERN_WHY_BYTES] = "";
    return kern_reserve(m->device, &needed, why) ||
           error_set(err, ERR_NO_MEMORY, "scratch memory for steps of %u tokens: %s", limits->n_tokens_max, why);
}

/* theta^(-2i/d): the angle by which pair i turns from one position to the next. */
static void compute_frequencies(double *frequencies, const model_config *c)
{
    for (uint32_t i = 0; i < c->rope_dim / 2; i++)
        frequencies[i] = pow((double)c->rope_theta, -2.0 * i / c->rope_dim);
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
    f->frequencies          = malloc(c->rope_dim / 2 * sizeof(double));
    if (!f->memory || !f->host_step || !f->frequencies) {
        error_set(err, ERR_NO_MEMORY,
                  "%zu bytes for the activations of %u tokens a step: the device has not enough memory",
                  f->memory_bytes, limits->n_tokens_max);
        forward_free(&f);
        return NULL;
    }
    plan(&f->a, f->memory, c, limits);
    f->device_step = f->memory + activation_bytes;
    compute_frequencies(f->frequencies, c);
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
    uint32_t n_pairs = f->m->config.rope_dim / 2;
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t i = 0; i < n_pairs; i++, cos_sin += 2) {
            double angle = positions[t] * f->frequencies[i];
            cos_sin[0]   = (float)cos(angle);
            cos_sin[1]   = (float)sin(angle);
        }
}

static step_arrays upload_step(forward *f, const forward_batch *b)
{
    step_arrays s;
    size_t      used      = 0;
    size_t      n_angles  = (size_t)b->n_tokens * f->m->config.rope_dim;
    const void *on_device = NULL;
    float      *cos_sin   = pack(f, &used, n_angles * sizeof(float), &on_device);
    fill_cos_sin(f, b->positions, b->n_tokens, cos_sin);
    s.cos_sin      = on_device;
    s.tokens       = pack_copy(f, &used, b->tokens, b->n_tokens * sizeof *b->tokens);
    s.slots        = pack_copy(f, &used, b->slots, b->n_tokens * sizeof *b->slots);
    s.sequences    = pack_copy(f, &used, b->sequences, b->n_sequences * sizeof *b->sequences);
    s.block_tables = pack_copy(f, &used, b->block_tables, b->n_table_entries * sizeof *b->block_tables);
    s.logit_rows   = pack_copy(f, &used, b->logit_rows, b->n_logit_rows * sizeof *b->logit_rows);
    kern_upload(f->m->device, f->device_step, f->host_step, used);
    return s;
}

static void norm(const forward *f, const float *x, const float *weight, float *out, uint32_t n_rows)
{
    uint32_t n_embd = f->m->config.n_embd;
    kern_rmsnorm(f->m->device, &(kern_rmsnorm_args){x, weight, out, f->m->config.rms_epsilon, n_rows, n_embd, n_embd});
}

static void rope(const forward *f, float *x, const step_arrays *s, uint32_t n_tokens, uint32_t n_heads)
{
    const model_config *c = &f->m->config;
    kern_rope(f->m->device,
              &(kern_rope_args){x, s->cos_sin, n_tokens, n_heads, c->head_dim, c->rope_dim, c->rope_pairs});
}

static void attend(const forward *f, kern_kv_cache *cache, uint32_t l, const forward_batch *b, const step_arrays *s)
{
    const model_config *c      = &f->m->config;
    const model_layer  *layer  = &f->m->layers[l];
    const activations  *a      = &f->a;
    kern_device        *device = f->m->device;
    uint32_t            n      = b->n_tokens;

    norm(f, a->x, layer->attention_norm, a->normed, n);
    kern_gemm(device,
              &(kern_gemm_args){
                  a->normed,
                  n,
                  3,
                  false,
                  {{layer->q, layer->q_bias, a->q}, {layer->k, layer->k_bias, a->k}, {layer->v, layer->v_bias, a->v}}});
    rope(f, a->q, s, n, c->n_heads);
    rope(f, a->k, s, n, c->n_kv_heads);
    kern_kv_write(device, &(kern_kv_write_args){cache, l, a->k, a->v, s->slots, n});
    kern_attention(device, &(kern_attention_args){.cache        = cache,
                                                  .layer        = l,
                                                  .q            = a->q,
                                                  .out          = a->attention,
                                                  .sequences    = s->sequences,
                                                  .block_tables = s->block_tables,
                                                  .n_sequences  = b->n_sequences,
                                                  .n_tokens     = n,
                                                  .n_heads      = c->n_heads,
                                                  .scale        = (float)(1 / sqrt(c->head_dim))});
    kern_gemm(device, &(kern_gemm_args){a->attention, n, 1, true, {{layer->o, layer->o_bias, a->x}}});
}

static void feed_forward(const forward *f, uint32_t l, uint32_t n)
{
    const model_layer *layer  = &f->m->layers[l];
    const activations *a      = &f->a;
    kern_device       *device = f->m->device;

    norm(f, a->x, layer->ffn_norm, a->normed, n);
    kern_gemm(device,
              &(kern_gemm_args){a->normed, n, 2, false, {{layer->gate, NULL, a->gate}, {layer->up, NULL, a->up}}});
    kern_glu(device, &(kern_glu_args){a->gate, a->up, a->gate, n, f->m->config.n_ff, KERN_ACT_SILU});
    kern_gemm(device, &(kern_gemm_args){a->gate, n, 1, true, {{layer->down, NULL, a->x}}});
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
}

float *forward_run(forward *f, kern_kv_cache *cache, const forward_batch *b)
{
    const model       *m = f->m;
    const activations *a = &f->a;
    check_batch(f, b);
    step_arrays s = upload_step(f, b);
    kern_embed(m->device, &(kern_embed_args){m->embedding, s.tokens, a->x, 1, b->n_tokens});
    for (uint32_t l = 0; l < m->config.n_layers; l++) {
        attend(f, cache, l, b, &s);
        feed_forward(f, l, b->n_tokens);
    }
    if (b->n_logit_rows > 0) {
        uint32_t n = b->n_logit_rows;
        kern_gather(m->device, &(kern_gather_args){a->x, s.logit_rows, a->logit_x, n, m->config.n_embd});
        norm(f, a->logit_x, m->output_norm, a->logit_x, n);
        kern_gemm(m->device, &(kern_gemm_args){a->logit_x, n, 1, false, {{m->head, NULL, a->logits}}});
    }
    return a->logits;
}
