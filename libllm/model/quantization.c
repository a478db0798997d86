/* See quantization.h. */
#include "model/quantization.h"

#include "base/hash.h"
#include "kernels/quantize.h"

#include <stdatomic.h>

/* Rises when the same floats become other bytes: executors of two versions would not hold the same weights. */
enum { RULES_VERSION = 1 };

enum { ROWS_A_SLICE = 16 };

kern_dtype quantization_dtype(model_quantization quantization, const kern_matrix *matrix, bool is_embedding_or_head)
{
    if (quantization == MODEL_AS_IT_IS || kern_dtype_is_quantized(matrix->dtype) || matrix->n_cols % KERN_BLOCK != 0)
        return matrix->dtype;
    return quantization == MODEL_INT8 || is_embedding_or_head ? KERN_Q8_0 : KERN_Q4_1;
}

typedef struct {
    const kern_matrix *matrix;
    kern_dtype         dtype;
    uint8_t           *blocks;
    _Atomic bool       failed;
} quantize_job;

static void quantize_slice(void *argument, uint32_t slice, uint32_t worker)
{
    (void)worker;
    quantize_job      *job        = argument;
    const kern_matrix *m          = job->matrix;
    size_t             from_bytes = kern_dtype_bytes(m->dtype, KERN_BLOCK);
    size_t             to_bytes   = kern_dtype_block_bytes(job->dtype);
    size_t             row_blocks = m->n_cols / KERN_BLOCK;
    size_t             first      = (size_t)slice * ROWS_A_SLICE * row_blocks;
    size_t             end        = first + ROWS_A_SLICE * row_blocks;
    size_t             all        = m->n_rows * row_blocks;
    for (size_t i = first; i < (end < all ? end : all); i++) {
        float x[KERN_BLOCK];
        kern_dequantize(m->dtype, (const uint8_t *)m->host_data + i * from_bytes, x, KERN_BLOCK);
        if (!kern_quantize(job->dtype, x, job->blocks + i * to_bytes, KERN_BLOCK)) {
            atomic_store_explicit(&job->failed, true, memory_order_relaxed);
            return;
        }
    }
}

bool quantize_matrix(thread_pool *pool, const kern_matrix *matrix, kern_dtype dtype, void *blocks)
{
    quantize_job job = {.matrix = matrix, .dtype = dtype, .blocks = blocks};
    thread_pool_run(pool, quantize_slice, &job, (matrix->n_rows + ROWS_A_SLICE - 1) / ROWS_A_SLICE);
    return !atomic_load(&job.failed);
}

uint64_t quantization_fingerprint(model_quantization quantization, uint64_t fingerprint)
{
    if (quantization == MODEL_AS_IT_IS)
        return fingerprint;
    const uint32_t rules[] = {RULES_VERSION, quantization};
    return hash_64((hash_key){fingerprint, 1}, rules, sizeof rules);
}
