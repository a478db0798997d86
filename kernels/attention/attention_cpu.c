#include "kernels/attention/attention_cpu.h"

#include <assert.h>

enum { TASK_ROWS = 48 }; /* query rows that walk the cache together */

static uint32_t row_floats(uint32_t head_dim)
{
    return 16 + (head_dim + 15) / 16 * 16;
}

size_t attention_scratch_bytes(uint32_t n_heads, uint32_t head_dim)
{
    return (size_t)(n_heads > TASK_ROWS ? n_heads : TASK_ROWS) * row_floats(head_dim) * sizeof(float);
}

static uint32_t tasks_of(const attention_job *job, const kern_sequence *sequence)
{
    return (sequence->n_q + job->task_tokens - 1) / job->task_tokens * job->cache->shape.n_kv_heads;
}

attention_job attention_job_of(cpu_device *device, const kern_attention_args *args)
{
    const host_kv_cache *cache = (const host_kv_cache *)args->cache;
    attention_job        job   = {.args = args, .cache = cache, .device = device, .head_dim = cache->shape.head_dim};
    assert(args->n_heads % cache->shape.n_kv_heads == 0 && args->layer < cache->shape.n_layers);
    assert(args->n_heads <= device->limits.n_heads && job.head_dim <= device->limits.head_dim);
    job.group       = args->n_heads / cache->shape.n_kv_heads;
    job.task_tokens = job.group < TASK_ROWS ? TASK_ROWS / job.group : 1;
    job.row_floats  = row_floats(job.head_dim);
    for (uint32_t i = 0; i < args->n_sequences; i++) {
        const kern_sequence *sequence = &args->sequences[i];
        job.n_tasks += tasks_of(&job, sequence);
        job.work += (uint64_t)sequence->n_q * (sequence->position + sequence->n_q) * args->n_heads * job.head_dim;
    }
    return job;
}

attention_task attention_task_of(const attention_job *job, uint32_t index)
{
    const kern_sequence *sequence = job->args->sequences;
    while (index >= tasks_of(job, sequence)) {
        index -= tasks_of(job, sequence++);
    }
    uint32_t n_kv_heads = job->cache->shape.n_kv_heads, token = index / n_kv_heads * job->task_tokens;
    uint32_t left = sequence->n_q - token;
    return (attention_task){.sequence = sequence,
                            .token    = token,
                            .n_tokens = left < job->task_tokens ? left : job->task_tokens,
                            .kv_head  = index % n_kv_heads};
}
