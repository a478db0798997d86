/* Names of tensors, and the two kinds of files behind them. */
#include "model/model_file.h"

#include "model/fingerprint.h"
#include "model/gguf.h"
#include "model/mapped_file.h"
#include "model/model_config.h"
#include "model/safetensors.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct model_file {
    char        *path;
    gguf        *gguf; /* one of the two */
    safetensors *safetensors;
    bool        *taken; /* [n_tensors] in the file's order */
    bool         tied_head;
    char         architecture[32];
    char         name[128];
};

/* The part after "blk.3." or "model.layers.3." for those of a layer. */
static const struct {
    const char *gguf, *hugging_face;
} names[N_TENSOR_ROLES] = {
    [TENSOR_EMBEDDING]           = {"token_embd.weight", "model.embed_tokens.weight"},
    [TENSOR_OUTPUT_NORM]         = {"output_norm.weight", "model.norm.weight"},
    [TENSOR_HEAD]                = {"output.weight", "lm_head.weight"},
    [TENSOR_ATTENTION_NORM]      = {"attn_norm.weight", "input_layernorm.weight"},
    [TENSOR_ATTENTION_POST_NORM] = {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    [TENSOR_Q]                   = {"attn_q.weight", "self_attn.q_proj.weight"},
    [TENSOR_K]                   = {"attn_k.weight", "self_attn.k_proj.weight"},
    [TENSOR_V]                   = {"attn_v.weight", "self_attn.v_proj.weight"},
    [TENSOR_QKV]                 = {"attn_qkv.weight", "self_attn.qkv_proj.weight"},
    [TENSOR_Q_NORM]              = {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    [TENSOR_K_NORM]              = {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    [TENSOR_O]                   = {"attn_output.weight", "self_attn.o_proj.weight"},
    [TENSOR_FFN_NORM]            = {"ffn_norm.weight", "post_attention_layernorm.weight"},
    [TENSOR_FFN_NORM_OF_TWO]     = {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    [TENSOR_FFN_POST_NORM]       = {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
    [TENSOR_GATE_UP]             = {"ffn_up.weight", "mlp.gate_up_proj.weight"},
    [TENSOR_GATE]                = {"ffn_gate.weight", "mlp.gate_proj.weight"},
    [TENSOR_UP]                  = {"ffn_up.weight", "mlp.up_proj.weight"},
    [TENSOR_DOWN]                = {"ffn_down.weight", "mlp.down_proj.weight"},
    [TENSOR_Q_BIAS]              = {"attn_q.bias", "self_attn.q_proj.bias"},
    [TENSOR_K_BIAS]              = {"attn_k.bias", "self_attn.k_proj.bias"},
    [TENSOR_V_BIAS]              = {"attn_v.bias", "self_attn.v_proj.bias"},
    [TENSOR_O_BIAS]              = {"attn_output.bias", "self_attn.o_proj.bias"},
};

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool open_folder(model_file *file, model_config *config, error *err)
{
    char        path[PATH_MAX];
    mapped_file json;
    if (snprintf(path, sizeof path, "%s/config.json", file->path) >= (int)sizeof path)
        return error_set(err, ERR_INVALID, "%s: the path is too long", file->path);
    if (!mapped_file_open(&json, path, err))
        return false;
    bool ok = model_config_from_json(config, (span){(const char *)json.data, json.size}, path, err);
    mapped_file_close(&json);
    return ok && (file->safetensors = safetensors_open_folder(file->path, err));
}

static uint64_t n_tensors(const model_file *file)
{
    return file->gguf ? gguf_n_tensors(file->gguf) : safetensors_n_tensors(file->safetensors);
}

/* Before memory is taken for what the config claims: no format spends less than a bit on a parameter. */
static bool check_size(const model_file *file, const model_config *config, error *err)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < n_tensors(file); i++)
        bytes +=
            file->gguf ? gguf_tensor_at(file->gguf, i)->n_bytes : safetensors_tensor_at(file->safetensors, i)->n_bytes;
    if (config->n_parameters / 8 <= bytes)
        return true;
    return error_set(err, ERR_INVALID,
                     "%s: its config describes %" PRIu64 " parameters, but its tensors have only %" PRIu64 " bytes",
                     file->path, config->n_parameters, bytes);
}

static bool open_any(model_file *file, model_config *config, error *err)
{
    struct stat about;
    if (stat(file->path, &about) == 0 && S_ISDIR(about.st_mode)) {
        if (!open_folder(file, config, err))
            return false;
    } else if (!(file->gguf = gguf_open(file->path, err)) || !model_config_from_gguf(config, file->gguf, err))
        return false;
    if (!check_size(file, config, err))
        return false;
    file->tied_head = config->tied_head;
    snprintf(file->architecture, sizeof file->architecture, "%s", config->architecture);
    file->taken = calloc(n_tensors(file) + 1, sizeof *file->taken);
    return file->taken || error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", file->path);
}

model_file *model_file_open(const char *path, model_config *config, error *err)
{
    model_file *file = calloc(1, sizeof *file);
    if (file)
        file->path = strdup(path);
    if (!file || !file->path) {
        error_set(err, ERR_NO_MEMORY, "%s: no memory to open it", path);
        model_file_close(&file);
    } else if (!open_any(file, config, err))
        model_file_close(&file);
    return file;
}

void model_file_close(model_file **file)
{
    model_file *f = *file;
    if (!f)
        return;
    gguf_close(&f->gguf);
    safetensors_close(&f->safetensors);
    free(f->taken);
    free(f->path);
    free(f);
    *file = NULL;
}

const char *model_file_path(const model_file *file)
{
    return file->path;
}

file_identity model_file_identity(const model_file *file)
{
    return file->gguf ? gguf_identity(file->gguf) : safetensors_identity(file->safetensors);
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

const char *model_file_name(model_file *file, tensor_role role, uint32_t layer)
{
    const char *part = file->gguf ? names[role].gguf : names[role].hugging_face;
    if (role <= TENSOR_HEAD)
        snprintf(file->name, sizeof file->name, "%s", part);
    else
        snprintf(file->name, sizeof file->name, "%s%" PRIu32 ".%s", file->gguf ? "blk." : "model.layers.", layer, part);
    return file->name;
}

bool model_file_has(model_file *file, tensor_role role, uint32_t layer)
{
    const char *name = model_file_name(file, role, layer);
    return file->gguf ? gguf_find_tensor(file->gguf, name) != NULL : safetensors_find(file->safetensors, name) != NULL;
}

/* A tensor of one or two dimensions as rows and columns; columns are the contiguous ones. */
typedef struct {
    uint64_t n_rows, n_cols;
    bool     fits; /* has no more dimensions */
} shape;

static shape gguf_shape(const gguf_tensor *tensor)
{
    return (shape){tensor->dims[1], tensor->dims[0], tensor->n_dims <= 2};
}

static shape safetensors_shape(const safetensors_tensor *tensor)
{
    bool is_vector = tensor->n_dims == 1;
    return (shape){is_vector ? 1 : tensor->dims[0], tensor->dims[is_vector ? 0 : 1], tensor->n_dims <= 2};
}

bool model_file_take(model_file *file, tensor_role role, uint32_t layer, uint32_t n_rows, uint32_t n_cols,
                     kern_matrix *tensor, error *err)
{
    const char *name = model_file_name(file, role, layer);
    shape       found;
    *tensor = (kern_matrix){.n_rows = n_rows, .n_cols = n_cols};
    if (file->gguf) {
        const gguf_tensor *t = gguf_require_tensor(file->gguf, name, err);
        if (!t)
            return false;
        found                                          = gguf_shape(t);
        tensor->dtype                                  = t->dtype;
        tensor->host_data                              = t->data;
        file->taken[t - gguf_tensor_at(file->gguf, 0)] = true;
    } else {
        const safetensors_tensor *t = safetensors_require(file->safetensors, name, err);
        if (!t)
            return false;
        found                                                        = safetensors_shape(t);
        tensor->dtype                                                = t->dtype;
        tensor->host_data                                            = t->data;
        file->taken[t - safetensors_tensor_at(file->safetensors, 0)] = true;
    }
    if (found.fits && found.n_rows == n_rows && found.n_cols == n_cols)
        return true;
    return error_set(
        err, ERR_INVALID,
        "%s: tensor %s has %" PRIu64 " rows of %" PRIu64 "%s; %" PRIu32 " rows of %" PRIu32 " were expected",
        file->path, name, found.n_rows, found.n_cols, found.fits ? "" : " and more dimensions", n_rows, n_cols);
}

static bool ends_with(span text, span end)
{
    return text.size >= end.size && memcmp(text.data + text.size - end.size, end.data, end.size) == 0;
}

/* What Hugging Face checkpoints carry beside the weights: a copy of a tied head, and frequencies that follow from the
 * config. What GGUF files carry: rotary factors, which are read with the config. */
static bool is_harmless(const model_file *file, span name)
{
    if (file->gguf)
        return span_is(name, "rope_freqs.weight") || span_is(name, "rope_factors_long.weight") ||
               span_is(name, "rope_factors_short.weight");
    return (file->tied_head && span_is(name, "lm_head.weight")) || ends_with(name, SPAN(".rotary_emb.inv_freq"));
}

static fingerprint_tensor tensor_at(const model_file *file, uint64_t i)
{
    if (file->gguf) {
        const gguf_tensor *t = gguf_tensor_at(file->gguf, i);
        return (fingerprint_tensor){t->name, t->dtype, t->n_dims, t->dims, t->data, t->n_bytes};
    }
    const safetensors_tensor *t = safetensors_tensor_at(file->safetensors, i);
    return (fingerprint_tensor){t->name, t->dtype, t->n_dims, t->dims, t->data, t->n_bytes};
}

uint64_t model_file_fingerprint(const model_file *file)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n_tensors(file); i++) {
        fingerprint_tensor tensor = tensor_at(file, i);
        if (!is_harmless(file, tensor.name))
            sum += fingerprint_of_tensor(&tensor);
    }
    return sum;
}

bool model_file_check_all_taken(const model_file *file, error *err)
{
    for (uint64_t i = 0; i < n_tensors(file); i++) {
        span name =
            file->gguf ? gguf_tensor_at(file->gguf, i)->name : safetensors_tensor_at(file->safetensors, i)->name;
        if (!file->taken[i] && !is_harmless(file, name))
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: tensor %.*s is no part of the %s architecture as supported here", file->path,
                             SPAN_ARG(name), file->architecture);
    }
    return true;
}
