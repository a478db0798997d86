/* Two readers, one check. */
#include "model/model_config.h"

#include "base/utf8.h"
#include "model/bounded_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define SUPPORTED_ARCHITECTURE "llama"

/* ---- the check both share -------------------------------------------------------------------------------------- */

static bool check_ranges(const model_config *c, const char *path, error *err)
{
    const struct {
        const char *name;
        uint32_t    value, min, max;
    } sizes[] = {
        {"the number of layers", c->n_layers, 1, 1024},
        {"the embedding length", c->n_embd, 1, 1 << 17},
        {"the number of heads", c->n_heads, 1, 1024},
        {"the number of key-value heads", c->n_kv_heads, 1, c->n_heads},
        {"the length of a head", c->head_dim, 2, 1024},
        {"the feed-forward length", c->n_ff, 1, 1 << 20},
        {"the size of the vocabulary", c->n_vocab, 1, 1 << 22},
        {"the context length", c->n_ctx_train, 1, 1 << 27},
        {"the number of rotated dimensions", c->rope_dim, 2, c->head_dim},
    };
    for (size_t i = 0; i < COUNT(sizes); i++)
        if (sizes[i].value < sizes[i].min || sizes[i].value > sizes[i].max)
            return error_set(err, ERR_INVALID, "%s: %s is %" PRIu32 "; %" PRIu32 " to %" PRIu32 " was expected", path,
                             sizes[i].name, sizes[i].value, sizes[i].min, sizes[i].max);
    if (c->n_heads % c->n_kv_heads != 0)
        return error_set(err, ERR_INVALID, "%s: %" PRIu32 " heads are no multiple of %" PRIu32 " key-value heads", path,
                         c->n_heads, c->n_kv_heads);
    if (c->rope_dim % 2 != 0)
        return error_set(err, ERR_INVALID, "%s: the number of rotated dimensions, %" PRIu32 ", must be even", path,
                         c->rope_dim);
    if (!(c->rope_theta > 0 && isfinite(c->rope_theta)))
        return error_set(err, ERR_INVALID,
                         "%s: the base of the rotary frequencies is %g; a positive number was expected", path,
                         (double)c->rope_theta);
    if (!(c->rms_epsilon > 0 && c->rms_epsilon < 1))
        return error_set(err, ERR_INVALID, "%s: the epsilon of RMSNorm is %g; a number between 0 and 1 was expected",
                         path, (double)c->rms_epsilon);
    return true;
}

static void count_parameters(model_config *c)
{
    uint64_t attention = 2ull * c->n_embd * c->head_dim * c->n_heads + 2ull * c->n_embd * c->head_dim * c->n_kv_heads;
    uint64_t layer     = attention + 3ull * c->n_embd * c->n_ff + 2ull * c->n_embd;
    c->n_parameters    = c->n_layers * layer + c->n_embd + (c->tied_head ? 1ull : 2ull) * c->n_vocab * c->n_embd;
}

static bool finish(model_config *c, const char *path, error *err)
{
    if (!check_ranges(c, path, err))
        return false;
    snprintf(c->architecture, sizeof c->architecture, SUPPORTED_ARCHITECTURE);
    count_parameters(c);
    return true;
}

static bool refuse_architecture(const char *path, span name, error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: the architecture \"%.*s\" is not supported; supported is " SUPPORTED_ARCHITECTURE, path,
                     SPAN_ARG(name));
}

static bool refuse_rope_scaling(const char *path, span kind, error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: rope scaling \"%.*s\" is not supported; only plain rotary embeddings are (none, default)",
                     path, SPAN_ARG(kind));
}

/* For a message: at most 64 bytes, UTF-8. */
static span shown(span text)
{
    text.size = text.size < 64 ? text.size : 64;
    text.size = utf8_valid_prefix(text);
    return text;
}

static void set_name(model_config *config, span name)
{
    name.size = name.size < sizeof config->name ? name.size : sizeof config->name - 1;
    name.size = utf8_valid_prefix(name);
    snprintf(config->name, sizeof config->name, "%.*s", SPAN_ARG(name));
}

static span last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return span_of(slash ? slash + 1 : path);
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------ */

/* Reads a key into *value. An absent one leaves *value as it is, and is an error when `required`. */
static bool gguf_u32(const gguf *file, const char *key, bool required, uint32_t *value, error *err)
{
    if (gguf_get_u32(file, key, value, err))
        return true;
    if (gguf_has(file, key))
        return false;
    return !required || error_set(err, ERR_INVALID, "%s: key %s is missing", gguf_path(file), key);
}

static bool gguf_f32(const gguf *file, const char *key, bool required, float *value, error *err)
{
    if (gguf_get_f32(file, key, value, err))
        return true;
    if (gguf_has(file, key))
        return false;
    return !required || error_set(err, ERR_INVALID, "%s: key %s is missing", gguf_path(file), key);
}

static bool check_gguf_architecture(const gguf *file, error *err)
{
    span name;
    if (!gguf_has(file, "general.architecture"))
        return error_set(err, ERR_INVALID, "%s: key general.architecture is missing", gguf_path(file));
    return gguf_get_string(file, "general.architecture", &name, err) &&
           (span_is(name, SUPPORTED_ARCHITECTURE) || refuse_architecture(gguf_path(file), shown(name), err));
}

/* Keys of the architecture that are read, or that change nothing as long as check_gguf_features accepts the file. */
static bool is_known_llama_key(span key)
{
    static const char *const known[] = {
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "expert_count",
        "expert_used_count",
        "tensor_data_layout",
    };
    span rest = {key.data + 6, key.size - 6};
    for (size_t i = 0; i < COUNT(known); i++)
        if (span_is(rest, known[i]))
            return true;
    return false;
}

static bool check_gguf_features(const gguf *file, error *err)
{
    const char *path      = gguf_path(file);
    span        scaling   = SPAN("none");
    float       factor    = 1;
    uint32_t    n_experts = 0;
    if (gguf_has(file, "llama.rope.scaling.type") && !gguf_get_string(file, "llama.rope.scaling.type", &scaling, err))
        return false;
    if (!gguf_f32(file, "llama.rope.scaling.factor", false, &factor, err) ||
        !gguf_u32(file, "llama.expert_count", false, &n_experts, err))
        return false;
    if (!span_is(scaling, "none"))
        return refuse_rope_scaling(path, shown(scaling), err);
    if (factor != 1 && factor != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: key llama.rope.scaling.factor is %g; only plain rotary embeddings are supported", path,
                         (double)factor);
    if (gguf_find_tensor(file, "rope_freqs.weight"))
        return refuse_rope_scaling(path, SPAN("rope_freqs.weight"), err);
    if (n_experts != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: mixture of experts (llama.expert_count = %" PRIu32 ") is not supported", path, n_experts);
    for (uint64_t i = 0; i < gguf_n_keys(file); i++) {
        span key = gguf_key_at(file, i);
        if (key.size > 6 && memcmp(key.data, "llama.", 6) == 0 && !is_known_llama_key(key))
            return error_set(err, ERR_UNSUPPORTED, "%s: key %.*s may change the arithmetic and is not supported", path,
                             SPAN_ARG(key));
    }
    return true;
}

/* Older files leave llama.vocab_size out; the list of tokens then tells. */
static bool read_gguf_vocab(model_config *c, const gguf *file, error *err)
{
    gguf_type type;
    uint64_t  n;
    if (gguf_has(file, "llama.vocab_size"))
        return gguf_u32(file, "llama.vocab_size", true, &c->n_vocab, err);
    if (!gguf_has(file, "tokenizer.ggml.tokens"))
        return error_set(err, ERR_INVALID, "%s: keys llama.vocab_size and tokenizer.ggml.tokens are both missing",
                         gguf_path(file));
    if (!gguf_get_array(file, "tokenizer.ggml.tokens", &type, &n, err))
        return false;
    c->n_vocab = n <= UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return true;
}

static bool read_gguf_sizes(model_config *c, const gguf *file, error *err)
{
    if (!gguf_u32(file, "llama.block_count", true, &c->n_layers, err) ||
        !gguf_u32(file, "llama.embedding_length", true, &c->n_embd, err) ||
        !gguf_u32(file, "llama.attention.head_count", true, &c->n_heads, err) ||
        !gguf_u32(file, "llama.feed_forward_length", true, &c->n_ff, err) ||
        !gguf_u32(file, "llama.context_length", true, &c->n_ctx_train, err) || !read_gguf_vocab(c, file, err) ||
        !gguf_f32(file, "llama.attention.layer_norm_rms_epsilon", true, &c->rms_epsilon, err))
        return false;
    /* What the format lets a file leave out, with the values that it then has. */
    c->n_kv_heads           = c->n_heads;
    c->head_dim             = c->n_heads ? c->n_embd / c->n_heads : 0;
    c->rope_theta           = 10000;
    uint32_t value_length   = c->head_dim;
    bool     has_key_length = gguf_has(file, "llama.attention.key_length");
    if (!gguf_u32(file, "llama.attention.head_count_kv", false, &c->n_kv_heads, err) ||
        !gguf_u32(file, "llama.attention.key_length", false, &c->head_dim, err) ||
        !gguf_u32(file, "llama.attention.value_length", false, &value_length, err) ||
        !gguf_f32(file, "llama.rope.freq_base", false, &c->rope_theta, err))
        return false;
    if (!has_key_length && c->n_heads && c->n_embd % c->n_heads != 0)
        return error_set(err, ERR_INVALID, "%s: the embedding length %" PRIu32 " is no multiple of %" PRIu32 " heads",
                         gguf_path(file), c->n_embd, c->n_heads);
    if (value_length != c->head_dim)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: keys of length %" PRIu32 " with values of length %" PRIu32
                         " are not supported; they must be equal",
                         gguf_path(file), c->head_dim, value_length);
    c->rope_dim = c->head_dim;
    return gguf_u32(file, "llama.rope.dimension_count", false, &c->rope_dim, err);
}

bool model_config_from_gguf(model_config *config, const gguf *file, error *err)
{
    span name = last_part(gguf_path(file));
    memset(config, 0, sizeof *config); /* all of its bytes: a model's fingerprint has them */
    config->rope_pairs = KERN_ROPE_ADJACENT;
    if (!check_gguf_architecture(file, err) || !check_gguf_features(file, err) || !read_gguf_sizes(config, file, err))
        return false;
    if (gguf_has(file, "general.name") && !gguf_get_string(file, "general.name", &name, err))
        return false;
    set_name(config, name);
    config->tied_head = !gguf_find_tensor(file, "output.weight");
    return finish(config, gguf_path(file), err);
}

/* ---- Hugging Face's config.json -------------------------------------------------------------------------------- */

/* As gguf_u32 and gguf_f32; null counts as absent. */
static bool json_u32(const json_t *root, const char *path, const char *key, bool required, uint32_t *value, error *err)
{
    const json_t *found = json_object_get(root, key);
    if (!found || json_is_null(found))
        return !required || error_set(err, ERR_INVALID, "%s: \"%s\" is missing", path, key);
    if (!json_is_integer(found) || json_integer_value(found) < 0 || json_integer_value(found) > UINT32_MAX)
        return error_set(err, ERR_INVALID, "%s: \"%s\" must be an integer that is not negative", path, key);
    *value = (uint32_t)json_integer_value(found);
    return true;
}

static bool json_f32(const json_t *root, const char *path, const char *key, float *value, error *err)
{
    const json_t *found = json_object_get(root, key);
    if (!found || json_is_null(found))
        return true;
    if (!json_is_number(found))
        return error_set(err, ERR_INVALID, "%s: \"%s\" must be a number", path, key);
    *value = (float)json_number_value(found);
    return true;
}

static bool json_bool(const json_t *root, const char *path, const char *key, bool *value, error *err)
{
    const json_t *found = json_object_get(root, key);
    if (!found || json_is_null(found))
        return true;
    if (!json_is_boolean(found))
        return error_set(err, ERR_INVALID, "%s: \"%s\" must be true or false", path, key);
    *value = json_is_true(found);
    return true;
}

static bool check_json_architecture(const json_t *root, const char *path, error *err)
{
    const json_t *type = json_object_get(root, "model_type"), *class = json_object_get(root, "architectures");
    if (!json_is_string(type))
        return error_set(err, ERR_INVALID, "%s: \"model_type\" must be a string", path);
    if (strcmp(json_string_value(type), SUPPORTED_ARCHITECTURE) != 0)
        return refuse_architecture(path, shown(span_of(json_string_value(type))), err);
    const char *name = json_string_value(json_array_get(class, 0));
    if (class && (json_array_size(class) != 1 || !name))
        return error_set(err, ERR_INVALID, "%s: \"architectures\" must be an array of one name", path);
    if (name && strcmp(name, "LlamaForCausalLM") != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: the architecture \"%.*s\" is not supported; supported is LlamaForCausalLM", path,
                         SPAN_ARG(shown(span_of(name))));
    return true;
}

/* "rope_scaling" and its successor "rope_parameters": null, or an object that says what kind. */
static bool check_json_rope(const json_t *rope, const char *path, const char *key, error *err)
{
    if (!rope || json_is_null(rope))
        return true;
    const json_t *kind = json_object_get(rope, "rope_type");
    if (!kind)
        kind = json_object_get(rope, "type");
    if (!json_is_string(kind))
        return error_set(err, ERR_INVALID, "%s: \"%s\" must be null or an object with a \"rope_type\"", path, key);
    return strcmp(json_string_value(kind), "default") == 0 ||
           refuse_rope_scaling(path, shown(span_of(json_string_value(kind))), err);
}

static bool check_json_features(const json_t *root, const char *path, error *err)
{
    bool          mlp_bias   = false;
    float         rotated    = 1;
    const json_t *activation = json_object_get(root, "hidden_act");
    if (activation && !json_is_string(activation))
        return error_set(err, ERR_INVALID, "%s: \"hidden_act\" must be a string", path);
    if (activation && strcmp(json_string_value(activation), "silu") != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: the activation \"%.*s\" is not supported; supported is silu", path,
                         SPAN_ARG(shown(span_of(json_string_value(activation)))));
    static const char *const absent[] = {"quantization_config", "sliding_window", "attn_logit_softcapping",
                                         "final_logit_softcapping"};
    for (size_t i = 0; i < COUNT(absent); i++) {
        const json_t *found = json_object_get(root, absent[i]);
        if (found && !json_is_null(found))
            return error_set(err, ERR_UNSUPPORTED, "%s: \"%s\" is not supported", path, absent[i]);
    }
    if (!json_bool(root, path, "mlp_bias", &mlp_bias, err) ||
        !json_f32(root, path, "partial_rotary_factor", &rotated, err))
        return false;
    if (mlp_bias)
        return error_set(err, ERR_UNSUPPORTED, "%s: \"mlp_bias\" is not supported", path);
    if (rotated != 1)
        return error_set(err, ERR_UNSUPPORTED, "%s: \"partial_rotary_factor\" is not supported", path);
    return check_json_rope(json_object_get(root, "rope_scaling"), path, "rope_scaling", err) &&
           check_json_rope(json_object_get(root, "rope_parameters"), path, "rope_parameters", err);
}

static bool read_json_sizes(model_config *c, const json_t *root, const char *path, error *err)
{
    if (!json_u32(root, path, "num_hidden_layers", true, &c->n_layers, err) ||
        !json_u32(root, path, "hidden_size", true, &c->n_embd, err) ||
        !json_u32(root, path, "num_attention_heads", true, &c->n_heads, err) ||
        !json_u32(root, path, "intermediate_size", true, &c->n_ff, err) ||
        !json_u32(root, path, "vocab_size", true, &c->n_vocab, err) ||
        !json_u32(root, path, "max_position_embeddings", true, &c->n_ctx_train, err))
        return false;
    c->n_kv_heads = c->n_heads;
    c->head_dim   = 0;
    if (!json_u32(root, path, "num_key_value_heads", false, &c->n_kv_heads, err) ||
        !json_u32(root, path, "head_dim", false, &c->head_dim, err))
        return false;
    if (c->head_dim == 0 && c->n_heads && c->n_embd % c->n_heads == 0)
        c->head_dim = c->n_embd / c->n_heads;
    c->rope_dim = c->head_dim;
    /* The values that transformers gives to what a file leaves out. */
    c->rope_theta  = 10000;
    c->rms_epsilon = 1e-6f;
    return json_f32(root, path, "rope_theta", &c->rope_theta, err) &&
           json_f32(json_object_get(root, "rope_parameters"), path, "rope_theta", &c->rope_theta, err) &&
           json_f32(root, path, "rms_norm_eps", &c->rms_epsilon, err) &&
           json_bool(root, path, "tie_word_embeddings", &c->tied_head, err);
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
    memset(config, 0, sizeof *config); /* all of its bytes: a model's fingerprint has them */
    config->rope_pairs = KERN_ROPE_HALVES;
    set_name(config, folder_name(path));
    bool ok = check_json_architecture(root, path, err) && check_json_features(root, path, err) &&
              read_json_sizes(config, root, path, err) && finish(config, path, err);
    json_decref(root);
    return ok;
}
