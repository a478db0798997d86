/* Means of rows: one read of them. */
#include "kernels/cpu_device.h"
#include "kernels/lanes_partial.h"

static void pool_slice(void *argument, uint32_t output, uint32_t worker)
{
    (void)worker;
    const kern_pool_args *args   = argument;
    const kern_rows      *rows   = &args->rows[output];
    const uint32_t        n_cols = args->n_cols, whole = n_cols / 16 * 16, rest = n_cols - whole;
    const float          *x     = args->x + (size_t)rows->first * n_cols;
    float                *out   = args->out + (size_t)output * n_cols;
    const f32x16          count = f32x16_set((float)rows->n);
    for (uint32_t c = 0; c < whole; c += 16) {
        f32x16 sum = f32x16_load(x + c);
        for (uint32_t r = 1; r < rows->n; r++) {
            sum = f32x16_add(sum, f32x16_load(x + (size_t)r * n_cols + c));
        }
        f32x16_store(out + c, f32x16_div(sum, count));
    }
    f32x16 sum = f32x16_load_first(x + whole, rest);
    for (uint32_t r = 1; r < rows->n; r++) {
        sum = f32x16_add(sum, f32x16_load_first(x + (size_t)r * n_cols + whole, rest));
    }
    f32x16_store_first(out + whole, f32x16_div(sum, count), rest);
}

static void cpu_pool(kern_device *device, const kern_pool_args *args)
{
    uint64_t work = 0;
    for (uint32_t i = 0; i < args->n_outputs; i++) {
        work += (uint64_t)args->rows[i].n * args->n_cols;
    }
    cpu_run((cpu_device *)device, pool_slice, (void *)args, args->n_outputs, work);
}
