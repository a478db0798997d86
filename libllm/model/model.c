/* Loading: every tensor is found by its role, its shape checked, and packed for the device. Vectors (norms, biases)
 * become float32 in one block of device memory. */
#include "model/model.h"

#include "base/hash.h"
#include "base/log.h"
#include "model/model_file.h"
#include "model/weight_cache_file.h"
#include "model/weight_maker.h"
#include "model/weights.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What a load in progress carries. */
typedef struct {
    model        *m;
    model_file   *file;
    weight_maker *maker;
    bool          only_writes;  /* a cache: weights are not kept */
    float        *host_vectors; /* filled here, uploaded once; a vector stands at the same place in m->vectors */
    size_t        n_vector_floats, n_vector_floats_max;
    error        *err;
} loading;

/* A tensor whose rows become several weights. */
typedef struct {
    uint32_t      n_rows;
    kern_weight **weight;
} weight_rows;

static bool load_matrices(loading *l, tensor_role role, uint32_t layer, uint32_t n_cols, const weight_rows *parts,
                          uint32_t n_parts)
{
    kern_matrix source;
    uint32_t    n_rows        = 0;
    bool        is_vocabulary = role == TENSOR_EMBEDDING || role == TENSOR_HEAD;
    for (uint32_t i = 0; i < n_parts; i++)
        n_rows += parts[i].n_rows;
    if (!model_file_take(l->file, role, layer, n_rows, n_cols, &source, l->err))
        return false;
    for (uint32_t i = 0; i < n_parts; i++) {
        source.n_rows       = parts[i].n_rows;
        kern_weight *weight = weight_maker_make(l->maker, &source, is_vocabulary, l->err);
        if (!weight)
            return error_wrap(l->err, "%s: tensor %s (%s)", model_file_path(l->file),
                              model_file_name(l->file, role, layer), kern_dtype_name(source.dtype));
        l->m->config.weight_bytes += kern_weight_bytes(weight);
        if (l->only_writes)
            kern_weight_free(l->m->device, &weight);
        *parts[i].weight = weight;
        source.host_data = (const char *)source.host_data + source.n_rows * kern_dtype_bytes(source.dtype, n_cols);
    }
    l->m->config.n_parameters += (uint64_t)n_rows * n_cols;
    return true;
}

static bool load_matrix(loading *l, tensor_role role, uint32_t layer, uint32_t n_rows, uint32_t n_cols,
                        kern_weight **weight)
{
    return load_matrices(l, role, layer, n_cols, &(weight_rows){n_rows, weight}, 1);
}

static bool load_vector(loading *l, tensor_role role, uint32_t layer, uint32_t n, const float **vector)
{
    kern_matrix source;
    if (!model_file_take(l->file, role, layer, 1, n, &source, l->err))
        return false;
    assert(n <= l->n_vector_floats_max - l->n_vector_floats);
    kern_dequantize(source.dtype, source.host_data, l->host_vectors + l->n_vector_floats, n);
    *vector = l->m->vectors + l->n_vector_floats;
    l->n_vector_floats += n;
    l->m->config.n_parameters += n;
    l->m->config.weight_bytes += n * sizeof(float);
    return true;
}

static bool load_bias(loading *l, tensor_role role, uint32_t layer, uint32_t n, const float **bias)
{
    return !model_file_has(l->file, role, layer) || load_vector(l, role, layer, n, bias);
}

/* The weights of a norm as kern_rmsnorm multiplies by them: (weight + norm_offset) * scale. */
static bool load_norm(loading *l, tensor_role role, uint32_t layer, uint32_t n, float scale, const float **norm)
{
    float *weights = l->host_vectors + l->n_vector_floats;
    if (!load_vector(l, role, layer, n, norm))
        return false;
    for (uint32_t i = 0; i < n; i++)
        weights[i] = (weights[i] + l->m->config.norm_offset) * scale;
    return true;
}

static bool load_norms(loading *l, uint32_t i)
{
    const model_config *c     = &l->m->config;
    model_layer        *layer = &l->m->layers[i];
    bool                whole = c->qk_norm == MODEL_QK_NORM_WHOLE;
    tensor_role         ffn   = c->norm_after ? TENSOR_FFN_NORM_OF_TWO : TENSOR_FFN_NORM;
    uint32_t            n_q = c->head_dim * (whole ? c->n_heads : 1), n_k = c->head_dim * (whole ? c->n_kv_heads : 1);
    return (!c->norm_before || (load_norm(l, TENSOR_ATTENTION_NORM, i, c->n_embd, 1, &layer->attention_norm) &&
                                load_norm(l, ffn, i, c->n_embd, 1, &layer->ffn_norm))) &&
           (!c->norm_after || (load_norm(l, TENSOR_ATTENTION_POST_NORM, i, c->n_embd, 1, &layer->attention_post_norm) &&
                               load_norm(l, TENSOR_FFN_POST_NORM, i, c->n_embd, 1, &layer->ffn_post_norm))) &&
           (c->qk_norm == MODEL_QK_NORM_NONE || (load_norm(l, TENSOR_Q_NORM, i, n_q, 1, &layer->q_norm) &&
                                                 load_norm(l, TENSOR_K_NORM, i, n_k, 1, &layer->k_norm)));
}

static bool load_layer(loading *l, uint32_t i)
{
    const model_config *c     = &l->m->config;
    model_layer        *layer = &l->m->layers[i];
    uint32_t            n_q = c->n_heads * c->head_dim, n_kv = c->n_kv_heads * c->head_dim;
    const weight_rows   qkv[]     = {{n_q, &layer->q}, {n_kv, &layer->k}, {n_kv, &layer->v}};
    const weight_rows   gate_up[] = {{c->n_ff, &layer->gate}, {c->n_ff, &layer->up}};
    return load_norms(l, i) &&
           (c->fused ? load_matrices(l, TENSOR_QKV, i, c->n_embd, qkv, 3)
                     : load_matrices(l, TENSOR_Q, i, c->n_embd, &qkv[0], 1) &&
                           load_matrices(l, TENSOR_K, i, c->n_embd, &qkv[1], 1) &&
                           load_matrices(l, TENSOR_V, i, c->n_embd, &qkv[2], 1)) &&
           load_matrix(l, TENSOR_O, i, c->n_embd, n_q, &layer->o) &&
           load_bias(l, TENSOR_Q_BIAS, i, n_q, &layer->q_bias) &&
           load_bias(l, TENSOR_K_BIAS, i, n_kv, &layer->k_bias) &&
           load_bias(l, TENSOR_V_BIAS, i, n_kv, &layer->v_bias) &&
           load_bias(l, TENSOR_O_BIAS, i, c->n_embd, &layer->o_bias) &&
           (c->fused ? load_matrices(l, TENSOR_GATE_UP, i, c->n_embd, gate_up, 2)
                     : load_matrices(l, TENSOR_GATE, i, c->n_embd, &gate_up[0], 1) &&
                           load_matrices(l, TENSOR_UP, i, c->n_embd, &gate_up[1], 1)) &&
           load_matrix(l, TENSOR_DOWN, i, c->n_embd, c->n_ff, &layer->down);
}

/* Room for every norm and every bias, whether or not the file has it: they are small. */
static bool take_vectors(loading *l)
{
    const model_config *c        = &l->m->config;
    size_t              n_biases = (size_t)c->head_dim * (c->n_heads + 2 * (size_t)c->n_kv_heads) + c->n_embd;
    size_t              n_norms  = 4 * (size_t)c->n_embd + (size_t)c->head_dim * (c->n_heads + c->n_kv_heads);
    l->n_vector_floats_max       = c->n_layers * (n_norms + n_biases) + c->n_embd;
    l->host_vectors              = malloc(l->n_vector_floats_max * sizeof(float));
    l->m->vectors                = kern_alloc(l->m->device, l->n_vector_floats_max * sizeof(float));
    return (l->host_vectors && l->m->vectors) ||
           error_set(l->err, ERR_NO_MEMORY, "%s: no memory for norms and biases", model_file_path(l->file));
}

static bool load_all(loading *l)
{
    model        *m = l->m;
    model_config *c = &m->config;
    c->n_parameters = 0;
    if (!(m->layers = calloc(c->n_layers, sizeof *m->layers)))
        return error_set(l->err, ERR_NO_MEMORY, "%s: no memory for %u layers", model_file_path(l->file), c->n_layers);
    if (!take_vectors(l) || !load_matrix(l, TENSOR_EMBEDDING, 0, c->n_vocab, c->n_embd, &m->embedding))
        return false;
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (!load_layer(l, i))
            return false;
    if (!load_norm(l, TENSOR_OUTPUT_NORM, 0, c->n_embd, c->logit_scale, &m->output_norm))
        return false;
    m->head = m->embedding;
    if (!c->tied_head && !load_matrix(l, TENSOR_HEAD, 0, c->n_vocab, c->n_embd, &m->head))
        return false;
    kern_upload(m->device, m->vectors, l->host_vectors, l->n_vector_floats * sizeof(float));
    return model_file_check_all_taken(l->file, l->err);
}

/* Before anything is packed: of the config as the file gives it, but for its name. */
static uint64_t fingerprint(const loading *l)
{
    model_config c;
    memcpy(&c, &l->m->config, sizeof c); /* with the bytes between its fields, which are zeros */
    memset(c.name, 0, sizeof c.name);
    return hash_64((hash_key){model_file_fingerprint(l->file), 0}, &c, sizeof c);
}

/* ---- with a cache of packed weights ---- */

static void free_layer(kern_device *device, model_layer *layer)
{
    kern_weight **weights[] = {&layer->q, &layer->k, &layer->v, &layer->o, &layer->gate, &layer->up, &layer->down};
    for (size_t i = 0; i < COUNT(weights); i++)
        if (*weights[i])
            kern_weight_free(device, weights[i]);
}

/* Undoes load_all, also a part of it. */
static void unload(model *m)
{
    for (uint32_t i = 0; m->layers && i < m->config.n_layers; i++)
        free_layer(m->device, &m->layers[i]);
    if (m->head && m->head != m->embedding)
        kern_weight_free(m->device, &m->head);
    m->head = NULL;
    if (m->embedding)
        kern_weight_free(m->device, &m->embedding);
    if (m->vectors)
        kern_free(m->device, m->vectors);
    m->vectors = NULL;
    free(m->layers);
    m->layers              = NULL;
    m->config.weight_bytes = 0;
}

static bool load_again(loading *l)
{
    unload(l->m);
    free(l->host_vectors);
    l->host_vectors    = NULL;
    l->n_vector_floats = 0;
    return load_all(l);
}

static bool load_mapped(loading *l, weight_cache_file *cache)
{
    weight_maker_read(l->maker, &cache->cache);
    bool ok = load_again(l);
    weight_maker_read(l->maker, NULL);
    if (ok) {
        l->m->packed = cache->map;
        return true;
    }
    log_warn("a cache of packed weights is not used", "why=\"%s\"", l->err->text);
    unload(l->m);
    weight_cache_file_unmap(cache);
    return false;
}

/* Packs every weight into the file and keeps none: mapped then, they are there once. False without a file. */
static bool write_cache(loading *l, weight_cache_file *cache)
{
    weight_maker_write(l->maker, cache->writer);
    l->only_writes = true;
    bool ok        = load_again(l);
    l->only_writes = false;
    if (weight_maker_could_not_write(l->maker))
        log_warn("packed weights can't be kept", "why=\"%s\"", l->err->text);
    weight_maker_write(l->maker, NULL);
    unload(l->m);
    return weight_cache_file_end(cache, ok);
}

static weight_cache_key key_of(const loading *l, const model_options *options)
{
    kern_weight_layout layout = kern_device_weight_layout(l->m->device);
    weight_cache_key   key    = {.layout_version = layout.version,
                                 .quantization   = options->quantization,
                                 .fingerprint    = l->m->fingerprint,
                                 .source         = model_file_identity(l->file)};
    memcpy(key.layout, layout.name, strnlen(layout.name, sizeof key.layout));
    return key;
}

/* False: the weights are to be packed into memory. */
static bool load_through_cache(loading *l, const model_options *options)
{
    enum { ATTEMPTS = 3 }; /* one that finds none, or a bad one; one that waits for another process; one that maps */
    const uint32_t    n_weights_max = 16 * (l->m->config.n_layers + 1); /* about twice what any architecture has */
    weight_cache_file cache;
    error             cache_error, *err = l->err;
    bool              loaded = false, usable;
    if (!options->weight_cache || strcmp(options->weight_cache, WEIGHT_CACHE_OFF) == 0 ||
        !kern_device_weight_layout(l->m->device).name)
        return false;
    weight_cache_key key = key_of(l, options);
    usable               = weight_cache_file_init(&cache, options->weight_cache, model_file_path(l->file), &key);
    l->err               = &cache_error;
    for (uint32_t i = 0; i < ATTEMPTS && usable && !loaded; i++) {
        loaded = weight_cache_file_map(&cache) && load_mapped(l, &cache);
        if (!loaded) {
            weight_cache_begin begun = weight_cache_file_begin(&cache, n_weights_max);
            usable = begun == WEIGHT_CACHE_BY_OTHERS || (begun == WEIGHT_CACHE_BEGUN && write_cache(l, &cache));
        }
    }
    l->err = err;
    return loaded;
}

model *model_open_with(const char *path, kern_device *device, const model_options *options, error *err)
{
    loading l = {.m = calloc(1, sizeof *l.m), .err = err};
    if (!l.m) {
        error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", path);
        return NULL;
    }
    l.m->device = device;
    l.file      = model_file_open(path, &l.m->config, err);
    if (l.file) {
        l.m->fingerprint = quantization_fingerprint(options->quantization, fingerprint(&l));
        l.maker          = weight_maker_new(device, options, err);
    }
    if (!l.maker || (!load_through_cache(&l, options) && !load_again(&l)))
        model_free(&l.m);
    weight_maker_free(&l.maker);
    model_file_close(&l.file);
    free(l.host_vectors);
    return l.m;
}

model *model_open(const char *path, kern_device *device, error *err)
{
    return model_open_with(path, device, &(model_options){0}, err);
}

void model_free(model **m)
{
    model *old = *m;
    if (!old)
        return;
    unload(old);
    mapped_file_close(&old->packed);
    free(old);
    *m = NULL;
}

bool model_read_config(const char *path, model_config *config, error *err)
{
    model_file *file = model_file_open(path, config, err);
    bool        ok   = file != NULL;
    model_file_close(&file);
    return ok;
}

const model_config *model_get_config(const model *m)
{
    return &m->config;
}

uint64_t model_fingerprint(const model *m)
{
    return m->fingerprint;
}

kern_kv_shape model_kv_shape(const model *m, uint32_t n_blocks, kern_dtype dtype)
{
    const model_config *c = &m->config;
    return (kern_kv_shape){c->n_layers, n_blocks, c->n_kv_heads, c->head_dim, dtype};
}
