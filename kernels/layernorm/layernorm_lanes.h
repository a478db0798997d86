/* Layer norm: three reads of x, of which two come from cache, and a write. Both sums have 16 partial sums by column
 * modulo 16. */
#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"

/* Sum over a row of (x - center)^2, or of x itself. */
LANES float row_sum(const float *x, uint32_t n_cols, bool squares, float center)
{
    const uint32_t whole = n_cols / 16 * 16, rest = n_cols - whole;
    const f32x16   middle = f32x16_set(center);
    f32x16         sum    = f32x16_set(0);
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16 value = f32x16_sub(f32x16_load(x + c), middle);
        sum          = squares ? f32x16_fma(value, value, sum) : f32x16_add(sum, value);
    }
    float last[16] = {0};
    for (uint32_t c = 0; c < rest; c++) {
        last[c] = x[whole + c] - center;
    }
    f32x16 value = f32x16_load(last);
    return f32x16_sum(squares ? f32x16_fma(value, value, sum) : f32x16_add(sum, value));
}

static void layernorm_slice(void *argument, uint32_t token, uint32_t worker)
{
    (void)worker;
    const kern_layernorm_args *args   = argument;
    const uint32_t             n_cols = args->n_cols, whole = n_cols / 16 * 16, rest = n_cols - whole;
    const float               *x    = args->x + (size_t)token * n_cols;
    float                     *out  = args->out + (size_t)token * n_cols;
    const float                mean = row_sum(x, n_cols, false, 0) / (float)n_cols;

    const float  variance = row_sum(x, n_cols, true, mean) / (float)n_cols;
    const f32x16 factor = f32x16_set(1 / sqrtf(variance + args->epsilon)), middle = f32x16_set(mean);
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16 scaled = f32x16_mul(f32x16_sub(f32x16_load(x + c), middle), factor);
        f32x16_store(out + c, f32x16_fma(scaled, f32x16_load(args->weight + c), f32x16_load(args->bias + c)));
    }
    f32x16 scaled = f32x16_mul(f32x16_sub(f32x16_load_first(x + whole, rest), middle), factor);
    f32x16 weight = f32x16_load_first(args->weight + whole, rest), bias = f32x16_load_first(args->bias + whole, rest);
    f32x16_store_first(out + whole, f32x16_fma(scaled, weight, bias), rest);
}

static void cpu_layernorm(kern_device *device, const kern_layernorm_args *args)
{
    cpu_run((cpu_device *)device, layernorm_slice, (void *)args, args->n_tokens,
            (uint64_t)args->n_tokens * args->n_cols * 2);
}
