/* kernels/cuda/matmul.h on the host: the product as the definition says it, summed in column order. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/number.cuh"

#include <stdlib.h>

struct matmul {
    int unused;
};

struct matmul_plan {
    kern_dtype dtype;
    uint32_t   n_rows, n_cols, n_x;
};

matmul *matmul_open(cudaStream_t, char *why)
{
    matmul *products = static_cast<matmul *>(calloc(1, sizeof *products));
    if (!products)
        cuda_refuse(why, "no memory");
    return products;
}

void matmul_close(matmul *products)
{
    free(products);
}

matmul_plan *matmul_plan_new(matmul *, kern_dtype dtype, uint32_t n_rows, uint32_t n_cols, uint32_t n_x, char *why)
{
    matmul_plan *plan = static_cast<matmul_plan *>(calloc(1, sizeof *plan));
    if (!plan)
        cuda_refuse(why, "no memory");
    else
        *plan = {dtype, n_rows, n_cols, n_x};
    return plan;
}

void matmul_plan_free(matmul_plan *plan)
{
    free(plan);
}

template <typename T> static void multiply(const matmul_plan *plan, const T *w, const T *x, float *y)
{
    for (uint32_t t = 0; t < plan->n_x; t++)
        for (uint32_t r = 0; r < plan->n_rows; r++) {
            float sum = 0.0f;
            for (uint32_t c = 0; c < plan->n_cols; c++)
                sum += to_float(w[(size_t)r * plan->n_cols + c]) * to_float(x[(size_t)t * plan->n_cols + c]);
            y[(size_t)t * plan->n_rows + r] = sum;
        }
}

void matmul_run(matmul *, const matmul_plan *plan, const void *w, const void *x, float *y)
{
    if (plan->dtype == KERN_F32)
        multiply(plan, static_cast<const float *>(w), static_cast<const float *>(x), y);
    else if (plan->dtype == KERN_F16)
        multiply(plan, static_cast<const f16 *>(w), static_cast<const f16 *>(x), y);
    else
        multiply(plan, static_cast<const bf16 *>(w), static_cast<const bf16 *>(x), y);
}
