#include <math.h>

#include "kernels/ref_device.h"

void ref_softcap(kern_device *device, const kern_softcap_args *args)
{
    (void)device;
    for (size_t i = 0; i < (size_t)args->n_tokens * args->n_cols; i++) {
        args->x[i] = (float)(args->cap * tanh((double)args->x[i] / args->cap));
    }
}
