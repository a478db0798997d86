/* Gated activation: 3 passes of memory for some 25 operations a number, so bound by arithmetic in cache. */
#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

LANES f32x16 glu_of(kern_activation activation, f32x16 gate, f32x16 up)
{
    f32x16 one = f32x16_set(1);
    if (activation == KERN_ACT_SILU) {
        f32x16 power = f32x16_exp(f32x16_sub(f32x16_set(0), gate));
        return f32x16_mul(f32x16_div(gate, f32x16_add(one, power)), up);
    }
    if (activation == KERN_ACT_GELU_ERF) {
        return f32x16_mul(f32x16_gelu(gate), up);
    }
    /* 0.5 g (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))) */
    f32x16 cube  = f32x16_mul(f32x16_mul(gate, gate), gate);
    f32x16 inner = f32x16_mul(f32x16_set(0.7978845608f), f32x16_fma(f32x16_set(0.044715f), cube, gate));
    f32x16 half  = f32x16_mul(f32x16_set(0.5f), gate);
    return f32x16_mul(f32x16_mul(half, f32x16_add(one, f32x16_tanh(inner))), up);
}

static void glu_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kern_glu_args *args  = argument;
    const uint32_t       whole = args->n_cols / 16 * 16, rest = args->n_cols - whole;
    const size_t         row = (size_t)token * args->n_cols;
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16 gate = f32x16_load(args->gate + row + c);
        f32x16 up   = args->up ? f32x16_load(args->up + row + c) : f32x16_set(1);
        f32x16_store(args->out + row + c, glu_of(args->activation, gate, up));
    }
    f32x16 gate = f32x16_load_first(args->gate + row + whole, rest);
    f32x16 up   = args->up ? f32x16_load_first(args->up + row + whole, rest) : f32x16_set(1);
    f32x16_store_first(args->out + row + whole, glu_of(args->activation, gate, up), rest);
}

static void cpu_glu(kern_device *device, const kern_glu_args *args)
{
    cpu_run((cpu_device *)device, glu_slice, (void *)args, args->n_tokens,
            (uint64_t)args->n_tokens * args->n_cols * 16);
}
