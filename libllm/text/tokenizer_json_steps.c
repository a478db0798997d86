/* Components are objects with a "type"; a Sequence holds others. */
#include "text/tokenizer_json_steps.h"

#include <stdlib.h>

enum { SEQUENCE_DEPTH_MAX = 8 };

bool tokenizer_json_flag(const json_t *object, const char *key, bool missing)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : missing;
}

span tokenizer_json_span(const json_t *string)
{
    if (!json_is_string(string))
        return (span){"", 0};
    return (span){json_string_value(string), json_string_length(string)};
}

static span type_of(const json_t *component)
{
    return tokenizer_json_span(json_object_get(component, "type"));
}

static bool refuse(const char *what, const json_t *component, const char *supported, error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "the %s of type \"%.*s\" is not supported; supported are %s", what,
                     SPAN_ARG(type_of(component)), supported);
}

/* The members of a Sequence; an error when it is deeper than any that makes sense. */
static bool members_of(const json_t *sequence, const char *key, uint32_t depth, const json_t **members, error *err)
{
    *members = json_object_get(sequence, key);
    if (depth >= SEQUENCE_DEPTH_MAX || !json_is_array(*members))
        return error_set(err, ERR_INVALID, "a Sequence without an array \"%s\", or nested over %d deep", key,
                         SEQUENCE_DEPTH_MAX);
    return true;
}

/* ---- normalizer ---- */

static bool normalizer_at(tokenizer *t, const json_t *normalizer, uint32_t depth, error *err)
{
    const json_t *members;
    if (!normalizer || json_is_null(normalizer))
        return true;
    if (span_is(type_of(normalizer), "NFC")) {
        t->nfc = true;
        return true;
    }
    if (!span_is(type_of(normalizer), "Sequence"))
        return refuse("normalizer", normalizer, "NFC and Sequence", err);
    if (!members_of(normalizer, "normalizers", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!normalizer_at(t, json_array_get(members, i), depth + 1, err))
            return false;
    return true;
}

bool tokenizer_json_normalizer(tokenizer *t, const json_t *normalizer, error *err)
{
    return normalizer_at(t, normalizer, 0, err);
}

/* ---- pre_tokenizer ---- */

static bool add_byte_level(pretokenizer *p, const json_t *byte_level, error *err)
{
    if (tokenizer_json_flag(byte_level, "add_prefix_space", true) &&
        !pretokenizer_add(p, PRETOKENIZE_PREFIX_SPACE, err))
        return false;
    return !tokenizer_json_flag(byte_level, "use_regex", true) || pretokenizer_add(p, PRETOKENIZE_GPT2, err);
}

/* A literal string as an expression that matches just it. */
static bool add_literal(pretokenizer *p, span literal, pretokenize_behavior behavior, error *err)
{
    char  *pattern = literal.size <= PRETOKENIZER_PATTERN_BYTES_MAX ? malloc(2 * literal.size + 1) : NULL;
    size_t n       = 0;
    if (!pattern)
        return error_set(err, ERR_UNSUPPORTED, "a Split at a string of %zu bytes", literal.size);
    for (size_t i = 0; i < literal.size; i++) {
        char c = literal.data[i];
        bool punctuation =
            (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
        if (punctuation)
            pattern[n++] = '\\';
        pattern[n++] = c;
    }
    bool added = pretokenizer_add_regex(p, (span){pattern, n}, behavior, err);
    free(pattern);
    return added;
}

static bool add_split(pretokenizer *p, const json_t *split, error *err)
{
    const json_t        *pattern = json_object_get(split, "pattern");
    const json_t        *regex   = json_object_get(pattern, "Regex");
    const json_t        *literal = json_object_get(pattern, "String");
    span                 name    = tokenizer_json_span(json_object_get(split, "behavior"));
    bool                 invert  = tokenizer_json_flag(split, "invert", false);
    pretokenize_behavior behavior;
    if (span_is(name, "Isolated"))
        behavior = PRETOKENIZE_ISOLATED;
    else if (span_is(name, "Removed"))
        behavior = invert ? PRETOKENIZE_KEEP_MATCHES : PRETOKENIZE_KEEP_GAPS;
    else
        return error_set(err, ERR_UNSUPPORTED, "a Split of behavior \"%.*s\"; supported are Isolated and Removed",
                         SPAN_ARG(name));
    if (json_is_string(regex))
        return pretokenizer_add_regex(p, tokenizer_json_span(regex), behavior, err);
    if (json_is_string(literal) && json_string_length(literal) > 0)
        return add_literal(p, tokenizer_json_span(literal), behavior, err);
    return error_set(err, ERR_INVALID, "a Split has no pattern: expected {\"Regex\": ...} or {\"String\": ...}");
}

/* *has_byte_level: a ByteLevel was added. It turns text into its alphabet, so what follows it would see other
 * characters. */
static bool pre_tokenizer_at(pretokenizer *p, const json_t *step, uint32_t depth, bool *has_byte_level, error *err)
{
    const json_t *members;
    span          type = type_of(step);
    if (*has_byte_level)
        return error_set(err, ERR_UNSUPPORTED, "a pre_tokenizer of type \"%.*s\" after ByteLevel is not supported",
                         SPAN_ARG(type));
    if (span_is(type, "ByteLevel")) {
        *has_byte_level = true;
        return add_byte_level(p, step, err);
    }
    if (span_is(type, "Digits")) {
        bool individual = tokenizer_json_flag(step, "individual_digits", false);
        return pretokenizer_add(p, individual ? PRETOKENIZE_DIGITS : PRETOKENIZE_DIGIT_RUNS, err);
    }
    if (span_is(type, "Split"))
        return add_split(p, step, err);
    if (!span_is(type, "Sequence"))
        return refuse("pre_tokenizer", step, "ByteLevel, Digits, Split and Sequence", err);
    if (!members_of(step, "pretokenizers", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!pre_tokenizer_at(p, json_array_get(members, i), depth + 1, has_byte_level, err))
            return false;
    return true;
}

bool tokenizer_json_pre_tokenizer(tokenizer *t, const json_t *pre_tokenizer, error *err)
{
    bool has_byte_level = false;
    t->pretokenizer     = pretokenizer_new(err);
    if (!t->pretokenizer)
        return false;
    if (pre_tokenizer && !json_is_null(pre_tokenizer) &&
        !pre_tokenizer_at(t->pretokenizer, pre_tokenizer, 0, &has_byte_level, err))
        return false;
    return has_byte_level || error_set(err, ERR_UNSUPPORTED,
                                       "the pre_tokenizer has no ByteLevel; only byte-level tokenizers are supported");
}

/* ---- decoder, post_processor ---- */

static bool decoder_at(const json_t *decoder, uint32_t depth, error *err)
{
    const json_t *members;
    if (span_is(type_of(decoder), "ByteLevel"))
        return true;
    if (!span_is(type_of(decoder), "Sequence"))
        return refuse("decoder", decoder, "ByteLevel", err);
    if (!members_of(decoder, "decoders", depth, &members, err))
        return false;
    if (json_array_size(members) != 1)
        return error_set(err, ERR_UNSUPPORTED, "a decoder of %zu steps; supported is one ByteLevel",
                         json_array_size(members));
    return decoder_at(json_array_get(members, 0), depth + 1, err);
}

bool tokenizer_json_decoder(const json_t *decoder, error *err)
{
    return decoder_at(decoder, 0, err);
}

/* "single" is the tokens and the text of one sequence, in order. */
static bool read_template(tokenizer *t, const json_t *template, error *err)
{
    const json_t *single = json_object_get(template, "single");
    bool          after  = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item    = json_array_get(single, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        span          name    = tokenizer_json_span(json_object_get(special, "id"));
        if (!special) {
            after = true;
            continue;
        }
        if (after || t->adds_bos)
            return error_set(err, ERR_UNSUPPORTED,
                             "the post_processor adds %.*s to a text; supported is one token before it",
                             SPAN_ARG(name));
        t->bos = tokenizer_find(t, name);
        if (t->bos == VOCABULARY_NONE)
            return error_set(err, ERR_INVALID, "the post_processor adds %.*s, which is not a token", SPAN_ARG(name));
        t->adds_bos = true;
    }
    return true;
}

static bool post_processor_at(tokenizer *t, const json_t *step, uint32_t depth, error *err)
{
    const json_t *members;
    if (!step || json_is_null(step) || span_is(type_of(step), "ByteLevel")) /* ByteLevel there only trims offsets */
        return true;
    if (span_is(type_of(step), "TemplateProcessing"))
        return read_template(t, step, err);
    if (!span_is(type_of(step), "Sequence"))
        return refuse("post_processor", step, "ByteLevel, TemplateProcessing and Sequence", err);
    if (!members_of(step, "processors", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!post_processor_at(t, json_array_get(members, i), depth + 1, err))
            return false;
    return true;
}

bool tokenizer_json_post_processor(tokenizer *t, const json_t *post_processor, error *err)
{
    return post_processor_at(t, post_processor, 0, err);
}
