#include "kernels/attention/attention_cpu.h"

#include <assert.h>

enum {
    TASK_ROWS      = 48, /* query rows that walk the cache together */
    PARTS_A_THREAD = 64,
};

static uint32_t sum_floats(uint32_t head_dim, bool quantized)
{
    return quantized ? kv_n_groups(head_dim) * KV_GROUP : (head_dim + 15) / 16 * 16;
}

static uint32_t row_floats(uint32_t head_dim, bool quantized)
{
    uint32_t n_sums = sum_floats(head_dim, quantized);
    return 16 + n_sums + (quantized ? (uint32_t)sizeof(attention_query) / 4 + n_sums / 2 : 0);
}

static uint32_t state_floats(uint32_t n_rows, uint32_t head_dim, bool quantized)
{
    return (n_rows > TASK_ROWS ? n_rows : TASK_ROWS) * row_floats(head_dim, quantized);
}

/* Two states: of the segments so far, and of the next. Of either kind of cache. */
size_t attention_scratch_bytes(uint32_t n_heads, uint32_t head_dim)
{
    return (size_t)2 * state_floats(n_heads, head_dim, true) * sizeof(float);
}

size_t attention_parts_bytes(uint32_t n_heads, uint32_t head_dim, uint32_t n_threads)
{
    return (size_t)PARTS_A_THREAD * n_threads * state_floats(n_heads, head_dim, true) * sizeof(float);
}

static uint32_t tasks_of(const attention_job *job, const kern_sequence *sequence)
{
    return (sequence->n_q + job->task_tokens - 1) / job->task_tokens * job->cache->shape.n_kv_heads;
}

static uint32_t segments_of(const kern_sequence *sequence)
{
    return (sequence->position + sequence->n_q + ATTENTION_SEGMENT - 1) / ATTENTION_SEGMENT;
}

/* Whether segments are worth tasks of their own: when there are too few to keep all threads busy. */
static bool is_worth_parts(const attention_job *job, uint64_t n_parts)
{
    uint32_t n_threads = thread_pool_n_threads(job->device->pool);
    return n_threads > 1 && job->n_tasks < 4 * n_threads && n_parts > job->n_tasks &&
           n_parts <= (uint64_t)PARTS_A_THREAD * n_threads;
}

attention_job attention_job_of(cpu_device *device, const kern_attention_args *args)
{
    const host_kv_cache *cache   = (const host_kv_cache *)args->cache;
    attention_job        job     = {.args = args, .cache = cache, .device = device, .head_dim = cache->shape.head_dim};
    uint64_t             n_parts = 0;
    bool                 quantized = kv_is_quantized(cache->shape.dtype);
    assert(args->n_heads % cache->shape.n_kv_heads == 0 && args->layer < cache->shape.n_layers);
    assert(args->n_heads <= device->limits.n_heads && job.head_dim <= device->limits.head_dim);
    job.group        = args->n_heads / cache->shape.n_kv_heads;
    job.task_tokens  = job.group < TASK_ROWS ? TASK_ROWS / job.group : 1;
    job.n_groups     = quantized ? kv_n_groups(job.head_dim) : 0;
    job.sum_floats   = sum_floats(job.head_dim, quantized);
    job.row_floats   = row_floats(job.head_dim, quantized);
    job.state_floats = state_floats(job.group, job.head_dim, quantized);
    for (uint32_t i = 0; i < args->n_sequences; i++) {
        const kern_sequence *sequence = &args->sequences[i];
        uint32_t             n_tasks  = tasks_of(&job, sequence);
        job.n_tasks += n_tasks;
        n_parts += (uint64_t)n_tasks * segments_of(sequence);
        job.work += (uint64_t)sequence->n_q * (sequence->position + sequence->n_q) * args->n_heads * job.head_dim;
    }
    job.n_parts = is_worth_parts(&job, n_parts) ? (uint32_t)n_parts : 0;
    return job;
}

/* Task `index` of a sequence whose parts begin at `first_part`. */
static attention_task task_of(const attention_job *job, const kern_sequence *sequence, uint32_t index,
                              uint32_t first_part)
{
    uint32_t n_kv_heads = job->cache->shape.n_kv_heads, token = index / n_kv_heads * job->task_tokens;
    uint32_t left = sequence->n_q - token, n_segments = segments_of(sequence);
    uint32_t visible = attention_first_visible(job->args, sequence->position + token);
    return (attention_task){.sequence      = sequence,
                            .token         = token,
                            .n_tokens      = left < job->task_tokens ? left : job->task_tokens,
                            .kv_head       = index % n_kv_heads,
                            .first_segment = visible / ATTENTION_SEGMENT,
                            .first_part    = first_part + index * n_segments,
                            .n_segments    = n_segments};
}

attention_task attention_task_of(const attention_job *job, uint32_t index)
{
    const kern_sequence *sequence   = job->args->sequences;
    uint32_t             first_part = 0;
    for (uint32_t n; index >= (n = tasks_of(job, sequence)); index -= n, sequence++) {
        first_part += n * segments_of(sequence);
    }
    return task_of(job, sequence, index, first_part);
}

attention_task attention_task_of_part(const attention_job *job, uint32_t part)
{
    const kern_sequence *sequence   = job->args->sequences;
    uint32_t             first_part = 0;
    for (uint32_t n; part - first_part >= (n = tasks_of(job, sequence) * segments_of(sequence)); sequence++) {
        first_part += n;
    }
    return task_of(job, sequence, (part - first_part) / segments_of(sequence), first_part);
}
