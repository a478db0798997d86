#include "support_cases.h"

#include "support_case_memory.h"
#include "support_inputs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/dtype.h"

void case_output_free(case_output *output)
{
    free(output->values);
    free(output->bounds);
}

kern_device *case_device_reserved(kern_device *device, char *why)
{
    kern_limits limits = {.n_tokens      = 160,
                          .n_cols        = 2048,
                          .n_sequences   = 8,
                          .n_heads       = 32,
                          .head_dim      = 256,
                          .n_vocab       = 50000,
                          .n_sample_rows = 16};
    if (!device || !kern_reserve(device, &limits, why)) {
        fail_msg("%s", why);
    }
    return device;
}

kern_device *case_device(const char *backend, const char *variant, const char *library, uint32_t n_threads)
{
    char                why[KERN_WHY_BYTES];
    kern_device_options options = {.backend = backend, .variant = variant, .library = library, .n_threads = n_threads};
    return case_device_reserved(kern_device_open(&options, why), why);
}

/* ---- gemm
 * ------------------------------------------------------------------------------------------------------------ */

/* Rounding x to 16 bits moves it by up to amax / 65278 in a block of 32; float sums add some 2^-24 of each term and
 * partial sum. */
static float gemm_bound(const float *w, const float *x, uint32_t n_cols, bool quantized, float add)
{
    double bound = fabs((double)add) * 1e-6;
    for (uint32_t start = 0; start < n_cols; start += KERN_BLOCK) {
        uint32_t end   = start + KERN_BLOCK < n_cols ? start + KERN_BLOCK : n_cols;
        double   sum_w = 0, max_w = 0, max_x = 0;
        for (uint32_t c = start; c < end; c++) {
            sum_w += fabs((double)w[c]);
            max_w = fmax(max_w, fabs((double)w[c]));
            max_x = fmax(max_x, fabs((double)x[c]));
        }
        bound += quantized ? sum_w * max_x * (max_x > 1e-30 ? 1.6e-5 : 1) : 0; /* blocks of less count as zeros */
        bound += 64 * max_w * max_x * 6e-8 * (8 + n_cols / KERN_BLOCK);
    }
    return (float)bound;
}

static void run_gemm(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena          a      = {.device = device};
    uint32_t       n_cols = c->gemm.n_cols, n = part->n, at = 0, stride = 0;
    float         *x    = input_floats(c, 1, (size_t)c->n_rows * n_cols);
    kern_gemm_args args = {.x          = on_device(&a, x + (size_t)part->first * n_cols, (size_t)n * n_cols * 4),
                           .n_tokens   = n,
                           .n_outputs  = c->gemm.n_outputs,
                           .accumulate = c->gemm.accumulate};
    kern_weight   *weights[KERN_GEMM_OUTPUTS_MAX];
    char           why[KERN_WHY_BYTES];
    for (uint32_t o = 0; o < args.n_outputs; o++) {
        stride += c->gemm.weight_rows[o];
    }
    output_alloc(output, (size_t)n * stride);
    for (uint32_t o = 0; o < args.n_outputs; o++) {
        uint32_t       rows = c->gemm.weight_rows[o];
        unsigned char *data = input_matrix(c, 10 + 4 * o, c->gemm.dtypes[o], (size_t)rows * n_cols);
        float         *bias = input_floats(c, 30 + o, rows), *y = input_floats(c, 40 + o, (size_t)c->n_rows * rows);
        float         *w      = malloc((size_t)n_cols * 4);
        kern_matrix    source = {c->gemm.dtypes[o], rows, n_cols, data};
        weights[o]            = kern_weight_new(device, &source, why);
        if (!weights[o]) {
            fail_msg("%s", why);
        }
        args.outputs[o].weight = weights[o];
        args.outputs[o].bias   = c->gemm.bias ? on_device(&a, bias, (size_t)rows * 4) : NULL;
        args.outputs[o].y      = on_device(&a, y + (size_t)part->first * rows, (size_t)n * rows * 4);
        for (uint32_t r = 0; r < rows; r++) {
            kern_dequantize(source.dtype, data + kern_dtype_bytes(source.dtype, n_cols) * r, w, n_cols);
            for (uint32_t t = 0; t < n; t++) {
                float add = fabsf(bias[r]) + fabsf(y[(size_t)(part->first + t) * rows + r]);
                output->bounds[(size_t)t * stride + at + r] = gemm_bound(
                    w, x + (size_t)(part->first + t) * n_cols, n_cols, kern_dtype_is_quantized(source.dtype), add);
            }
        }
        at += rows;
        free(data), free(bias), free(y), free(w);
    }
    kern_gemm(device, &args);
    at = 0;
    for (uint32_t o = 0; o < args.n_outputs; o++) {
        uint32_t rows = c->gemm.weight_rows[o];
        float   *y    = malloc((size_t)n * rows * 4);
        fetch(&a, y, args.outputs[o].y, (size_t)n * rows * 4);
        for (uint32_t t = 0; t < n; t++) {
            memcpy(output->values + (size_t)t * stride + at, y + (size_t)t * rows, rows * 4);
        }
        at += rows;
        free(y);
        kern_weight_free(device, &weights[o]);
    }
    arena_done(&a);
    free(x);
}

/* ---- embed, norm, rope, activation, gather
 * --------------------------------------------------------------------------- */

static void run_embed(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena          a = {.device = device};
    char           why[KERN_WHY_BYTES];
    unsigned char *data   = input_matrix(c, 10, c->embed.dtype, (size_t)c->embed.n_vocab * c->embed.n_cols);
    kern_matrix    source = {c->embed.dtype, c->embed.n_vocab, c->embed.n_cols, data};
    kern_weight   *weight = kern_weight_new(device, &source, why);
    uint32_t      *tokens = malloc(part->n * sizeof *tokens);
    for (uint32_t i = 0; i < part->n; i++) {
        tokens[i] = (uint32_t)(input_word(c->seed, 1, part->first + i) % c->embed.n_vocab);
    }
    output_alloc(output, (size_t)part->n * c->embed.n_cols);
    float *held = input_floats(c, 3, (size_t)c->n_rows * c->embed.n_cols) + (size_t)part->first * c->embed.n_cols;
    kern_embed_args args = {weight,
                            on_device(&a, tokens, part->n * 4),
                            on_device(&a, held, output->n * 4),
                            1.5f,
                            part->n,
                            c->embed.accumulate};
    kern_embed(device, &args);
    fetch(&a, output->values, args.out, output->n * 4);
    relative_bounds(output, 0, 0);
    kern_weight_free(device, &weight);
    arena_done(&a);
    free(data), free(tokens), free(held - (size_t)part->first * c->embed.n_cols);
}

static void run_rmsnorm(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena    a      = {.device = device};
    uint32_t n_cols = c->rmsnorm.n_cols, stride = c->rmsnorm.row_stride;
    float   *x = input_floats(c, 1, (size_t)c->n_rows * stride), *weight = malloc(n_cols * 4);
    float   *held = input_floats(c, 3, (size_t)c->n_rows * stride);
    for (uint32_t i = 0; i < n_cols; i++) {
        weight[i] = input_float(c->seed, 2, i);
    }
    output_alloc(output, (size_t)part->n * n_cols);
    size_t            bytes = (size_t)part->n * stride * 4;
    kern_rmsnorm_args args  = {.x          = on_device(&a, x + (size_t)part->first * stride, bytes),
                               .weight     = on_device(&a, weight, n_cols * 4),
                               .epsilon    = 1e-5f,
                               .n_tokens   = part->n,
                               .n_cols     = n_cols,
                               .row_stride = stride,
                               .accumulate = c->rmsnorm.accumulate};
    args.out = c->rmsnorm.in_place ? (float *)args.x : on_device(&a, held + (size_t)part->first * stride, bytes);
    kern_rmsnorm(device, &args);
    float *out = malloc(bytes);
    fetch(&a, out, args.out, bytes);
    for (uint32_t t = 0; t < part->n; t++) {
        memcpy(output->values + (size_t)t * n_cols, out + (size_t)t * stride, n_cols * 4);
    }
    relative_bounds(output, 3e-6f, 1e-30f);
    for (size_t i = 0; c->rmsnorm.accumulate && i < output->n; i++) { /* the sum may cancel */
        output->bounds[i] += fabsf(held[(part->first + i / n_cols) * stride + i % n_cols]) * 3e-6f;
    }
    arena_done(&a);
    free(x), free(weight), free(held), free(out);
}

static void run_rope(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena    a     = {.device = device};
    uint32_t width = c->rope.n_heads * c->rope.head_dim, half = c->rope.rope_dim / 2;
    float   *x = input_floats(c, 1, (size_t)c->n_rows * width), *cos_sin = malloc((size_t)part->n * half * 8 + 1);
    for (uint32_t i = 0; i < part->n * half; i++) {
        double angle       = (part->first + i / half) * pow(10000, -(double)(i % half) / half) * 7;
        cos_sin[2 * i]     = (float)cos(angle);
        cos_sin[2 * i + 1] = (float)sin(angle);
    }
    output_alloc(output, (size_t)part->n * width);
    kern_rope_args args = {on_device(&a, x + (size_t)part->first * width, output->n * 4),
                           on_device(&a, cos_sin, (size_t)part->n * half * 8),
                           part->n,
                           c->rope.n_heads,
                           c->rope.head_dim,
                           c->rope.rope_dim,
                           c->rope.pairs};
    kern_rope(device, &args);
    fetch(&a, output->values, args.x, output->n * 4);
    relative_bounds(output, 0, 6e-7f * c->magnitude);
    arena_done(&a);
    free(x), free(cos_sin);
}

static void run_glu(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena    a      = {.device = device};
    uint32_t n_cols = c->glu.n_cols;
    float *gate = input_floats(c, 1, (size_t)c->n_rows * n_cols), *up = input_floats(c, 2, (size_t)c->n_rows * n_cols);
    size_t first = (size_t)part->first * n_cols;
    output_alloc(output, (size_t)part->n * n_cols);
    kern_glu_args args = {.gate       = on_device(&a, gate + first, output->n * 4),
                          .up         = c->glu.alone ? NULL : on_device(&a, up + first, output->n * 4),
                          .n_tokens   = part->n,
                          .n_cols     = n_cols,
                          .activation = c->glu.activation};
    args.out           = (float *)args.gate;
    kern_glu(device, &args);
    fetch(&a, output->values, args.out, output->n * 4);
    for (size_t i = 0; i < output->n;
         i++) { /* 1 + tanh cancels where the gate is negative: an absolute error of some 2^-23 */
        float product     = fabsf(gate[first + i] * (c->glu.alone ? 1 : up[first + i]));
        output->bounds[i] = fabsf(output->values[i]) * 2e-6f +
                            (c->glu.activation == KERN_ACT_SILU ? fabsf(up[first + i]) * 1e-30f : product * 2e-7f);
    }
    arena_done(&a);
    free(gate), free(up);
}

static void run_gather(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena    a      = {.device = device};
    uint32_t n_cols = c->gather.n_cols, *rows = malloc(part->n * sizeof *rows);
    float   *x = input_floats(c, 1, (size_t)c->n_rows * n_cols);
    for (uint32_t i = 0; i < part->n; i++) {
        rows[i] = (uint32_t)(input_word(c->seed, 2, part->first + i) % c->n_rows);
    }
    output_alloc(output, (size_t)part->n * n_cols);
    kern_gather_args args = {on_device(&a, x, (size_t)c->n_rows * n_cols * 4), on_device(&a, rows, part->n * 4),
                             on_device(&a, NULL, output->n * 4), part->n, n_cols};
    kern_gather(device, &args);
    if (c->gather.cap > 0) {
        kern_softcap(device, &(kern_softcap_args){args.out, c->gather.cap, part->n, n_cols});
    }
    fetch(&a, output->values, args.out, output->n * 4);
    relative_bounds(output, c->gather.cap > 0 ? 1e-6f : 0, 0);
    arena_done(&a);
    free(x), free(rows);
}

/* ---- attention: kv_write, kv_copy, attention
 * ------------------------------------------------------------------------- */

enum { CASE_LAYERS = 2, CASE_LAYER = 1 };

typedef struct {
    kern_kv_cache *cache;
    uint32_t       tables[256], starts[4], n_entries, n_blocks;
    float         *q, *k, *v;
    uint32_t       n_keys, key_starts[4], q_starts[4];
} attention_state;

/* Sequences take blocks in a scattered order; keys of every position are written, those of the rows included. */
static void attention_prepare(const kernel_case *c, kern_device *device, attention_state *s)
{
    char     why[KERN_WHY_BYTES];
    uint32_t width = c->attention.n_kv_heads * c->attention.head_dim, n_q = 0;
    for (uint32_t i = 0; i < c->attention.n_sequences; i++) {
        s->starts[i] = s->n_entries, s->key_starts[i] = s->n_keys, s->q_starts[i] = n_q;
        s->n_keys += c->attention.position[i] + c->attention.n_q[i];
        s->n_entries +=
            (c->attention.position[i] + c->attention.n_q[i] + KERN_KV_BLOCK_TOKENS - 1) / KERN_KV_BLOCK_TOKENS;
        n_q += c->attention.n_q[i];
    }
    s->n_blocks = 2 * s->n_entries + 1;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        s->tables[i] = (i * 7 + 3) % s->n_entries;
        if (s->n_entries % 7 == 0) {
            s->tables[i] = s->n_entries - 1 - i;
        }
    }
    kern_kv_shape shape = {CASE_LAYERS, s->n_blocks, c->attention.n_kv_heads, c->attention.head_dim,
                           c->attention.dtype};
    s->cache            = kern_kv_cache_new(device, &shape, why);
    assert_non_null(s->cache);
    s->q = input_floats(c, 1, (size_t)n_q * c->attention.n_heads * c->attention.head_dim);
    s->k = input_floats(c, 2, (size_t)s->n_keys * width);
    s->v = malloc((size_t)s->n_keys * width * 4);
    for (size_t i = 0; i < (size_t)s->n_keys * width; i++) {
        s->v[i] = input_float(c->seed, 3, i);
    }
}

/* Writes the keys and values of positions [first, first + n) of a sequence. */
static void attention_write(const kernel_case *c, kern_device *device, attention_state *s, uint32_t sequence,
                            uint32_t first, uint32_t n)
{
    arena  a        = {.device = device};
    size_t width    = (size_t)c->attention.n_kv_heads * c->attention.head_dim,
           at       = (s->key_starts[sequence] + first) * width;
    uint32_t *slots = malloc(n * sizeof *slots + 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = first + i;
        slots[i]          = s->tables[s->starts[sequence] + position / KERN_KV_BLOCK_TOKENS] * KERN_KV_BLOCK_TOKENS +
                   position % KERN_KV_BLOCK_TOKENS;
    }
    for (uint32_t start = 0; start < n; start += 100) {
        uint32_t           count = n - start < 100 ? n - start : 100;
        kern_kv_write_args args  = {s->cache,
                                    CASE_LAYER,
                                    on_device(&a, s->k + at + start * width, count * width * 4),
                                    on_device(&a, s->v + at + start * width, count * width * 4),
                                    on_device(&a, slots + start, count * 4),
                                    count};
        kern_kv_write(device, &args);
        kern_synchronize(device);
        arena_done(&a);
        a.n = 0;
    }
    free(slots);
}

/* Moves every block to another place: the tables then name the copies. Every other one goes by the host's memory. */
static void attention_copy(const kernel_case *c, kern_device *device, attention_state *s)
{
    kern_kv_shape shape = {CASE_LAYERS, s->n_blocks, c->attention.n_kv_heads, c->attention.head_dim,
                           c->attention.dtype};
    void         *bytes = malloc(kern_kv_block_bytes(&shape));
    for (uint32_t i = 0; i < s->n_entries; i++) {
        uint32_t           from = s->tables[i], to = s->tables[i] += s->n_entries + 1;
        kern_kv_copy_args  copy = {s->cache, &from, &to, 1};
        kern_kv_block_args read = {s->cache, from, bytes, false}, write = {s->cache, to, bytes, true};
        if (i % 2 == 0)
            kern_kv_copy(device, &copy);
        else
            kern_kv_block(device, &read), kern_kv_block(device, &write);
    }
    free(bytes);
}

/* One call with rows [done, done + chunk) of every sequence that has as many. */
static void attention_call(const kernel_case *c, kern_device *device, attention_state *s, uint32_t done, uint32_t chunk,
                           case_output *output)
{
    arena         a     = {.device = device};
    size_t        width = (size_t)c->attention.n_heads * c->attention.head_dim;
    kern_sequence sequences[4];
    uint32_t      n_sequences = 0, n_tokens = 0, of[4];
    float        *q = malloc((size_t)c->n_rows * width * 4), *out = malloc((size_t)c->n_rows * width * 4);
    for (uint32_t i = 0; i < c->attention.n_sequences; i++) {
        uint32_t n_q = c->attention.n_q[i];
        if (done < n_q) {
            uint32_t n = n_q - done < chunk ? n_q - done : chunk;
            memcpy(q + n_tokens * width, s->q + (s->q_starts[i] + done) * width, n * width * 4);
            of[n_sequences]          = i;
            sequences[n_sequences++] = (kern_sequence){n_tokens, n, c->attention.position[i] + done, s->starts[i]};
            n_tokens += n;
        }
    }
    kern_attention_args args = {.cache         = s->cache,
                                .layer         = CASE_LAYER,
                                .q             = on_device(&a, q, n_tokens * width * 4),
                                .out           = on_device(&a, NULL, n_tokens * width * 4),
                                .sequences     = on_device(&a, sequences, n_sequences * sizeof *sequences),
                                .block_tables  = on_device(&a, s->tables, s->n_entries * 4),
                                .n_sequences   = n_sequences,
                                .n_tokens      = n_tokens,
                                .n_heads       = c->attention.n_heads,
                                .scale         = 1 / sqrtf((float)c->attention.head_dim),
                                .softcap       = c->attention.softcap,
                                .window        = c->attention.window,
                                .bidirectional = c->attention.bidirectional};
    kern_attention(device, &args);
    fetch(&a, out, args.out, n_tokens * width * 4);
    for (uint32_t i = 0; i < n_sequences; i++) {
        memcpy(output->values + (s->q_starts[of[i]] + done) * width, out + sequences[i].q_start * width,
               sequences[i].n_q * width * 4);
    }
    arena_done(&a);
    free(q), free(out);
}

static void run_attention(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    attention_state s = {0};
    attention_prepare(c, device, &s);
    output_alloc(output, (size_t)c->n_rows * c->attention.n_heads * c->attention.head_dim);
    uint32_t chunk = part->chunk && !c->attention.bidirectional ? part->chunk : c->n_rows, longest = 0;
    for (uint32_t i = 0; i < c->attention.n_sequences; i++) {
        attention_write(c, device, &s, i, 0, c->attention.position[i] + c->attention.n_q[i]);
        longest = c->attention.n_q[i] > longest ? c->attention.n_q[i] : longest;
    }
    if (c->attention.copied) {
        attention_copy(c, device, &s);
    }
    for (uint32_t done = 0; done < longest; done += chunk) {
        attention_call(c, device, &s, done, chunk, output);
    }
    /* Outputs are means of values below 3.4; a score's error, a few 2^-24 of its largest term, is a relative error of a
     * weight. With a quantised cache the CPU rounds a span's weights to 2^-15 of their largest. */
    float largest = c->magnitude * c->magnitude * 12 * sqrtf((float)c->attention.head_dim);
    bool  rounds  = c->attention.dtype >= KERN_Q4_0;
    relative_bounds(output, 0, rounds ? 2e-4f + 1.3e-6f * largest : 4e-6f + 4e-7f * largest);
    kern_kv_cache_free(device, &s.cache);
    free(s.q), free(s.k), free(s.v);
}

/* ---- sampling
 * -------------------------------------------------------------------------------------------------------- */

static float case_logit(const kernel_case *c, uint32_t row, uint32_t token)
{
    uint64_t index = (uint64_t)row * c->sample.n_vocab + token;
    float    value = input_float(c->seed, 1, index) * c->magnitude;
    switch (c->sample.logits) {
    case LOGITS_TIED:
        return roundf(value);
    case LOGITS_BROKEN:
        return input_word(c->seed, 2, index) % 3 == 0 ? (index % 2 ? NAN : -INFINITY) : value;
    case LOGITS_NONE:
        return index % 2 ? NAN : -INFINITY;
    default:
        return value;
    }
}

/* A row's result as floats: token, rank, target's rank, n_top, no_finite, two logprobs, then pairs of top tokens and
 * logprobs. */
static void sample_values(const kern_sample_result *result, float *values, float *bounds)
{
    const float relative = 3e-6f;
    float       first[]  = {(float)result->token, (float)result->rank,
                     result->target_rank == UINT32_MAX ? -1 : (float)result->target_rank, (float)result->n_top,
                            result->no_finite};
    memcpy(values, first, sizeof first);
    values[5] = result->logprob, values[6] = result->target_logprob;
    for (uint32_t i = 0; i < result->n_top; i++) {
        values[7 + i]                = (float)result->top_tokens[i];
        values[7 + KERN_TOP_MAX + i] = result->top_logprobs[i];
        bounds[7 + KERN_TOP_MAX + i] = relative * (1 + fabsf(result->top_logprobs[i]));
    }
    bounds[5] = isinf(result->logprob) ? 0 : relative * (1 + fabsf(result->logprob));
    bounds[6] = isinf(result->target_logprob) ? 0 : relative * (1 + fabsf(result->target_logprob));
    if (result->no_finite) { /* nothing else means anything */
        memset(values, 0, (7 + 2 * KERN_TOP_MAX) * sizeof(float));
        values[4] = 1;
    }
}

static void run_sample(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena               a       = {.device = device};
    uint32_t            n_vocab = c->sample.n_vocab, n_edits = c->sample.n_edits, width = 7 + 2 * KERN_TOP_MAX;
    float              *logits  = malloc((size_t)part->n * n_vocab * 4);
    kern_sample_row    *rows    = calloc(part->n, sizeof *rows);
    kern_sample_result *results = calloc(part->n, sizeof *results);
    kern_logit_edit    *edits   = calloc((size_t)part->n * n_edits + 1, sizeof *edits);
    for (uint32_t i = 0; i < part->n; i++) {
        uint32_t row = part->first + i;
        for (uint32_t t = 0; t < n_vocab; t++) {
            logits[(size_t)i * n_vocab + t] = case_logit(c, row, t);
        }
        rows[i]             = c->sample.row;
        rows[i].seed        = input_word(c->seed, 3, row);
        rows[i].position    = row * 3;
        rows[i].edits_start = i * n_edits;
        rows[i].n_edits     = n_edits;
        rows[i].target      = row % 2 ? UINT32_MAX : (uint32_t)(input_word(c->seed, 4, row) % n_vocab);
        for (uint32_t e = 0; e < n_edits; e++) {
            uint64_t bits          = input_word(c->seed, 5, (uint64_t)row * n_edits + e);
            edits[i * n_edits + e] = (kern_logit_edit){.token    = e * (n_vocab / (n_edits + 1)),
                                                       .n_output = bits % 5,
                                                       .bias     = (float)(bits >> 8 & 15) - 7,
                                                       .seen     = bits >> 12 & 1,
                                                       .banned   = (bits >> 16 & 7) == 0};
        }
    }
    kern_sample_args args = {on_device(&a, logits, (size_t)part->n * n_vocab * 4),
                             on_device(&a, rows, part->n * sizeof *rows),
                             on_device(&a, edits, (size_t)part->n * n_edits * sizeof *edits),
                             on_device(&a, NULL, part->n * sizeof *results),
                             part->n,
                             n_vocab};
    kern_sample(device, &args);
    kern_synchronize(device);
    kern_download(device, results, args.results, part->n * sizeof *results);
    output_alloc(output, (size_t)part->n * width);
    for (uint32_t i = 0; i < part->n; i++) {
        sample_values(&results[i], output->values + (size_t)i * width, output->bounds + (size_t)i * width);
    }
    arena_done(&a);
    free(logits), free(rows), free(results), free(edits);
}

/* ---- the table
 * ------------------------------------------------------------------------------------------------------- */

typedef struct {
    kernel_case *cases;
    uint32_t     n, capacity;
} case_list;

__attribute__((format(printf, 3, 4))) static void add(case_list *list, kernel_case c, const char *format, ...)
{
    if (list->n == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->cases    = realloc(list->cases, list->capacity * sizeof *list->cases);
        assert_non_null(list->cases);
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c.name, sizeof c.name, format, arguments);
    va_end(arguments);
    c.seed                 = list->n + 1;
    c.magnitude            = c.magnitude == 0 ? 1 : c.magnitude;
    list->cases[list->n++] = c;
}

/* At least n_cols, and whole blocks. */
static uint32_t columns_of(kern_dtype dtype, uint32_t n_cols)
{
    uint32_t block = kern_dtype_block(dtype);
    return (n_cols + block - 1) / block * block;
}

static void add_gemms(case_list *list)
{
    static const struct {
        uint32_t rows, cols, tokens;
        float    magnitude;
        bool     bias, accumulate;
    } shapes[] = {
        {1, 32, 1, 1, false, false},    {16, 64, 2, 1, true, false},       {17, 96, 3, 1, false, true},
        {35, 288, 5, 1e4f, true, true}, {64, 576, 17, 1, false, false},    {40, 1536, 9, 1e-6f, false, false},
        {33, 160, 70, 1, true, true},   {16, 64, 2, 1e-37f, false, false}, {48, 2048, 2, 1, true, false},
    };
    for (uint32_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
            uint32_t    n_cols = columns_of(dtype, shapes[i].cols);
            kernel_case c      = {.run       = run_gemm,
                                  .n_rows    = shapes[i].tokens,
                                  .by_row    = true,
                                  .magnitude = shapes[i].magnitude,
                                  .gemm      = {.dtypes      = {dtype},
                                                .n_outputs   = 1,
                                                .weight_rows = {shapes[i].rows},
                                                .n_cols      = n_cols,
                                                .bias        = shapes[i].bias,
                                                .accumulate  = shapes[i].accumulate}};
            add(list, c, "gemm %s %u x %u, %u tokens of %g", kern_dtype_name(dtype), shapes[i].rows, n_cols,
                shapes[i].tokens, (double)shapes[i].magnitude);
        }
    }
    static const uint32_t odd[][3] = {{1, 1, 1}, {5, 19, 4}, {33, 100, 7}, {18, 15, 2}};
    for (uint32_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        for (kern_dtype dtype = KERN_F32; dtype <= KERN_BF16; dtype++) {
            kernel_case c = {
                .run    = run_gemm,
                .n_rows = odd[i][2],
                .by_row = true,
                .gemm   = {.dtypes = {dtype}, .n_outputs = 1, .weight_rows = {odd[i][0]}, .n_cols = odd[i][1]}};
            add(list, c, "gemm %s %u x %u, %u tokens", kern_dtype_name(dtype), odd[i][0], odd[i][1], odd[i][2]);
        }
    }
    static const kern_dtype mixes[][KERN_GEMM_OUTPUTS_MAX] = {
        {KERN_Q4_1, KERN_F16, KERN_Q8_0}, {KERN_Q4_K, KERN_Q6_K, KERN_BF16}, {KERN_Q2_K, KERN_IQ4_XS, KERN_Q5_0}};
    for (uint32_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++) {
        kernel_case c = {
            .run    = run_gemm,
            .n_rows = 10,
            .by_row = true,
            .gemm   = {.n_outputs = 3, .weight_rows = {48, 19, 33}, .n_cols = i == 0 ? 192 : 512, .bias = true}};
        memcpy(c.gemm.dtypes, mixes[i], sizeof mixes[i]);
        add(list, c, "gemm of three weights of different formats, the first %s", kern_dtype_name(mixes[i][0]));
    }
}

static void add_embeds(case_list *list)
{
    for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
        kernel_case c = {.run = run_embed, .n_rows = 7, .by_row = true, .embed = {dtype, 53, columns_of(dtype, 160)}};
        add(list, c, "embed %s", kern_dtype_name(dtype));
        c.embed.accumulate = true;
        c.embed.n_cols     = columns_of(dtype, dtype <= KERN_BF16 ? 1037 : 1024);
        add(list, c, "embed %s, sum", kern_dtype_name(dtype));
    }
}

static void add_rows(case_list *list)
{
    static const uint32_t columns[]    = {1, 15, 16, 31, 64, 576, 2047};
    static const float    magnitudes[] = {1, 1e12f, 1e-12f};
    static const char    *names[]      = {"silu", "gelu by tanh", "gelu by erf"};
    for (uint32_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        for (uint32_t residual = 0; residual < 2; residual++) {
            kernel_case norm = {.run       = run_rmsnorm,
                                .n_rows    = 1 + i * 3,
                                .by_row    = true,
                                .magnitude = residual ? 1 : magnitudes[i % 3],
                                .rmsnorm   = {columns[i], columns[i] + i % 3 * 5, i % 2 && !residual, residual}};
            add(list, norm, "rmsnorm %u columns of %g%s", columns[i], (double)norm.magnitude, residual ? ", sum" : "");
        }
        kernel_case gather = {.run = run_gather, .n_rows = 9, .by_row = true, .gather = {columns[i], i % 2}};
        add(list, gather, "gather %u columns%s", columns[i], i % 2 ? ", soft cap" : "");
        kernel_case pool = {.run = run_pool, .n_rows = 4, .by_row = true, .pool = {columns[i], 1 + i * i * 9}};
        add(list, pool, "pool of up to %u rows of %u columns", pool.pool.n_longest, columns[i]);
        kernel_case layernorm = {.run       = run_layernorm,
                                 .n_rows    = 2 + i * 3,
                                 .by_row    = true,
                                 .magnitude = magnitudes[i % 3],
                                 .layernorm = {columns[i], i % 2, (float)(i % 4) * 3}};
        add(list, layernorm, "layernorm %u columns of %g around %g", columns[i], (double)layernorm.magnitude,
            (double)layernorm.layernorm.center);
        for (kern_activation activation = KERN_ACT_SILU; activation <= KERN_ACT_GELU_ERF; activation++) {
            static const float scales[] = {3, 100, 1e4f, 1e-3f};
            kernel_case        c        = {.run       = run_glu,
                                           .n_rows    = 1 + i,
                                           .by_row    = true,
                                           .magnitude = scales[i % 4],
                                           .glu       = {columns[i], activation, i % 3 == 2}};
            add(list, c, "glu %s %u columns of %g%s", names[activation], columns[i], (double)scales[i % 4],
                c.glu.alone ? ", alone" : "");
        }
    }
    static const uint32_t ropes[][3] = {{1, 2, 2}, {3, 64, 64}, {9, 80, 32}, {2, 128, 126}};
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t *r = ropes[i / 2];
        kernel_case     c = {.run = run_rope, .n_rows = 5 + i, .by_row = true, .rope = {r[0], r[1], r[2], i % 2}};
        add(list, c, "rope %u heads, %u of %u, %s", r[0], r[2], r[1], i % 2 ? "halves" : "adjacent");
    }
}

typedef struct {
    uint32_t heads, kv_heads, head_dim, window, n, position[4], n_q[4];
    float    softcap, magnitude;
    bool     copied;
} attention_shape;

static void add_attention(case_list *list, const attention_shape *shape, kern_dtype dtype, bool bidirectional)
{
    kernel_case c = {.run       = run_attention,
                     .magnitude = shape->magnitude,
                     .attention = {.dtype         = dtype,
                                   .n_heads       = shape->heads,
                                   .n_kv_heads    = shape->kv_heads,
                                   .head_dim      = shape->head_dim,
                                   .window        = shape->window,
                                   .n_sequences   = shape->n,
                                   .softcap       = shape->softcap,
                                   .copied        = shape->copied,
                                   .bidirectional = bidirectional}};
    for (uint32_t s = 0; s < shape->n; s++) {
        c.attention.position[s] = shape->position[s];
        c.attention.n_q[s]      = shape->n_q[s];
        c.n_rows += shape->n_q[s];
    }
    add(list, c, "attention %s, %u heads on %u of %u, window %u, softcap %g%s", kern_dtype_name(dtype), shape->heads,
        shape->kv_heads, shape->head_dim, shape->window, (double)shape->softcap,
        bidirectional ? ", bidirectional" : "");
}

static void add_attentions(case_list *list)
{
    static const attention_shape shapes[] = {
        {1, 1, 16, 0, 1, {0}, {1}, 0, 1, false},
        {3, 1, 24, 0, 2, {5, 0}, {1, 20}, 0, 1, false},
        {9, 3, 64, 0, 4, {100, 15, 16, 0}, {1, 1, 3, 40}, 0, 1, true},
        {8, 8, 80, 0, 3, {31, 0, 47}, {2, 16, 17}, 0, 3, false},
        {4, 2, 100, 7, 3, {0, 50, 3}, {33, 1, 30}, 0, 1, false},
        {6, 1, 128, 20, 2, {90, 0}, {25, 60}, 0, 1, true},
        {2, 2, 256, 0, 2, {300, 17}, {2, 1}, 30, 4, false},
        {5, 1, 32, 16, 2, {16, 32}, {50, 1}, 5, 10, false},
        /* several segments of the cache, with windows inside of one and over two */
        {3, 1, 64, 0, 1, {1300}, {1}, 0, 1, false},
        {6, 2, 32, 0, 2, {511, 1023}, {2, 1}, 0, 2, false},
        {2, 1, 48, 100, 2, {1530, 700}, {10, 1}, 0, 1, false},
        {2, 2, 16, 600, 1, {1020}, {7}, 0, 4, false},
    };
    static const attention_shape bidirectional[] = {
        {12, 12, 32, 0, 4, {0}, {40, 1, 16, 65}, 0, 2, false},
        {4, 2, 64, 0, 2, {0, 20}, {150, 9}, 0, 1, true},
        {1, 1, 16, 0, 1, {1015}, {30}, 0, 1, false},
    };
    static const kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_1};
    for (uint32_t k = 0; k < sizeof dtypes / sizeof dtypes[0]; k++) {
        for (uint32_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            if (kern_dtype_is_quantized(dtypes[k]) && (i + k) % 2) {
                continue; /* half of the shapes each: cases are slow on the CUDA kernels' host build */
            }
            add_attention(list, &shapes[i], dtypes[k], false);
        }
        for (uint32_t i = 0; i < sizeof bidirectional / sizeof bidirectional[0]; i++) {
            add_attention(list, &bidirectional[i], dtypes[k], true);
        }
    }
}

static void add_samples(case_list *list)
{
    const kern_sample_row plain = {.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .n_top = 5};
    static const struct {
        const char *name;
        float       temperature, top_p, min_p, typical_p;
        uint32_t    top_k;
    } filters[] = {
        {"greedy", 0, 1, 0, 1, 0},
        {"plain", 1, 1, 0, 1, 0},
        {"hot", 3, 1, 0, 1, 0},
        {"cold", 0.05f, 1, 0, 1, 0},
        {"top_k 40", 1, 1, 0, 1, 40},
        {"top_k 1", 1, 1, 0, 1, 1},
        {"top_p .9", 0.8f, 0.9f, 0, 1, 0},
        {"top_p 0", 1, 0, 0, 1, 0},
        {"min_p .1", 1, 1, 0.1f, 1, 0},
        {"typical .7", 1, 1, 0, 0.7f, 0},
        {"all", 0.7f, 0.95f, 0.02f, 0.98f, 100},
    };
    static const uint32_t vocab[] = {1, 5, 64, 1000, 49152};
    for (uint32_t f = 0; f < sizeof filters / sizeof filters[0]; f++) {
        for (uint32_t v = 0; v < sizeof vocab / sizeof vocab[0]; v++) {
            kernel_case c = {
                .run       = run_sample,
                .n_rows    = 6,
                .by_row    = true,
                .magnitude = v % 2 ? 3 : 8,
                .sample    = {.n_vocab = vocab[v], .n_edits = v > 2 ? 20 : 0, .row = plain, .logits = (f + v) % 3}};
            c.sample.row.temperature        = filters[f].temperature;
            c.sample.row.top_p              = filters[f].top_p;
            c.sample.row.min_p              = filters[f].min_p;
            c.sample.row.typical_p          = filters[f].typical_p;
            c.sample.row.top_k              = filters[f].top_k;
            c.sample.row.n_top              = v * 16;
            c.sample.row.repetition_penalty = f % 2 ? 1 : 1.3f;
            c.sample.row.frequency_penalty = c.sample.row.presence_penalty = f % 3 ? 0 : 0.4f;
            add(list, c, "sample %s, %u tokens, logits of kind %d", filters[f].name, vocab[v], c.sample.logits);
            c.sample.row.reports_edited = true;
            if (f == 0 || f == 10) /* greedy, and all filters at once */
                add(list, c, "sample %s with edits before reports, %u tokens", filters[f].name, vocab[v]);
        }
    }
    kernel_case none = {.run    = run_sample,
                        .n_rows = 2,
                        .by_row = true,
                        .sample = {.n_vocab = 100, .row = plain, .logits = LOGITS_NONE}};
    add(list, none, "sample, no finite logit");
}

kernel_case *kernel_cases_new(uint32_t *n)
{
    case_list list = {0};
    add_gemms(&list);
    add_embeds(&list);
    add_rows(&list);
    add_attentions(&list);
    add_samples(&list);
    *n = list.n;
    return list.cases;
}

bool kernel_device_has(kern_device *device, kern_dtype dtype)
{
    char         why[KERN_WHY_BYTES];
    void        *block  = calloc(1, kern_dtype_block_bytes(dtype));
    kern_weight *weight = kern_weight_new(device, &(kern_matrix){dtype, 1, kern_dtype_block(dtype), block}, why);
    bool         has    = weight != NULL;
    free(block);
    kern_weight_free(device, &weight);
    if (!has && (strncmp(kern_device_name(device), "cuda", 4) != 0 || dtype <= KERN_Q8_0 ||
                 !strstr(why, kern_dtype_name(dtype)))) {
        fail_msg("%s refuses %s: %s", kern_device_name(device), kern_dtype_name(dtype), why);
    }
    return has;
}

bool kernel_case_fits(const kernel_case *c, kern_device *device)
{
    bool fits = c->run != run_embed || kernel_device_has(device, c->embed.dtype);
    for (uint32_t o = 0; c->run == run_gemm && o < c->gemm.n_outputs; o++) {
        fits = fits && kernel_device_has(device, c->gemm.dtypes[o]);
    }
    return fits;
}

void kernel_case_run_part(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    case_part all = part ? *part : (case_part){0};
    all.n         = all.n ? all.n : c->n_rows;
    c->run(c, device, &all, output);
}
