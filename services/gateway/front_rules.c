/* Front rules: a YAML document, checked node by node, into compiled patterns.
 *
 * All three kinds of match become PCRE2 patterns. The patterns are the operator's, the question is anybody's: each
 * match is bounded in steps and memory, and all of them together in time. */
#include "services/gateway/front_rules.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <fcntl.h>
#include <pcre2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum {
    NAME_BYTES_MAX     = 64,
    PATTERN_BYTES_MAX  = 4096,
    ALL_PATTERNS_MAX   = 4000,
    MATCH_STEPS_MAX    = 100000,
    MATCH_HEAP_KIB_MAX = 1024,
    MATCH_ALL_MS       = 20,
    COUNTED_RULES_MAX  = 64 /* metrics are for ever, so their number is bounded; rules past it share one */
};

typedef enum { MATCH_EXACT, MATCH_KEYWORD, MATCH_REGEX } match_kind;

typedef struct {
    char         *name;
    span          answer;
    finish_reason finish;
    uint32_t      n_patterns;
    pcre2_code   *patterns[FRONT_PATTERNS_MAX];
    metric       *hits;
} front_rule;

typedef struct {
    uint32_t   n, n_patterns;
    front_rule all[FRONT_RULES_MAX];
} rule_set;

struct front_rules {
    rule_set            *set;
    pcre2_match_data    *match;
    pcre2_match_context *limits;
    char                *path;
    struct stat          seen; /* the file as it was last read, well or badly */
};

/* What a parse works on. */
typedef struct {
    const char      *file;
    yaml_document_t *document;
    rule_set        *set;
    error           *err;
} rules_parser;

static bool refuse(const rules_parser *p, const yaml_node_t *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(const rules_parser *p, const yaml_node_t *at, const char *format, ...)
{
    char    text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return error_set(p->err, ERR_INVALID, "%s: line %zu, column %zu: %s", p->file, at->start_mark.line + 1,
                     at->start_mark.column + 1, text);
}

/* ---- metrics ---- */

static metric *hits_of(const char *name)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char            labels[COUNTED_RULES_MAX][NAME_BYTES_MAX + sizeof "rule=\"\""];
    static uint32_t        n;
    static const char      help[] = "Requests answered by a front rule.";
    char                   label[sizeof labels[0]];
    const char            *kept = NULL;
    snprintf(label, sizeof label, "rule=\"%s\"", name);
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < n && !kept; i++)
        if (strcmp(labels[i], label) == 0)
            kept = labels[i];
    if (!kept)
        kept = n < COUNTED_RULES_MAX ? memcpy(labels[n++], label, sizeof label) : "rule=\"\"";
    pthread_mutex_unlock(&lock);
    return metric_counter("troupe_front_rule_hits_total", kept, help);
}

/* ---- patterns ---- */

/* Scripts written without spaces have no word boundaries that a pattern could look for. */
static bool has_word_boundary(span edge)
{
    uint32_t c;
    return utf8_decode(edge, &c) > 0 && (c < 0x0E00 || (c >= 0x1E00 && c < 0x2000));
}

static span last_character(span text)
{
    size_t at = text.size;
    while (at > 0 && ((uint8_t)text.data[--at] & 0xC0) == 0x80)
        ;
    return (span){text.data + at, text.size - at};
}

/* A literal as a pattern; a run of spaces in it stands for any. */
static size_t quote(span literal, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < literal.size; i++) {
        char c        = literal.data[i];
        bool is_space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
        if (is_space) {
            if (n < 3 || memcmp(out + n - 3, "\\s+", 3) != 0)
                memcpy(out + n, "\\s+", 3), n += 3;
            continue;
        }
        if ((uint8_t)c < 0x80 && !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
            out[n++] = '\\';
        out[n++] = c;
    }
    return n;
}

static size_t build_pattern(match_kind kind, span text, char *out)
{
    static const char before[] = "(?<!\\w)", after[] = "(?!\\w)", start[] = "\\A\\s*", end[] = "\\s*\\z";
    const char       *prefix = "", *suffix = "";
    if (kind == MATCH_EXACT) {
        prefix = start;
        suffix = end;
    } else if (kind == MATCH_KEYWORD) {
        prefix = has_word_boundary(text) ? before : "";
        suffix = has_word_boundary(last_character(text)) ? after : "";
    }
    size_t n = (size_t)snprintf(out, sizeof before, "%s", prefix);
    if (kind == MATCH_REGEX) {
        memcpy(out, text.data, text.size);
        n = text.size;
    } else {
        n += quote(text, out + n);
    }
    return n + (size_t)snprintf(out + n, sizeof before, "%s", suffix);
}

static bool add_pattern(rules_parser *p, front_rule *rule, const yaml_node_t *node, match_kind kind, bool caseless)
{
    char     pattern[3 * PATTERN_BYTES_MAX + 32];
    int      code;
    size_t   offset;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (caseless ? PCRE2_CASELESS : 0);
    if (node->type != YAML_SCALAR_NODE)
        return refuse(p, node, "a pattern must be a text");
    span text = {(const char *)node->data.scalar.value, node->data.scalar.length};
    if (text.size == 0 || text.size > PATTERN_BYTES_MAX)
        return refuse(p, node, "a pattern has from 1 to %d bytes", PATTERN_BYTES_MAX);
    if (rule->n_patterns == FRONT_PATTERNS_MAX)
        return refuse(p, node, "a rule has at most %d patterns", FRONT_PATTERNS_MAX);
    if (p->set->n_patterns++ == ALL_PATTERNS_MAX)
        return refuse(p, node, "a file has at most %d patterns", ALL_PATTERNS_MAX);
    size_t      bytes = build_pattern(kind, text, pattern);
    pcre2_code *made  = pcre2_compile((PCRE2_SPTR)pattern, bytes, options, &code, &offset, NULL);
    if (!made) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return refuse(p, node, "the pattern can't be used: %s, at its byte %zu", (const char *)why, offset);
    }
    rule->patterns[rule->n_patterns++] = made;
    return true;
}

/* ---- the document ---- */

enum { FIELD_NAME, FIELD_MATCH, FIELD_PATTERN, FIELD_PATTERNS, FIELD_CASE, FIELD_ANSWER, FIELD_FINISH, N_FIELDS };
static const char *const field_names[N_FIELDS] = {"name",   "match", "pattern", "patterns", "case_insensitive",
                                                  "answer", "finish"};

static span text_of(const yaml_node_t *node)
{
    if (!node || node->type != YAML_SCALAR_NODE)
        return (span){0};
    return (span){(const char *)node->data.scalar.value, node->data.scalar.length};
}

static bool read_fields(rules_parser *p, const yaml_node_t *node, yaml_node_t *fields[N_FIELDS])
{
    if (node->type != YAML_MAPPING_NODE)
        return refuse(p, node, "a rule must be a mapping with name, match, patterns and answer");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key  = yaml_document_get_node(p->document, pair->key);
        span         name = text_of(key);
        size_t       i    = 0;
        while (i < N_FIELDS && !span_is(name, field_names[i]))
            i++;
        if (i == N_FIELDS)
            return refuse(p, key, "a rule has no field \"%.*s\"", name.size < 40 ? (int)name.size : 40,
                          name.data ? name.data : "");
        if (fields[i])
            return refuse(p, key, "the field \"%s\" is there twice", field_names[i]);
        fields[i] = yaml_document_get_node(p->document, pair->value);
    }
    return true;
}

static bool take_name(rules_parser *p, const yaml_node_t *rule_node, const yaml_node_t *node, front_rule *rule)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    span              name      = text_of(node);
    if (name.size == 0 || name.size > NAME_BYTES_MAX || strspn(name.data, allowed) != name.size)
        return refuse(p, node ? node : rule_node, "name must be 1 to %d letters, digits, dots, - or _", NAME_BYTES_MAX);
    for (uint32_t i = 0; i + 1 < p->set->n; i++)
        if (span_is(name, p->set->all[i].name))
            return refuse(p, node, "another rule has the name \"%s\"", p->set->all[i].name);
    rule->name = strndup(name.data, name.size);
    return rule->name || error_set(p->err, ERR_NO_MEMORY, "%s: no memory for its rules", p->file);
}

static bool take_patterns(rules_parser *p, const yaml_node_t *rule_node, yaml_node_t *fields[N_FIELDS],
                          front_rule *rule)
{
    static const char *const kinds[] = {"exact", "keyword", "regex"};
    const yaml_node_t       *node    = fields[FIELD_PATTERNS] ? fields[FIELD_PATTERNS] : fields[FIELD_PATTERN];
    size_t                   kind    = 0;
    span                     yes     = text_of(fields[FIELD_CASE]);
    if (fields[FIELD_CASE] && !span_is(yes, "true") && !span_is(yes, "false"))
        return refuse(p, fields[FIELD_CASE], "case_insensitive must be true or false");
    while (kind < COUNT(kinds) && !span_is(text_of(fields[FIELD_MATCH]), kinds[kind]))
        kind++;
    if (kind == COUNT(kinds))
        return refuse(p, fields[FIELD_MATCH] ? fields[FIELD_MATCH] : rule_node,
                      "match must be exact, keyword or regex");
    if (!node || (fields[FIELD_PATTERN] && fields[FIELD_PATTERNS]))
        return refuse(p, rule_node, "a rule needs pattern or patterns");
    bool caseless = !span_is(yes, "false");
    if (node->type == YAML_SCALAR_NODE)
        return add_pattern(p, rule, node, (match_kind)kind, caseless);
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.start == node->data.sequence.items.top)
        return refuse(p, node, "patterns must be a text or a list of texts");
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++)
        if (!add_pattern(p, rule, yaml_document_get_node(p->document, *item), (match_kind)kind, caseless))
            return false;
    return true;
}

static bool take_answer(rules_parser *p, const yaml_node_t *rule_node, yaml_node_t *fields[N_FIELDS], front_rule *rule)
{
    span answer = text_of(fields[FIELD_ANSWER]), finish = text_of(fields[FIELD_FINISH]);
    if (answer.size == 0 || answer.size > FRONT_ANSWER_BYTES_MAX)
        return refuse(p, fields[FIELD_ANSWER] ? fields[FIELD_ANSWER] : rule_node, "answer has from 1 to %d bytes",
                      FRONT_ANSWER_BYTES_MAX);
    if (fields[FIELD_FINISH] && !span_is(finish, "stop") && !span_is(finish, "content_filter"))
        return refuse(p, fields[FIELD_FINISH], "finish must be stop or content_filter");
    char *copy   = malloc(answer.size);
    rule->answer = (span){copy, copy ? answer.size : 0};
    rule->finish = span_is(finish, "content_filter") ? FINISH_REASON_CONTENT_FILTER : FINISH_REASON_STOP;
    if (!copy)
        return error_set(p->err, ERR_NO_MEMORY, "%s: no memory for its rules", p->file);
    memcpy(copy, answer.data, answer.size);
    return true;
}

static bool take_rule(rules_parser *p, const yaml_node_t *node)
{
    yaml_node_t *fields[N_FIELDS] = {0};
    if (p->set->n == FRONT_RULES_MAX)
        return refuse(p, node, "a file has at most %d rules", FRONT_RULES_MAX);
    if (!read_fields(p, node, fields))
        return false;
    front_rule *rule = &p->set->all[p->set->n++];
    return take_name(p, node, fields[FIELD_NAME], rule) && take_patterns(p, node, fields, rule) &&
           take_answer(p, node, fields, rule);
}

static bool take_document(rules_parser *p)
{
    yaml_node_t *root = yaml_document_get_root_node(p->document);
    if (!root)
        return error_set(p->err, ERR_INVALID, /* or it is being written just now */
                         "%s: the file is empty; one without rules says \"rules: []\"", p->file);
    yaml_node_pair_t *pair = root->type == YAML_MAPPING_NODE ? root->data.mapping.pairs.start : NULL;
    if (!pair || pair + 1 != root->data.mapping.pairs.top ||
        !span_is(text_of(yaml_document_get_node(p->document, pair->key)), "rules"))
        return refuse(p, root, "the file must be a mapping with the one field \"rules\"");
    yaml_node_t *list = yaml_document_get_node(p->document, pair->value);
    if (list->type != YAML_SEQUENCE_NODE)
        return refuse(p, list, "rules must be a list");
    for (yaml_node_item_t *item = list->data.sequence.items.start; item < list->data.sequence.items.top; item++)
        if (!take_rule(p, yaml_document_get_node(p->document, *item)))
            return false;
    return true;
}

static void set_free(rule_set **set)
{
    for (uint32_t i = 0; *set && i < (*set)->n; i++) {
        front_rule *rule = &(*set)->all[i];
        for (uint32_t k = 0; k < rule->n_patterns; k++)
            pcre2_code_free(rule->patterns[k]);
        free(rule->name);
        free((char *)(uintptr_t)rule->answer.data);
    }
    free(*set);
    *set = NULL;
}

static rule_set *set_parse(span yaml, const char *name, error *err)
{
    yaml_parser_t   parser;
    yaml_document_t document;
    rule_set       *set = calloc(1, sizeof *set);
    if (!set || !yaml_parser_initialize(&parser)) {
        free(set);
        error_set(err, ERR_NO_MEMORY, "%s: no memory for its rules", name);
        return NULL;
    }
    yaml_parser_set_input_string(&parser, (const uint8_t *)yaml.data, yaml.size);
    bool ok = yaml_parser_load(&parser, &document);
    if (!ok) {
        error_set(err, ERR_INVALID, "%s: line %zu, column %zu: this is not YAML: %s", name,
                  parser.problem_mark.line + 1, parser.problem_mark.column + 1,
                  parser.problem ? parser.problem : "no memory");
    } else {
        rules_parser p = {name, &document, set, err};
        ok             = take_document(&p);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    for (uint32_t i = 0; ok && i < set->n; i++)
        set->all[i].hits = hits_of(set->all[i].name);
    if (!ok)
        set_free(&set);
    return set;
}

/* ---- life ---- */

front_rules *front_rules_parse(span yaml, const char *name, error *err)
{
    front_rules *rules = calloc(1, sizeof *rules);
    if (rules) {
        rules->match  = pcre2_match_data_create(1, NULL);
        rules->limits = pcre2_match_context_create(NULL);
    }
    if (!rules || !rules->match || !rules->limits) {
        error_set(err, ERR_NO_MEMORY, "%s: no memory for its rules", name);
        front_rules_free(&rules);
        return NULL;
    }
    pcre2_set_match_limit(rules->limits, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(rules->limits, MATCH_STEPS_MAX / 10);
    pcre2_set_heap_limit(rules->limits, MATCH_HEAP_KIB_MAX);
    rules->set = set_parse(yaml, name, err);
    if (!rules->set)
        front_rules_free(&rules);
    return rules;
}

void front_rules_free(front_rules **rules)
{
    if (!*rules)
        return;
    set_free(&(*rules)->set);
    pcre2_match_data_free((*rules)->match);
    pcre2_match_context_free((*rules)->limits);
    free((*rules)->path);
    free(*rules);
    *rules = NULL;
}

size_t front_rules_count(const front_rules *rules)
{
    return rules->set->n;
}

/* The whole file, to be freed; NULL with *err. */
static char *read_file(const char *path, size_t *bytes, struct stat *seen, error *err)
{
    int     fd   = open(path, O_RDONLY | O_CLOEXEC);
    char   *text = fd >= 0 ? malloc(FRONT_FILE_BYTES_MAX + 1) : NULL;
    ssize_t n    = 1;
    bool    ok   = false;
    *bytes       = 0;
    memset(seen, 0, sizeof *seen);
    while (text && n > 0 && *bytes <= FRONT_FILE_BYTES_MAX) {
        n = read(fd, text + *bytes, FRONT_FILE_BYTES_MAX + 1 - *bytes);
        *bytes += n > 0 ? (size_t)n : 0;
    }
    if (!text || n < 0 || fstat(fd, seen) != 0)
        error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    else if (*bytes > FRONT_FILE_BYTES_MAX)
        error_set(err, ERR_TOO_LARGE, "%s: a file of rules has at most %d bytes", path, FRONT_FILE_BYTES_MAX);
    else if (seen->st_nlink == 0)
        error_set(err, ERR_IO, "%s: the file was removed while it was read", path);
    else
        ok = true;
    if (fd >= 0)
        close(fd);
    if (!ok)
        free(text);
    return ok ? text : NULL;
}

front_rules *front_rules_load(const char *path, error *err)
{
    struct stat  seen;
    size_t       bytes;
    char        *text  = read_file(path, &bytes, &seen, err);
    front_rules *rules = text ? front_rules_parse((span){text, bytes}, path, err) : NULL;
    free(text);
    if (rules) {
        rules->seen = seen;
        rules->path = strdup(path);
        if (!rules->path) {
            error_set(err, ERR_NO_MEMORY, "%s: no memory for its rules", path);
            front_rules_free(&rules);
        }
    }
    return rules;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool front_rules_reload(front_rules *rules, bool force, bool *changed, error *err)
{
    struct stat now;
    size_t      bytes;
    if (changed)
        *changed = false;
    if (!rules->path)
        return true;
    if (stat(rules->path, &now) != 0)
        memset(&now, 0, sizeof now); /* said once: a file that is missing stays the same */
    if (!force && is_same_file(&now, &rules->seen))
        return true;
    char     *text = read_file(rules->path, &bytes, &rules->seen, err);
    rule_set *set  = text ? set_parse((span){text, bytes}, rules->path, err) : NULL;
    free(text);
    if (!set)
        return false;
    set_free(&rules->set);
    rules->set = set;
    if (changed)
        *changed = true;
    return true;
}

/* ---- matching ---- */

bool front_rules_match(const front_rules *rules, span question, front_answer *out)
{
    int64_t until_ns = clock_now_ns(clock_system()) + MATCH_ALL_MS * NS_PER_MS;
    if (question.size > FRONT_QUESTION_BYTES_MAX || !utf8_is_valid(question))
        return false;
    for (uint32_t i = 0; i < rules->set->n; i++) {
        const front_rule *rule = &rules->set->all[i];
        for (uint32_t k = 0; k < rule->n_patterns; k++) {
            int found = pcre2_match(rule->patterns[k], (PCRE2_SPTR)question.data, question.size, 0, PCRE2_NO_UTF_CHECK,
                                    rules->match, rules->limits);
            if (found >= 0) {
                metric_add(rule->hits, 1);
                *out = (front_answer){rule->name, rule->answer, rule->finish};
                return true;
            }
            if (found != PCRE2_ERROR_NOMATCH)
                log_warn("a front rule gave up on a question", "rule=%s code=%d", rule->name, found);
            if (clock_now_ns(clock_system()) > until_ns) {
                log_warn("the front rules took too long for a question", "rule=%s limit_ms=%d", rule->name,
                         MATCH_ALL_MS);
                return false;
            }
        }
    }
    return false;
}
