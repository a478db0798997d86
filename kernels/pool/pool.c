#include "kernels/ref_device.h"

void ref_pool(kern_device *device, const kern_pool_args *args)
{
    (void)device;
    for (uint32_t i = 0; i < args->n_outputs; i++) {
        const kern_rows *rows = &args->rows[i];
        for (uint32_t c = 0; c < args->n_cols; c++) {
            double sum = 0;
            for (uint32_t r = 0; r < rows->n; r++) {
                sum += (double)args->x[(size_t)(rows->first + r) * args->n_cols + c];
            }
            args->out[(size_t)i * args->n_cols + c] = (float)(sum / rows->n);
        }
    }
}
