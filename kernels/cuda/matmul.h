/* The one use of cuBLASLt: y[t][r] = sum_c W[r][c] * x[t][c] for weights that are floats, float32 sums.
 *
 * Rows of x always come in a chunk of the same size, so that a weight is always multiplied by the same algorithm, tile
 * and order of sums, whatever the batch: the algorithm is chosen once, when the plan is made, and split-K is excluded.
 * Behind this header stands kernels/cuda/matmul.cu on a GPU and kernels/cuda/host/matmul.cpp on the host. */
#ifndef TROUPE_KERNELS_CUDA_MATMUL_H
#define TROUPE_KERNELS_CUDA_MATMUL_H

#include "kernels/kernels.h"

#include <cuda_runtime.h>

enum {
    MATMUL_ALIGN = 8
}; /* columns of W and x are padded with zeros to a multiple: 16-byte rows for the tensor cores */

typedef struct matmul      matmul;
typedef struct matmul_plan matmul_plan;

/* NULL with a sentence in why when cuBLASLt does not start. */
matmul *matmul_open(cudaStream_t stream, char *why);
void    matmul_close(matmul *products);

/* W [n_rows][n_cols] of `dtype` (F32, F16, BF16) by x [n_x][n_cols] of the same type, n_cols a multiple of
 * MATMUL_ALIGN. */
matmul_plan *matmul_plan_new(matmul *products, kern_dtype dtype, uint32_t n_rows, uint32_t n_cols, uint32_t n_x,
                             char *why);
void         matmul_plan_free(matmul_plan *plan);

/* y [n_x][n_rows] float32. */
void matmul_run(matmul *products, const matmul_plan *plan, const void *w, const void *x, float *y);

#endif
