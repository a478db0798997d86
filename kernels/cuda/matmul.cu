/* cuBLASLt behind kernels/cuda/matmul.h. */
#include "kernels/cuda/device.cuh"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORKSPACE_BYTES = 32 << 20 };

struct matmul {
    cublasLtHandle_t handle;
    cudaStream_t     stream;
    void            *workspace;
};

struct matmul_plan {
    cublasLtMatmulDesc_t   operation;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t   algorithm;
};

matmul *matmul_open(cudaStream_t stream, char *why)
{
    matmul *products = static_cast<matmul *>(calloc(1, sizeof *products));
    if (!products) {
        cuda_refuse(why, "no memory");
        return NULL;
    }
    products->stream      = stream;
    cublasStatus_t status = cublasLtCreate(&products->handle);
    products->workspace   = status == CUBLAS_STATUS_SUCCESS ? cuda_allocate(WORKSPACE_BYTES) : NULL;
    if (!products->workspace) {
        cuda_refuse(why, "cuda: cuBLASLt does not start: %s", cublasLtGetStatusString(status));
        matmul_close(products);
        return NULL;
    }
    return products;
}

void matmul_close(matmul *products)
{
    if (products->workspace)
        CUDA_MUST(cudaFree(products->workspace));
    if (products->handle)
        cublasLtDestroy(products->handle);
    free(products);
}

/* The first algorithm that cuBLASLt recommends for exactly this shape and that neither splits K nor reduces through
 * memory: its order of sums is then a property of its tile alone. */
static bool choose_algorithm(matmul *products, matmul_plan *plan)
{
    cublasLtMatmulPreference_t      preference = NULL;
    cublasLtMatmulHeuristicResult_t found[1];
    int                             n_found         = 0;
    size_t                          workspace_bytes = WORKSPACE_BYTES;
    uint32_t                        reductions      = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasStatus_t                  status          = cublasLtMatmulPreferenceCreate(&preference);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace_bytes, sizeof workspace_bytes);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof reductions);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(products->handle, plan->operation, plan->w, plan->x, plan->y, plan->y,
                                                preference, 1, found, &n_found);
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || n_found == 0)
        return false;
    plan->algorithm = found[0].algo;
    return true;
}

matmul_plan *matmul_plan_new(matmul *products, kern_dtype dtype, uint32_t n_rows, uint32_t n_cols, uint32_t n_x,
                             char *why)
{
    cudaDataType_t    type      = dtype == KERN_F32 ? CUDA_R_32F : dtype == KERN_F16 ? CUDA_R_16F : CUDA_R_16BF;
    cublasOperation_t transpose = CUBLAS_OP_T;
    matmul_plan      *plan      = static_cast<matmul_plan *>(calloc(1, sizeof *plan));
    if (!plan) {
        cuda_refuse(why, "no memory");
        return NULL;
    }
    /* cuBLASLt is column-major: W [n_rows][n_cols] is its transpose there, y [n_x][n_rows] is n_rows by n_x. */
    bool made = cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                               sizeof transpose) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatrixLayoutCreate(&plan->w, type, n_cols, n_rows, n_cols) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatrixLayoutCreate(&plan->x, type, n_cols, n_x, n_cols) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, n_rows, n_x, n_rows) == CUBLAS_STATUS_SUCCESS;
    if (!made || !choose_algorithm(products, plan)) {
        cuda_refuse(why, "cuda: cuBLASLt has no algorithm for a weight of %u x %u", n_rows, n_cols);
        matmul_plan_free(plan);
        return NULL;
    }
    return plan;
}

void matmul_plan_free(matmul_plan *plan)
{
    if (plan->operation)
        cublasLtMatmulDescDestroy(plan->operation);
    if (plan->w)
        cublasLtMatrixLayoutDestroy(plan->w);
    if (plan->x)
        cublasLtMatrixLayoutDestroy(plan->x);
    if (plan->y)
        cublasLtMatrixLayoutDestroy(plan->y);
    free(plan);
}

void matmul_run(matmul *products, const matmul_plan *plan, const void *w, const void *x, float *y)
{
    float          one = 1.0f, zero = 0.0f;
    cublasStatus_t status =
        cublasLtMatmul(products->handle, plan->operation, &one, w, plan->w, x, plan->x, &zero, y, plan->y, y, plan->y,
                       &plan->algorithm, products->workspace, WORKSPACE_BYTES, products->stream);
    if (status != CUBLAS_STATUS_SUCCESS) {
        fprintf(stderr, "cuda: cublasLtMatmul failed: %s\n", cublasLtGetStatusString(status));
        abort();
    }
}
