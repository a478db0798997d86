/* Components are objects with a "type"; a Sequence holds others. */
#include "text/tokenizer_json_steps.h"

#include <stdlib.h>

enum { SEQUENCE_DEPTH_MAX = 8 };

#define BLANK "\xE2\x96\x81" /* U+2581 */

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

span tokenizer_json_type(const json_t *component)
{
    return tokenizer_json_span(json_object_get(component, "type"));
}

bool tokenizer_json_refuse(const char *what, const json_t *component, const char *supported, error *err)
{
    return error_set(err, ERR_UNSUPPORTED, "the %s of type \"%.*s\" is not supported; supported are %s", what,
                     SPAN_ARG(tokenizer_json_type(component)), supported);
}

bool tokenizer_json_members(const json_t *sequence, const char *key, uint32_t depth, const json_t **members, error *err)
{
    *members = json_object_get(sequence, key);
    if (depth >= SEQUENCE_DEPTH_MAX || !json_is_array(*members))
        return error_set(err, ERR_INVALID, "a Sequence without an array \"%s\", or nested over %d deep", key,
                         SEQUENCE_DEPTH_MAX);
    return true;
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
    bool   fits    = literal.size > 0 && literal.size <= PRETOKENIZER_PATTERN_BYTES_MAX;
    char  *pattern = fits ? malloc(2 * literal.size + 1) : NULL;
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
    else if (span_is(name, "MergedWithPrevious") && !invert)
        behavior = PRETOKENIZE_JOIN_TO_GAPS;
    else
        return error_set(err, ERR_UNSUPPORTED,
                         "a Split of behavior \"%.*s\"%s; supported are Isolated, Removed and MergedWithPrevious",
                         SPAN_ARG(name), invert ? ", inverted" : "");
    if (json_is_string(regex))
        return pretokenizer_add_regex(p, tokenizer_json_span(regex), behavior, err);
    if (json_is_string(literal) && json_string_length(literal) > 0)
        return add_literal(p, tokenizer_json_span(literal), behavior, err);
    return error_set(err, ERR_INVALID, "a Split has no pattern: expected {\"Regex\": ...} or {\"String\": ...}");
}

static bool add_punctuation(pretokenizer *p, const json_t *punctuation, error *err)
{
    const json_t *behavior = json_object_get(punctuation, "behavior");
    if (behavior && !span_is(tokenizer_json_span(behavior), "Isolated"))
        return error_set(err, ERR_UNSUPPORTED, "a Punctuation of behavior \"%.*s\"; supported is Isolated",
                         SPAN_ARG(tokenizer_json_span(behavior)));
    return pretokenizer_add(p, PRETOKENIZE_PUNCTUATION, err);
}

/* Older files say add_prefix_space, newer ones prepend_scheme. */
static bool add_metaspace(pretokenizer *p, const json_t *metaspace, error *err)
{
    const json_t *scheme = json_object_get(metaspace, "prepend_scheme");
    span          name   = tokenizer_json_span(scheme);
    bool          always = scheme ? span_is(name, "always") : tokenizer_json_flag(metaspace, "add_prefix_space", true);
    metaspace_prefix prefix = always ? METASPACE_ALWAYS : span_is(name, "first") ? METASPACE_FIRST : METASPACE_NEVER;
    if (!span_is(tokenizer_json_span(json_object_get(metaspace, "replacement")), BLANK))
        return error_set(err, ERR_UNSUPPORTED, "a Metaspace with another replacement than U+2581 is not supported");
    return pretokenizer_add_metaspace(p, prefix, err) &&
           (!tokenizer_json_flag(metaspace, "split", true) || pretokenizer_add(p, PRETOKENIZE_BLANK_WORDS, err));
}

/* *has_byte_level: a ByteLevel was added. It turns text into its alphabet, so what follows it would see other
 * characters. */
static bool pre_tokenizer_at(pretokenizer *p, const json_t *step, uint32_t depth, bool *has_byte_level, error *err)
{
    const json_t *members;
    span          type = tokenizer_json_type(step);
    if (*has_byte_level)
        return error_set(err, ERR_UNSUPPORTED, "a pre_tokenizer of type \"%.*s\" after ByteLevel is not supported",
                         SPAN_ARG(type));
    if (span_is(type, "ByteLevel")) {
        *has_byte_level = true;
        if (pretokenizer_growth(p) > 1)
            return error_set(err, ERR_UNSUPPORTED, "a pre_tokenizer of type ByteLevel after Metaspace");
        return add_byte_level(p, step, err);
    }
    if (span_is(type, "Metaspace"))
        return add_metaspace(p, step, err);
    if (span_is(type, "BertPreTokenizer"))
        return pretokenizer_add(p, PRETOKENIZE_BERT, err);
    if (span_is(type, "WhitespaceSplit"))
        return pretokenizer_add(p, PRETOKENIZE_WHITESPACE, err);
    if (span_is(type, "Whitespace"))
        return pretokenizer_add(p, PRETOKENIZE_WORDS, err);
    if (span_is(type, "Punctuation"))
        return add_punctuation(p, step, err);
    if (span_is(type, "CharDelimiterSplit"))
        return add_literal(p, tokenizer_json_span(json_object_get(step, "delimiter")), PRETOKENIZE_KEEP_GAPS, err);
    if (span_is(type, "Digits")) {
        bool individual = tokenizer_json_flag(step, "individual_digits", false);
        return pretokenizer_add(p, individual ? PRETOKENIZE_DIGITS : PRETOKENIZE_DIGIT_RUNS, err);
    }
    if (span_is(type, "Split"))
        return add_split(p, step, err);
    if (!span_is(type, "Sequence"))
        return tokenizer_json_refuse(
            "pre_tokenizer", step,
            "ByteLevel, BertPreTokenizer, CharDelimiterSplit, Digits, Metaspace, Punctuation, Split, Whitespace, "
            "WhitespaceSplit and Sequence",
            err);
    if (!tokenizer_json_members(step, "pretokenizers", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!pre_tokenizer_at(p, json_array_get(members, i), depth + 1, has_byte_level, err))
            return false;
    return true;
}

bool tokenizer_json_pre_tokenizer(tokenizer *t, const json_t *pre_tokenizer, tokenizer_json_shape *shape, error *err)
{
    return !pre_tokenizer || json_is_null(pre_tokenizer) ||
           pre_tokenizer_at(t->pretokenizer, pre_tokenizer, 0, &shape->byte_level, err);
}

/* ---- post_processor ---- */

static bool refuse_template(span name, error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "the post_processor adds %.*s to a text; supported is one token before and one behind it",
                     SPAN_ARG(name));
}

/* "single" is the tokens and the text of one sequence, in order. */
static bool read_template(tokenizer *t, const json_t *template, error *err)
{
    const json_t *single = json_object_get(template, "single");
    bool          behind = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        span          name    = tokenizer_json_span(json_object_get(special, "id"));
        bool         *adds    = behind ? &t->adds_eos : &t->adds_bos;
        uint32_t     *token   = behind ? &t->eos : &t->bos;
        if (!special) {
            behind = true;
            continue;
        }
        if (*adds)
            return refuse_template(name, err);
        *token = tokenizer_find(t, name);
        if (*token == VOCABULARY_NONE)
            return error_set(err, ERR_INVALID, "the post_processor adds %.*s, which is not a token", SPAN_ARG(name));
        *adds = true;
    }
    return true;
}

/* BertProcessing and RobertaProcessing: "cls" before the text and "sep" behind it, each [token, id]. */
static bool read_pair(tokenizer *t, const json_t *step, error *err)
{
    const char *const keys[]   = {"cls", "sep"};
    uint32_t *const   tokens[] = {&t->bos, &t->eos};
    for (size_t i = 0; i < COUNT(keys); i++) {
        span name  = tokenizer_json_span(json_array_get(json_object_get(step, keys[i]), 0));
        *tokens[i] = tokenizer_find(t, name);
        if (*tokens[i] == VOCABULARY_NONE)
            return error_set(err, ERR_INVALID, "the post_processor's %s is \"%.*s\", which is not a token", keys[i],
                             SPAN_ARG(name));
    }
    t->adds_bos = t->adds_eos = true;
    return true;
}

static bool post_processor_at(tokenizer *t, const json_t *step, uint32_t depth, error *err)
{
    const json_t *members;
    if (!step || json_is_null(step) ||
        span_is(tokenizer_json_type(step), "ByteLevel")) /* ByteLevel there only trims offsets */
        return true;
    if (span_is(tokenizer_json_type(step), "TemplateProcessing"))
        return read_template(t, step, err);
    if (span_is(tokenizer_json_type(step), "BertProcessing") || span_is(tokenizer_json_type(step), "RobertaProcessing"))
        return read_pair(t, step, err);
    if (!span_is(tokenizer_json_type(step), "Sequence"))
        return tokenizer_json_refuse("post_processor", step,
                                     "BertProcessing, ByteLevel, RobertaProcessing, TemplateProcessing and "
                                     "Sequence",
                                     err);
    if (!tokenizer_json_members(step, "processors", depth, &members, err))
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
