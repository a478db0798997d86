/* A tokenizer from Hugging Face's tokenizer.json, and what the files beside it say of it. */
#include "text/nfc.h"
#include "text/tokenizer_json_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILE_BYTES_MAX = 128 << 20, PATH_BYTES_MAX = 4096 };

/* One id while the parts of the file are brought together. */
typedef struct {
    span     text;  /* as the file spells it */
    uint32_t kinds; /* 0: the id is free */
} token_slot;

typedef struct {
    tokenizer    *tokenizer;
    const json_t *vocab, *merges, *added, *model;
    token_slot   *slots;
    uint32_t      n_slots;
} loading;

/* ---- vocabulary ---- */

static bool count_id(loading *l, const json_t *id, const char *token, error *err)
{
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value >= VOCABULARY_TOKENS_MAX)
        return error_set(err, ERR_INVALID, "the token \"%s\" has no id from 0 to %d", token, VOCABULARY_TOKENS_MAX - 1);
    if ((uint32_t)value >= l->n_slots)
        l->n_slots = (uint32_t)value + 1;
    return true;
}

static bool count_ids(loading *l, error *err)
{
    const char *token;
    json_t     *id;
    json_object_foreach((json_t *)(uintptr_t)l->vocab, token, id) if (!count_id(l, id, token, err)) return false;
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        const json_t *added = json_array_get(l->added, i);
        const json_t *text  = json_object_get(added, "content");
        if (!json_is_string(text))
            return error_set(err, ERR_INVALID, "added_tokens[%zu] has no content", i);
        if (!count_id(l, json_object_get(added, "id"), json_string_value(text), err))
            return false;
    }
    return true;
}

static bool fill_slots(loading *l, error *err)
{
    const char *token;
    json_t     *id;
    json_object_foreach((json_t *)(uintptr_t)l->vocab, token, id)
    {
        token_slot *slot = &l->slots[json_integer_value(id)];
        if (slot->kinds)
            return error_set(err, ERR_INVALID, "the tokens \"%s\" and \"%s\" have the same id", slot->text.data, token);
        *slot = (token_slot){span_of(token), TOKEN_NORMAL};
    }
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        const json_t *added = json_array_get(l->added, i);
        span          text  = tokenizer_json_span(json_object_get(added, "content"));
        token_slot   *slot  = &l->slots[json_integer_value(json_object_get(added, "id"))];
        if (slot->kinds && !span_equal(slot->text, text))
            return error_set(err, ERR_INVALID, "the tokens \"%s\" and \"%s\" have the same id", slot->text.data,
                             text.data);
        bool special = tokenizer_json_flag(added, "special", false);
        *slot        = (token_slot){text, special ? TOKEN_SPECIAL : slot->kinds | TOKEN_ADDED};
    }
    return true;
}

static bool append_slot(loading *l, const token_slot *slot, error *err)
{
    char   bytes[VOCABULARY_TOKEN_BYTES_MAX];
    size_t n = slot->text.size <= sizeof bytes ? tokenizer_bytes_of_spelling(slot->text, bytes) : SIZE_MAX;
    if (!(slot->kinds & TOKEN_NORMAL))
        return vocabulary_append(l->tokenizer->vocabulary, slot->text, slot->kinds, err);
    if (n == SIZE_MAX) {
        uint32_t kinds = slot->kinds & ~(uint32_t)TOKEN_NORMAL; /* no text has such a character */
        return vocabulary_append(l->tokenizer->vocabulary, slot->text, kinds ? kinds : TOKEN_UNUSED, err);
    }
    return vocabulary_append(l->tokenizer->vocabulary, (span){bytes, n}, slot->kinds, err);
}

static bool load_vocabulary(loading *l, error *err)
{
    if (!json_is_object(l->vocab))
        return error_set(err, ERR_INVALID, "the model has no vocab");
    if (!count_ids(l, err))
        return false;
    l->slots = calloc((size_t)l->n_slots + 1, sizeof *l->slots);
    if (!l->slots)
        return error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary of %u tokens", l->n_slots);
    l->tokenizer->vocabulary = vocabulary_new(l->n_slots, err);
    if (!l->tokenizer->vocabulary || !fill_slots(l, err))
        return false;
    for (uint32_t i = 0; i < l->n_slots; i++)
        if (!append_slot(l, &l->slots[i], err))
            return false;
    return true;
}

/* ---- merges ---- */

/* "left right" or ["left", "right"]. */
static bool split_merge(const json_t *merge, span *left, span *right)
{
    *left  = tokenizer_json_span(json_array_get(merge, 0));
    *right = tokenizer_json_span(json_array_get(merge, 1));
    if (json_is_string(merge)) {
        span        text  = tokenizer_json_span(merge);
        const char *space = memchr(text.data, ' ', text.size);
        if (!space)
            return false;
        *left  = (span){text.data, (size_t)(space - text.data)};
        *right = (span){space + 1, text.size - left->size - 1};
    }
    return left->size > 0 && right->size > 0;
}

static bool add_merge(loading *l, size_t i, error *err)
{
    char   left_bytes[VOCABULARY_TOKEN_BYTES_MAX], right_bytes[VOCABULARY_TOKEN_BYTES_MAX];
    size_t n_left = SIZE_MAX, n_right = SIZE_MAX;
    span   left, right;
    if (split_merge(json_array_get(l->merges, i), &left, &right) && left.size <= sizeof left_bytes &&
        right.size <= sizeof right_bytes) {
        n_left  = tokenizer_bytes_of_spelling(left, left_bytes);
        n_right = tokenizer_bytes_of_spelling(right, right_bytes);
    }
    if (n_left == SIZE_MAX || n_right == SIZE_MAX)
        return error_set(err, ERR_INVALID, "merges[%zu] is not two tokens of the byte-level alphabet", i);
    return bpe_add_merge(l->tokenizer->bpe, (bpe_merge){{left_bytes, n_left}, {right_bytes, n_right}}, err);
}

/* What would change tokens and is not supported must be absent, null, false, 0 or "". */
static bool refuse_options(const json_t *model, error *err)
{
    static const char *const keys[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        const json_t *value = json_object_get(model, keys[i]);
        bool          off   = !value || json_is_null(value) || json_is_false(value) ||
                   (json_is_number(value) && json_number_value(value) == 0) ||
                   (json_is_string(value) && json_string_length(value) == 0);
        if (!off)
            return error_set(err, ERR_UNSUPPORTED, "the model's option %s is not supported", keys[i]);
    }
    return true;
}

static bool find_unknown(loading *l, uint32_t *unknown, error *err)
{
    const json_t *name = json_object_get(l->model, "unk_token");
    *unknown           = VOCABULARY_NONE;
    if (!json_is_string(name))
        return true;
    const json_t *id = json_object_get(l->vocab, json_string_value(name));
    if (!id)
        return error_set(err, ERR_INVALID, "unk_token is \"%s\", which is not in the vocab", json_string_value(name));
    *unknown = (uint32_t)json_integer_value(id);
    return true;
}

static bool load_merges(loading *l, error *err)
{
    size_t      n       = json_array_size(l->merges);
    bpe_options options = {.vocabulary    = l->tokenizer->vocabulary,
                           .n_merges      = (uint32_t)n,
                           .fuse_unknown  = tokenizer_json_flag(l->model, "fuse_unk", false),
                           .ignore_merges = tokenizer_json_flag(l->model, "ignore_merges", false)};
    if (!json_is_array(l->merges) || n > VOCABULARY_TOKENS_MAX)
        return error_set(err, ERR_INVALID, "the model has no merges, or more than %d", VOCABULARY_TOKENS_MAX);
    if (!refuse_options(l->model, err) || !find_unknown(l, &options.unknown, err))
        return false;
    l->tokenizer->bpe = bpe_new(&options, err);
    if (!l->tokenizer->bpe)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!add_merge(l, i, err))
            return false;
    bpe_finish(l->tokenizer->bpe);
    return true;
}

/* ---- added tokens ---- */

static uint32_t added_flags(const json_t *added)
{
    return (tokenizer_json_flag(added, "special", false) ? ADDED_SPECIAL : 0u) |
           (tokenizer_json_flag(added, "single_word", false) ? ADDED_SINGLE_WORD : 0u) |
           (tokenizer_json_flag(added, "lstrip", false) ? ADDED_LSTRIP : 0u) |
           (tokenizer_json_flag(added, "rstrip", false) ? ADDED_RSTRIP : 0u);
}

/* The added tokens that are matched in normalized text, or those that are not. The former are normalized themselves. */
static added_tokens *added_of(const loading *l, bool normalized, arena *memory, error *err)
{
    size_t       n = json_array_size(l->added), n_list = 0;
    added_token *list = arena_take_array(memory, n + 1, sizeof *list);
    if (!list) {
        error_set(err, ERR_NO_MEMORY, "no memory for %zu added tokens", n);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *added = json_array_get(l->added, i);
        span          text  = tokenizer_json_span(json_object_get(added, "content"));
        uint32_t      token = (uint32_t)json_integer_value(json_object_get(added, "id"));
        if (tokenizer_json_flag(added, "normalized", !tokenizer_json_flag(added, "special", false)) != normalized)
            continue;
        if (normalized && l->tokenizer->nfc && !nfc_normalize(text, memory, &text, err))
            return NULL;
        list[n_list++] = (added_token){text, token, added_flags(added)};
    }
    return added_tokens_new(list, (uint32_t)n_list, err);
}

static bool load_added_tokens(loading *l, error *err)
{
    size_t n_bytes = 4096;
    for (size_t i = 0; i < json_array_size(l->added); i++)
        n_bytes +=
            sizeof(added_token) + 64 + 64 * json_string_length(json_object_get(json_array_get(l->added, i), "content"));
    arena *memory = arena_new(2 * n_bytes, err);
    if (!memory)
        return false;
    l->tokenizer->added = added_of(l, false, memory, err);
    if (l->tokenizer->added)
        l->tokenizer->added_normalized = added_of(l, true, memory, err);
    arena_free(&memory);
    return l->tokenizer->added_normalized != NULL;
}

/* ---- the whole ---- */

static bool load(loading *l, const json_t *root, error *err)
{
    l->model           = json_object_get(root, "model");
    l->vocab           = json_object_get(l->model, "vocab");
    l->merges          = json_object_get(l->model, "merges");
    l->added           = json_object_get(root, "added_tokens");
    const json_t *type = json_object_get(l->model, "type");
    if (type ? !span_is(tokenizer_json_span(type), "BPE") : !l->merges)
        return error_set(err, ERR_UNSUPPORTED, "the model is of type \"%.*s\"; supported is BPE",
                         SPAN_ARG(tokenizer_json_span(type)));
    return tokenizer_json_normalizer(l->tokenizer, json_object_get(root, "normalizer"), err) &&
           tokenizer_json_pre_tokenizer(l->tokenizer, json_object_get(root, "pre_tokenizer"), err) &&
           tokenizer_json_decoder(json_object_get(root, "decoder"), err) && load_vocabulary(l, err) &&
           load_merges(l, err) && load_added_tokens(l, err) &&
           tokenizer_json_post_processor(l->tokenizer, json_object_get(root, "post_processor"), err);
}

static json_t *parse(span text, error *err)
{
    json_error_t at;
    json_t      *root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        error_set(err, ERR_INVALID, "line %d: %s", at.line, at.text);
    return root;
}

tokenizer *tokenizer_from_json_text(span text, const char *name, error *err)
{
    loading l    = {.tokenizer = tokenizer_empty(err)};
    json_t *root = l.tokenizer ? parse(text, err) : NULL;
    if (l.tokenizer && (!root || !load(&l, root, err))) {
        error_wrap(err, "%s", name);
        tokenizer_free(&l.tokenizer);
    }
    if (l.tokenizer)
        tokenizer_add_known_stops(l.tokenizer);
    free(l.slots);
    json_decref(root);
    return l.tokenizer;
}

/* ---- files ---- */

/* The whole file in memory the caller frees; a NULL .data with ERR_NOT_FOUND when there is none. */
static span read_file(const char *path, error *err)
{
    FILE       *file = fopen(path, "rb");
    struct stat about;
    char       *data = NULL;
    size_t      size = 0;
    if (!file) {
        error_set(err, ERR_NOT_FOUND, "%s: there is no such file, or it can't be read", path);
        return (span){NULL, 0};
    }
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX)
        error_set(err, ERR_INVALID, "%s is no file of at most %d bytes", path, FILE_BYTES_MAX);
    else if (!(data = malloc((size_t)about.st_size + 1)))
        error_set(err, ERR_NO_MEMORY, "%s: no memory for its %lld bytes", path, (long long)about.st_size);
    else
        size = fread(data, 1, (size_t)about.st_size, file);
    if (data && size != (size_t)about.st_size) {
        error_set(err, ERR_IO, "%s: reading ended after %zu of %lld bytes", path, size, (long long)about.st_size);
        free(data);
        data = NULL;
    }
    fclose(file);
    return (span){data, size};
}

/* The file `name` beside `path`, as read_file has it. */
static span read_beside(const char *path, const char *name, error *err)
{
    char        beside[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    int         n     = slash ? (int)(slash - path) + 1 : 0;
    if ((size_t)snprintf(beside, sizeof beside, "%.*s%s", n, path, name) < sizeof beside)
        return read_file(beside, err);
    error_set(err, ERR_INVALID, "%s: the path is too long", path);
    return (span){NULL, 0};
}

static void free_file(span text)
{
    free((char *)(uintptr_t)text.data);
}

/* The JSON of such a file; *root is NULL where there is no file. */
static bool read_json_beside(const char *path, const char *name, json_t **root, error *err)
{
    span text = read_beside(path, name, err);
    *root     = text.data ? parse(text, err) : NULL;
    free_file(text);
    if (!text.data)
        return err->code == ERR_NOT_FOUND;
    return *root || error_wrap(err, "%s beside %s", name, path);
}

/* A token's name: "<s>" or {"content": "<s>"}. */
static void set_token(const tokenizer *t, const json_t *name, uint32_t *token)
{
    span text = tokenizer_json_span(json_is_object(name) ? json_object_get(name, "content") : name);
    if (text.size > 0)
        *token = tokenizer_find(t, text);
}

/* One template, or a list of named ones, of which "default" is the one for chats. */
static bool set_template(tokenizer *t, const json_t *template, error *err)
{
    for (size_t i = 0; i < json_array_size(template); i++)
        if (span_is(tokenizer_json_span(json_object_get(json_array_get(template, i), "name")), "default"))
            return set_template(t, json_object_get(json_array_get(template, i), "template"), err);
    return !json_is_string(template) || tokenizer_set_chat_template(t, tokenizer_json_span(template), err);
}

static bool load_config(tokenizer *t, const char *path, error *err)
{
    json_t *config;
    if (!read_json_beside(path, "tokenizer_config.json", &config, err))
        return false;
    set_token(t, json_object_get(config, "bos_token"), &t->bos);
    set_token(t, json_object_get(config, "eos_token"), &t->eos);
    t->adds_bos = tokenizer_json_flag(config, "add_bos_token", t->adds_bos) && t->bos != VOCABULARY_NONE;
    tokenizer_add_stop(t, t->eos);
    bool done = set_template(t, json_object_get(config, "chat_template"), err);
    json_decref(config);
    return done;
}

/* generation_config.json's eos_token_id: one id or several. */
static bool load_stops(tokenizer *t, const char *path, error *err)
{
    json_t *config;
    if (!read_json_beside(path, "generation_config.json", &config, err))
        return false;
    const json_t *ids = json_object_get(config, "eos_token_id");
    for (size_t i = 0; i < (json_is_array(ids) ? json_array_size(ids) : 1); i++) {
        const json_t *id    = json_is_array(ids) ? json_array_get(ids, i) : ids;
        json_int_t    value = json_integer_value(id);
        if (json_is_integer(id) && value >= 0 && value < (json_int_t)tokenizer_n_vocab(t))
            tokenizer_add_stop(t, (uint32_t)value);
    }
    json_decref(config);
    return true;
}

/* Newer models keep their chat template in a file of its own. */
static bool load_template(tokenizer *t, const char *path, error *err)
{
    span text = read_beside(path, "chat_template.jinja", err);
    bool done = text.data ? tokenizer_set_chat_template(t, text, err) : err->code == ERR_NOT_FOUND;
    free_file(text);
    return done;
}

tokenizer *tokenizer_from_json(const char *tokenizer_json_path, error *err)
{
    error own;
    if (!err)
        err = &own;
    span text = read_file(tokenizer_json_path, err);
    if (!text.data)
        return NULL;
    tokenizer *t = tokenizer_from_json_text(text, tokenizer_json_path, err);
    free_file(text);
    if (t && (!load_config(t, tokenizer_json_path, err) || !load_stops(t, tokenizer_json_path, err) ||
              !load_template(t, tokenizer_json_path, err)))
        tokenizer_free(&t);
    return t;
}
