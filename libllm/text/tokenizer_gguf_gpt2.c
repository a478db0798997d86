/* The model "gpt2" of a GGUF file: byte-level byte-pair encoding, its pre-tokenizer by name. */
#include "text/tokenizer_gguf_models.h"

#include <stdio.h>

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

/* Normal tokens are spelled in GPT-2's alphabet, the others are as they are. An added token that is spelled the same
 * either way may be one that merges lead to as well. */
static bool append_token(tokenizer *t, span spelling, uint32_t kinds, error *err)
{
    char   bytes[VOCABULARY_TOKEN_BYTES_MAX];
    size_t n = spelling.size <= sizeof bytes ? tokenizer_bytes_of_spelling(spelling, bytes) : SIZE_MAX;
    if (kinds == TOKEN_BYTE)
        kinds = TOKEN_NORMAL;
    if (kinds == TOKEN_ADDED && n == spelling.size)
        kinds |= TOKEN_NORMAL;
    if (kinds == TOKEN_NORMAL && n == SIZE_MAX)
        kinds = TOKEN_UNUSED; /* no text has such a character */
    return vocabulary_append(t->vocabulary, kinds == TOKEN_NORMAL ? (span){bytes, n} : spelling, kinds, err);
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
    if (!tokenizer_gguf_array(file, "tokenizer.ggml.merges", GGUF_STRING, &n, err))
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
    t->adds_bos = name->adds_bos;
    return (!name->nfc || normalizer_add_form(t->normalizer, NORMAL_FORM_C, err)) &&
           (!name->single_digits || pretokenizer_add(t->pretokenizer, PRETOKENIZE_DIGITS, err)) &&
           pretokenizer_add(t->pretokenizer, name->rule, err);
}

bool tokenizer_gguf_gpt2(tokenizer *t, const gguf *file, error *err)
{
    span pre = {"", 0};
    if (!gguf_get_string(file, "tokenizer.ggml.pre", &pre, err) && err->code != ERR_NONE)
        return false;
    const pre_tokenizer_name *name = name_of(pre, err);
    return name && tokenizer_gguf_vocabulary(t, file, append_token, err) &&
           load_merges(t, file, name->ignore_merges, err) && load_pretokenizer(t, name, err);
}
