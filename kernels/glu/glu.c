#include <math.h>

#include "kernels/ref_device.h"

void ref_glu(kern_device *device, const kern_glu_args *args)
{
    (void)device;
    for (size_t i = 0; i < (size_t)args->n_tokens * args->n_cols; i++) {
        double gate = args->gate[i], activated;
        if (args->activation == KERN_ACT_SILU) {
            activated = gate / (1 + exp(-gate));
        } else if (args->activation == KERN_ACT_GELU_ERF) {
            activated = 0.5 * gate * erfc(-gate * sqrt(0.5));
        } else {
            activated =
                0.5 * gate * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (gate + 0.044715 * gate * gate * gate)));
        }
        args->out[i] = (float)(args->up ? activated * args->up[i] : activated);
    }
}
