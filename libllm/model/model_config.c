/* The check that both readers share. */
#include "model/model_config.h"

#include "base/utf8.h"
#include "model/architecture.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static bool check_sizes(const model_config *c, const char *path, error *err)
{
    const struct {
        const char *name;
        uint32_t    value, min, max;
    } sizes[] = {
        {"the number of layers", c->n_layers, 1, MODEL_LAYERS_MAX},
        {"the embedding length", c->n_embd, 1, 1 << 17},
        {"the number of heads", c->n_heads, 1, 1024},
        {"the number of key-value heads", c->n_kv_heads, 1, c->n_heads},
        {"the length of a head", c->head_dim, 2, 2 * ROPE_PAIRS_MAX},
        {"the feed-forward length", c->n_ff, 1, 1 << 20},
        {"the size of the vocabulary", c->n_vocab, 1, 1 << 22},
        {"the context length", c->n_ctx_train, 1, 1 << 27},
        {"the number of rotated dimensions", c->rope_dim, 2, c->head_dim},
        {"the number of token types", c->n_types, 0, 1 << 16},
        {"the number of labels", c->n_labels, 0, 1},
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
    return true;
}

static bool is_positive(float number)
{
    return number > 0 && isfinite(number);
}

static bool check_factors(const float *factors, uint32_t n, const char *path, error *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (!is_positive(factors[i]))
            return error_set(err, ERR_INVALID, "%s: rotary factor %" PRIu32 " is %g; a positive number was expected",
                             path, i, (double)factors[i]);
    return true;
}

static bool check_rope(const model_config *c, const rope_config *r, const char *path, error *err)
{
    if (!is_positive(r->theta))
        return error_set(err, ERR_INVALID,
                         "%s: the base of the rotary frequencies is %g; a positive number was expected", path,
                         (double)r->theta);
    if (!is_positive(r->attention_factor))
        return error_set(err, ERR_INVALID, "%s: the rotary attention factor is %g; a positive number was expected",
                         path, (double)r->attention_factor);
    if (r->scaling == ROPE_PLAIN)
        return true;
    if (r->scaling == ROPE_LONGROPE)
        return check_factors(r->short_factors, c->rope_dim / 2, path, err) &&
               check_factors(r->long_factors, c->rope_dim / 2, path, err);
    bool ok = is_positive(r->factor) && (r->scaling == ROPE_LINEAR || r->n_ctx_original > 0);
    if (r->scaling == ROPE_DYNAMIC)
        ok = ok && r->factor >= 1 && c->rope_dim > 2;
    if (r->scaling == ROPE_LLAMA3)
        ok = ok && is_positive(r->low_freq_factor) && is_positive(r->high_freq_factor) &&
             r->low_freq_factor < r->high_freq_factor;
    if (r->scaling == ROPE_YARN)
        ok =
            ok && is_positive(r->beta_slow) && is_positive(r->beta_fast) && r->beta_slow < r->beta_fast && r->theta > 1;
    return ok || error_set(err, ERR_INVALID, "%s: the numbers of its rope scaling don't fit each other", path);
}

static bool check_numbers(const model_config *c, const char *path, error *err)
{
    if (!(c->rms_epsilon > 0 && c->rms_epsilon < 1))
        return error_set(err, ERR_INVALID, "%s: the epsilon of norms is %g; a number between 0 and 1 was expected",
                         path, (double)c->rms_epsilon);
    const struct {
        const char *name;
        float       value;
        bool        may_be_0;
    } scales[] = {
        {"the scale of the embedding", c->embedding_scale, false}, {"the scale of logits", c->logit_scale, false},
        {"the scale of attention", c->attention_scale, false},     {"the scale of residuals", c->residual_scale, false},
        {"the soft cap of attention", c->attention_softcap, true}, {"the soft cap of logits", c->logit_softcap, true},
    };
    for (size_t i = 0; i < COUNT(scales); i++)
        if (!is_positive(scales[i].value) && !(scales[i].may_be_0 && scales[i].value == 0))
            return error_set(err, ERR_INVALID, "%s: %s is %g; a positive number was expected", path, scales[i].name,
                             (double)scales[i].value);
    return true;
}

static void count_parameters(model_config *c)
{
    uint64_t attention = 2ull * c->n_embd * c->head_dim * c->n_heads + 2ull * c->n_embd * c->head_dim * c->n_kv_heads;
    uint64_t layer     = attention + (c->plain_mlp ? 2ull : 3ull) * c->n_embd * c->n_ff + 2ull * c->n_embd;
    c->n_parameters    = c->n_layers * layer + c->n_embd + (c->tied_head ? 1ull : 2ull) * c->n_vocab * c->n_embd;
}

bool model_config_finish(model_config *c, const char *path, error *err)
{
    if (!check_sizes(c, path, err))
        return false;
    if (c->attention_scale == 0)
        c->attention_scale = (float)(1 / sqrt(c->head_dim));
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (c->n_ropes > 1 && c->layers[i].window > 0 && c->layers[i].rope == 0)
            c->layers[i].rope = 1;
    for (uint32_t i = 0; i < c->n_ropes; i++)
        if (!check_rope(c, &c->ropes[i], path, err))
            return false;
    if (c->encoder && c->pooling == MODEL_POOLING_NONE)
        c->pooling = c->n_labels > 0 ? MODEL_POOLING_CLS : MODEL_POOLING_MEAN;
    count_parameters(c);
    return check_numbers(c, path, err);
}

bool model_config_divide_heads(model_config *c, const char *path, error *err)
{
    if (c->head_dim != 0 || c->n_heads == 0)
        return true;
    c->head_dim = c->n_embd / c->n_heads;
    return c->n_embd % c->n_heads == 0 ||
           error_set(err, ERR_INVALID, "%s: the embedding length %" PRIu32 " is no multiple of %" PRIu32 " heads", path,
                     c->n_embd, c->n_heads);
}

bool model_config_refuse_architecture(const char *path, span name, bool of_gguf, error *err)
{
    char supported[ARCHITECTURE_LIST_BYTES];
    architecture_list(of_gguf, supported);
    name = model_config_shown(name);
    return error_set(err, ERR_UNSUPPORTED, "%s: the architecture \"%.*s\" is not supported; supported are %s", path,
                     SPAN_ARG(name), supported);
}

bool model_config_refuse_rope(const char *path, span kind, const char *supported, error *err)
{
    kind = model_config_shown(kind);
    return error_set(err, ERR_UNSUPPORTED, "%s: rope scaling \"%.*s\" is not supported; supported are %s", path,
                     SPAN_ARG(kind), supported);
}

span model_config_shown(span text)
{
    text.size = text.size < 64 ? text.size : 64;
    text.size = utf8_valid_prefix(text);
    return text;
}

void model_config_set_name(model_config *config, span name)
{
    name.size = name.size < sizeof config->name ? name.size : sizeof config->name - 1;
    name.size = utf8_valid_prefix(name);
    snprintf(config->name, sizeof config->name, "%.*s", SPAN_ARG(name));
}
