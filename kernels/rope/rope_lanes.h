/* Rotary positions: one pass over q or k. Plain loops, which compilers vectorise; without contraction to fma the bits
 * agree. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu_device.h"

static void rope_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kern_rope_args *args    = argument;
    const uint32_t        half    = args->rope_dim / 2;
    const float          *cos_sin = args->cos_sin + (size_t)token * args->rope_dim;
    for (uint32_t head = 0; head < args->n_heads; head++) {
        float *x = args->x + ((size_t)token * args->n_heads + head) * args->head_dim;
        if (args->pairs == KERN_ROPE_ADJACENT) {
            for (uint32_t i = 0; i < half; i++) {
                float a = x[2 * i], b = x[2 * i + 1], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
                x[2 * i]     = fmaf(a, c, -(b * s));
                x[2 * i + 1] = fmaf(a, s, b * c);
            }
        } else {
            for (uint32_t i = 0; i < half; i++) {
                float a = x[i], b = x[i + half], c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
                x[i]        = fmaf(a, c, -(b * s));
                x[i + half] = fmaf(a, s, b * c);
            }
        }
    }
}

static void cpu_rope(kern_device *device, const kern_rope_args *args)
{
    assert(args->rope_dim % 2 == 0 && args->rope_dim <= args->head_dim);
    cpu_run((cpu_device *)device, rope_slice, (void *)args, args->n_tokens,
            (uint64_t)args->n_tokens * args->n_heads * args->rope_dim);
}
