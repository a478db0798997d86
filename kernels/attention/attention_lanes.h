/* Causal attention over the paged cache.
 *
 * A task is a run of query rows of one sequence times the heads that share a KV head, so a block's keys and values are
 * read once for all of them: 4 n_rows operations for each number read. Decode is bound by the cache's bytes, prefill by
 * arithmetic.
 *
 * A row's sums: per block of 16 positions, dot products add the dimensions of the first half of a head in order and
 * those of the second half apart, so that a few rows keep the multipliers busy; the block's 16 weights are summed in
 * the fixed tree; weighted values are added position by position. Only positions decide which blocks and lanes those
 * are. */
#include <assert.h>

#include "kernels/attention/attention_cpu.h"
#include "kernels/cpu_device.h"
#include "kernels/kv/kv_cache.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

enum { ATTENTION_ROWS = LANES_ATTENTION_ROWS }; /* query rows whose sums are in registers together */

/* Query rows against one block: pointers to each row's state, and its visible places [first, end) of the block. */
typedef struct {
    const float *q[ATTENTION_ROWS];
    float       *sums[ATTENTION_ROWS]; /* [head_dim rounded up to 16] */
    float       *largest[ATTENTION_ROWS], *total[ATTENTION_ROWS];
    uint32_t     first[ATTENTION_ROWS], end[ATTENTION_ROWS];
} attention_rows;

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

LANES void block_dots(kern_dtype dtype, const attention_job *job, const unsigned char *keys, const attention_rows *rows,
                      uint32_t n, f32x16 *dot)
{
    const uint32_t half = job->head_dim / 2;
    f32x16         second[ATTENTION_ROWS];
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = second[r] = f32x16_set(0);
    }
    if (LANES_MANY_REGISTERS) { /* both halves at once */
        for (uint32_t d = 0; d < half; d++) {
            add_products(dtype, keys, rows, n, d, d + 1, dot);
            add_products(dtype, keys, rows, n, half + d, half + d + 1, second);
        }
        add_products(dtype, keys, rows, n, 2 * half, job->head_dim, second);
    } else {
        add_products(dtype, keys, rows, n, 0, half, dot);
        add_products(dtype, keys, rows, n, half, job->head_dim, second);
    }
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        dot[r] = f32x16_add(dot[r], second[r]);
    }
}

/* weights[r][j] = e^(score - largest), 0 where position j is not visible; returns what older sums are multiplied by in
 * factors[16]. */
LANES void block_weights(kern_dtype dtype, const attention_job *job, const unsigned char *keys,
                         const attention_rows *rows, uint32_t n, float (*weights)[16], float *factors)
{
    f32x16      dot[ATTENTION_ROWS];
    const float softcap     = job->args->softcap;
    float       changes[16] = {0};
    block_dots(dtype, job, keys, rows, n, dot);
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        f32x16 score = f32x16_mul(dot[r], f32x16_set(job->args->scale));
        if (softcap > 0) {
            score = f32x16_mul(f32x16_tanh(f32x16_div(score, f32x16_set(softcap))), f32x16_set(softcap));
        }
        mask16 visible = mask16_range(rows->first[r], rows->end[r]);
        score          = f32x16_select(visible, score, f32x16_set(-INFINITY));
        float before = *rows->largest[r], block = f32x16_largest(score);
        float largest     = before > block ? before : block;
        dot[r]            = f32x16_exp(f32x16_sub(score, f32x16_set(largest)));
        changes[r]        = before - largest;
        *rows->largest[r] = largest;
        f32x16_store(weights[r], dot[r]);
    }
    f32x16_store(factors, f32x16_exp(f32x16_load(changes)));
    UNROLL
    for (uint32_t r = 0; r < n; r++) {
        *rows->total[r] = *rows->total[r] * factors[r] + f32x16_sum(dot[r]);
    }
}

/* For 16 n_chunks dimensions from d: sums = sums * factor + sum over visible positions of weight * value. */
LANES void value_chunks(kern_dtype dtype, const attention_job *job, const unsigned char *values,
                        const attention_rows *rows, uint32_t n, uint32_t first, uint32_t end, float (*weights)[16],
                        const float *factors, uint32_t d, uint32_t n_chunks)
{
    f32x16 sum[2][ATTENTION_ROWS];
    UNROLL
    for (uint32_t c = 0; c < n_chunks; c++) {
        UNROLL
        for (uint32_t r = 0; r < n; r++) {
            sum[c][r] = f32x16_mul(f32x16_load(rows->sums[r] + d + 16 * c), f32x16_set(factors[r]));
        }
    }
    for (uint32_t j = first; j < end; j++) {
        UNROLL
        for (uint32_t c = 0; c < n_chunks; c++) {
            f32x16 value = load_cached(dtype, values, (size_t)j * job->head_dim + d + 16 * c);
            UNROLL
            for (uint32_t r = 0; r < n; r++) {
                sum[c][r] = f32x16_fma(f32x16_set(weights[r][j]), value, sum[c][r]);
            }
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

/* Rows that see the same of the block share its loads. */
LANES void block_values(kern_dtype dtype, const attention_job *job, const unsigned char *values,
                        const attention_rows *rows, uint32_t n, uint32_t first, uint32_t end, float (*weights)[16],
                        const float *factors)
{
    uint32_t d = 0;
    for (; LANES_MANY_REGISTERS && d + 32 <= job->head_dim; d += 32) {
        value_chunks(dtype, job, values, rows, n, first, end, weights, factors, d, 2);
    }
    for (; d < job->head_dim; d += 16) {
        value_chunks(dtype, job, values, rows, n, first, end, weights, factors, d, 1);
    }
}

LANES void attend_block_of(kern_dtype dtype, const attention_job *job, const unsigned char *keys,
                           const unsigned char *values, const attention_rows *rows, uint32_t n)
{
    float weights[ATTENTION_ROWS][16], factors[16];
    block_weights(dtype, job, keys, rows, n, weights, factors);
    bool alike = true;
    for (uint32_t r = 1; r < n; r++) {
        alike &= rows->first[r] == rows->first[0] && rows->end[r] == rows->end[0];
    }
    if (alike) {
        block_values(dtype, job, values, rows, n, rows->first[0], rows->end[0], weights, factors);
        return;
    }
    for (uint32_t r = 0; r < n; r++) {
        attention_rows one = {.sums = {rows->sums[r]}};
        block_values(dtype, job, values, &one, 1, rows->first[r], rows->end[r], weights + r, factors + r);
    }
}

#define ATTEND_ROWS(dtype, n)                                                                                          \
    case n:                                                                                                            \
        attend_block_of(dtype, job, keys, values, rows, n);                                                            \
        break;

#if defined(LANES_WIDE_TILES)
#define ATTEND_MORE_ROWS(dtype) ATTEND_ROWS(dtype, 5) ATTEND_ROWS(dtype, 6) ATTEND_ROWS(dtype, 7) ATTEND_ROWS(dtype, 8)
#else
#define ATTEND_MORE_ROWS(dtype)
#endif

/* One instance for each number of rows, so that the sums live in registers. */
#define ATTEND_BLOCK(name, dtype)                                                                                      \
    static void name(const attention_job *job, const unsigned char *keys, const unsigned char *values,                 \
                     const attention_rows *rows, uint32_t n)                                                           \
    {                                                                                                                  \
        switch (n) {                                                                                                   \
            ATTEND_ROWS(dtype, 1)                                                                                      \
            ATTEND_ROWS(dtype, 2) ATTEND_ROWS(dtype, 3) ATTEND_ROWS(dtype, 4) ATTEND_MORE_ROWS(dtype)                  \
        }                                                                                                              \
    }

ATTEND_BLOCK(attend_block_f32, KERN_F32)
ATTEND_BLOCK(attend_block_f16, KERN_F16)
ATTEND_BLOCK(attend_block_bf16, KERN_BF16)

/* All rows of a task against block `b` of its sequence. Row i is token i / group, head i % group of the KV head's
 * heads. */
static void attend_task_block(const attention_job *job, const attention_task *task, uint32_t b, float *state)
{
    const kern_attention_args *args   = job->args;
    const uint32_t             block  = args->block_tables[task->sequence->table_start + b];
    const unsigned char       *keys   = host_kv_keys(job->cache, args->layer, block, task->kv_head);
    const unsigned char       *values = host_kv_values(job->cache, args->layer, block, task->kv_head);
    const uint32_t             n_rows = task->n_tokens * job->group, start = b * KERN_KV_BLOCK_TOKENS;
    attention_rows             rows;
    uint32_t                   n = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t token = task->token + i / job->group, head = task->kv_head * job->group + i % job->group;
        uint32_t last  = task->sequence->position + token;
        uint32_t first = args->window && last + 1 > args->window ? last + 1 - args->window : 0;
        if (last >= start && first < start + KERN_KV_BLOCK_TOKENS) {
            float *own   = state + (size_t)i * job->row_floats;
            rows.q[n]    = args->q + ((size_t)(task->sequence->q_start + token) * args->n_heads + head) * job->head_dim;
            rows.sums[n] = own + 16;
            rows.largest[n] = own;
            rows.total[n]   = own + 1;
            rows.first[n]   = first > start ? first - start : 0;
            rows.end[n]     = last - start < KERN_KV_BLOCK_TOKENS ? last - start + 1 : KERN_KV_BLOCK_TOKENS;
            n++;
        }
        if (n == ATTENTION_ROWS || i + 1 == n_rows) {
            (job->cache->shape.dtype == KERN_F32   ? attend_block_f32
             : job->cache->shape.dtype == KERN_F16 ? attend_block_f16
                                                   : attend_block_bf16)(job, keys, values, &rows, n);
            n = 0;
        }
    }
}

static void attention_slice(void *argument, uint32_t slice, uint32_t worker)
{
    const attention_job       *job    = argument;
    const kern_attention_args *args   = job->args;
    attention_task             task   = attention_task_of(job, slice);
    float                     *state  = cpu_worker_scratch(job->device, worker);
    const uint32_t             n_rows = task.n_tokens * job->group;
    for (uint32_t i = 0; i < n_rows; i++) {
        memset(state + (size_t)i * job->row_floats, 0, job->row_floats * sizeof(float));
        state[(size_t)i * job->row_floats] = -INFINITY;
    }
    uint32_t first_row = task.sequence->position + task.token, last_row = first_row + task.n_tokens - 1;
    uint32_t first = args->window && first_row + 1 > args->window ? first_row + 1 - args->window : 0;
    for (uint32_t b = first / KERN_KV_BLOCK_TOKENS; b <= last_row / KERN_KV_BLOCK_TOKENS; b++) {
        attend_task_block(job, &task, b, state);
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        const float *own   = state + (size_t)i * job->row_floats;
        uint32_t     token = task.token + i / job->group, head = task.kv_head * job->group + i % job->group;
        float *out = args->out + ((size_t)(task.sequence->q_start + token) * args->n_heads + head) * job->head_dim;
        for (uint32_t d = 0; d < job->head_dim; d++) {
            out[d] = own[16 + d] / own[1];
        }
    }
}

static void cpu_attention(kern_device *device, const kern_attention_args *args)
{
    attention_job job = attention_job_of((cpu_device *)device, args);
    cpu_run(job.device, attention_slice, &job, job.n_tasks, job.work);
}
