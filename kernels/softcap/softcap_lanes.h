/* Soft cap of logits, in place: two passes of memory for some 20 operations a number. */
#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

static void softcap_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kern_softcap_args *args  = argument;
    const uint32_t           whole = args->n_cols / 16 * 16, rest = args->n_cols - whole;
    const f32x16             cap = f32x16_set(args->cap);
    float                   *x   = args->x + (size_t)token * args->n_cols;
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16_store(x + c, f32x16_mul(cap, f32x16_tanh(f32x16_div(f32x16_load(x + c), cap))));
    }
    f32x16 last = f32x16_load_first(x + whole, rest);
    f32x16_store_first(x + whole, f32x16_mul(cap, f32x16_tanh(f32x16_div(last, cap))), rest);
}

static void cpu_softcap(kern_device *device, const kern_softcap_args *args)
{
    cpu_run((cpu_device *)device, softcap_slice, (void *)args, args->n_tokens,
            (uint64_t)args->n_tokens * args->n_cols * 16);
}
