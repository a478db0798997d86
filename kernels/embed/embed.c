#include <assert.h>

#include "kernels/gemm/weight.h"
#include "kernels/ref_device.h"

void host_embed(kern_device *device, const kern_embed_args *args)
{
    (void)device;
    const cpu_weight *weight = (const cpu_weight *)args->weight;
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        float *out = args->out + (size_t)t * weight->n_cols;
        assert(args->tokens[t] < weight->n_rows);
        cpu_weight_row(weight, args->tokens[t], out);
        for (uint32_t c = 0; c < weight->n_cols; c++) {
            out[c] *= args->scale;
        }
    }
}
