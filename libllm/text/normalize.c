/* Two buffers take turns: a step reads one and writes the other. */
#include "text/normalize.h"

#include "base/utf8.h"
#include "text/pretokenize_rules.h"
#include "text/unicode.h"
#include <stdlib.h>

enum { N_BUFFERS = 2, BYTES_OF_A_BUFFER = 2 /* text and trust */ };

typedef enum {
    STEP_FORM,
    STEP_BERT,
    STEP_CHARSMAP,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_REPLACE_REGEX,
    STEP_STRIP,
    STEP_STRIP_ACCENTS,
    STEP_TRIM,
} step_kind;

typedef struct {
    step_kind          kind;
    normal_form        form;
    bert_options       bert;
    charsmap          *charsmap;
    charsmap_matching  matching;
    pretokenize_regex *regex;
    bool               left, right; /* the ends that are stripped */
    size_t             n_pattern, n_content;
    char               pattern[NORMALIZER_STRING_BYTES_MAX], content[NORMALIZER_STRING_BYTES_MAX];
} step;

struct normalizer {
    uint32_t n_steps;
    step     steps[NORMALIZER_STEPS_MAX];
    size_t   growth, prepended; /* bytes a byte, and bytes a text */
    size_t   step_scratch;      /* of the hungriest step, for a byte of the original text */
};

normalizer *normalizer_new(error *err)
{
    normalizer *n = calloc(1, sizeof *n);
    if (n)
        n->growth = 1;
    else
        error_set(err, ERR_NO_MEMORY, "no memory for a normalizer");
    return n;
}

void normalizer_free(normalizer **n)
{
    for (uint32_t i = 0; *n && i < (*n)->n_steps; i++) {
        charsmap_free(&(*n)->steps[i].charsmap);
        pretokenize_regex_free(&(*n)->steps[i].regex);
    }
    free(*n);
    *n = NULL;
}

static bool add_step(normalizer *n, step added, size_t growth, size_t scratch_per_byte, error *err)
{
    if (n->n_steps == NORMALIZER_STEPS_MAX)
        return error_set(err, ERR_UNSUPPORTED, "more than %d steps of normalization", NORMALIZER_STEPS_MAX);
    if (n->growth * growth > NORMALIZER_GROWTH_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a normalizer that can make over %d bytes of one",
                         NORMALIZER_GROWTH_MAX);
    if (scratch_per_byte * n->growth > n->step_scratch)
        n->step_scratch = scratch_per_byte * n->growth;
    n->growth *= growth;
    n->prepended *= growth;
    n->steps[n->n_steps++] = added;
    return true;
}

bool normalizer_add_form(normalizer *n, normal_form form, error *err)
{
    return add_step(n, (step){.kind = STEP_FORM, .form = form}, normal_form_growth(form), normal_form_scratch(form),
                    err);
}

bool normalizer_add_bert(normalizer *n, const bert_options *options, error *err)
{
    return add_step(n, (step){.kind = STEP_BERT, .bert = *options}, BERT_GROWTH, BERT_SCRATCH_PER_BYTE, err);
}

bool normalizer_add_trim(normalizer *n, error *err)
{
    return add_step(n, (step){.kind = STEP_TRIM}, 1, 0, err);
}

bool normalizer_add_strip(normalizer *n, bool left, bool right, error *err)
{
    return add_step(n, (step){.kind = STEP_STRIP, .left = left, .right = right}, 1, 0, err);
}

bool normalizer_add_strip_accents(normalizer *n, error *err)
{
    return add_step(n, (step){.kind = STEP_STRIP_ACCENTS}, 1, 0, err);
}

bool normalizer_add_charsmap(normalizer *n, span bytes, charsmap_matching matching, error *err)
{
    step added = {.kind = STEP_CHARSMAP, .matching = matching, .charsmap = charsmap_new(bytes, err)};
    if (!added.charsmap)
        return false;
    if (add_step(n, added, charsmap_growth(added.charsmap), 0, err))
        return true;
    charsmap_free(&added.charsmap);
    return false;
}

static bool check_string(span text, error *err)
{
    return text.size <= NORMALIZER_STRING_BYTES_MAX ||
           error_set(err, ERR_UNSUPPORTED, "a normalizer with a string of %zu bytes; at most %d are supported",
                     text.size, NORMALIZER_STRING_BYTES_MAX);
}

static bool add_strings(normalizer *n, step added, span pattern, span content, size_t growth, error *err)
{
    if (!check_string(pattern, err) || !check_string(content, err))
        return false;
    added.n_pattern = pattern.size;
    added.n_content = content.size;
    memcpy(added.pattern, pattern.data, pattern.size);
    memcpy(added.content, content.data, content.size);
    return add_step(n, added, growth ? growth : 1, 0, err);
}

bool normalizer_add_prepend(normalizer *n, span text, error *err)
{
    if (!add_strings(n, (step){.kind = STEP_PREPEND}, SPAN(""), text, 1, err))
        return false;
    n->prepended += text.size;
    return true;
}

bool normalizer_add_replace(normalizer *n, span pattern, span content, error *err)
{
    size_t growth = pattern.size ? (content.size + pattern.size - 1) / pattern.size : 0;
    if (pattern.size == 0)
        return error_set(err, ERR_INVALID, "a normalizer that replaces an empty string");
    return add_strings(n, (step){.kind = STEP_REPLACE}, pattern, content, growth, err);
}

bool normalizer_add_replace_regex(normalizer *n, span pattern, span content, error *err)
{
    step added = {.kind = STEP_REPLACE_REGEX, .regex = pretokenize_regex_new(pattern, err)};
    if (!added.regex)
        return false;
    if (add_strings(n, added, SPAN(""), content, content.size, err)) /* a match is a byte at least */
        return true;
    pretokenize_regex_free(&added.regex);
    return false;
}

static size_t saturating(size_t each, size_t n, size_t more)
{
    size_t product, sum;
    return __builtin_mul_overflow(each, n, &product) || __builtin_add_overflow(product, more, &sum) ? SIZE_MAX : sum;
}

size_t normalizer_bytes_max(const normalizer *n, size_t text_bytes)
{
    return saturating(n->growth, text_bytes, n->prepended);
}

size_t normalizer_scratch_bytes(const normalizer *n, size_t text_bytes)
{
    enum { ALIGNMENT = 16, BUFFERS = N_BUFFERS * BYTES_OF_A_BUFFER };
    if (n->n_steps == 0)
        return 0;
    size_t buffers = saturating(BUFFERS, normalizer_bytes_max(n, text_bytes), BUFFERS * (UTF8_BYTES_MAX + ALIGNMENT));
    return saturating(n->step_scratch, text_bytes, buffers);
}

/* ---- running ---- */

/* Where a step writes. */
typedef struct {
    char    *data;
    uint8_t *trusted;
    size_t   size;
} target;

static void put(target *out, const char *bytes, size_t n, bool trusted)
{
    memcpy(out->data + out->size, bytes, n);
    memset(out->trusted + out->size, trusted, n);
    out->size += n;
}

static void copy(target *out, marked_text text, size_t start, size_t end)
{
    memcpy(out->data + out->size, text.data + start, end - start);
    memcpy(out->trusted + out->size, text.trusted + start, end - start);
    out->size += end - start;
}

static void put_for(target *out, const step *s, marked_text text, size_t start, size_t end)
{
    put(out, s->content, s->n_content, memchr(text.trusted + start, 0, end - start) == NULL);
}

static bool run_prepend(const step *s, marked_text text, target *out)
{
    if (text.size > 0)
        put_for(out, s, text, 0, 1);
    copy(out, text, 0, text.size);
    return true;
}

/* The pattern is one byte: what lies between is a word, too short to be worth a call. */
static bool run_replace_byte(const step *s, marked_text text, target *out)
{
    char    *data    = out->data;
    uint8_t *trusted = out->trusted;
    for (size_t at = 0; at < text.size; at++) {
        if (text.data[at] != s->pattern[0]) {
            *data++    = text.data[at];
            *trusted++ = text.trusted[at];
            continue;
        }
        for (size_t i = 0; i < s->n_content; i++) {
            *data++    = s->content[i];
            *trusted++ = text.trusted[at];
        }
    }
    out->size = (size_t)(data - out->data);
    return true;
}

static bool run_replace(const step *s, marked_text text, target *out)
{
    for (size_t at = 0; at < text.size;) {
        const char *found = memmem(text.data + at, text.size - at, s->pattern, s->n_pattern);
        size_t      end   = found ? (size_t)(found - text.data) : text.size;
        copy(out, text, at, end);
        if (found)
            put_for(out, s, text, end, end + s->n_pattern);
        at = end + (found ? s->n_pattern : 0);
    }
    return true;
}

static bool run_replace_regex(const step *s, marked_text text, target *out, arena *scratch, error *err)
{
    size_t             mark = arena_mark(scratch), done = 0, start, end;
    bool               found = true;
    pretokenize_search search;
    if (!pretokenize_regex_begin(&search, s->regex, (span){text.data, text.size}, scratch, err))
        return false;
    while (found) {
        if (!pretokenize_regex_next(&search, &start, &end, &found, err))
            return false;
        copy(out, text, done, found ? start : text.size);
        if (found)
            put_for(out, s, text, start, end);
        done = end;
    }
    arena_rewind(scratch, mark);
    return true;
}

static bool run_strip(const step *s, marked_text text, target *out)
{
    size_t start = 0, end = text.size;
    span   all = {text.data, text.size};
    while (s->left && start < end && unicode_at(all, start).classes & UNICODE_SPACE)
        start += unicode_at(all, start).n_bytes;
    while (s->right && end > start && unicode_before(all, end).classes & UNICODE_SPACE)
        end -= unicode_before(all, end).n_bytes;
    copy(out, text, start, end);
    return true;
}

static bool run_strip_accents(marked_text text, target *out)
{
    for (size_t at = 0, n; at < text.size; at += n) {
        uint32_t c;
        n = utf8_decode((span){text.data + at, text.size - at}, &c);
        if (n == 0 || !bert_is_accent(c))
            copy(out, text, at, at + (n ? n : 1));
        n = n ? n : 1;
    }
    return true;
}

static bool run_trim(marked_text text, target *out)
{
    size_t end = text.size;
    while (end > 0 && text.data[end - 1] == ' ')
        end--;
    for (size_t at = 0; at < end; at++)
        if (text.data[at] != ' ' || (at > 0 && out->size > 0 && text.data[at - 1] != ' '))
            put(out, text.data + at, 1, text.trusted[at]);
    return true;
}

static bool run_on_one_origin(const step *s, span text, bool trusted, target *out, arena *scratch, error *err)
{
    size_t n = 0, mark = arena_mark(scratch);
    span   normal;
    bool   done;
    if (s->kind == STEP_BERT) {
        done = bert_normalize(&s->bert, text, scratch, out->data + out->size, &n, err);
    } else if (s->kind == STEP_CHARSMAP) {
        done = true;
        n    = charsmap_normalize(s->charsmap, text, s->matching, out->data + out->size);
    } else {
        done = normal_form_of(text, s->form, scratch, &normal, err);
        n    = done ? normal.size : 0;
        if (n)
            memcpy(out->data + out->size, normal.data, n);
    }
    memset(out->trusted + out->size, trusted, n);
    out->size += n;
    arena_rewind(scratch, mark);
    return done;
}

static bool run_by_origin(const step *s, marked_text text, target *out, arena *scratch, error *err)
{
    for (size_t at = 0, end; at < text.size; at = end) {
        const uint8_t *other = memchr(text.trusted + at, !text.trusted[at], text.size - at);
        end                  = other ? (size_t)(other - text.trusted) : text.size;
        if (!run_on_one_origin(s, (span){text.data + at, end - at}, text.trusted[at], out, scratch, err))
            return false;
    }
    return true;
}

static bool run_step(const step *s, marked_text text, target *out, arena *scratch, error *err)
{
    switch (s->kind) {
    case STEP_PREPEND:
        return run_prepend(s, text, out);
    case STEP_REPLACE:
        return s->n_pattern == 1 ? run_replace_byte(s, text, out) : run_replace(s, text, out);
    case STEP_REPLACE_REGEX:
        return run_replace_regex(s, text, out, scratch, err);
    case STEP_STRIP:
        return run_strip(s, text, out);
    case STEP_STRIP_ACCENTS:
        return run_strip_accents(text, out);
    case STEP_TRIM:
        return run_trim(text, out);
    case STEP_FORM:
    case STEP_BERT:
    case STEP_CHARSMAP:
        break;
    }
    return run_by_origin(s, text, out, scratch, err);
}

bool normalizer_run(const normalizer *n, marked_text *text, arena *scratch, error *err)
{
    target buffers[N_BUFFERS];
    size_t most = n->growth * text->size + n->prepended + UTF8_BYTES_MAX;
    for (size_t i = 0; i < N_BUFFERS && n->n_steps > 0; i++) {
        buffers[i] = (target){arena_take_uncleared(scratch, most), arena_take_uncleared(scratch, most), 0};
        if (!buffers[i].data || !buffers[i].trusted)
            return error_set(err, ERR_NO_MEMORY, "no scratch memory to normalize a text of %zu bytes", text->size);
    }
    for (uint32_t i = 0; i < n->n_steps; i++) {
        target *out = &buffers[i % N_BUFFERS];
        out->size   = 0;
        if (!run_step(&n->steps[i], *text, out, scratch, err))
            return false;
        *text = (marked_text){out->data, out->trusted, out->size};
    }
    return true;
}
