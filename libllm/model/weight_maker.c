/* See weight_maker.h. */
#include "model/weight_maker.h"

#include <stdlib.h>

struct weight_maker {
    kern_device       *device;
    model_quantization quantization;
    thread_pool       *pool;   /* NULL when nothing is quantised */
    void              *blocks; /* of one matrix */
    size_t             blocks_bytes;

    const weight_cache  *from; /* NULL: weights are made */
    uint32_t             n_taken;
    weight_cache_writer *to; /* NULL: nothing is written */
    bool                 write_failed;
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

void weight_maker_read(weight_maker *maker, const weight_cache *cache)
{
    maker->from    = cache;
    maker->n_taken = 0;
    maker->to      = NULL;
}

void weight_maker_write(weight_maker *maker, weight_cache_writer *writer)
{
    maker->from         = NULL;
    maker->to           = writer;
    maker->write_failed = false;
}

bool weight_maker_could_not_write(const weight_maker *maker)
{
    return maker->write_failed;
}

static kern_weight *take(weight_maker *maker, kern_matrix *matrix, error *err)
{
    char   why[KERN_WHY_BYTES] = "";
    size_t bytes;
    if (!weight_cache_take(maker->from, maker->n_taken++, matrix, &bytes, err))
        return NULL;
    kern_weight *weight = kern_weight_borrow(maker->device, matrix, bytes, why);
    if (!weight)
        error_set(err, ERR_INVALID, "%s", why);
    return weight;
}

static bool write_out(weight_maker *maker, const kern_matrix *matrix, const kern_weight *weight, error *err)
{
    bool ok = weight_cache_append(maker->to, matrix, kern_weight_packed(weight), kern_weight_bytes(weight), err);
    maker->write_failed = !ok;
    return ok;
}

kern_weight *weight_maker_make(weight_maker *maker, const kern_matrix *source, bool is_embedding_or_head, error *err)
{
    char        why[KERN_WHY_BYTES] = "";
    kern_matrix matrix              = *source;
    kern_dtype  dtype               = quantization_dtype(maker->quantization, source, is_embedding_or_head);
    if (maker->from) {
        matrix.dtype = dtype;
        return take(maker, &matrix, err);
    }
    if (dtype != source->dtype && !quantize(maker, &matrix, dtype, err))
        return NULL;
    kern_weight *weight = kern_weight_new(maker->device, &matrix, why);
    if (!weight)
        error_set(err, ERR_UNSUPPORTED, "%s", why);
    else if (maker->to && !write_out(maker, &matrix, weight, err))
        kern_weight_free(maker->device, &weight);
    return weight;
}
