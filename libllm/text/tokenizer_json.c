/* A tokenizer from Hugging Face's tokenizer.json, and what the files beside it say of it. */
#include "text/tokenizer_json_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILE_BYTES_MAX = 128 << 20, PATH_BYTES_MAX = 4096 };

/* ---- the whole ---- */

static bool load(tokenizer *t, const json_t *root, error *err)
{
    tokenizer_json_shape shape = {0};
    return tokenizer_json_normalizer(t, json_object_get(root, "normalizer"), err) &&
           tokenizer_json_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), &shape, err) &&
           tokenizer_json_decoder(json_object_get(root, "decoder"), &shape, err) &&
           tokenizer_json_model(t, root, &shape, err) &&
           tokenizer_json_post_processor(t, json_object_get(root, "post_processor"), err);
}

/* transformers writes 10^30 for a length without a limit: where a whole number has no 64 bits, all are read as reals.
 */
static json_t *parse(span text, error *err)
{
    json_error_t at;
    json_t      *root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &at);
    if (!root && json_error_code(&at) == json_error_numeric_overflow)
        root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
    if (!root)
        error_set(err, ERR_INVALID, "line %d: %s", at.line, at.text);
    return root;
}

tokenizer *tokenizer_from_json_text(span text, const char *name, error *err)
{
    tokenizer *t    = tokenizer_empty(err);
    json_t    *root = t ? parse(text, err) : NULL;
    if (t && (!root || !load(t, root, err))) {
        error_wrap(err, "%s", name);
        tokenizer_free(&t);
    }
    if (t)
        tokenizer_add_known_stops(t);
    json_decref(root);
    return t;
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
    t->adds_eos = tokenizer_json_flag(config, "add_eos_token", t->adds_eos) && t->eos != VOCABULARY_NONE;
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
