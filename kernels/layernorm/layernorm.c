#include <math.h>

#include "kernels/ref_device.h"

void ref_layernorm(kern_device *device, const kern_layernorm_args *args)
{
    (void)device;
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        const float *x   = args->x + (size_t)t * args->n_cols;
        float       *out = args->out + (size_t)t * args->n_cols;
        double       sum = 0, squares = 0;
        for (uint32_t c = 0; c < args->n_cols; c++) {
            sum += (double)x[c];
        }
        double mean = sum / args->n_cols;
        for (uint32_t c = 0; c < args->n_cols; c++) {
            squares += (x[c] - mean) * (x[c] - mean);
        }
        double factor = 1 / sqrt(squares / args->n_cols + (double)args->epsilon);
        for (uint32_t c = 0; c < args->n_cols; c++) {
            out[c] = (float)((x[c] - mean) * factor * args->weight[c] + args->bias[c]);
        }
    }
}
