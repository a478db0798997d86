/* Root mean square norm: bound by memory (two reads and a write of x). The sum of squares has 16 partial sums by column
 * modulo 16. */
#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"
#include "kernels/math.h"

static void rmsnorm_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kern_rmsnorm_args *args   = argument;
    const uint32_t           n_cols = args->n_cols, whole = n_cols / 16 * 16;
    const float             *x       = args->x + (size_t)token * args->row_stride;
    float                   *out     = args->out + (size_t)token * args->row_stride;
    f32x16                   squares = f32x16_set(0);
    for (uint32_t c = 0; c < whole; c += 16) {
        squares = f32x16_fma(f32x16_load(x + c), f32x16_load(x + c), squares);
    }
    f32x16 rest = f32x16_load_first(x + whole, n_cols - whole);
    squares     = f32x16_fma(rest, rest, squares);

    f32x16 factor = f32x16_set(1 / sqrtf(f32x16_sum(squares) / (float)n_cols + args->epsilon));
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16 value = f32x16_mul(f32x16_mul(f32x16_load(x + c), factor), f32x16_load(args->weight + c));
        f32x16_store(out + c, args->accumulate ? f32x16_add(value, f32x16_load(out + c)) : value);
    }
    f32x16 weight = f32x16_load_first(args->weight + whole, n_cols - whole);
    f32x16 value  = f32x16_mul(f32x16_mul(rest, factor), weight);
    value         = args->accumulate ? f32x16_add(value, f32x16_load_first(out + whole, n_cols - whole)) : value;
    f32x16_store_first(out + whole, value, n_cols - whole);
}

static void cpu_rmsnorm(kern_device *device, const kern_rmsnorm_args *args)
{
    cpu_run((cpu_device *)device, rmsnorm_slice, (void *)args, args->n_tokens, (uint64_t)args->n_tokens * args->n_cols);
}
