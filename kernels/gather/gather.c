#include <string.h>

#include "kernels/ref_device.h"

void host_gather(kern_device *device, const kern_gather_args *args)
{
    (void)device;
    for (uint32_t i = 0; i < args->n_rows; i++) {
        memcpy(args->out + (size_t)i * args->n_cols, args->x + (size_t)args->rows[i] * args->n_cols,
               args->n_cols * sizeof(float));
    }
}
