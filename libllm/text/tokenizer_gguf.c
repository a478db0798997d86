/* A tokenizer from a GGUF file's tokenizer.ggml.* keys. */
#include "text/tokenizer_gguf_models.h"

#include <stdlib.h>

/* tokenizer.ggml.token_type, as ggml-org/llama.cpp's llama.h numbers them. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_BYTE = 6 };

/* ---- keys ---- */

bool tokenizer_gguf_array(const gguf *file, const char *key, gguf_type type, uint64_t *n, error *err)
{
    gguf_type found;
    error_clear(err);
    if (!gguf_get_array(file, key, &found, n, err)) {
        if (err && err->code == ERR_NONE)
            error_set(err, ERR_INVALID, "the key %s is missing", key);
        return false;
    }
    return found == type || error_set(err, ERR_INVALID, "the key %s is an array of another type than expected", key);
}

bool tokenizer_gguf_token(const gguf *file, const tokenizer *t, const char *key, uint32_t *token, error *err)
{
    uint32_t value;
    error_clear(err);
    if (!gguf_get_u32(file, key, &value, err))
        return err->code == ERR_NONE;
    if (value >= vocabulary_n_tokens(t->vocabulary))
        return error_set(err, ERR_INVALID, "the key %s is %u, but there are %u tokens", key, value,
                         vocabulary_n_tokens(t->vocabulary));
    *token = value;
    return true;
}

bool tokenizer_gguf_flag(const gguf *file, const char *key, bool *flag, error *err)
{
    error_clear(err);
    return gguf_get_bool(file, key, flag, err) || err->code == ERR_NONE;
}

/* ---- the vocabulary ---- */

static uint32_t kinds_of_type(int32_t type)
{
    switch (type) {
    case TYPE_NORMAL:
        return TOKEN_NORMAL;
    case TYPE_BYTE:
        return TOKEN_BYTE;
    case TYPE_USER_DEFINED:
        return TOKEN_ADDED;
    case TYPE_CONTROL:
    case TYPE_UNKNOWN:
        return TOKEN_SPECIAL;
    }
    return TOKEN_UNUSED;
}

bool tokenizer_gguf_vocabulary(tokenizer *t, const gguf *file, tokenizer_gguf_append *append, error *err)
{
    uint64_t n, n_types;
    if (!tokenizer_gguf_array(file, "tokenizer.ggml.tokens", GGUF_STRING, &n, err) ||
        !tokenizer_gguf_array(file, "tokenizer.ggml.token_type", GGUF_I32, &n_types, err))
        return false;
    if (n != n_types || n == 0)
        return error_set(err, ERR_INVALID, "%llu tokenizer.ggml.tokens, but %llu tokenizer.ggml.token_type",
                         (unsigned long long)n, (unsigned long long)n_types);
    t->vocabulary = vocabulary_new(n > UINT32_MAX ? UINT32_MAX : (uint32_t)n, err);
    if (!t->vocabulary)
        return false;
    const char *types = gguf_array_data(file, "tokenizer.ggml.token_type");
    for (uint64_t i = 0; i < n; i++) {
        int32_t type;
        memcpy(&type, types + i * sizeof type, sizeof type);
        if (!append(t, gguf_array_string(file, "tokenizer.ggml.tokens", i), kinds_of_type(type), err))
            return false;
    }
    return true;
}

/* ---- the whole ---- */

static bool load_added_tokens(tokenizer *t, error *err)
{
    uint32_t     n_vocab = vocabulary_n_tokens(t->vocabulary), n = 0;
    added_token *list = calloc((size_t)n_vocab + 1, sizeof *list);
    if (!list)
        return error_set(err, ERR_NO_MEMORY, "no memory for the added tokens");
    for (uint32_t i = 0; i < n_vocab; i++) {
        uint32_t kinds = vocabulary_kinds(t->vocabulary, i);
        if (kinds & (TOKEN_ADDED | TOKEN_SPECIAL))
            list[n++] = (added_token){vocabulary_bytes(t->vocabulary, i), i, kinds & TOKEN_SPECIAL ? ADDED_SPECIAL : 0};
    }
    t->added = added_tokens_new(list, n, err);
    free(list);
    t->added_normalized = t->added ? added_tokens_new(NULL, 0, err) : NULL;
    return t->added_normalized != NULL;
}

static bool load_names(tokenizer *t, const gguf *file, error *err)
{
    uint32_t eot = VOCABULARY_NONE, eom = VOCABULARY_NONE;
    span     source;
    if (!tokenizer_gguf_token(file, t, "tokenizer.ggml.bos_token_id", &t->bos, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.eos_token_id", &t->eos, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.eot_token_id", &eot, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.eom_token_id", &eom, err))
        return false;
    if (!tokenizer_gguf_flag(file, "tokenizer.ggml.add_bos_token", &t->adds_bos, err) ||
        !tokenizer_gguf_flag(file, "tokenizer.ggml.add_eos_token", &t->adds_eos, err))
        return false;
    t->adds_bos = t->adds_bos && t->bos != VOCABULARY_NONE;
    t->adds_eos = t->adds_eos && t->eos != VOCABULARY_NONE;
    tokenizer_add_stop(t, t->eos);
    tokenizer_add_stop(t, eot);
    tokenizer_add_stop(t, eom);
    tokenizer_add_known_stops(t);
    if (gguf_get_string(file, "tokenizer.chat_template", &source, err))
        return tokenizer_set_chat_template(t, source, err);
    return err->code == ERR_NONE;
}

static bool load_model(tokenizer *t, const gguf *file, error *err)
{
    static const struct {
        const char *name;
        bool (*load)(tokenizer *t, const gguf *file, error *err);
    } models[] = {
        {"gpt2", tokenizer_gguf_gpt2},
        {"llama", tokenizer_gguf_llama},
        {"t5", tokenizer_gguf_t5},
        {"bert", tokenizer_gguf_bert},
    };
    span model = {"", 0};
    if (!gguf_get_string(file, "tokenizer.ggml.model", &model, err) && err->code != ERR_NONE)
        return false;
    for (size_t i = 0; i < COUNT(models); i++)
        if (span_is(model, models[i].name))
            return models[i].load(t, file, err);
    return error_set(err, ERR_UNSUPPORTED,
                     "tokenizer.ggml.model is \"%.*s\"; supported are \"gpt2\" (byte-level byte-pair encoding), "
                     "\"llama\" (SentencePiece), \"t5\" (Unigram) and \"bert\" (WordPiece)",
                     SPAN_ARG(model));
}

tokenizer *tokenizer_from_gguf(const gguf *file, error *err)
{
    error own;
    if (!err)
        err = &own;
    error_clear(err);
    tokenizer *t = tokenizer_empty(err);
    if (t && !(load_model(t, file, err) && load_added_tokens(t, err) && load_names(t, file, err))) {
        error_wrap(err, "%s", gguf_path(file));
        tokenizer_free(&t);
    }
    return t;
}
