/* Attention over the paged cache.
 *
 * A task is a run of query rows of one sequence times the heads that share a KV head, so a block's keys and values are
 * read once for all of them: 4 n_rows operations for each number read. Decode is bound by the cache's bytes, prefill by
 * arithmetic.
 *
 * A row's sums: per span of ATTENTION_SPAN positions, dot products add the dimensions of the first half of a head in
 * order and those of the second half apart, so that a few rows keep the multipliers busy; a span's weights are summed
 * by place modulo 16, then in the fixed tree; weighted values are added position by position, and what older spans gave
 * is corrected once a span. Segments of ATTENTION_SEGMENT positions stand alone and are merged in order. Only positions
 * decide which segments, spans and lanes those are. */
#include <assert.h>

#include "kernels/attention/attention_quant_lanes.h"
#include "kernels/attention/attention_span_lanes.h"
#include "kernels/cpu_device.h"
#include "kernels/kv/kv_cache.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

LANES f32x16 load_cached(kern_dtype dtype, const unsigned char *matrix, size_t index)
{
    return dtype == KERN_F32   ? f32x16_load((const float *)matrix + index)
           : dtype == KERN_F16 ? f32x16_load_f16((const uint16_t *)matrix + index)
                               : f32x16_load_bf16((const uint16_t *)matrix + index);
}

/* dot[r] += dimensions [d, end) of query row r times those of 16 keys. */
LANES void add_products(kern_dtype dtype, const unsigned char *keys, const attention_rows *rows, uint32_t n, uint32_t d,
                        uint32_t end, f32x16 *dot)
{
    for (; d < end; d++) {
        f32x16 key = load_cached(dtype, keys, d * KERN_KV_BLOCK_TOKENS);
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            dot[r] = f32x16_fma(f32x16_set(rows->q[r][d]), key, dot[r]);
        }
    }
}

LANES void block_dots(kern_dtype dtype, const attention_job *job, const attention_span *span, uint32_t block,
                      const attention_rows *rows, uint32_t n, f32x16 *dot)
{
    const uint32_t       half = job->head_dim / 2, lines = dtype == KERN_F32 ? 4 : 2; /* of `ahead`, a step */
    const unsigned char *keys = span->keys[block];
    f32x16               second[ATTENTION_ROWS];
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = second[r] = f32x16_set(0);
    }
    if (LANES_MANY_REGISTERS) { /* both halves at once */
        for (uint32_t d = 0; d < half; d++) {
            fetch_ahead(span, block, lines * d, lines);
            add_products(dtype, keys, rows, n, d, d + 1, dot);
            add_products(dtype, keys, rows, n, half + d, half + d + 1, second);
        }
        add_products(dtype, keys, rows, n, 2 * half, job->head_dim, second);
    } else {
        fetch_ahead(span, block, 0, span->ahead_lines);
        add_products(dtype, keys, rows, n, 0, half, dot);
        add_products(dtype, keys, rows, n, half, job->head_dim, second);
    }
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = f32x16_add(dot[r], second[r]);
    }
}

/* scores[r][j] of one block's positions, -inf where they are not visible. */
LANES void block_scores(kern_dtype dtype, const attention_job *job, const attention_span *span, uint32_t block,
                        const attention_rows *rows, uint32_t n, float (*scores)[ATTENTION_SPAN])
{
    f32x16      dot[ATTENTION_ROWS];
    const float softcap = job->args->softcap;
    if (kv_is_quantized(dtype)) {
        fetch_ahead(span, block, 0, span->ahead_lines);
        quant_dots(dtype, job, span->keys[block], rows, n, dot);
    } else {
        block_dots(dtype, job, span, block, rows, n, dot);
    }
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        f32x16 score = f32x16_mul(dot[r], f32x16_set(job->args->scale));
        if (softcap > 0) {
            score = f32x16_mul(f32x16_tanh(f32x16_div(score, f32x16_set(softcap))), f32x16_set(softcap));
        }
        mask16 visible = mask16_range(place_in(rows->first[r], block), place_in(rows->end[r], block));
        f32x16_store(scores[r] + block * KERN_KV_BLOCK_TOKENS, f32x16_select(visible, score, f32x16_set(-INFINITY)));
    }
}

/* Scores become weights e^(score - largest); factors[r] is what older sums are multiplied by. */
LANES void span_weights(const attention_span *span, const attention_rows *rows, uint32_t n,
                        float (*weights)[ATTENTION_SPAN], float *factors)
{
    float changes[16] = {0};
    for (uint32_t r = 0; r < n; r++) {
        f32x16 most = f32x16_load(weights[r]);
        for (uint32_t b = 1; b < span->n_blocks; b++) {
            most = f32x16_max(most, f32x16_load(weights[r] + b * KERN_KV_BLOCK_TOKENS));
        }
        float before = *rows->largest[r], here = f32x16_largest(most);
        *rows->largest[r] = before > here ? before : here;
        changes[r]        = before - *rows->largest[r];
    }
    f32x16_store(factors, f32x16_exp(f32x16_load(changes)));
    for (uint32_t r = 0; r < n; r++) {
        f32x16 sum = f32x16_set(0), largest = f32x16_set(*rows->largest[r]);
        for (uint32_t b = 0; b < span->n_blocks; b++) {
            float *block  = weights[r] + b * KERN_KV_BLOCK_TOKENS;
            f32x16 weight = f32x16_exp(f32x16_sub(f32x16_load(block), largest));
            f32x16_store(block, weight);
            sum = f32x16_add(sum, weight);
        }
        *rows->total[r] = *rows->total[r] * factors[r] + f32x16_sum(sum);
    }
}

/* sum[c][r] += weight * value over places [first, end) of a block, for 16 n_chunks dimensions of rows [row, row + n) */
LANES void add_values(kern_dtype dtype, const unsigned char *values, uint32_t head_dim, uint32_t n_chunks, uint32_t row,
                      uint32_t n, uint32_t first, uint32_t end, const float *const *weights,
                      f32x16 (*sum)[ATTENTION_ROWS])
{
    for (uint32_t j = first; j < end; j++) {
        UNROLL
        for (uint32_t c = 0; c < n_chunks; c++) {
            f32x16 value = load_cached(dtype, values, (size_t)j * head_dim + 16 * c);
            UNROLL
            for (uint32_t r = row; r < row + n; r++) {
                sum[c][r] = f32x16_fma(f32x16_set(weights[r][j]), value, sum[c][r]);
            }
        }
    }
}

/* For 16 n_chunks dimensions from d: sums = sums * factor + sum over visible positions of weight * value. Rows that see
 * the same of a block share its loads. */
LANES void span_values(kern_dtype dtype, const attention_job *job, const attention_span *span,
                       const attention_rows *rows, uint32_t n, float (*weights)[ATTENTION_SPAN], const float *factors,
                       uint32_t d, uint32_t n_chunks)
{
    f32x16 sum[2][ATTENTION_ROWS];
    UNROLL
    for (uint32_t c = 0; c < n_chunks; c++) {
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            sum[c][r] = f32x16_mul(f32x16_load(rows->sums[r] + d + 16 * c), f32x16_set(factors[r]));
        }
    }
    const size_t skipped = d * (dtype == KERN_F32 ? sizeof(float) : sizeof(uint16_t));
    for (uint32_t b = 0; b < span->n_blocks; b++) {
        const unsigned char *values = span->values[b] + skipped;
        const float         *own[ATTENTION_ROWS];
        bool                 alike = true;
        uint32_t             first = place_in(rows->first[0], b), end = place_in(rows->end[0], b);
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            own[r] = weights[r] + b * KERN_KV_BLOCK_TOKENS;
            alike &= place_in(rows->first[r], b) == first && place_in(rows->end[r], b) == end;
        }
        if (alike) {
            add_values(dtype, values, job->head_dim, n_chunks, 0, n, first, end, own, sum);
            continue;
        }
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            add_values(dtype, values, job->head_dim, n_chunks, r, 1, place_in(rows->first[r], b),
                       place_in(rows->end[r], b), own, sum);
        }
    }
    UNROLL
    for (uint32_t c = 0; c < n_chunks; c++) {
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            f32x16_store(rows->sums[r] + d + 16 * c, sum[c][r]);
        }
    }
}

LANES void attend_span_of(kern_dtype dtype, const attention_job *job, const attention_span *span,
                          const attention_rows *rows, uint32_t n)
{
    float    weights[ATTENTION_ROWS][ATTENTION_SPAN], factors[16];
    uint32_t b = 0, d = 0;
    do {
        block_scores(dtype, job, span, b, rows, n, weights);
    } while (++b < span->n_blocks);
    span_weights(span, rows, n, weights, factors);
    if (kv_is_quantized(dtype)) {
        quant_values(dtype, job, span, rows, n, weights, factors);
        return;
    }
    for (; LANES_MANY_REGISTERS && d + 32 <= job->head_dim; d += 32) {
        span_values(dtype, job, span, rows, n, weights, factors, d, 2);
    }
    for (; d < job->head_dim; d += 16) {
        span_values(dtype, job, span, rows, n, weights, factors, d, 1);
    }
}

#define ATTEND_ROWS(dtype, n)                                                                                          \
    case n:                                                                                                            \
        attend_span_of(dtype, job, span, rows, n);                                                                     \
        break;

#if defined(LANES_WIDE_TILES)
#define ATTEND_MORE_ROWS(dtype) ATTEND_ROWS(dtype, 5) ATTEND_ROWS(dtype, 6) ATTEND_ROWS(dtype, 7) ATTEND_ROWS(dtype, 8)
#else
#define ATTEND_MORE_ROWS(dtype)
#endif

/* One instance for each number of rows, so that the sums live in registers. */
#define ATTEND_SPAN(name, dtype)                                                                                       \
    static void name(const attention_job *job, const attention_span *span, const attention_rows *rows, uint32_t n)     \
    {                                                                                                                  \
        switch (n) {                                                                                                   \
            ATTEND_ROWS(dtype, 1)                                                                                      \
            ATTEND_ROWS(dtype, 2) ATTEND_ROWS(dtype, 3) ATTEND_ROWS(dtype, 4) ATTEND_MORE_ROWS(dtype)                  \
        }                                                                                                              \
    }

ATTEND_SPAN(attend_span_f32, KERN_F32)
ATTEND_SPAN(attend_span_f16, KERN_F16)
ATTEND_SPAN(attend_span_bf16, KERN_BF16)
ATTEND_SPAN(attend_span_q8_0, KERN_Q8_0)
ATTEND_SPAN(attend_span_q4_1, KERN_Q4_1)

typedef void attend_span(const attention_job *, const attention_span *, const attention_rows *, uint32_t);

static attend_span *attend_span_for(kern_dtype dtype)
{
    switch (dtype) {
    case KERN_F32:
        return attend_span_f32;
    case KERN_F16:
        return attend_span_f16;
    case KERN_BF16:
        return attend_span_bf16;
    case KERN_Q8_0:
        return attend_span_q8_0;
    default:
        return attend_span_q4_1;
    }
}

static float *query_of(const attention_job *job, float *row)
{
    return row + 16 + job->sum_floats;
}

static const float *row_query(const attention_job *job, const attention_task *task, uint32_t i)
{
    uint32_t token = task->token + i / job->group, head = task->kv_head * job->group + i % job->group;
    return job->args->q + ((size_t)(task->sequence->q_start + token) * job->args->n_heads + head) * job->head_dim;
}

/* All rows of a task against the span of its sequence that begins with block `b`. Row i is token i / group, head i %
 * group of the KV head's heads. */
static void attend_task_span(const attention_job *job, const attention_task *task, uint32_t b, uint32_t n_blocks,
                             uint32_t n_ahead, float *state)
{
    const kern_attention_args *args   = job->args;
    const uint32_t             n_rows = task->n_tokens * job->group, start = b * KERN_KV_BLOCK_TOKENS;
    attention_span             span   = {.n_blocks = n_blocks};
    attend_span               *attend = attend_span_for(job->cache->shape.dtype);
    attention_rows             rows;
    const uint32_t            *blocks = args->block_tables + task->sequence->table_start + b;
    uint32_t                   n      = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        span.keys[i]   = host_kv_keys(job->cache, args->layer, blocks[i], task->kv_head);
        span.values[i] = host_kv_values(job->cache, args->layer, blocks[i], task->kv_head);
    }
    for (uint32_t i = 0; i < n_ahead; i++) {
        span.ahead[i] = host_kv_keys(job->cache, args->layer, blocks[ATTENTION_BLOCKS + i], task->kv_head);
    }
    for (uint32_t i = n_ahead; i < ATTENTION_BLOCKS; i++) {
        span.ahead[i] = span.keys[0];
    }
    span.ahead_lines = n_ahead ? job->cache->head_bytes / 64 : 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t last  = attention_end_visible(args, task->sequence, task->token + i / job->group) - 1;
        uint32_t first = attention_first_visible(args, last);
        if (last >= start && first < start + ATTENTION_SPAN) {
            float *own      = state + (size_t)i * job->row_floats;
            rows.q[n]       = row_query(job, task, i);
            rows.query[n]   = (const attention_query *)query_of(job, own);
            rows.sums[n]    = own + 16;
            rows.largest[n] = own;
            rows.total[n]   = own + 1;
            rows.first[n]   = first > start ? first - start : 0;
            rows.end[n]     = last - start < ATTENTION_SPAN ? last - start + 1 : ATTENTION_SPAN;
            n++;
        }
        if (n == ATTENTION_ROWS || i + 1 == n_rows) {
            attend(job, &span, &rows, n);
            n                = 0;
            span.ahead_lines = 0;
        }
    }
}

static void clear_rows(const attention_job *job, const attention_task *task, float *state)
{
    for (uint32_t i = 0; i < task->n_tokens * job->group; i++, state += job->row_floats) {
        memset(state, 0, (16 + job->sum_floats) * sizeof(float));
        state[0] = -INFINITY;
        if (job->n_groups > 0) {
            quantize_query(row_query(job, task, i), job->head_dim, (attention_query *)query_of(job, state));
        }
    }
}

/* state = the sums of all rows of a task over segment `segment` of its sequence. */
static void attend_task_segment(const attention_job *job, const attention_task *task, uint32_t segment, float *state)
{
    const uint32_t first_row = task->sequence->position + task->token;
    const uint32_t end       = attention_end_visible(job->args, task->sequence, task->token + task->n_tokens - 1);
    clear_rows(job, task, state);
    uint32_t visible   = attention_first_visible(job->args, first_row);
    uint32_t start     = segment * ATTENTION_SEGMENT > visible ? segment * ATTENTION_SEGMENT : visible;
    uint32_t stop      = (segment + 1) * ATTENTION_SEGMENT < end ? (segment + 1) * ATTENTION_SEGMENT : end;
    uint32_t end_block = (stop + KERN_KV_BLOCK_TOKENS - 1) / KERN_KV_BLOCK_TOKENS;
    for (uint32_t b = start / ATTENTION_SPAN * ATTENTION_BLOCKS; b < end_block; b += ATTENTION_BLOCKS) {
        uint32_t n_blocks = end_block - b < ATTENTION_BLOCKS ? end_block - b : ATTENTION_BLOCKS, next = b + n_blocks;
        uint32_t n_ahead = end_block - next < ATTENTION_BLOCKS ? end_block - next : ATTENTION_BLOCKS;
        attend_task_span(job, task, b, n_blocks, n_ahead, state);
    }
}

/* Adds a later segment's sums to those of the ones before it. A row that saw nothing of one adds nothing, so that it
 * does not matter with which one its task begins. */
static void merge_segment(const attention_job *job, uint32_t n_rows, float *state, const float *later)
{
    for (uint32_t i = 0; i < n_rows; i++, state += job->row_floats, later += job->row_floats) {
        if (later[1] == 0 && !isnan(later[0])) {
            continue;
        }
        if (state[1] == 0) {
            memcpy(state, later, job->row_floats * sizeof(float));
            continue;
        }
        float largest     = state[0] > later[0] ? state[0] : later[0],
              factors[16] = {state[0] - largest, later[0] - largest};
        f32x16_store(factors, f32x16_exp(f32x16_load(factors)));
        state[0] = largest;
        state[1] = state[1] * factors[0] + later[1] * factors[1];
        for (uint32_t d = 16; d < 16 + job->sum_floats; d += 16) {
            f32x16 scaled = f32x16_mul(f32x16_load(state + d), f32x16_set(factors[0]));
            f32x16_store(state + d, f32x16_fma(f32x16_load(later + d), f32x16_set(factors[1]), scaled));
        }
    }
}

static void write_task(const attention_job *job, const attention_task *task, const float *state)
{
    const kern_attention_args *args   = job->args;
    const uint32_t             n_rows = task->n_tokens * job->group;
    for (uint32_t i = 0; i < n_rows; i++, state += job->row_floats) {
        uint32_t token = task->token + i / job->group, head = task->kv_head * job->group + i % job->group;
        float   *out = args->out + ((size_t)(task->sequence->q_start + token) * args->n_heads + head) * job->head_dim;
        for (uint32_t d = 0; d < job->head_dim; d++) {
            out[d] = state[16 + d] / state[1];
        }
    }
}

/* One task, segment after segment. */
static void attention_task_slice(void *argument, uint32_t slice, uint32_t worker)
{
    const attention_job *job   = argument;
    attention_task       task  = attention_task_of(job, slice);
    float               *state = cpu_worker_scratch(job->device, worker), *later = state + job->state_floats;
    uint32_t             end = attention_end_visible(job->args, task.sequence, task.token + task.n_tokens - 1);
    attend_task_segment(job, &task, task.first_segment, state);
    for (uint32_t segment = task.first_segment + 1; segment * ATTENTION_SEGMENT < end; segment++) {
        attend_task_segment(job, &task, segment, later);
        merge_segment(job, task.n_tokens * job->group, state, later);
    }
    write_task(job, &task, state);
}

static float *part_state(const attention_job *job, uint32_t part)
{
    return job->device->attention_parts + (size_t)part * job->state_floats;
}

/* One segment of one task. */
static void attention_part_slice(void *argument, uint32_t part, uint32_t worker)
{
    (void)worker;
    const attention_job *job  = argument;
    attention_task       task = attention_task_of_part(job, part);
    attend_task_segment(job, &task, part - task.first_part, part_state(job, part));
}

static void attention_merge_slice(void *argument, uint32_t slice, uint32_t worker)
{
    (void)worker;
    const attention_job *job   = argument;
    attention_task       task  = attention_task_of(job, slice);
    float               *state = part_state(job, task.first_part + task.first_segment);
    for (uint32_t i = task.first_segment + 1; i < task.n_segments; i++) {
        merge_segment(job, task.n_tokens * job->group, state, part_state(job, task.first_part + i));
    }
    write_task(job, &task, state);
}

static void cpu_attention(kern_device *device, const kern_attention_args *args)
{
    attention_job job = attention_job_of((cpu_device *)device, args);
    if (job.n_parts == 0) {
        cpu_run(job.device, attention_task_slice, &job, job.n_tasks, job.work);
        return;
    }
    cpu_run(job.device, attention_part_slice, &job, job.n_parts, job.work);
    cpu_run(job.device, attention_merge_slice, &job, job.n_tasks, (uint64_t)job.n_parts * job.state_floats);
}
