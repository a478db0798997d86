/* The config of a GGUF file. Keys are those that llama.cpp writes. */
#include "model/architecture.h"
#include "model/model_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define SUPPORTED_SCALINGS "none, linear, yarn, longrope"

/* A file and the architecture that its keys begin with. */
typedef struct {
    const gguf         *file;
    const char         *path;
    const architecture *architecture;
    char                prefix[32]; /* "llama." */
    error              *err;
} reader;

enum { KEY_BYTES = 96 };

static void key_of(const reader *r, const char *part, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "%s%s", r->prefix, part);
}

static bool has(const reader *r, const char *part)
{
    char key[KEY_BYTES];
    key_of(r, part, key);
    return gguf_has(r->file, key);
}

static bool missing(const reader *r, const char *part)
{
    return error_set(r->err, ERR_INVALID, "%s: key %s%s is missing", r->path, r->prefix, part);
}

/* Each reads a key into *value; an absent one leaves *value as it is. */
static bool get_u32(const reader *r, const char *part, uint32_t *value)
{
    char key[KEY_BYTES];
    key_of(r, part, key);
    return gguf_get_u32(r->file, key, value, r->err) || !gguf_has(r->file, key);
}

static bool get_f32(const reader *r, const char *part, float *value)
{
    char key[KEY_BYTES];
    key_of(r, part, key);
    return gguf_get_f32(r->file, key, value, r->err) || !gguf_has(r->file, key);
}

static bool get_string(const reader *r, const char *part, span *value)
{
    char key[KEY_BYTES];
    key_of(r, part, key);
    return gguf_get_string(r->file, key, value, r->err) || !gguf_has(r->file, key);
}

static bool require_u32(const reader *r, const char *part, uint32_t *value)
{
    return has(r, part) ? get_u32(r, part, value) : missing(r, part);
}

/* ---- architecture ---------------------------------------------------------------------------------------------- */

static bool find_architecture(reader *r)
{
    span name;
    if (!gguf_has(r->file, "general.architecture"))
        return error_set(r->err, ERR_INVALID, "%s: key general.architecture is missing", r->path);
    if (!gguf_get_string(r->file, "general.architecture", &name, r->err))
        return false;
    r->architecture = architecture_of_gguf(name);
    if (!r->architecture)
        return model_config_refuse_architecture(r->path, name, true, r->err);
    snprintf(r->prefix, sizeof r->prefix, "%s.", r->architecture->gguf);
    uint32_t window = 0;
    if (!get_u32(r, "attention.sliding_window", &window))
        return false;
    if (window > 0 && span_is(name, "llama")) /* as the files of a Mistral say */
        r->architecture = architecture_of_model_type(SPAN("mistral"));
    return true;
}

/* Keys that are read, or that change nothing, and for which architectures (0: all). */
static bool is_known_key(const reader *r, span key)
{
    static const struct {
        const char *name;
        uint32_t    keys;
    } known[] = {
        {"context_length", 0},
        {"embedding_length", 0},
        {"block_count", 0},
        {"feed_forward_length", 0},
        {"vocab_size", 0},
        {"attention.head_count", 0},
        {"attention.head_count_kv", 0},
        {"attention.key_length", 0},
        {"attention.value_length", 0},
        {"attention.layer_norm_rms_epsilon", 0},
        {"attention.layer_norm_epsilon", HAS_LAYER_NORM},
        {"attention.causal", HAS_LAYER_NORM},
        {"pooling_type", 0},
        {"attention.sliding_window", HAS_WINDOW},
        {"attention.sliding_window_pattern", HAS_WINDOW},
        {"attention.scale", HAS_MULTIPLIERS},
        {"embedding_scale", HAS_MULTIPLIERS},
        {"residual_scale", HAS_MULTIPLIERS},
        {"logit_scale", HAS_MULTIPLIERS},
        {"attn_logit_softcapping", HAS_SOFTCAPS},
        {"final_logit_softcapping", HAS_SOFTCAPS},
        {"rope.freq_base", 0},
        {"rope.freq_base_swa", HAS_WINDOW_ROPE},
        {"rope.dimension_count", 0},
        {"rope.scaling.type", 0},
        {"rope.scaling.factor", 0},
        {"rope.scaling.attn_factor", 0},
        {"rope.scaling.original_context_length", 0},
        {"rope.scaling.finetuned", 0},
        {"rope.scaling.yarn_attn_factor", 0},
        {"rope.scaling.yarn_beta_fast", 0},
        {"rope.scaling.yarn_beta_slow", 0},
        {"expert_count", 0},
        {"expert_used_count", 0},
        {"tensor_data_layout", 0},
    };
    span rest = {key.data + strlen(r->prefix), key.size - strlen(r->prefix)};
    for (size_t i = 0; i < COUNT(known); i++)
        if (span_is(rest, known[i].name))
            return known[i].keys == 0 || (known[i].keys & r->architecture->keys);
    return false;
}

static bool check_keys(const reader *r)
{
    uint32_t n_experts = 0;
    size_t   n_prefix  = strlen(r->prefix);
    if (!get_u32(r, "expert_count", &n_experts))
        return false;
    if (n_experts != 0)
        return error_set(r->err, ERR_UNSUPPORTED,
                         "%s: mixture of experts (%sexpert_count = %" PRIu32 ") is not supported", r->path, r->prefix,
                         n_experts);
    for (uint64_t i = 0; i < gguf_n_keys(r->file); i++) {
        span key = gguf_key_at(r->file, i);
        if (key.size > n_prefix && memcmp(key.data, r->prefix, n_prefix) == 0 && !is_known_key(r, key))
            return error_set(r->err, ERR_UNSUPPORTED, "%s: key %.*s may change the arithmetic and is not supported",
                             r->path, SPAN_ARG(key));
    }
    return true;
}

/* ---- sizes and scales ------------------------------------------------------------------------------------------ */

/* Most files leave vocab_size out; the list of tokens then tells. */
static bool read_vocab(const reader *r, model_config *c)
{
    gguf_type type;
    uint64_t  n;
    if (has(r, "vocab_size"))
        return get_u32(r, "vocab_size", &c->n_vocab);
    if (!gguf_has(r->file, "tokenizer.ggml.tokens"))
        return error_set(r->err, ERR_INVALID, "%s: keys %svocab_size and tokenizer.ggml.tokens are both missing",
                         r->path, r->prefix);
    if (!gguf_get_array(r->file, "tokenizer.ggml.tokens", &type, &n, r->err))
        return false;
    c->n_vocab = n <= UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return true;
}

static bool read_sizes(const reader *r, model_config *c)
{
    if (!require_u32(r, "block_count", &c->n_layers) || !require_u32(r, "embedding_length", &c->n_embd) ||
        !require_u32(r, "attention.head_count", &c->n_heads) || !require_u32(r, "feed_forward_length", &c->n_ff) ||
        !require_u32(r, "context_length", &c->n_ctx_train) || !read_vocab(r, c))
        return false;
    const char *epsilon =
        r->architecture->keys & HAS_LAYER_NORM ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (!has(r, epsilon))
        return missing(r, epsilon);
    c->n_kv_heads = c->n_heads;
    c->head_dim   = 0; /* the format's own default, not the architecture's */
    if (!get_f32(r, epsilon, &c->rms_epsilon) || !get_u32(r, "attention.head_count_kv", &c->n_kv_heads) ||
        !get_u32(r, "attention.key_length", &c->head_dim) || !model_config_divide_heads(c, r->path, r->err))
        return false;
    uint32_t value_length = c->head_dim;
    c->rope_dim           = c->head_dim;
    if (!get_u32(r, "attention.value_length", &value_length) || !get_u32(r, "rope.dimension_count", &c->rope_dim))
        return false;
    return value_length == c->head_dim || error_set(r->err, ERR_UNSUPPORTED,
                                                    "%s: keys of length %" PRIu32 " with values of length %" PRIu32
                                                    " are not supported; they must be equal",
                                                    r->path, c->head_dim, value_length);
}

/* As llama.cpp numbers them: none, mean, cls, last, rank. */
static bool read_pooling(const reader *r, model_config *c)
{
    static const model_pooling kinds[] = {MODEL_POOLING_NONE, MODEL_POOLING_MEAN, MODEL_POOLING_CLS,
                                          MODEL_POOLING_LAST};
    uint32_t                   kind    = 0;
    if (!get_u32(r, "pooling_type", &kind))
        return false;
    if (kind >= COUNT(kinds))
        return error_set(r->err, ERR_UNSUPPORTED,
                         "%s: %spooling_type = %" PRIu32 " is not supported; supported are 1 (mean), 2 (cls), 3 (last)",
                         r->path, r->prefix, kind);
    c->pooling = kinds[kind];
    return true;
}

static bool read_encoder(const reader *r, model_config *c)
{
    static const char  types_key[] = "tokenizer.ggml.token_type_count";
    const gguf_tensor *types       = gguf_find_tensor(r->file, "token_types.weight");
    bool               causal      = false;
    char               key[KEY_BYTES];
    if (!c->encoder)
        return true;
    key_of(r, "attention.causal", key);
    if (gguf_has(r->file, key) && !gguf_get_bool(r->file, key, &causal, r->err))
        return false;
    if (causal)
        return error_set(r->err, ERR_UNSUPPORTED, "%s: key %s = true is not supported", r->path, key);
    c->n_types = types ? (uint32_t)types->dims[1] : 0;
    return !gguf_has(r->file, types_key) || gguf_get_u32(r->file, types_key, &c->n_types, r->err);
}

static bool read_scales(const reader *r, model_config *c)
{
    const architecture *a       = r->architecture;
    float               divisor = 1;
    if (a->scales_embedding)
        c->embedding_scale = sqrtf((float)c->n_embd);
    if (a->n_layers_wide > 0 && a->n_layers_wide == c->n_layers && c->n_heads > 0)
        c->attention_scale = 1 / sqrtf((float)(c->n_embd / c->n_heads));
    if (!get_f32(r, "embedding_scale", &c->embedding_scale) || !get_f32(r, "residual_scale", &c->residual_scale) ||
        !get_f32(r, "attention.scale", &c->attention_scale) || !get_f32(r, "logit_scale", &divisor) ||
        !get_f32(r, "attn_logit_softcapping", &c->attention_softcap) ||
        !get_f32(r, "final_logit_softcapping", &c->logit_softcap))
        return false;
    c->logit_scale = 1 / divisor;
    return true;
}

static bool read_layers(const reader *r, model_config *c)
{
    const architecture *a     = r->architecture;
    layer_rules         rules = {a->gguf_window, a->full_period, a->first_windowed, a->bare_period};
    if (!get_u32(r, "attention.sliding_window", &rules.window) ||
        !get_u32(r, "attention.sliding_window_pattern", &rules.full_period))
        return false;
    architecture_lay_out(&rules, c);
    return true;
}

/* ---- rotary positions ------------------------------------------------------------------------------------------ */

/* Fills factors from the vector `name`. *found tells whether the file has it. */
static bool read_factors(const reader *r, const char *name, uint32_t n, float *factors, bool *found)
{
    const gguf_tensor *t = gguf_find_tensor(r->file, name);
    *found               = t != NULL;
    if (!t)
        return true;
    if (t->dtype != KERN_F32 || t->n_dims != 1 || t->dims[0] != n || n > ROPE_PAIRS_MAX)
        return error_set(r->err, ERR_INVALID, "%s: tensor %s must be a vector of %" PRIu32 " numbers of type F32",
                         r->path, name, n);
    memcpy(factors, t->data, n * sizeof *factors);
    return true;
}

/* Llama 3's scaling comes as one list of factors, longrope as two. */
static bool read_factor_tensors(const reader *r, model_config *c, rope_config *rope)
{
    uint32_t n = c->rope_dim / 2;
    bool     one, has_long, has_short;
    if (!read_factors(r, "rope_freqs.weight", n, rope->long_factors, &one) ||
        !read_factors(r, "rope_factors_long.weight", n, rope->long_factors, &has_long) ||
        !read_factors(r, "rope_factors_short.weight", n, rope->short_factors, &has_short))
        return false;
    if (has_long != has_short || (one && has_long))
        return error_set(r->err, ERR_INVALID,
                         "%s: rope_factors_long and rope_factors_short are expected together and without rope_freqs",
                         r->path);
    if (!one && !has_long)
        return rope->scaling != ROPE_LONGROPE ||
               error_set(r->err, ERR_INVALID, "%s: longrope without tensor rope_factors_long.weight", r->path);
    if (rope->scaling != ROPE_PLAIN && rope->scaling != ROPE_LONGROPE)
        return error_set(r->err, ERR_UNSUPPORTED,
                         "%s: tensors of rotary factors are not supported beside another rope scaling", r->path);
    if (one)
        memcpy(rope->short_factors, rope->long_factors, n * sizeof(float));
    rope->scaling = ROPE_LONGROPE;
    return true;
}

/* A factor without a type is linear. */
static bool read_scaling_type(const reader *r, rope_config *rope)
{
    span kind = SPAN("linear");
    if (!get_string(r, "rope.scaling.type", &kind))
        return false;
    if (span_is(kind, "yarn"))
        rope->scaling = ROPE_YARN;
    else if (span_is(kind, "longrope"))
        rope->scaling = ROPE_LONGROPE;
    else if (span_is(kind, "linear"))
        rope->scaling = rope->factor != 0 && rope->factor != 1 ? ROPE_LINEAR : ROPE_PLAIN;
    else if (!span_is(kind, "none"))
        return model_config_refuse_rope(r->path, kind, SUPPORTED_SCALINGS, r->err);
    return true;
}

static bool read_yarn(const reader *r, rope_config *rope)
{
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->attention_factor *= rope->factor > 1 ? 1 + 0.1f * logf(rope->factor) : 1;
    return get_f32(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast) &&
           get_f32(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow) &&
           get_f32(r, "rope.scaling.yarn_attn_factor", &rope->attention_factor);
}

static bool read_rope(const reader *r, model_config *c)
{
    rope_config *rope    = &c->ropes[0];
    rope->theta          = 10000; /* the format's own default, not the architecture's */
    rope->n_ctx_original = c->n_ctx_train;
    return get_f32(r, "rope.freq_base", &rope->theta) && get_f32(r, "rope.freq_base_swa", &c->ropes[1].theta) &&
           get_f32(r, "rope.scaling.attn_factor", &rope->attention_factor) &&
           get_f32(r, "rope.scaling.factor", &rope->factor) &&
           get_u32(r, "rope.scaling.original_context_length", &rope->n_ctx_original) && read_scaling_type(r, rope) &&
           (rope->scaling != ROPE_YARN || read_yarn(r, rope)) && read_factor_tensors(r, c, rope);
}

static span last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return span_of(slash ? slash + 1 : path);
}

bool model_config_from_gguf(model_config *config, const gguf *file, error *err)
{
    reader r = {.file = file, .path = gguf_path(file), .err = err};
    if (!find_architecture(&r) || !check_keys(&r))
        return false;
    architecture_begin(r.architecture, config);
    config->rope_pairs = r.architecture->gguf_pairs;
    config->tied_head  = config->encoder || !gguf_find_tensor(file, "output.weight");
    span name          = last_part(r.path);
    if (gguf_has(file, "general.name") && !gguf_get_string(file, "general.name", &name, err))
        return false;
    model_config_set_name(config, name);
    return read_sizes(&r, config) && read_pooling(&r, config) && read_encoder(&r, config) && read_scales(&r, config) &&
           read_layers(&r, config) && read_rope(&r, config) && model_config_finish(config, r.path, err);
}
