/* See weight_maker.h. */
#include "model/weight_maker.h"

#include <stdlib.h>

struct weight_maker {
    kern_device       *device;
    model_quantization quantization;
    thread_pool       *pool;   /* NULL when nothing is quantised */
    void              *blocks; /* of one matrix */
    size_t             blocks_bytes;
};

weight_maker *weight_maker_new(kern_device *device, const model_options *options, error *err)
{
    weight_maker *maker = calloc(1, sizeof *maker);
    if (!maker) {
        error_set(err, ERR_NO_MEMORY, "no memory to load weights");
        return NULL;
    }
    *maker = (weight_maker){.device = device, .quantization = options->quantization};
    if (options->quantization != MODEL_AS_IT_IS) {
        uint32_t n_threads = options->n_threads ? options->n_threads : thread_pool_n_cores();
        maker->pool        = thread_pool_new(n_threads);
        if (!maker->pool) {
            error_set(err, ERR_NO_MEMORY, "could not start %u threads to quantise weights", n_threads);
            weight_maker_free(&maker);
        }
    }
    return maker;
}

void weight_maker_free(weight_maker **maker)
{
    weight_maker *m = *maker;
    if (!m)
        return;
    if (m->pool)
        thread_pool_free(&m->pool);
    free(m->blocks);
    free(m);
    *maker = NULL;
}

/* Replaces the matrix by its quantised form, in memory that the next one takes over. */
static bool quantize(weight_maker *maker, kern_matrix *matrix, kern_dtype dtype, error *err)
{
    size_t bytes = kern_dtype_bytes(dtype, matrix->n_cols) * matrix->n_rows;
    if (bytes > maker->blocks_bytes) {
        free(maker->blocks);
        maker->blocks       = malloc(bytes);
        maker->blocks_bytes = maker->blocks ? bytes : 0;
        if (!maker->blocks)
            return error_set(err, ERR_NO_MEMORY, "no memory for its %zu bytes as %s", bytes, kern_dtype_name(dtype));
    }
    if (!quantize_matrix(maker->pool, matrix, dtype, maker->blocks))
        return error_set(err, ERR_UNSUPPORTED, "it holds an infinity, a NaN or a number too large for %s",
                         kern_dtype_name(dtype));
    matrix->dtype     = dtype;
    matrix->host_data = maker->blocks;
    return true;
}

kern_weight *weight_maker_make(weight_maker *maker, const kern_matrix *source, bool is_embedding_or_head, error *err)
{
    char        why[KERN_WHY_BYTES] = "";
    kern_matrix matrix              = *source;
    kern_dtype  dtype               = quantization_dtype(maker->quantization, source, is_embedding_or_head);
    if (dtype != source->dtype && !quantize(maker, &matrix, dtype, err))
        return NULL;
    kern_weight *weight = kern_weight_new(maker->device, &matrix, why);
    if (!weight)
        error_set(err, ERR_UNSUPPORTED, "%s", why);
    return weight;
}
