/* A regular expression of a tokenizer.json, in PCRE2.
 *
 * `tokenizers` reads expressions with Oniguruma. What both read alike is passed on; \s becomes \p{White_Space}, because
 * PCRE2 counts U+180E as a space; what they read differently (\w, \b, \h, ^, $, sets in sets, ...) is refused by name.
 * PCRE2 10.42 knows Unicode 14: a code point assigned later has no class here, and has one in `tokenizers`. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize_rules.h"

#include <pcre2.h>
#include <stdlib.h>

enum { MATCH_LIMIT = 10 * 1000 * 1000 }; /* backtracking steps for one match */

struct pretokenize_regex {
    pcre2_code          *code;
    pcre2_match_context *context;
    char                 pattern[]; /* as the tokenizer.json has it, for messages */
};

/* A pattern on its way into PCRE2's spelling. */
typedef struct {
    span   in;
    char  *out;
    size_t n_out;
} translation;

static void put(translation *t, const char *text, size_t n)
{
    memcpy(t->out + t->n_out, text, n);
    t->n_out += n;
}

/* The escape at in[at] ('\\'). Returns the bytes read, 0 when it means something else in PCRE2. */
static size_t translate_escape(translation *t, size_t at)
{
    size_t left = t->in.size - at;
    char   c    = left > 1 ? t->in.data[at + 1] : 0;
    if (c == 's' || c == 'S') {
        put(t, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}", 15);
        return 2;
    }
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == 0;
    if (letter && !strchr("pPdDrntvfx", c ? c : '?'))
        return 0;
    put(t, t->in.data + at, 2);
    return 2;
}

static bool translate(translation *t, error *err)
{
    bool in_set = false;
    for (size_t at = 0; at < t->in.size;) {
        span left    = {t->in.data + at, t->in.size - at};
        char c       = left.data[0];
        bool doubled = left.size > 1 && left.data[1] == c;
        if (c == '\\') {
            size_t n = translate_escape(t, at);
            if (n == 0)
                return error_set(err, ERR_UNSUPPORTED, "the expression %.*s has \\%.*s, which is not supported",
                                 SPAN_ARG(t->in), left.size > 1 ? 1 : 0, left.data + 1);
            at += n;
            continue;
        }
        bool other = in_set ? c == '[' || (c == '&' && doubled) : c == '^' || c == '$';
        if (other)
            return error_set(err, ERR_UNSUPPORTED, "the expression %.*s has %.*s at byte %zu, which is not supported",
                             SPAN_ARG(t->in), in_set && c == '&' ? 2 : 1, left.data, at);
        put(t, &c, 1);
        at++;
        if (c == '[' && !in_set) {
            in_set = true;
            if (at < t->in.size && t->in.data[at] == '^')
                put(t, &t->in.data[at++], 1);
        } else if (c == ']') {
            in_set = false;
        }
    }
    return true;
}

static bool compile(pretokenize_regex *r, span pattern, span translated, error *err)
{
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C;
    int      code;
    size_t   offset;
    r->context = pcre2_match_context_create(NULL);
    r->code    = pcre2_compile((PCRE2_SPTR)translated.data, translated.size, options, &code, &offset, NULL);
    if (!r->code) {
        char text[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return error_set(err, ERR_INVALID, "the expression %.*s: %s", SPAN_ARG(pattern), text);
    }
    if (!r->context || pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) != 0)
        return error_set(err, ERR_NO_MEMORY, "no memory to compile the expression %.*s", SPAN_ARG(pattern));
    pcre2_set_match_limit(r->context, MATCH_LIMIT);
    return true;
}

pretokenize_regex *pretokenize_regex_new(span pattern, error *err)
{
    if (pattern.size > PRETOKENIZER_PATTERN_BYTES_MAX) {
        error_set(err, ERR_UNSUPPORTED, "an expression of %zu bytes; at most %d are supported", pattern.size,
                  PRETOKENIZER_PATTERN_BYTES_MAX);
        return NULL;
    }
    pretokenize_regex *r = calloc(1, sizeof *r + pattern.size + 1);
    translation        t = {pattern, malloc(8 * pattern.size + 1), 0}; /* "\\s" grows from 2 to 15 */
    bool               done;
    if (r && t.out) {
        memcpy(r->pattern, pattern.data, pattern.size);
        done = translate(&t, err) && compile(r, pattern, (span){t.out, t.n_out}, err);
    } else {
        done = error_set(err, ERR_NO_MEMORY, "no memory for an expression of %zu bytes", pattern.size);
    }
    free(t.out);
    if (!done)
        pretokenize_regex_free(&r);
    return r;
}

void pretokenize_regex_free(pretokenize_regex **regex)
{
    if (!*regex)
        return;
    pcre2_code_free((*regex)->code);
    pcre2_match_context_free((*regex)->context);
    free(*regex);
    *regex = NULL;
}

static void *take_from_arena(size_t bytes, void *scratch)
{
    return arena_take(scratch, bytes);
}

static void leave_in_arena(void *memory, void *scratch)
{
    (void)memory, (void)scratch;
}

bool pretokenize_regex_begin(pretokenize_search *s, const pretokenize_regex *regex, span text, arena *scratch,
                             error *err)
{
    pcre2_general_context *memory = pcre2_general_context_create(take_from_arena, leave_in_arena, scratch);
    *s                            = (pretokenize_search){.regex = regex, .text = text};
    s->match_data                 = memory ? pcre2_match_data_create(1, memory) : NULL;
    return s->match_data || error_set(err, ERR_NO_MEMORY, "no scratch memory to match an expression");
}

bool pretokenize_regex_next(pretokenize_search *s, size_t *start, size_t *end, bool *found, error *err)
{
    *found = false;
    while (!*found && s->at < s->text.size) {
        int rc = pcre2_match(s->regex->code, (PCRE2_SPTR)s->text.data, s->text.size, s->at, PCRE2_NOTEMPTY,
                             s->match_data, s->regex->context);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return error_set(err, ERR_TOO_LARGE, "the tokenizer's expression %s needs too many steps for this text",
                             s->regex->pattern);
        const size_t *match = pcre2_get_ovector_pointer(s->match_data);
        *start              = match[0];
        *end = s->at = match[1];
        *found       = *end > *start;
    }
    return true;
}
