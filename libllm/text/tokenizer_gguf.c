/* A tokenizer from a GGUF file's tokenizer.ggml.* keys. */
#include "text/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>

/* tokenizer.ggml.token_type, as ggml-org/llama.cpp's llama.h numbers them. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

/* What a value of tokenizer.ggml.pre means. It names the tokenizer.json that the file was made from: its rule, whether
 * it normalizes, whether it has ignore_merges, and whether it puts a beginning-of-sequence token before a text. */
typedef struct {
    const char      *name;
    bool             single_digits;
    pretokenize_rule rule;
    bool             nfc, ignore_merges, adds_bos;
} pre_tokenizer_name;

static const pre_tokenizer_name names[] = {
    {"gpt-2", false, PRETOKENIZE_GPT2, false, false, false},
    {"phi-2", false, PRETOKENIZE_GPT2, false, false, false},
    {"exaone4", false, PRETOKENIZE_GPT2, false, false, false},
    {"olmo", false, PRETOKENIZE_GPT2, true, false, false},
    {"smollm", true, PRETOKENIZE_GPT2, false, false, false},
    {"starcoder", true, PRETOKENIZE_GPT2, false, false, false},
    {"refact", true, PRETOKENIZE_GPT2, false, false, false},
    {"codeshell", true, PRETOKENIZE_GPT2, false, false, false},
    {"llama-bpe", false, PRETOKENIZE_LLAMA3, false, true, true},
    {"llama3", false, PRETOKENIZE_LLAMA3, false, true, true},
    {"llama-v3", false, PRETOKENIZE_LLAMA3, false, true, true},
    {"smaug-bpe", false, PRETOKENIZE_LLAMA3, false, false, false},
    {"qwen2", false, PRETOKENIZE_QWEN2, true, false, false},
    {"deepseek-r1-qwen", false, PRETOKENIZE_QWEN2, true, false, false},
};

static const pre_tokenizer_name *name_of(span pre, error *err)
{
    char   list[300] = "";
    size_t n         = 0;
    for (size_t i = 0; i < COUNT(names); i++) {
        if (span_is(pre, names[i].name))
            return &names[i];
        int added = snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i].name);
        n += (size_t)added < sizeof list - n ? (size_t)added : 0;
    }
    error_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.pre is \"%.*s\"; supported are %s", SPAN_ARG(pre), list);
    return NULL;
}

/* A required array of `type`; *n is its length. */
static bool array_of(const gguf *file, const char *key, gguf_type type, uint64_t *n, error *err)
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

/* Optional scalars: true when absent, with the value untouched. */
static bool optional_token(const gguf *file, const tokenizer *t, const char *key, uint32_t *token, error *err)
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

static uint32_t kinds_of_type(int32_t type)
{
    switch (type) {
    case TYPE_NORMAL:
    case TYPE_BYTE:
        return TOKEN_NORMAL;
    case TYPE_USER_DEFINED:
        return TOKEN_ADDED;
    case TYPE_CONTROL:
    case TYPE_UNKNOWN:
        return TOKEN_SPECIAL;
    }
    return TOKEN_UNUSED;
}

/* Normal tokens are spelled in GPT-2's alphabet, the others are as they are. An added token that is spelled the same
 * either way may be one that merges lead to as well. */
static bool append_token(tokenizer *t, span spelling, int32_t type, error *err)
{
    char     bytes[VOCABULARY_TOKEN_BYTES_MAX];
    uint32_t kinds = kinds_of_type(type);
    size_t   n     = spelling.size <= sizeof bytes ? tokenizer_bytes_of_spelling(spelling, bytes) : SIZE_MAX;
    if (kinds == TOKEN_ADDED && n == spelling.size)
        kinds |= TOKEN_NORMAL;
    if (kinds == TOKEN_NORMAL && n == SIZE_MAX)
        kinds = TOKEN_UNUSED; /* no text has such a character */
    return vocabulary_append(t->vocabulary, kinds == TOKEN_NORMAL ? (span){bytes, n} : spelling, kinds, err);
}

static bool load_vocabulary(tokenizer *t, const gguf *file, error *err)
{
    uint64_t n, n_types;
    if (!array_of(file, "tokenizer.ggml.tokens", GGUF_STRING, &n, err) ||
        !array_of(file, "tokenizer.ggml.token_type", GGUF_I32, &n_types, err))
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
        if (!append_token(t, gguf_array_string(file, "tokenizer.ggml.tokens", i), type, err))
            return false;
    }
    return true;
}

/* "left right", each in GPT-2's alphabet, which has no space. */
static bool add_merge(tokenizer *t, span text, uint64_t i, error *err)
{
    static const char format[] = "tokenizer.ggml.merges[%llu] is not two tokens with a space between";
    char              left[VOCABULARY_TOKEN_BYTES_MAX], right[VOCABULARY_TOKEN_BYTES_MAX];
    const char       *space = memchr(text.data, ' ', text.size);
    if (!space || text.size > sizeof left)
        return error_set(err, ERR_INVALID, format, (unsigned long long)i);
    span   first  = {text.data, (size_t)(space - text.data)};
    span   second = {space + 1, text.size - first.size - 1};
    size_t n_left = tokenizer_bytes_of_spelling(first, left), n_right = tokenizer_bytes_of_spelling(second, right);
    if (n_left == SIZE_MAX || n_right == SIZE_MAX || n_left == 0 || n_right == 0)
        return error_set(err, ERR_INVALID, format, (unsigned long long)i);
    return bpe_add_merge(t->bpe, (bpe_merge){{left, n_left}, {right, n_right}}, err);
}

static bool load_merges(tokenizer *t, const gguf *file, bool ignore_merges, error *err)
{
    uint64_t n;
    if (!array_of(file, "tokenizer.ggml.merges", GGUF_STRING, &n, err))
        return false;
    if (n > VOCABULARY_TOKENS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "%llu merges; at most %d are supported", (unsigned long long)n,
                         VOCABULARY_TOKENS_MAX);
    bpe_options options = {.vocabulary    = t->vocabulary,
                           .n_merges      = (uint32_t)n,
                           .unknown       = VOCABULARY_NONE,
                           .ignore_merges = ignore_merges};
    t->bpe              = bpe_new(&options, err);
    for (uint64_t i = 0; t->bpe && i < n; i++)
        if (!add_merge(t, gguf_array_string(file, "tokenizer.ggml.merges", i), i, err))
            return false;
    if (t->bpe)
        bpe_finish(t->bpe);
    return t->bpe != NULL;
}

static bool load_pretokenizer(tokenizer *t, const pre_tokenizer_name *name, error *err)
{
    t->pretokenizer = pretokenizer_new(err);
    t->nfc          = name->nfc;
    t->adds_bos     = name->adds_bos;
    return t->pretokenizer && (!name->single_digits || pretokenizer_add(t->pretokenizer, PRETOKENIZE_DIGITS, err)) &&
           pretokenizer_add(t->pretokenizer, name->rule, err);
}

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
    if (!optional_token(file, t, "tokenizer.ggml.bos_token_id", &t->bos, err) ||
        !optional_token(file, t, "tokenizer.ggml.eos_token_id", &t->eos, err) ||
        !optional_token(file, t, "tokenizer.ggml.eot_token_id", &eot, err) ||
        !optional_token(file, t, "tokenizer.ggml.eom_token_id", &eom, err))
        return false;
    if (!gguf_get_bool(file, "tokenizer.ggml.add_bos_token", &t->adds_bos, err) && err->code != ERR_NONE)
        return false;
    t->adds_bos = t->adds_bos && t->bos != VOCABULARY_NONE;
    tokenizer_add_stop(t, t->eos);
    tokenizer_add_stop(t, eot);
    tokenizer_add_stop(t, eom);
    tokenizer_add_known_stops(t);
    if (gguf_get_string(file, "tokenizer.chat_template", &source, err))
        return tokenizer_set_chat_template(t, source, err);
    return err->code == ERR_NONE;
}

static bool load(tokenizer *t, const gguf *file, error *err)
{
    span model = {"", 0}, pre = {"", 0};
    if (!gguf_get_string(file, "tokenizer.ggml.model", &model, err) && err->code != ERR_NONE)
        return false;
    if (!span_is(model, "gpt2"))
        return error_set(err, ERR_UNSUPPORTED,
                         "tokenizer.ggml.model is \"%.*s\"; supported is \"gpt2\" (byte-level byte-pair encoding)",
                         SPAN_ARG(model));
    if (!gguf_get_string(file, "tokenizer.ggml.pre", &pre, err) && err->code != ERR_NONE)
        return false;
    const pre_tokenizer_name *name = name_of(pre, err);
    return name && load_vocabulary(t, file, err) && load_merges(t, file, name->ignore_merges, err) &&
           load_pretokenizer(t, name, err) && load_added_tokens(t, err) && load_names(t, file, err);
}

tokenizer *tokenizer_from_gguf(const gguf *file, error *err)
{
    error own;
    if (!err)
        err = &own;
    error_clear(err);
    tokenizer *t = tokenizer_empty(err);
    if (t && !load(t, file, err)) {
        error_wrap(err, "%s", gguf_path(file));
        tokenizer_free(&t);
    }
    return t;
}
