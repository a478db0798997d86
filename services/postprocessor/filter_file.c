/* Reads the rules of an output filter from YAML. Every error says line and column. */
#include "postprocessor/filter_rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

typedef struct {
    yaml_document_t document;
    const char     *name; /* of the file */
    output_filter  *filter;
    error          *err;
} reader;

#define FAIL(r, node, ...) fail(r, (node)->start_mark, error_set((r)->err, ERR_INVALID, __VA_ARGS__))

/* Puts file, line and column before the sentence already set. */
static bool fail(const reader *r, yaml_mark_t mark, bool always_false)
{
    error_wrap(r->err, "%s:%zu:%zu", r->name, mark.line + 1, mark.column + 1);
    return always_false;
}

static span text_of(const yaml_node_t *n)
{
    return (span){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static bool read_scalar(reader *r, const yaml_node_t *n, const char *field, span *text)
{
    if (n->type != YAML_SCALAR_NODE)
        return FAIL(r, n, "%s is a list or a mapping; expected one value", field);
    *text = text_of(n);
    return true;
}

static bool read_name(reader *r, const yaml_node_t *n, filter_rule *rule)
{
    span text;
    if (!read_scalar(r, n, "name", &text))
        return false;
    bool fits = text.size > 0 && text.size <= FILTER_NAME_BYTES_MAX;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        fits   = fits && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                        c == '-' || c == '.');
    }
    if (!fits)
        return FAIL(r, n, "a rule's name is 1 to %d letters, digits, '_', '-' and '.'", FILTER_NAME_BYTES_MAX);
    for (uint32_t i = 0; i < r->filter->n_rules; i++)
        if (span_is(text, r->filter->rules[i].name))
            return FAIL(r, n, "rule %s is there already", r->filter->rules[i].name);
    memcpy(rule->name, text.data, text.size);
    return true;
}

static bool read_action(reader *r, const yaml_node_t *n, filter_rule *rule)
{
    static const char *const names[] = {[FILTER_BLOCK] = "block", [FILTER_MASK] = "mask", [FILTER_REPLACE] = "replace"};
    span                     text;
    if (!read_scalar(r, n, "action", &text))
        return false;
    for (uint32_t i = 0; i < COUNT(names); i++)
        if (span_is(text, names[i])) {
            rule->action = (filter_action)i;
            return true;
        }
    return FAIL(r, n, "action is \"%.*s\"; expected block, mask or replace", (int)(text.size < 40 ? text.size : 40),
                text.data);
}

static bool read_bool(reader *r, const yaml_node_t *n, const char *field, bool *value)
{
    span text = {0};
    if (!read_scalar(r, n, field, &text))
        return false;
    *value = span_is(text, "true");
    return *value || span_is(text, "false") || FAIL(r, n, "%s: expected true or false", field);
}

static bool read_replacement(reader *r, const yaml_node_t *n, filter_rule *rule)
{
    span text;
    if (!read_scalar(r, n, "replacement", &text))
        return false;
    if (text.size > FILTER_REPLACEMENT_BYTES_MAX || !utf8_is_valid(text))
        return FAIL(r, n, "replacement has %zu bytes; expected at most %d of UTF-8", text.size,
                    FILTER_REPLACEMENT_BYTES_MAX);
    memcpy(rule->replacement, text.data, text.size);
    rule->replacement_bytes = (uint32_t)text.size;
    return true;
}

static bool read_keywords(reader *r, const yaml_node_t *n)
{
    error why;
    if (n->type != YAML_SEQUENCE_NODE || n->data.sequence.items.start == n->data.sequence.items.top)
        return FAIL(r, n, "keywords: expected a list of at least one keyword");
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(&r->document, *i);
        span               text;
        if (!read_scalar(r, item, "a keyword", &text))
            return false;
        if (text.size == 0 || text.size > FILTER_KEYWORD_BYTES_MAX || !utf8_is_valid(text))
            return FAIL(r, item, "a keyword of %zu bytes; expected 1 to %d of UTF-8", text.size,
                        FILTER_KEYWORD_BYTES_MAX);
        if (!filter_rules_add(r->filter, r->filter->n_rules, text, &why))
            return FAIL(r, item, "%s", why.text);
    }
    return true;
}

enum { HAS_NAME = 1, HAS_ACTION = 2, HAS_KEYWORDS = 4, HAS_REPLACEMENT = 8, HAS_CASE = 16, HAS_WORDS = 32 };

static const struct {
    const char *name;
    uint32_t    bit;
} fields[] = {
    {"name", HAS_NAME},
    {"action", HAS_ACTION},
    {"keywords", HAS_KEYWORDS},
    {"replacement", HAS_REPLACEMENT},
    {"case_insensitive", HAS_CASE},
    {"whole_words", HAS_WORDS},
};

static bool read_field(reader *r, uint32_t bit, const yaml_node_t *value, filter_rule *rule)
{
    switch (bit) {
    case HAS_NAME:
        return read_name(r, value, rule);
    case HAS_ACTION:
        return read_action(r, value, rule);
    case HAS_REPLACEMENT:
        return read_replacement(r, value, rule);
    case HAS_CASE:
        return read_bool(r, value, "case_insensitive", &rule->case_insensitive);
    case HAS_WORDS:
        return read_bool(r, value, "whole_words", &rule->whole_words);
    default:
        return true; /* keywords are read last: what they are for must be known */
    }
}

static uint32_t field_bit(const yaml_node_t *key)
{
    for (uint32_t i = 0; key->type == YAML_SCALAR_NODE && i < COUNT(fields); i++)
        if (span_is(text_of(key), fields[i].name))
            return fields[i].bit;
    return 0;
}

static bool read_rule(reader *r, const yaml_node_t *n)
{
    if (n->type != YAML_MAPPING_NODE)
        return FAIL(r, n, "a rule is a mapping with name, action and keywords");
    if (r->filter->n_rules == FILTER_RULES_MAX)
        return FAIL(r, n, "more than %d rules", FILTER_RULES_MAX);
    filter_rule       *rule     = &r->filter->rules[r->filter->n_rules];
    const yaml_node_t *keywords = NULL;
    uint32_t           has      = 0;
    *rule                       = (filter_rule){.case_insensitive = true};
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key   = yaml_document_get_node(&r->document, p->key);
        const yaml_node_t *value = yaml_document_get_node(&r->document, p->value);
        uint32_t           bit   = field_bit(key);
        if (bit == 0)
            return FAIL(r, key, "expected name, action, keywords, replacement, case_insensitive or whole_words here");
        if (has & bit)
            return FAIL(r, key, "this field is there twice");
        has |= bit;
        if (bit == HAS_KEYWORDS)
            keywords = value;
        if (!read_field(r, bit, value, rule))
            return false;
    }
    if ((has & (HAS_NAME | HAS_ACTION | HAS_KEYWORDS)) != (HAS_NAME | HAS_ACTION | HAS_KEYWORDS))
        return FAIL(r, n, "a rule needs name, action and keywords");
    if ((rule->action == FILTER_REPLACE) != ((has & HAS_REPLACEMENT) != 0))
        return FAIL(r, n, "a rule has a replacement exactly when its action is replace");
    if (!read_keywords(r, keywords))
        return false;
    r->filter->n_rules++;
    return true;
}

static bool read_document(reader *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(&r->document);
    if (!root)
        return error_set(r->err, ERR_INVALID, "%s: empty; expected a list named rules", r->name);
    const yaml_node_pair_t *pair = root->type == YAML_MAPPING_NODE ? root->data.mapping.pairs.start : NULL;
    const yaml_node_t      *key = NULL, *rules = NULL;
    if (pair && root->data.mapping.pairs.top - pair == 1) {
        key   = yaml_document_get_node(&r->document, pair->key);
        rules = yaml_document_get_node(&r->document, pair->value);
    }
    if (!key || key->type != YAML_SCALAR_NODE || !span_is(text_of(key), "rules") || rules->type != YAML_SEQUENCE_NODE)
        return FAIL(r, root, "expected one list named rules");
    for (const yaml_node_item_t *i = rules->data.sequence.items.start; i < rules->data.sequence.items.top; i++)
        if (!read_rule(r, yaml_document_get_node(&r->document, *i)))
            return false;
    return filter_rules_link(r->filter, r->err);
}

static bool yaml_failed(const reader *r, const yaml_parser_t *parser)
{
    const char *problem = parser->problem ? parser->problem : "no memory to read it";
    if (parser->error == YAML_READER_ERROR)
        return error_set(r->err, ERR_INVALID, "%s: byte %zu: %s", r->name, parser->problem_offset, problem);
    error_set(r->err, ERR_INVALID, "%s", problem);
    return fail(r, parser->problem_mark, false);
}

output_filter *output_filter_parse(span yaml, const char *name, error *err)
{
    yaml_parser_t parser;
    error         why;
    reader        r = {.name = name, .err = err ? err : &why, .filter = filter_rules_new(err)};
    if (!r.filter)
        return NULL;
    if (!yaml_parser_initialize(&parser)) {
        error_set(err, ERR_NO_MEMORY, "no memory to read %s", name);
        output_filter_release(&r.filter);
        return NULL;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml.data, yaml.size);
    bool done = yaml_parser_load(&parser, &r.document);
    if (done) {
        done = read_document(&r);
        yaml_document_delete(&r.document);
    } else {
        yaml_failed(&r, &parser);
    }
    yaml_parser_delete(&parser);
    if (!done)
        output_filter_release(&r.filter);
    return r.filter;
}

output_filter *output_filter_load(const char *path, error *err)
{
    output_filter *f    = NULL;
    FILE          *file = fopen(path, "rb");
    char          *text = file ? malloc(FILTER_FILE_BYTES_MAX + 1) : NULL;
    size_t         n    = text ? fread(text, 1, FILTER_FILE_BYTES_MAX + 1, file) : 0;
    if (!file)
        error_set(err, ERR_IO, "%s: %m", path);
    else if (!text)
        error_set(err, ERR_NO_MEMORY, "no memory to read %s", path);
    else if (ferror(file))
        error_set(err, ERR_IO, "%s: %m", path);
    else if (n > FILTER_FILE_BYTES_MAX)
        error_set(err, ERR_TOO_LARGE, "%s: more than %d bytes", path, FILTER_FILE_BYTES_MAX);
    else
        f = output_filter_parse((span){text, n}, path, err);
    free(text);
    if (file)
        fclose(file);
    return f;
}
