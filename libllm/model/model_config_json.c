/* The config of a folder: Hugging Face's config.json, as older and newer versions of transformers write it. */
#include "model/architecture.h"
#include "model/bounded_json.h"
#include "model/model_config.h"

#include <inttypes.h>
#include <math.h>

#define SUPPORTED_SCALINGS "default, linear, dynamic, llama3, yarn, longrope"

typedef struct {
    const json_t       *root;
    const char         *path;
    const architecture *architecture;
    bool                scores; /* its class has labels */
    error              *err;
} reader;

/* ---- values: null counts as absent, and what is absent leaves *value as it is ---- */

static const json_t *find(const json_t *object, const char *key)
{
    const json_t *found = json_object_get(object, key);
    return json_is_null(found) ? NULL : found;
}

static bool must_be(const reader *r, const char *key, const char *what)
{
    return error_set(r->err, ERR_INVALID, "%s: \"%s\" must be %s", r->path, key, what);
}

static bool get_u32(const reader *r, const json_t *object, const char *key, uint32_t *value)
{
    const json_t *found = find(object, key);
    if (!found)
        return true;
    if (!json_is_integer(found) || json_integer_value(found) < 0 || json_integer_value(found) > UINT32_MAX)
        return must_be(r, key, "an integer that is not negative");
    *value = (uint32_t)json_integer_value(found);
    return true;
}

static bool require_u32(const reader *r, const char *key, uint32_t *value)
{
    return find(r->root, key) ? get_u32(r, r->root, key, value)
                              : error_set(r->err, ERR_INVALID, "%s: \"%s\" is missing", r->path, key);
}

static bool get_f32(const reader *r, const json_t *object, const char *key, float *value)
{
    const json_t *found = find(object, key);
    if (!found)
        return true;
    if (!json_is_number(found))
        return must_be(r, key, "a number");
    *value = (float)json_number_value(found);
    return true;
}

static bool get_bool(const reader *r, const char *key, bool *value)
{
    const json_t *found = find(r->root, key);
    if (!found)
        return true;
    if (!json_is_boolean(found))
        return must_be(r, key, "true or false");
    *value = json_is_true(found);
    return true;
}

static bool has_keys(const reader *r, uint32_t keys)
{
    return (r->architecture->keys & keys) != 0;
}

/* ---- architecture ---------------------------------------------------------------------------------------------- */

static bool find_architecture(reader *r)
{
    const json_t *type = json_object_get(r->root, "model_type"), *class = json_object_get(r->root, "architectures");
    if (!json_is_string(type))
        return must_be(r, "model_type", "a string");
    r->architecture = architecture_of_model_type(span_of(json_string_value(type)));
    if (!r->architecture)
        return model_config_refuse_architecture(r->path, span_of(json_string_value(type)), false, r->err);
    const char *name = json_string_value(json_array_get(class, 0));
    if (class && (json_array_size(class) != 1 || !name))
        return must_be(r, "architectures", "an array of one name");
    const char *scoring = r->architecture->scoring_class;
    r->scores           = name && scoring && strcmp(name, scoring) == 0;
    if (name && !r->scores && strcmp(name, r->architecture->class_name) != 0)
        return error_set(r->err, ERR_UNSUPPORTED, "%s: the architecture \"%.*s\" is not supported; supported is %s",
                         r->path, SPAN_ARG(model_config_shown(span_of(name))), r->architecture->class_name);
    return true;
}

static bool refuse_key(const reader *r, const char *key)
{
    return error_set(r->err, ERR_UNSUPPORTED, "%s: \"%s\" is not supported", r->path, key);
}

/* Keys that change the arithmetic of architectures that read them; here one has a value that would be ignored. */
static bool check_keys(const reader *r)
{
    static const struct {
        const char *name;
        uint32_t    keys; /* of the architectures that may have it; 0: none */
    } limited[] = {
        {"quantization_config", 0},
        {"dual_chunk_attention_config", 0},
        {"attn_logit_softcapping", HAS_SOFTCAPS},
        {"final_logit_softcapping", HAS_SOFTCAPS},
        {"embedding_multiplier", HAS_MULTIPLIERS},
        {"residual_multiplier", HAS_MULTIPLIERS},
        {"attention_multiplier", HAS_MULTIPLIERS},
        {"logits_scaling", HAS_MULTIPLIERS},
        {"query_pre_attn_scalar", HAS_QUERY_SCALAR},
        {"rope_local_base_freq", HAS_WINDOW_ROPE},
        {"no_rope_layers", HAS_BARE_LAYERS},
    };
    static const char *const switches[] = {"mlp_bias", "use_bidirectional_attention", "is_decoder",
                                           "add_cross_attention"};
    for (size_t i = 0; i < COUNT(limited); i++)
        if (find(r->root, limited[i].name) && !has_keys(r, limited[i].keys))
            return refuse_key(r, limited[i].name);
    for (size_t i = 0; i < COUNT(switches); i++) {
        bool on = false;
        if (!get_bool(r, switches[i], &on))
            return false;
        if (on)
            return refuse_key(r, switches[i]);
    }
    return true;
}

static bool read_activation(const reader *r, model_config *c)
{
    const char   *key   = r->architecture->activation == KERN_ACT_GELU_TANH ? "hidden_activation" : "hidden_act";
    const json_t *found = find(r->root, key);
    if (!found)
        return true;
    if (!json_is_string(found))
        return must_be(r, key, "a string");
    static const struct {
        const char     *name;
        kern_activation activation;
    } known[] = {{"silu", KERN_ACT_SILU}, {"gelu_pytorch_tanh", KERN_ACT_GELU_TANH}, {"gelu", KERN_ACT_GELU_ERF}};
    const char *name = json_string_value(found);
    for (size_t i = 0; i < COUNT(known); i++) {
        if (strcmp(name, known[i].name) == 0) {
            c->activation = known[i].activation;
            return true;
        }
    }
    return error_set(r->err, ERR_UNSUPPORTED,
                     "%s: the activation \"%.*s\" is not supported; supported are silu, gelu_pytorch_tanh, gelu",
                     r->path, SPAN_ARG(model_config_shown(span_of(name))));
}

/* ---- sizes and scales ------------------------------------------------------------------------------------------ */

static bool read_sizes(const reader *r, model_config *c)
{
    if (!require_u32(r, "num_hidden_layers", &c->n_layers) || !require_u32(r, "hidden_size", &c->n_embd) ||
        !require_u32(r, "num_attention_heads", &c->n_heads) || !require_u32(r, "intermediate_size", &c->n_ff) ||
        !require_u32(r, "vocab_size", &c->n_vocab) || !require_u32(r, "max_position_embeddings", &c->n_ctx_train))
        return false;
    c->n_kv_heads  = c->n_heads;
    c->rms_epsilon = r->architecture->rms_epsilon;
    c->tied_head   = r->architecture->tied_head;
    return get_u32(r, r->root, "num_key_value_heads", &c->n_kv_heads) &&
           get_u32(r, r->root, "head_dim", &c->head_dim) && model_config_divide_heads(c, r->path, r->err) &&
           get_f32(r, r->root, has_keys(r, HAS_LAYER_NORM) ? "layer_norm_eps" : "rms_norm_eps", &c->rms_epsilon) &&
           (c->encoder || get_bool(r, "tie_word_embeddings", &c->tied_head));
}

/* Types of tokens, positions and labels of an encoder. transformers has two labels where nobody says how many. */
static bool read_encoder(const reader *r, model_config *c)
{
    const json_t *positions = find(r->root, "position_embedding_type"), *labels = find(r->root, "id2label");
    if (!c->encoder)
        return true;
    if (positions && !(json_is_string(positions) && strcmp(json_string_value(positions), "absolute") == 0))
        return error_set(r->err, ERR_UNSUPPORTED,
                         "%s: \"position_embedding_type\" of another kind than absolute is not supported", r->path);
    c->n_types = 2;
    if (!get_u32(r, r->root, "type_vocab_size", &c->n_types))
        return false;
    if (!r->scores)
        return true;
    c->n_labels = labels ? (uint32_t)json_object_size(labels) : 2;
    return c->n_labels == 1 ||
           error_set(r->err, ERR_UNSUPPORTED,
                     "%s: a classifier of %" PRIu32 " labels is not supported; supported is one label, a score",
                     r->path, c->n_labels);
}

/* A soft cap that is null is none, one that is absent is the architecture's. The window is read likewise. */
static bool read_softcap(const reader *r, const char *key, float *cap)
{
    if (json_is_null(json_object_get(r->root, key)))
        *cap = 0;
    return get_f32(r, r->root, key, cap);
}

static bool read_scales(const reader *r, model_config *c)
{
    float divisor = 1, query_scalar = 256;
    c->norm_offset = r->architecture->norm_offset;
    if (r->architecture->scales_embedding)
        c->embedding_scale = sqrtf((float)c->n_embd);
    if (has_keys(r, HAS_MULTIPLIERS))
        c->attention_scale = 1;
    if (!get_f32(r, r->root, "embedding_multiplier", &c->embedding_scale) ||
        !get_f32(r, r->root, "residual_multiplier", &c->residual_scale) ||
        !get_f32(r, r->root, "attention_multiplier", &c->attention_scale) ||
        !get_f32(r, r->root, "logits_scaling", &divisor) ||
        !get_f32(r, r->root, "query_pre_attn_scalar", &query_scalar) ||
        !read_softcap(r, "attn_logit_softcapping", &c->attention_softcap) ||
        !read_softcap(r, "final_logit_softcapping", &c->logit_softcap))
        return false;
    c->logit_scale = 1 / divisor;
    if (has_keys(r, HAS_QUERY_SCALAR))
        c->attention_scale = 1 / sqrtf(query_scalar);
    return true;
}

/* ---- layers ---------------------------------------------------------------------------------------------------- */

static bool read_window(const reader *r, uint32_t *window)
{
    bool used = !has_keys(r, HAS_WINDOW_SWITCH);
    *window   = 0;
    if (!get_bool(r, "use_sliding_window", &used))
        return false;
    if (!used || json_is_null(json_object_get(r->root, "sliding_window")))
        return true;
    if (!has_keys(r, HAS_WINDOW))
        return !find(r->root, "sliding_window") || refuse_key(r, "sliding_window");
    *window = r->architecture->window;
    return get_u32(r, r->root, "sliding_window", window);
}

/* "layer_types" says of each layer whether it has the window. */
static bool read_layer_types(const reader *r, model_config *c, uint32_t window)
{
    const json_t *types = find(r->root, "layer_types");
    if (!types)
        return true;
    if (json_array_size(types) < c->n_layers)
        return must_be(r, "layer_types", "an array with a name for each layer");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *name    = json_string_value(json_array_get(types, i));
        bool        is_full = name && strcmp(name, "full_attention") == 0;
        if (!is_full && (!name || strcmp(name, "sliding_attention") != 0 || window == 0))
            return error_set(r->err, ERR_UNSUPPORTED,
                             "%s: \"layer_types\": \"%.*s\" is not supported; supported are full_attention, and "
                             "sliding_attention with a \"sliding_window\"",
                             r->path, SPAN_ARG(model_config_shown(span_of(name ? name : ""))));
        c->layers[i].window = is_full ? 0 : window;
    }
    return true;
}

/* "no_rope_layers" holds 1 for each layer with rotary positions, 0 for the others. */
static bool read_bare_layers(const reader *r, model_config *c)
{
    const json_t *has_rope = find(r->root, "no_rope_layers");
    if (!has_rope)
        return true;
    if (json_array_size(has_rope) < c->n_layers)
        return must_be(r, "no_rope_layers", "an array with 0 or 1 for each layer");
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layers[i].rope = json_integer_value(json_array_get(has_rope, i)) ? 0 : MODEL_NO_ROPE;
    return true;
}

static bool read_layers(const reader *r, model_config *c)
{
    const architecture *a     = r->architecture;
    layer_rules         rules = {0, a->full_period, a->first_windowed, a->bare_period};
    if (c->n_layers > MODEL_LAYERS_MAX)
        return true; /* model_config_finish will say so */
    if (!read_window(r, &rules.window) ||
        (has_keys(r, HAS_WINDOW_SWITCH) && !get_u32(r, r->root, "max_window_layers", &rules.first_windowed)) ||
        (has_keys(r, HAS_BARE_LAYERS) && !get_u32(r, r->root, "no_rope_layer_interval", &rules.bare_period)) ||
        (has_keys(r, HAS_WINDOW_ROPE) && !get_u32(r, r->root, "_sliding_window_pattern", &rules.full_period)) ||
        (has_keys(r, HAS_WINDOW_ROPE) && !get_u32(r, r->root, "sliding_window_pattern", &rules.full_period)))
        return false;
    architecture_lay_out(&rules, c);
    return read_layer_types(r, c, rules.window) && read_bare_layers(r, c);
}

/* ---- rotary positions ------------------------------------------------------------------------------------------ */

static bool read_factors(const reader *r, const json_t *object, const char *key, uint32_t n, float *factors)
{
    const json_t *list = find(object, key);
    bool          ok   = json_array_size(list) == n && n <= ROPE_PAIRS_MAX;
    for (uint32_t i = 0; ok && i < n; i++) {
        const json_t *number = json_array_get(list, i);
        ok                   = json_is_number(number);
        factors[i]           = (float)json_number_value(number);
    }
    return ok ||
           error_set(r->err, ERR_INVALID,
                     "%s: \"%s\" must be an array of a number for each of %" PRIu32 " rotated pairs", r->path, key, n);
}

/* What cosines and sines are multiplied by unless "attention_factor" says it. */
static bool read_yarn(const reader *r, const json_t *object, rope_config *rope)
{
    float mscale = 0, mscale_all = 0;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    if (json_is_false(json_object_get(object, "truncate")))
        return refuse_key(r, "truncate");
    if (!get_f32(r, object, "beta_fast", &rope->beta_fast) || !get_f32(r, object, "beta_slow", &rope->beta_slow) ||
        !get_f32(r, object, "mscale", &mscale) || !get_f32(r, object, "mscale_all_dim", &mscale_all))
        return false;
    bool  both             = mscale != 0 && mscale_all != 0;
    float growth           = rope->factor > 1 ? 0.1f * logf(rope->factor) : 0;
    rope->attention_factor = (1 + growth * (both ? mscale : 1)) / (1 + growth * (both ? mscale_all : 0));
    return true;
}

static bool read_longrope(const reader *r, const json_t *object, const model_config *c, rope_config *rope)
{
    float stretch = rope->factor > 0 ? rope->factor : (float)c->n_ctx_train / (float)rope->n_ctx_original;
    if (stretch > 1)
        rope->attention_factor = sqrtf(1 + logf(stretch) / logf((float)rope->n_ctx_original));
    return read_factors(r, object, "short_factor", c->rope_dim / 2, rope->short_factors) &&
           read_factors(r, object, "long_factor", c->rope_dim / 2, rope->long_factors);
}

static bool read_scaling(const reader *r, const json_t *object, const char *kind, const model_config *c,
                         rope_config *rope)
{
    static const struct {
        const char  *name;
        rope_scaling scaling;
    } kinds[] = {{"default", ROPE_PLAIN}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC},
                 {"llama3", ROPE_LLAMA3}, {"yarn", ROPE_YARN},     {"longrope", ROPE_LONGROPE},
                 {"su", ROPE_LONGROPE}};
    size_t i  = 0;
    while (i < COUNT(kinds) && strcmp(kind, kinds[i].name) != 0)
        i++;
    if (i == COUNT(kinds))
        return model_config_refuse_rope(r->path, span_of(kind), SUPPORTED_SCALINGS, r->err);
    rope->scaling = kinds[i].scaling;
    if (rope->scaling == ROPE_YARN && find(object, "short_factor")) /* as early files of Phi 3 say */
        rope->scaling = ROPE_LONGROPE;
    rope->n_ctx_original = c->n_ctx_train;
    if (!get_f32(r, object, "factor", &rope->factor) ||
        !get_f32(r, object, "low_freq_factor", &rope->low_freq_factor) ||
        !get_f32(r, object, "high_freq_factor", &rope->high_freq_factor))
        return false;
    if (rope->scaling != ROPE_DYNAMIC &&
        (!get_u32(r, object, "original_max_position_embeddings", &rope->n_ctx_original) ||
         !get_u32(r, r->root, "original_max_position_embeddings", &rope->n_ctx_original)))
        return false;
    if (rope->scaling == ROPE_YARN && rope->factor == 0 && rope->n_ctx_original > 0)
        rope->factor = (float)c->n_ctx_train / (float)rope->n_ctx_original;
    return (rope->scaling != ROPE_YARN || read_yarn(r, object, rope)) &&
           (rope->scaling != ROPE_LONGROPE || read_longrope(r, object, c, rope)) &&
           get_f32(r, object, "attention_factor", &rope->attention_factor);
}

/* An object of "rope_scaling", of "rope_parameters", or of the latter's part for a kind of layers. */
static bool read_rope_object(const reader *r, const char *key, const json_t *object, model_config *c, rope_config *rope)
{
    if (!object)
        return true;
    const char *kind = json_string_value(find(object, find(object, "rope_type") ? "rope_type" : "type"));
    if (!kind)
        return must_be(r, key, "null or an object with a \"rope_type\"");
    return get_f32(r, object, "rope_theta", &rope->theta) && read_scaling(r, object, kind, c, rope);
}

static bool read_rope(const reader *r, model_config *c)
{
    const json_t *parameters = find(r->root, "rope_parameters"), *scaling = find(r->root, "rope_scaling");
    const json_t *windowed = find(parameters, "sliding_attention"), *full = find(parameters, "full_attention");
    const json_t *global  = full ? full : windowed ? NULL : parameters;
    float         rotated = 1;
    if (!get_f32(r, r->root, "partial_rotary_factor", &rotated) ||
        !get_f32(r, global, "partial_rotary_factor", &rotated))
        return false;
    if (rotated != 1 && !(has_keys(r, HAS_PARTIAL_ROPE) && rotated > 0 && rotated < 1))
        return refuse_key(r, "partial_rotary_factor");
    c->rope_dim = (uint32_t)((double)c->head_dim * rotated);
    if (windowed && !has_keys(r, HAS_WINDOW_ROPE))
        return refuse_key(r, "sliding_attention");
    return get_f32(r, r->root, "rope_theta", &c->ropes[0].theta) &&
           get_f32(r, r->root, "rope_local_base_freq", &c->ropes[1].theta) &&
           read_rope_object(r, "rope_scaling", scaling, c, &c->ropes[0]) &&
           read_rope_object(r, "rope_parameters", global, c, &c->ropes[0]) &&
           read_rope_object(r, "rope_parameters", windowed, c, &c->ropes[1]);
}

/* "smollm" of "models/smollm/config.json". */
static span folder_name(const char *path)
{
    const char *end   = strrchr(path, '/');
    const char *start = end;
    while (start && start > path && start[-1] != '/')
        start--;
    return end ? (span){start, (size_t)(end - start)} : span_of(path);
}

bool model_config_from_json(model_config *config, span json, const char *path, error *err)
{
    json_t *root = bounded_json_parse(json, path, err);
    if (!root)
        return false;
    reader r  = {.root = root, .path = path, .err = err};
    bool   ok = find_architecture(&r) && check_keys(&r);
    if (ok) {
        architecture_begin(r.architecture, config);
        config->rope_pairs = KERN_ROPE_HALVES;
        model_config_set_name(config, folder_name(path));
        ok = read_activation(&r, config) && read_sizes(&r, config) && read_encoder(&r, config) &&
             read_scales(&r, config) && read_layers(&r, config) && read_rope(&r, config) &&
             model_config_finish(config, path, err);
    }
    json_decref(root);
    return ok;
}

/* ---- pooling ---------------------------------------------------------------------------------------------------- */

/* Names of modes: of a switch each, or the value of "pooling_mode" in newer files. */
static const struct {
    const char   *key, *name;
    model_pooling pooling; /* NONE: not supported */
} pooling_modes[] = {
    {"pooling_mode_mean_tokens", "mean", MODEL_POOLING_MEAN},
    {"pooling_mode_cls_token", "cls", MODEL_POOLING_CLS},
    {"pooling_mode_lasttoken", "lasttoken", MODEL_POOLING_LAST},
    {"pooling_mode_max_tokens", "max", MODEL_POOLING_NONE},
    {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", MODEL_POOLING_NONE},
    {"pooling_mode_weightedmean_tokens", "weightedmean", MODEL_POOLING_NONE},
};

static bool read_pooling(const reader *r, model_config *c)
{
    const json_t *mode    = find(r->root, "pooling_mode");
    uint32_t      n_found = 0;
    if (mode && !json_is_string(mode))
        return must_be(r, "pooling_mode", "the name of one mode");
    for (size_t i = 0; i < COUNT(pooling_modes); i++) {
        bool on = mode && strcmp(json_string_value(mode), pooling_modes[i].name) == 0;
        if (!mode && !get_bool(r, pooling_modes[i].key, &on))
            return false;
        if (!on)
            continue;
        c->pooling = pooling_modes[i].pooling;
        n_found++;
        if (c->pooling == MODEL_POOLING_NONE)
            return refuse_key(r, pooling_modes[i].key);
    }
    return n_found == 1 || error_set(r->err, ERR_UNSUPPORTED,
                                     "%s: one mode of pooling was expected, one of mean, cls, lasttoken", r->path);
}

bool model_config_pooling_from_json(model_config *config, span json, const char *path, error *err)
{
    json_t *root = bounded_json_parse(json, path, err);
    if (!root)
        return false;
    reader r  = {.root = root, .path = path, .err = err};
    bool   ok = config->n_labels > 0 || read_pooling(&r, config);
    json_decref(root);
    return ok;
}

bool model_config_check_modules(span json, const char *path, error *err)
{
    static const char *const known[] = {"Transformer", "Pooling", "Normalize"};
    json_t                  *steps   = bounded_json_parse_array(json, path, err), *step;
    bool                     ok      = steps != NULL;
    size_t                   i;
    json_array_foreach(steps, i, step)
    {
        const char *type = json_string_value(json_object_get(step, "type")), *dot = type ? strrchr(type, '.') : NULL;
        bool        is_known = false;
        for (size_t k = 0; type && k < COUNT(known); k++)
            is_known = is_known || strcmp(dot ? dot + 1 : type, known[k]) == 0;
        if (ok && !is_known)
            ok = error_set(err, ERR_UNSUPPORTED,
                           "%s: module %zu, \"%.*s\", is not supported; supported are Transformer, Pooling, Normalize",
                           path, i, SPAN_ARG(model_config_shown(span_of(type ? type : ""))));
    }
    json_decref(steps);
    return ok;
}
