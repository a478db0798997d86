/* The list of steps, and how pieces run through it. */
#include "text/pretokenize.h"

#include "base/utf8.h"
#include "text/pretokenize_rules.h"
#include "text/unicode.h"
#include <stdlib.h>

/* Steps only a pretokenizer makes of what it is given. */
enum { STEP_GPT2_SINGLE_DIGITS = PRETOKENIZE_PREFIX_SPACE + 1, STEP_METASPACE, STEP_REGEX };

#define BLANK SPAN("\xE2\x96\x81") /* U+2581 */

typedef struct {
    int                  kind; /* a pretokenize_rule or one of the above */
    pretokenize_regex   *regex;
    pretokenize_behavior behavior;
    metaspace_prefix     prefix;
} step;

struct pretokenizer {
    uint32_t n_steps;
    step     steps[PRETOKENIZER_STEPS_MAX];
};

/* One run's fixed arguments. */
typedef struct {
    const pretokenizer *pretokenizer;
    arena              *scratch;
    pretokenize_sink    sink;
    void               *context;
    error              *err;
    const char         *first; /* where the whole text begins; NULL where that is not in this run */
} run;

pretokenizer *pretokenizer_new(error *err)
{
    pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        error_set(err, ERR_NO_MEMORY, "no memory for a pre-tokenizer");
    return p;
}

void pretokenizer_free(pretokenizer **p)
{
    if (!*p)
        return;
    for (uint32_t i = 0; i < (*p)->n_steps; i++)
        pretokenize_regex_free(&(*p)->steps[i].regex);
    free(*p);
    *p = NULL;
}

static bool add_step(pretokenizer *p, step added, error *err)
{
    if (p->n_steps == PRETOKENIZER_STEPS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "more than %d pre-tokenizer steps", PRETOKENIZER_STEPS_MAX);
    p->steps[p->n_steps++] = added;
    return true;
}

bool pretokenizer_add(pretokenizer *p, pretokenize_rule rule, error *err)
{
    if (rule == PRETOKENIZE_GPT2 && p->n_steps > 0 && p->steps[p->n_steps - 1].kind == PRETOKENIZE_DIGITS) {
        p->steps[p->n_steps - 1].kind = STEP_GPT2_SINGLE_DIGITS; /* both in one pass */
        return true;
    }
    return add_step(p, (step){.kind = (int)rule}, err);
}

bool pretokenizer_add_regex(pretokenizer *p, span pattern, pretokenize_behavior behavior, error *err)
{
    static const struct {
        const char      *pattern;
        pretokenize_rule rule;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", PRETOKENIZE_GPT2},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         PRETOKENIZE_LLAMA3},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         PRETOKENIZE_QWEN2},
        {"\\p{N}", PRETOKENIZE_DIGITS},
        {"\\p{N}+", PRETOKENIZE_DIGIT_RUNS},
    };
    for (size_t i = 0; i < COUNT(known) && behavior == PRETOKENIZE_ISOLATED; i++)
        if (span_is(pattern, known[i].pattern))
            return pretokenizer_add(p, known[i].rule, err);
    step added  = {.kind = STEP_REGEX, .behavior = behavior};
    added.regex = pretokenize_regex_new(pattern, err);
    if (!added.regex)
        return false;
    if (add_step(p, added, err))
        return true;
    pretokenize_regex_free(&added.regex);
    return false;
}

bool pretokenizer_add_metaspace(pretokenizer *p, metaspace_prefix prefix, error *err)
{
    if (pretokenizer_growth(p) > 1)
        return error_set(err, ERR_UNSUPPORTED, "more than one pre_tokenizer of type Metaspace is not supported");
    return add_step(p, (step){.kind = STEP_METASPACE, .prefix = prefix}, err);
}

size_t pretokenizer_growth(const pretokenizer *p)
{
    for (uint32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].kind == STEP_METASPACE)
            return BLANK.size;
    return 1;
}

static size_t next_piece(int kind, span text, size_t at)
{
    switch (kind) {
    case PRETOKENIZE_GPT2:
        return pretokenize_next_gpt2(text, at, false);
    case STEP_GPT2_SINGLE_DIGITS:
        return pretokenize_next_gpt2(text, at, true);
    case PRETOKENIZE_LLAMA3:
        return pretokenize_next_llama3(text, at, 3);
    case PRETOKENIZE_QWEN2:
        return pretokenize_next_llama3(text, at, 1);
    case PRETOKENIZE_DIGITS:
        return pretokenize_next_digits(text, at, true);
    case PRETOKENIZE_DIGIT_RUNS:
        return pretokenize_next_digits(text, at, false);
    case PRETOKENIZE_WHITESPACE:
        return pretokenize_next_bert(text, at, false);
    case PRETOKENIZE_BERT:
        return pretokenize_next_bert(text, at, true);
    case PRETOKENIZE_WORDS:
        return pretokenize_next_word(text, at);
    case PRETOKENIZE_PUNCTUATION:
        return pretokenize_next_punctuation(text, at);
    case PRETOKENIZE_BLANK_WORDS:
        return pretokenize_next_blank(text, at, true);
    case PRETOKENIZE_BLANK_RUNS:
        return pretokenize_next_blank(text, at, false);
    }
    return text.size;
}

static bool run_from(const run *r, uint32_t n_done, span text);

static bool run_prefix_space(const run *r, uint32_t n_done, span text)
{
    if (text.data[0] == ' ')
        return run_from(r, n_done + 1, text);
    size_t mark = arena_mark(r->scratch);
    char  *copy = text.size < SIZE_MAX ? arena_take(r->scratch, text.size + 1) : NULL;
    if (!copy)
        return error_set(r->err, ERR_NO_MEMORY, "no scratch memory to encode a text of %zu bytes", text.size);
    copy[0] = ' ';
    memcpy(copy + 1, text.data, text.size);
    bool done = run_from(r, n_done + 1, (span){copy, text.size + 1});
    arena_rewind(r->scratch, mark);
    return done;
}

static bool begins_with_blank(span text)
{
    return text.size >= BLANK.size && memcmp(text.data, BLANK.data, BLANK.size) == 0;
}

static bool run_metaspace(const run *r, uint32_t n_done, span text)
{
    metaspace_prefix prefix = r->pretokenizer->steps[n_done].prefix;
    size_t           mark = arena_mark(r->scratch), n = 0;
    bool             prefixed = prefix == METASPACE_ALWAYS || (prefix == METASPACE_FIRST && text.data == r->first);
    if (text.size > SIZE_MAX / BLANK.size - 1)
        return error_set(r->err, ERR_TOO_LARGE, "a text of %zu bytes", text.size);
    char *copy = arena_take(r->scratch, BLANK.size * (text.size + 1));
    if (!copy)
        return error_set(r->err, ERR_NO_MEMORY, "no scratch memory to encode a text of %zu bytes", text.size);
    if (prefixed && text.data[0] != ' ' && !begins_with_blank(text)) {
        memcpy(copy, BLANK.data, BLANK.size);
        n = BLANK.size;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] != ' ') {
            copy[n++] = text.data[i];
            continue;
        }
        memcpy(copy + n, BLANK.data, BLANK.size);
        n += BLANK.size;
    }
    bool done = run_from(r, n_done + 1, (span){copy, n});
    arena_rewind(r->scratch, mark);
    return done;
}

/* What lies between two matches. Where it is to vanish, bytes that are not UTF-8 stay: no expression can match them. */
static bool run_gap(const run *r, uint32_t n_done, span gap)
{
    if (gap.size == 0)
        return true;
    if (r->pretokenizer->steps[n_done].behavior != PRETOKENIZE_KEEP_MATCHES)
        return run_from(r, n_done + 1, gap);
    for (size_t at = 0; at < gap.size;) {
        at += utf8_valid_prefix((span){gap.data + at, gap.size - at});
        size_t start = at;
        for (uint32_t c; at < gap.size && utf8_decode((span){gap.data + at, gap.size - at}, &c) == 0;)
            at++;
        if (at > start && !run_from(r, n_done + 1, (span){gap.data + start, at - start}))
            return false;
    }
    return true;
}

static bool run_regex(const run *r, uint32_t n_done, span text)
{
    const step        *s    = &r->pretokenizer->steps[n_done];
    size_t             mark = arena_mark(r->scratch);
    size_t             done = 0, start, end;
    bool               found;
    pretokenize_search search;
    if (!pretokenize_regex_begin(&search, s->regex, text, r->scratch, r->err))
        return false;
    do {
        if (!pretokenize_regex_next(&search, &start, &end, &found, r->err))
            return false;
        if (!found)
            start = end = text.size;
        bool joins = s->behavior == PRETOKENIZE_JOIN_TO_GAPS && start > done;
        if (!run_gap(r, n_done, (span){text.data + done, (joins ? end : start) - done}))
            return false;
        if (found && !joins && s->behavior != PRETOKENIZE_KEEP_GAPS &&
            !run_from(r, n_done + 1, (span){text.data + start, end - start}))
            return false;
        done = end;
    } while (found);
    arena_rewind(r->scratch, mark);
    return true;
}

static bool run_from(const run *r, uint32_t n_done, span text)
{
    if (n_done == r->pretokenizer->n_steps)
        return r->sink(r->context, text, r->err);
    int kind = r->pretokenizer->steps[n_done].kind;
    if (kind == PRETOKENIZE_PREFIX_SPACE)
        return run_prefix_space(r, n_done, text);
    if (kind == STEP_METASPACE)
        return run_metaspace(r, n_done, text);
    if (kind == STEP_REGEX)
        return run_regex(r, n_done, text);
    bool drops_spaces = kind == PRETOKENIZE_WHITESPACE || kind == PRETOKENIZE_BERT || kind == PRETOKENIZE_WORDS;
    for (size_t at = 0; at < text.size;) {
        unicode_character space = drops_spaces ? unicode_at(text, at) : (unicode_character){0};
        if (space.classes & UNICODE_SPACE) {
            at += space.n_bytes;
            continue;
        }
        size_t end = next_piece(kind, text, at);
        if (!run_from(r, n_done + 1, (span){text.data + at, end - at}))
            return false;
        at = end;
    }
    return true;
}

bool pretokenizer_run(const pretokenizer *p, span text, bool at_start, arena *scratch, pretokenize_sink sink,
                      void *context, error *err)
{
    run r = {p, scratch, sink, context, err, at_start ? text.data : NULL};
    return text.size == 0 || run_from(&r, 0, text);
}
