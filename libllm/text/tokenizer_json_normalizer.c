/* The normalizer of a tokenizer.json. */
#include "text/tokenizer_json_steps.h"

#include <stdlib.h>

/* `tokenizers` strips accents where it lowercases, unless told otherwise. */
static bool add_bert(tokenizer *t, const json_t *bert, error *err)
{
    bool         lowercase = tokenizer_json_flag(bert, "lowercase", true);
    bert_options options   = {.clean_text     = tokenizer_json_flag(bert, "clean_text", true),
                              .chinese_blanks = tokenizer_json_flag(bert, "handle_chinese_chars", true),
                              .strip_accents  = tokenizer_json_flag(bert, "strip_accents", lowercase),
                              .lowercase      = lowercase};
    return normalizer_add_bert(t->normalizer, &options, err);
}

static bool add_lowercase(tokenizer *t, const json_t *step, error *err)
{
    (void)step;
    return normalizer_add_bert(t->normalizer, &(bert_options){.lowercase = true}, err);
}

static bool add_replace(tokenizer *t, const json_t *replace, error *err)
{
    const json_t *pattern = json_object_get(replace, "pattern");
    const json_t *literal = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    span          content = tokenizer_json_span(json_object_get(replace, "content"));
    if (json_is_string(literal))
        return normalizer_add_replace(t->normalizer, tokenizer_json_span(literal), content, err);
    if (json_is_string(regex))
        return normalizer_add_replace_regex(t->normalizer, tokenizer_json_span(regex), content, err);
    return error_set(err, ERR_INVALID, "a Replace has no pattern: expected {\"Regex\": ...} or {\"String\": ...}");
}

static bool add_prepend(tokenizer *t, const json_t *prepend, error *err)
{
    return normalizer_add_prepend(t->normalizer, tokenizer_json_span(json_object_get(prepend, "prepend")), err);
}

static bool add_strip(tokenizer *t, const json_t *strip, error *err)
{
    return normalizer_add_strip(t->normalizer, tokenizer_json_flag(strip, "strip_left", true),
                                tokenizer_json_flag(strip, "strip_right", true), err);
}

static bool add_strip_accents(tokenizer *t, const json_t *step, error *err)
{
    (void)step;
    return normalizer_add_strip_accents(t->normalizer, err);
}

static int digit_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 (RFC 4648, section 4) into out[text.size]. Returns the bytes written; SIZE_MAX where it is not that. */
static size_t decode_base64(span text, char *out)
{
    size_t   n = 0, n_padding = 0;
    uint32_t bits = 0;
    if (text.size % 4 != 0)
        return SIZE_MAX;
    while (n_padding < 2 && n_padding < text.size && text.data[text.size - 1 - n_padding] == '=')
        n_padding++;
    for (size_t i = 0; i < text.size; i++) {
        bool padding = i >= text.size - n_padding;
        int  digit   = padding ? 0 : digit_of(text.data[i]);
        if (digit < 0)
            return SIZE_MAX;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 3)
            continue;
        for (int shift = 16; shift >= 0; shift -= 8)
            out[n++] = (char)(bits >> shift);
    }
    return n - n_padding;
}

static bool add_precompiled(tokenizer *t, const json_t *precompiled, error *err)
{
    span  text  = tokenizer_json_span(json_object_get(precompiled, "precompiled_charsmap"));
    char *bytes = malloc(text.size + 1);
    if (!bytes)
        return error_set(err, ERR_NO_MEMORY, "no memory for a precompiled_charsmap of %zu bytes", text.size);
    size_t n    = decode_base64(text, bytes);
    bool   done = n != SIZE_MAX || error_set(err, ERR_INVALID, "the precompiled_charsmap is not base64");
    done        = done && normalizer_add_charsmap(t->normalizer, (span){bytes, n}, CHARSMAP_GRAPHEMES, err);
    free(bytes);
    return done;
}

static bool add_form(tokenizer *t, const json_t *step, error *err)
{
    static const char *const names[] = {
        [NORMAL_FORM_C] = "NFC", [NORMAL_FORM_D] = "NFD", [NORMAL_FORM_KC] = "NFKC", [NORMAL_FORM_KD] = "NFKD"};
    normal_form form = NORMAL_FORM_C;
    while (!span_is(tokenizer_json_type(step), names[form]))
        form++;
    return normalizer_add_form(t->normalizer, form, err);
}

static const struct {
    const char *type;
    bool (*add)(tokenizer *t, const json_t *step, error *err);
} kinds[] = {
    {"NFC", add_form},
    {"NFD", add_form},
    {"NFKC", add_form},
    {"NFKD", add_form},
    {"BertNormalizer", add_bert},
    {"Lowercase", add_lowercase},
    {"Precompiled", add_precompiled},
    {"Prepend", add_prepend},
    {"Replace", add_replace},
    {"Strip", add_strip},
    {"StripAccents", add_strip_accents},
};

static bool normalizer_at(tokenizer *t, const json_t *step, uint32_t depth, error *err)
{
    const json_t *members;
    if (!step || json_is_null(step))
        return true;
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (span_is(tokenizer_json_type(step), kinds[i].type))
            return kinds[i].add(t, step, err);
    if (!span_is(tokenizer_json_type(step), "Sequence"))
        return tokenizer_json_refuse("normalizer", step,
                                     "NFC, NFD, NFKC, NFKD, BertNormalizer, Lowercase, Precompiled, Prepend, Replace, "
                                     "Strip, StripAccents and Sequence",
                                     err);
    if (!tokenizer_json_members(step, "normalizers", depth, &members, err))
        return false;
    for (size_t i = 0; i < json_array_size(members); i++)
        if (!normalizer_at(t, json_array_get(members, i), depth + 1, err))
            return false;
    return true;
}

bool tokenizer_json_normalizer(tokenizer *t, const json_t *step, error *err)
{
    return normalizer_at(t, step, 0, err);
}
