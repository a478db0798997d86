/* Runs the automaton over one text. Characters that may still be part of a match wait in a ring, each with what the
 * matches found so far make of it; a character leaves once no match that is not complete can contain it. */
#include "postprocessor/output_filter.h"

#include "postprocessor/filter_rules.h"
#include "text/unicode.h"

#include <assert.h>

enum { COVER_MASK = 1, COVER_REPLACE = 2, COVER_CONTINUES = 4 /* of a replaced match, but not its first */ };

typedef struct {
    char     bytes[UTF8_BYTES_MAX];
    uint8_t  n_bytes, cover;
    bool     after_word; /* the character before is part of a word */
    uint32_t replaced;   /* keyword of the match to replace that begins here; FILTER_NONE */
} waiting_character;

struct filter_stream {
    output_filter     *filter;
    waiting_character *ring;
    uint32_t           capacity;
    uint64_t           n_in, n_out; /* characters */
    uint32_t           node;
    bool               in_word, finished;
    uint32_t           blocked_by;
    uint32_t           block; /* keyword that ends the text once this character is done; FILTER_NONE */
    uint64_t           block_start;
    void (*said)(void *self, bool is_covered); /* NULL: nobody watches */
    void *watcher;
};

_Static_assert(sizeof(filter_stream) + (FILTER_KEYWORD_BYTES_MAX + 1) * sizeof(waiting_character) + 32 <=
                   FILTER_STREAM_BYTES_MAX,
               "a stream's memory");

filter_stream *filter_stream_new(arena *memory, output_filter *f, error *err)
{
    filter_stream *s = arena_take(memory, sizeof *s);
    if (s)
        s->ring = arena_take_array(memory, f->longest_keyword + 1, sizeof *s->ring);
    if (!s || !s->ring) {
        error_set(err, ERR_NO_MEMORY, "no memory for the output filter of one choice");
        return NULL;
    }
    s->filter     = f;
    s->capacity   = f->longest_keyword + 1;
    s->blocked_by = UINT32_MAX;
    s->block      = FILTER_NONE;
    return s;
}

void filter_stream_watch(filter_stream *s, void (*said)(void *self, bool is_covered), void *self)
{
    s->said    = said;
    s->watcher = self;
}

size_t filter_output_bytes_max(size_t text_bytes)
{
    return (text_bytes + FILTER_KEYWORD_BYTES_MAX) * FILTER_EXPANSION_MAX;
}

static waiting_character *character_at(const filter_stream *s, uint64_t at)
{
    return &s->ring[at % s->capacity];
}

/* ---- matches ---- */

static bool is_written_so(const filter_stream *s, const filter_keyword *k, uint64_t start)
{
    const char *text = s->filter->texts + k->text, *end = text + k->n_bytes;
    for (uint32_t i = 0; i < k->n_characters; i++) {
        const waiting_character *c = character_at(s, start + i);
        if (end - text < c->n_bytes || memcmp(text, c->bytes, c->n_bytes) != 0)
            return false;
        text += c->n_bytes;
    }
    return text == end;
}

static void keep_block(filter_stream *s, uint32_t keyword, uint64_t start)
{
    const filter_keyword *k = &s->filter->keywords[keyword], *best = &s->filter->keywords[s->block];
    if (s->block != FILTER_NONE &&
        (start > s->block_start ||
         (start == s->block_start &&
          (k->n_characters < best->n_characters || (k->n_characters == best->n_characters && k->rule >= best->rule)))))
        return;
    s->block       = keyword;
    s->block_start = start;
}

static void keep_replacement(const filter_stream *s, waiting_character *first, uint32_t keyword)
{
    const filter_keyword *k = &s->filter->keywords[keyword], *best = &s->filter->keywords[first->replaced];
    if (first->replaced == FILTER_NONE || k->n_characters > best->n_characters ||
        (k->n_characters == best->n_characters && k->rule < best->rule))
        first->replaced = keyword;
}

static void cover(filter_stream *s, uint32_t keyword, uint64_t end)
{
    const filter_keyword *k     = &s->filter->keywords[keyword];
    filter_rule          *rule  = &s->filter->rules[k->rule];
    uint64_t              start = end - k->n_characters;
    if ((!rule->case_insensitive && !is_written_so(s, k, start)) ||
        (rule->whole_words && character_at(s, start)->after_word))
        return;
    rule->n_matches++;
    if (rule->counter)
        metric_add(rule->counter, 1);
    if (rule->action == FILTER_BLOCK) {
        keep_block(s, keyword, start);
        return;
    }
    for (uint64_t at = start; at < end; at++)
        character_at(s, at)->cover |= rule->action == FILTER_MASK ? COVER_MASK
                                      : at == start               ? COVER_REPLACE
                                                                  : COVER_REPLACE | COVER_CONTINUES;
    if (rule->action == FILTER_REPLACE)
        keep_replacement(s, character_at(s, start), keyword);
}

/* The keywords that end at the newest character: those that are matches now, or those that had to see what follows. */
static void cover_all(filter_stream *s, bool whole_words)
{
    const output_filter *f = s->filter;
    uint32_t             n = s->node;
    if (f->nodes[n].keyword == FILTER_NONE)
        n = f->nodes[n].shorter;
    for (; n; n = f->nodes[n].shorter)
        for (uint32_t k = f->nodes[n].keyword; k != FILTER_NONE; k = f->keywords[k].next)
            if (f->rules[f->keywords[k].rule].whole_words == whole_words)
                cover(s, k, s->n_in);
}

/* ---- text in and out ---- */

static void put(filter_output *out, const char *bytes, size_t n)
{
    assert(out->capacity - out->size >= n);
    memcpy(out->data + out->size, bytes, n);
    out->size += n;
}

static void put_until(filter_stream *s, uint64_t end, filter_output *out)
{
    for (; s->n_out < end; s->n_out++) {
        const waiting_character *c = character_at(s, s->n_out);
        if (s->said)
            s->said(s->watcher, c->cover != 0);
        if (c->cover & COVER_REPLACE) {
            if (c->replaced == FILTER_NONE || c->cover & COVER_CONTINUES)
                continue;
            const filter_rule *rule = &s->filter->rules[s->filter->keywords[c->replaced].rule];
            put(out, rule->replacement, rule->replacement_bytes);
        } else if (c->cover & COVER_MASK) {
            put(out, "*", 1);
        } else {
            put(out, c->bytes, c->n_bytes);
        }
    }
}

static bool end_if_blocked(filter_stream *s, filter_output *out)
{
    if (s->block == FILTER_NONE)
        return false;
    put_until(s, s->block_start, out);
    s->n_out      = s->n_in;
    s->blocked_by = s->filter->keywords[s->block].rule;
    return true;
}

/* Whether the keywords before it were whole words is known only now. A byte that is no character is in no keyword. */
static void take_character(filter_stream *s, uint32_t character, span bytes, bool is_valid)
{
    bool   is_word = is_valid && (unicode_classes(character) & UNICODE_WORD) != 0;
    char   folded[UTF8_BYTES_MAX];
    size_t n = is_valid ? utf8_encode(filter_fold(character), folded) : 0;
    if (!is_word)
        cover_all(s, true);
    assert(s->n_in - s->n_out < s->capacity);
    waiting_character *c = character_at(s, s->n_in++);
    *c = (waiting_character){.n_bytes = (uint8_t)bytes.size, .after_word = s->in_word, .replaced = FILTER_NONE};
    memcpy(c->bytes, bytes.data, bytes.size);
    s->in_word = is_word;
    if (!is_valid)
        s->node = 0;
    for (size_t i = 0; i < n; i++)
        s->node = filter_step(s->filter, s->node, (uint8_t)folded[i]);
    cover_all(s, false);
}

bool filter_stream_push(filter_stream *s, span text, filter_output *out)
{
    for (size_t at = 0; at < text.size && s->blocked_by == UINT32_MAX && !s->finished;) {
        uint32_t character;
        span     rest = {text.data + at, text.size - at};
        size_t   n    = utf8_decode(rest, &character);
        take_character(s, character, (span){rest.data, n ? n : 1}, n > 0);
        at += n ? n : 1;
        if (!end_if_blocked(s, out))
            put_until(s, s->n_in - s->filter->nodes[s->node].n_kept, out);
    }
    return s->blocked_by == UINT32_MAX;
}

bool filter_stream_finish(filter_stream *s, filter_output *out)
{
    if (s->blocked_by != UINT32_MAX || s->finished)
        return s->blocked_by == UINT32_MAX;
    s->finished = true;
    cover_all(s, true);
    if (end_if_blocked(s, out))
        return false;
    put_until(s, s->n_in, out);
    return true;
}

uint32_t filter_stream_blocked_by(const filter_stream *s)
{
    return s->blocked_by;
}

void filter_stream_check(const filter_stream *s)
{
    assert(s->n_out <= s->n_in && s->n_in - s->n_out < s->capacity);
    assert(s->node < s->filter->n_nodes);
    assert((s->blocked_by == UINT32_MAX) == (s->block == FILTER_NONE));
    assert(s->blocked_by == UINT32_MAX || (s->blocked_by < s->filter->n_rules && s->n_out == s->n_in));
    assert(s->blocked_by != UINT32_MAX || s->finished || s->n_in - s->n_out == s->filter->nodes[s->node].n_kept);
}
