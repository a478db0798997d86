#include <math.h>

#include "kernels/ref_device.h"

void ref_rmsnorm(kern_device *device, const kern_rmsnorm_args *args)
{
    (void)device;
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        const float *x   = args->x + (size_t)t * args->row_stride;
        float       *out = args->out + (size_t)t * args->row_stride;
        double       sum = 0;
        for (uint32_t c = 0; c < args->n_cols; c++) {
            sum += (double)x[c] * x[c];
        }
        double factor = 1 / sqrt(sum / args->n_cols + (double)args->epsilon);
        for (uint32_t c = 0; c < args->n_cols; c++) {
            out[c] = (float)(x[c] * factor * args->weight[c] + (args->accumulate ? (double)out[c] : 0));
        }
    }
}
