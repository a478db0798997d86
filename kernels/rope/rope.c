#include "kernels/ref_device.h"

void ref_rope(kern_device *device, const kern_rope_args *args)
{
    (void)device;
    uint32_t half = args->rope_dim / 2;
    for (uint32_t row = 0; row < args->n_tokens * args->n_heads; row++) {
        float       *x       = args->x + (size_t)row * args->head_dim;
        const float *cos_sin = args->cos_sin + (size_t)(row / args->n_heads) * args->rope_dim;
        for (uint32_t i = 0; i < half; i++) {
            uint32_t first  = args->pairs == KERN_ROPE_ADJACENT ? 2 * i : i;
            uint32_t second = args->pairs == KERN_ROPE_ADJACENT ? 2 * i + 1 : i + half;
            double   a = x[first], b = x[second], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            x[first]  = (float)(a * c - b * s);
            x[second] = (float)(a * s + b * c);
        }
    }
}
