/* Cases of layer norm and of means of rows. */
#include "support_case_memory.h"
#include "support_inputs.h"

#include <math.h>
#include <stdlib.h>

void run_layernorm(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena    a      = {.device = device};
    uint32_t n_cols = c->layernorm.n_cols;
    float *x = input_floats(c, 1, (size_t)c->n_rows * n_cols), *weight = malloc(n_cols * 4), *bias = malloc(n_cols * 4);
    float  center = c->layernorm.center * c->magnitude;
    for (uint32_t i = 0; i < n_cols; i++) {
        weight[i] = input_float(c->seed, 2, i);
        bias[i]   = input_float(c->seed, 3, i);
    }
    for (size_t i = 0; i < (size_t)c->n_rows * n_cols; i++) {
        x[i] += center;
    }
    output_alloc(output, (size_t)part->n * n_cols);
    kern_layernorm_args args = {.x        = on_device(&a, x + (size_t)part->first * n_cols, output->n * 4),
                                .weight   = on_device(&a, weight, n_cols * 4),
                                .bias     = on_device(&a, bias, n_cols * 4),
                                .epsilon  = 1e-12f,
                                .n_tokens = part->n,
                                .n_cols   = n_cols};
    args.out                 = c->layernorm.in_place ? (float *)args.x : on_device(&a, NULL, output->n * 4);
    kern_layernorm(device, &args);
    fetch(&a, output->values, args.out, output->n * 4);
    /* A mean is off by some 2^-24 of the values, which a norm divides by their spread. */
    float off = 3e-6f * (1 + fabsf(c->layernorm.center));
    for (size_t i = 0; i < output->n; i++) {
        output->bounds[i] = off * (fabsf(output->values[i]) + 4 * fabsf(weight[i % n_cols]) + fabsf(bias[i % n_cols]));
    }
    arena_done(&a);
    free(x), free(weight), free(bias);
}

void run_pool(const kernel_case *c, kern_device *device, const case_part *part, case_output *output)
{
    arena      a      = {.device = device};
    uint32_t   n_cols = c->pool.n_cols, n_x = c->n_rows + c->pool.n_longest;
    kern_rows *rows = malloc(part->n * sizeof *rows);
    float     *x    = input_floats(c, 1, (size_t)n_x * n_cols);
    for (uint32_t i = 0; i < part->n; i++) {
        uint32_t row = part->first + i;
        rows[i]      = (kern_rows){row, row == 0 ? 1 : 1 + (uint32_t)(input_word(c->seed, 2, row) % c->pool.n_longest)};
    }
    output_alloc(output, (size_t)part->n * n_cols);
    kern_pool_args args = {on_device(&a, x, (size_t)n_x * n_cols * 4), on_device(&a, rows, part->n * sizeof *rows),
                           on_device(&a, NULL, output->n * 4), part->n, n_cols};
    kern_pool(device, &args);
    fetch(&a, output->values, args.out, output->n * 4);
    relative_bounds(output, 1e-6f, 1e-7f * c->magnitude * (float)c->pool.n_longest);
    arena_done(&a);
    free(x), free(rows);
}
