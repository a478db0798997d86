#include <assert.h>

#include "kernels/cpu_device.h"
#include "kernels/gemm/weight.h"
#include "kernels/ref_device.h"

void ref_gemm(kern_device *device, const kern_gemm_args *args)
{
    for (uint32_t o = 0; o < args->n_outputs; o++) {
        const cpu_weight *weight = (const cpu_weight *)args->outputs[o].weight;
        float            *row    = ref_scratch(device, weight->n_cols * sizeof(float));
        for (uint32_t r = 0; r < weight->n_rows; r++) {
            cpu_weight_columns(weight, r, 0, weight->n_cols, row);
            for (uint32_t t = 0; t < args->n_tokens; t++) {
                const float *x   = args->x + (size_t)t * weight->n_cols;
                float       *y   = args->outputs[o].y + (size_t)t * weight->n_rows + r;
                double       sum = args->outputs[o].bias ? args->outputs[o].bias[r] : 0;
                for (uint32_t c = 0; c < weight->n_cols; c++) {
                    sum += (double)row[c] * x[c];
                }
                *y = (float)(args->accumulate ? *y + sum : sum);
            }
        }
    }
}
