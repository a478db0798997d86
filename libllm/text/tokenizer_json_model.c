/* The model of a tokenizer.json: its vocabulary, what BPE, Unigram and WordPiece make of it, and the added tokens. */
#include "text/tokenizer_json_steps.h"

#include <math.h>
#include <stdlib.h>

typedef enum { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE } model_type;

/* One id while the parts of the file are brought together. */
typedef struct {
    span     text;  /* as the file spells it */
    span     shown; /* what the decoder sees, where that is something else */
    uint32_t kinds; /* 0: the id is free */
    double   score; /* Unigram's */
} token_slot;

typedef struct {
    tokenizer                  *tokenizer;
    const tokenizer_json_shape *shape;
    const json_t               *vocab, *merges, *added, *model;
    model_type                  type;
    bool                        byte_fallback;
    token_slot                 *slots;
    uint32_t                    n_slots;
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

/* Unigram's vocabulary is a list of [token, score]; its ids are their places. */
static bool count_pieces(loading *l, error *err)
{
    size_t n = json_array_size(l->vocab);
    if (n > VOCABULARY_TOKENS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a vocabulary of %zu tokens; at most %d are supported", n,
                         VOCABULARY_TOKENS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *piece = json_array_get(l->vocab, i);
        if (!json_is_string(json_array_get(piece, 0)) || !json_is_number(json_array_get(piece, 1)))
            return error_set(err, ERR_INVALID, "vocab[%zu] is not a token and its score", i);
    }
    l->n_slots = (uint32_t)n;
    return true;
}

static bool count_ids(loading *l, error *err)
{
    const char *token;
    json_t     *id;
    if (l->type == MODEL_UNIGRAM && !count_pieces(l, err))
        return false;
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
    for (size_t i = 0; i < json_array_size(l->vocab); i++) {
        const json_t *piece = json_array_get(l->vocab, i);
        l->slots[i]         = (token_slot){.text  = tokenizer_json_span(json_array_get(piece, 0)),
                                           .kinds = TOKEN_NORMAL,
                                           .score = json_number_value(json_array_get(piece, 1))};
    }
    json_object_foreach((json_t *)(uintptr_t)l->vocab, token, id)
    {
        token_slot *slot = &l->slots[json_integer_value(id)];
        if (slot->kinds)
            return error_set(err, ERR_INVALID, "the tokens \"%s\" and \"%s\" have the same id", slot->text.data, token);
        *slot = (token_slot){.text = span_of(token), .kinds = TOKEN_NORMAL};
    }
    return true;
}

static bool fill_added_slots(loading *l, error *err)
{
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        const json_t *added = json_array_get(l->added, i);
        span          text  = tokenizer_json_span(json_object_get(added, "content"));
        token_slot   *slot  = &l->slots[json_integer_value(json_object_get(added, "id"))];
        if (slot->kinds && !span_equal(slot->text, text))
            return error_set(err, ERR_INVALID, "the tokens \"%s\" and \"%s\" have the same id", slot->text.data,
                             text.data);
        bool special = tokenizer_json_flag(added, "special", false);
        slot->text   = text;
        slot->kinds  = special ? TOKEN_SPECIAL : slot->kinds | TOKEN_ADDED;
    }
    return true;
}

/* A byte-level vocabulary is spelled in another alphabet. */
static bool append_byte_level(vocabulary *v, const token_slot *slot, error *err)
{
    char   bytes[VOCABULARY_TOKEN_BYTES_MAX];
    size_t n = slot->text.size <= sizeof bytes ? tokenizer_bytes_of_spelling(slot->text, bytes) : SIZE_MAX;
    if (!(slot->kinds & TOKEN_NORMAL))
        return vocabulary_append(v, slot->text, slot->kinds, err);
    if (n == SIZE_MAX) {
        uint32_t kinds = slot->kinds & ~(uint32_t)TOKEN_NORMAL; /* no text has such a character */
        return vocabulary_append(v, slot->text, kinds ? kinds : TOKEN_UNUSED, err);
    }
    return vocabulary_append(v, (span){bytes, n}, slot->kinds, err);
}

static bool append_slot(loading *l, const token_slot *slot, error *err)
{
    uint32_t kinds = slot->kinds;
    if (l->shape->byte_level)
        return append_byte_level(l->tokenizer->vocabulary, slot, err);
    if (l->byte_fallback && kinds == TOKEN_NORMAL && vocabulary_byte_of_name(slot->text) >= 0)
        kinds = TOKEN_BYTE;
    return vocabulary_append(l->tokenizer->vocabulary, slot->text, kinds, err);
}

static bool load_vocabulary(loading *l, error *err)
{
    if (!(l->type == MODEL_UNIGRAM ? json_is_array(l->vocab) : json_is_object(l->vocab)))
        return error_set(err, ERR_INVALID, "the model has no vocab");
    if (!count_ids(l, err))
        return false;
    l->slots = calloc((size_t)l->n_slots + 1, sizeof *l->slots);
    if (!l->slots)
        return error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary of %u tokens", l->n_slots);
    l->tokenizer->vocabulary = vocabulary_new(l->n_slots, err);
    if (!l->tokenizer->vocabulary || !fill_slots(l, err) || !fill_added_slots(l, err))
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

static bool add_byte_level_merge(loading *l, size_t i, bpe_merge merge, error *err)
{
    char   left[VOCABULARY_TOKEN_BYTES_MAX], right[VOCABULARY_TOKEN_BYTES_MAX];
    size_t n_left = SIZE_MAX, n_right = SIZE_MAX;
    if (merge.left.size <= sizeof left && merge.right.size <= sizeof right) {
        n_left  = tokenizer_bytes_of_spelling(merge.left, left);
        n_right = tokenizer_bytes_of_spelling(merge.right, right);
    }
    if (n_left == SIZE_MAX || n_right == SIZE_MAX)
        return error_set(err, ERR_INVALID, "merges[%zu] is not two tokens of the byte-level alphabet", i);
    return bpe_add_merge(l->tokenizer->bpe, (bpe_merge){{left, n_left}, {right, n_right}}, err);
}

static bool add_merge(loading *l, size_t i, error *err)
{
    bpe_merge merge;
    bool      split = split_merge(json_array_get(l->merges, i), &merge.left, &merge.right);
    if (!split || merge.left.size > VOCABULARY_TOKEN_BYTES_MAX || merge.right.size > VOCABULARY_TOKEN_BYTES_MAX)
        return error_set(err, ERR_INVALID, "merges[%zu] is not two tokens", i);
    if (l->shape->byte_level)
        return add_byte_level_merge(l, i, merge, err);
    return bpe_add_merge(l->tokenizer->bpe, merge, err);
}

/* What would change tokens and is not supported must be absent, null, false, 0 or "". */
static bool refuse_options(const loading *l, error *err)
{
    static const char *const keys[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"};
    for (size_t i = 0; i < COUNT(keys) - !l->shape->byte_level; i++) {
        const json_t *value = json_object_get(l->model, keys[i]);
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
                           .ignore_merges = tokenizer_json_flag(l->model, "ignore_merges", false),
                           .characters    = !l->shape->byte_level,
                           .byte_fallback = l->byte_fallback};
    if (!json_is_array(l->merges) || n > VOCABULARY_TOKENS_MAX)
        return error_set(err, ERR_INVALID, "the model has no merges, or more than %d", VOCABULARY_TOKENS_MAX);
    if (!refuse_options(l, err) || !find_unknown(l, &options.unknown, err))
        return false;
    l->tokenizer->bpe = bpe_new(&options, err);
    if (!l->tokenizer->bpe)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!add_merge(l, i, err))
            return false;
    bpe_finish(l->tokenizer->bpe);
    return !options.characters || tokenizer_cut_at_blanks(l->tokenizer, err);
}

/* ---- Unigram ---- */

static bool load_scores(loading *l, error *err)
{
    const json_t   *unknown = json_object_get(l->model, "unk_id");
    double         *scores  = calloc((size_t)l->n_slots + 1, sizeof *scores);
    unigram_options options = {.vocabulary    = l->tokenizer->vocabulary,
                               .scores        = scores,
                               .unknown       = VOCABULARY_NONE,
                               .byte_fallback = l->byte_fallback,
                               .lowest_score  = INFINITY};
    if (!scores)
        return error_set(err, ERR_NO_MEMORY, "no memory for the scores of %u tokens", l->n_slots);
    for (uint32_t i = 0; i < l->n_slots; i++) {
        scores[i] = l->slots[i].score;
        if (i < json_array_size(l->vocab) && scores[i] < options.lowest_score)
            options.lowest_score = scores[i];
    }
    if (json_is_integer(unknown))
        options.unknown = (uint32_t)json_integer_value(unknown);
    if (json_is_integer(unknown) && (json_int_t)options.unknown >= (json_int_t)json_array_size(l->vocab))
        error_set(err, ERR_INVALID, "unk_id is %u, but there are %zu tokens", options.unknown,
                  json_array_size(l->vocab));
    else
        l->tokenizer->unigram = unigram_new(&options, err);
    free(scores);
    return l->tokenizer->unigram != NULL;
}

/* ---- WordPiece ---- */

static bool load_words(loading *l, error *err)
{
    const json_t     *longest = json_object_get(l->model, "max_input_chars_per_word");
    const json_t     *prefix  = json_object_get(l->model, "continuing_subword_prefix");
    wordpiece_options options = {.vocabulary       = l->tokenizer->vocabulary,
                                 .prefix           = json_is_string(prefix) ? tokenizer_json_span(prefix) : SPAN("##"),
                                 .n_characters_max = 100};
    if (json_is_integer(longest) && json_integer_value(longest) >= 0)
        options.n_characters_max = (size_t)json_integer_value(longest);
    if (find_unknown(l, &options.unknown, err))
        l->tokenizer->wordpiece = wordpiece_new(&options, err);
    return l->tokenizer->wordpiece != NULL;
}

/* ---- added tokens ---- */

static uint32_t added_flags(const json_t *added)
{
    return (tokenizer_json_flag(added, "special", false) ? ADDED_SPECIAL : 0u) |
           (tokenizer_json_flag(added, "single_word", false) ? ADDED_SINGLE_WORD : 0u) |
           (tokenizer_json_flag(added, "lstrip", false) ? ADDED_LSTRIP : 0u) |
           (tokenizer_json_flag(added, "rstrip", false) ? ADDED_RSTRIP : 0u);
}

static bool normalize_added(const tokenizer *t, span *text, arena *memory, error *err)
{
    uint8_t    *trusted = arena_take(memory, text->size);
    marked_text marked  = {text->data, trusted, text->size};
    if (!trusted)
        return error_set(err, ERR_NO_MEMORY, "no memory for the added tokens");
    bool done = normalizer_run(t->normalizer, &marked, memory, err);
    *text     = (span){marked.data, marked.size};
    return done;
}

/* The added tokens that are matched in normalized text, or those that are not. The former are normalized themselves. */
static added_tokens *added_of(loading *l, bool normalized, arena *memory, error *err)
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
        if (normalized && !normalize_added(l->tokenizer, &text, memory, err))
            return NULL;
        l->slots[token].shown = text; /* `tokenizers` prints what it matched */
        list[n_list++]        = (added_token){text, token, added_flags(added)};
    }
    return added_tokens_new(list, (uint32_t)n_list, err);
}

static bool set_printing(loading *l, error *err)
{
    vocabulary *shown = vocabulary_new(l->n_slots, err);
    bool        done  = shown != NULL;
    for (uint32_t i = 0; i < l->n_slots && done; i++) {
        const token_slot *slot = &l->slots[i];
        done = vocabulary_append(shown, slot->shown.size ? slot->shown : slot->text, TOKEN_NORMAL, err);
    }
    done = done && tokenizer_set_printing(l->tokenizer, shown, &l->shape->printing, err);
    vocabulary_free(&shown);
    return done;
}

static bool load_added_tokens(loading *l, error *err)
{
    size_t n_bytes = 4096;
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        size_t size = json_string_length(json_object_get(json_array_get(l->added, i), "content"));
        n_bytes += sizeof(added_token) + size + normalizer_scratch_bytes(l->tokenizer->normalizer, size) + 64;
    }
    arena *memory = arena_new(n_bytes, err);
    if (!memory)
        return false;
    l->tokenizer->added = added_of(l, false, memory, err);
    if (l->tokenizer->added)
        l->tokenizer->added_normalized = added_of(l, true, memory, err);
    bool done = l->tokenizer->added_normalized && (l->shape->byte_level || set_printing(l, err));
    arena_free(&memory);
    return done;
}

/* ---- the whole ---- */

static bool read_type(loading *l, error *err)
{
    const json_t *type = json_object_get(l->model, "type");
    span          name = tokenizer_json_span(type);
    if (type ? span_is(name, "BPE") : l->merges != NULL)
        l->type = MODEL_BPE;
    else if (span_is(name, "Unigram"))
        l->type = MODEL_UNIGRAM;
    else if (span_is(name, "WordPiece"))
        l->type = MODEL_WORDPIECE;
    else
        return error_set(err, ERR_UNSUPPORTED,
                         "the model is of type \"%.*s\"; supported are BPE, Unigram and WordPiece", SPAN_ARG(name));
    if (l->type != MODEL_BPE && l->shape->byte_level)
        return error_set(err, ERR_UNSUPPORTED, "a %.*s model behind a ByteLevel pre_tokenizer is not supported",
                         SPAN_ARG(name));
    l->byte_fallback = l->type != MODEL_WORDPIECE && tokenizer_json_flag(l->model, "byte_fallback", false);
    return true;
}

static bool load_model(loading *l, error *err)
{
    switch (l->type) {
    case MODEL_BPE:
        return load_merges(l, err);
    case MODEL_UNIGRAM:
        return load_scores(l, err);
    case MODEL_WORDPIECE:
        return load_words(l, err);
    }
    return false;
}

bool tokenizer_json_model(tokenizer *t, const json_t *root, const tokenizer_json_shape *shape, error *err)
{
    loading l = {.tokenizer = t, .shape = shape, .model = json_object_get(root, "model")};
    l.vocab   = json_object_get(l.model, "vocab");
    l.merges  = json_object_get(l.model, "merges");
    l.added   = json_object_get(root, "added_tokens");
    bool done = read_type(&l, err) && load_vocabulary(&l, err) && load_model(&l, err) && load_added_tokens(&l, err);
    t->byte_fallback = !shape->byte_level && shape->printing.bytes;
    free(l.slots);
    return done;
}
