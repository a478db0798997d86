#include "kernels/gemm/gemm_cpu.h"

#include <assert.h>

#include "kernels/dtype.h"
#include "kernels/gemm/weight.h"

enum { SLICES_A_THREAD = 6 }; /* enough to even out threads that are late */

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

gemm_job gemm_job_of(const cpu_device *device, const kern_gemm_args *args)
{
    const cpu_weight *first = (const cpu_weight *)args->outputs[0].weight;
    gemm_job          job   = {.args = args, .x = device->x, .n_cols = first->n_cols};
    assert(args->n_outputs >= 1 && args->n_outputs <= KERN_GEMM_OUTPUTS_MAX);
    assert(args->n_tokens <= device->limits.n_tokens && job.n_cols <= device->limits.n_cols);
    job.float_stride = divide_up(job.n_cols, WEIGHT_GROUP) * WEIGHT_GROUP;
    for (uint32_t i = 0; i < args->n_outputs; i++) {
        const cpu_weight *weight = (const cpu_weight *)args->outputs[i].weight;
        assert(weight->n_cols == job.n_cols);
        job.output_groups[i] = divide_up(weight->n_rows, WEIGHT_GROUP);
        job.n_groups += job.output_groups[i];
        job.quantizes |= kern_dtype_is_quantized(weight->dtype);
        job.halves |= kern_formats[weight->dtype].n_parts == 2;
        job.pads |= !kern_dtype_is_quantized(weight->dtype) && job.float_stride != job.n_cols;
    }
    job.float_x = job.pads ? job.x.padded : args->x;

    uint32_t n_token_slices = divide_up(args->n_tokens, GEMM_SLICE_TOKENS);
    uint32_t n_wanted =
        divide_up(SLICES_A_THREAD * thread_pool_n_threads(device->pool), n_token_slices ? n_token_slices : 1);
    job.tokens_a_slice = GEMM_SLICE_TOKENS;
    job.groups_a_slice = divide_up(job.n_groups, n_wanted);
    job.n_row_slices   = divide_up(job.n_groups, job.groups_a_slice);
    job.n_slices       = job.n_row_slices * n_token_slices;
    return job;
}

gemm_part gemm_part_of(const gemm_job *job, uint32_t slice)
{
    gemm_part part = {.group = slice % job->n_row_slices * job->groups_a_slice,
                      .token = slice / job->n_row_slices * job->tokens_a_slice};
    part.end_group = part.group + job->groups_a_slice;
    part.end_group = part.end_group < job->n_groups ? part.end_group : job->n_groups;
    part.end_token = part.token + job->tokens_a_slice;
    part.end_token = part.end_token < job->args->n_tokens ? part.end_token : job->args->n_tokens;
    return part;
}

uint32_t gemm_output_of(const gemm_job *job, uint32_t *group)
{
    uint32_t output = 0;
    while (*group >= job->output_groups[output]) {
        *group -= job->output_groups[output++];
    }
    return output;
}

void gemm_run(cpu_device *device, gemm_job *job, thread_pool_slice *prepare, thread_pool_slice *slice)
{
    uint64_t elements = (uint64_t)job->args->n_tokens * job->n_cols;
    if (job->pads || job->quantizes) {
        cpu_run(device, prepare, job, job->args->n_tokens, elements);
    }
    cpu_run(device, slice, job, job->n_slices, elements * job->n_groups * WEIGHT_GROUP);
}
