/* Bytes -> characters -> stop strings, one byte at a time.
 *
 * A stop string is looked for with its Knuth-Morris-Pratt automaton: its state is the length of the longest prefix of
 * the string that the text ends with, so the longest state of all is just the tail that may still become a stop string.
 */
#include "text/detokenizer.h"

#include "base/utf8.h"
#include "text/tokenizer_parts.h"
#include <assert.h>

enum { REPLACEMENT_BYTES = 3 };

typedef struct {
    const uint8_t *text;
    uint16_t      *fallback; /* [size]: the state to go on from when the byte after `state` bytes differs */
    uint16_t       size, state;
} stop_automaton;

struct detokenizer {
    const tokenizer *tokenizer;
    stop_automaton   stops[DETOKENIZER_STOPS_MAX];
    uint32_t         n_stops, stopped_by; /* UINT32_MAX while it goes on */
    bool             include_stop, specials, finished, started;
    char             partial[UTF8_BYTES_MAX]; /* the beginning of a character */
    uint32_t         n_partial;
    char            *text; /* what was handed out last, then what is kept back */
    size_t           n_text, n_final, capacity;
    uint64_t         n_bytes;
};

/* The failure function of Knuth, Morris and Pratt, 1977. */
static bool compile_stop(arena *memory, span text, stop_automaton *stop)
{
    span copy      = arena_copy(memory, text);
    stop->text     = (const uint8_t *)copy.data;
    stop->size     = (uint16_t)text.size;
    stop->fallback = arena_take_array(memory, text.size + 1, sizeof *stop->fallback);
    if (!copy.data || !stop->fallback)
        return false;
    for (uint16_t i = 1, k = 0; i < stop->size; i++) {
        while (k > 0 && stop->text[i] != stop->text[k])
            k = stop->fallback[k];
        k += stop->text[i] == stop->text[k];
        stop->fallback[i + 1] = k;
    }
    return true;
}

static bool check_options(const detokenizer_options *options, error *err)
{
    if (options->n_stops > DETOKENIZER_STOPS_MAX)
        return error_set(err, ERR_INVALID, "%u stop strings; at most %d are supported", options->n_stops,
                         DETOKENIZER_STOPS_MAX);
    for (uint32_t i = 0; i < options->n_stops; i++) {
        span stop = options->stops[i];
        if (stop.size == 0 || stop.size > DETOKENIZER_STOP_BYTES_MAX || !utf8_is_valid(stop))
            return error_set(err, ERR_INVALID, "stop string %u has %zu bytes; expected 1 to %d of UTF-8", i, stop.size,
                             DETOKENIZER_STOP_BYTES_MAX);
    }
    return true;
}

detokenizer *detokenizer_new(arena *memory, const detokenizer_options *options, error *err)
{
    if (!check_options(options, err))
        return NULL;
    detokenizer *d = arena_take(memory, sizeof *d);
    if (!d) {
        error_set(err, ERR_NO_MEMORY, "no memory for a detokenizer");
        return NULL;
    }
    d->tokenizer    = options->tokenizer;
    d->include_stop = options->include_stop;
    d->specials     = options->specials;
    d->started      = options->continues;
    d->n_stops      = options->n_stops;
    d->stopped_by   = UINT32_MAX;
    /* Each byte of a token, and each of an unfinished character before it, can become one U+FFFD. */
    d->capacity =
        DETOKENIZER_STOP_BYTES_MAX + REPLACEMENT_BYTES * (UTF8_BYTES_MAX + tokenizer_longest_token(options->tokenizer));
    d->text   = arena_take(memory, d->capacity);
    bool done = d->text != NULL;
    for (uint32_t i = 0; i < d->n_stops && done; i++)
        done = compile_stop(memory, options->stops[i], &d->stops[i]);
    if (!done) {
        error_set(err, ERR_NO_MEMORY, "no memory for a detokenizer of %zu bytes", d->capacity);
        return NULL;
    }
    return d;
}

/* Adds one byte of finished text. True when it completes a stop string; the longest of several. */
static bool put_byte(detokenizer *d, char byte)
{
    assert(d->n_text < d->capacity);
    d->text[d->n_text++] = byte;
    for (uint32_t i = 0; i < d->n_stops; i++) {
        stop_automaton *s = &d->stops[i];
        while (s->state > 0 && s->text[s->state] != (uint8_t)byte)
            s->state = s->fallback[s->state];
        s->state += s->text[s->state] == (uint8_t)byte;
        if (s->state == s->size && (d->stopped_by == UINT32_MAX || s->size > d->stops[d->stopped_by].size))
            d->stopped_by = i;
    }
    return d->stopped_by != UINT32_MAX;
}

static bool put_character(detokenizer *d, uint32_t character)
{
    char   bytes[UTF8_BYTES_MAX];
    size_t n = utf8_encode(character, bytes);
    for (size_t i = 0; i < n; i++)
        if (put_byte(d, bytes[i]))
            return true;
    return false;
}

/* Adds one byte of a token: finished characters move on to the text, each ill-formed sequence as one U+FFFD (the
 * "maximal subpart" rule of Unicode 15 section 3.9, as Rust's from_utf8_lossy has it), or, where single bytes stand for
 * characters, each of its bytes (as `tokenizers`' ByteFallback has it). */
static bool put_token_byte(detokenizer *d, char byte)
{
    d->partial[d->n_partial++] = byte;
    while (d->n_partial > 0) {
        span     partial = {d->partial, d->n_partial};
        uint32_t character;
        bool     may_continue = false;
        size_t   n            = utf8_decode(partial, &character);
        if (n == 0) {
            n = utf8_invalid_length(partial, &may_continue);
            n = d->tokenizer->byte_fallback ? 1 : n;
        }
        if (may_continue)
            break;
        d->n_partial -= (uint32_t)n;
        memmove(d->partial, d->partial + n, d->n_partial);
        if (put_character(d, character))
            return true;
    }
    return false;
}

/* The bytes at the end of the text that may still become a stop string. */
static size_t n_kept_back(const detokenizer *d)
{
    size_t n = 0;
    for (uint32_t i = 0; i < d->n_stops; i++)
        n = d->stops[i].state > n ? d->stops[i].state : n;
    return n;
}

static span hand_out(detokenizer *d, size_t n)
{
    d->n_final = n;
    d->n_bytes += n;
    return (span){d->text, n};
}

static void drop_what_was_handed_out(detokenizer *d)
{
    d->n_text -= d->n_final;
    memmove(d->text, d->text + d->n_final, d->n_text);
    d->n_final = 0;
}

bool detokenizer_push(detokenizer *d, uint32_t token, span *text, uint32_t *stop_index)
{
    span bytes = d->started ? tokenizer_token_bytes(d->tokenizer, token) : tokenizer_first_bytes(d->tokenizer, token);
    drop_what_was_handed_out(d);
    if (d->stopped_by != UINT32_MAX || d->finished || (!d->specials && tokenizer_is_special(d->tokenizer, token)))
        bytes.size = 0;
    else if (tokenizer_token_bytes(d->tokenizer, token).size > 0)
        d->started = true;
    for (size_t i = 0; i < bytes.size; i++) {
        if (put_token_byte(d, bytes.data[i])) {
            size_t n    = d->n_text - (d->include_stop ? 0 : d->stops[d->stopped_by].size);
            *text       = hand_out(d, n);
            d->n_text   = n; /* what the token says behind the stop string is never said */
            *stop_index = d->stopped_by;
            return true;
        }
    }
    *text = hand_out(d, d->stopped_by == UINT32_MAX && !d->finished ? d->n_text - n_kept_back(d) : d->n_text);
    if (d->stopped_by != UINT32_MAX)
        *stop_index = d->stopped_by;
    return d->stopped_by != UINT32_MAX;
}

span detokenizer_finish(detokenizer *d)
{
    drop_what_was_handed_out(d);
    if (d->n_partial > 0 && d->stopped_by == UINT32_MAX && !d->finished) {
        uint32_t n_stops = d->n_stops;
        d->n_stops       = 0; /* nothing follows: a stop string that this would complete was not said */
        for (uint32_t i = 0; i < (d->tokenizer->byte_fallback ? d->n_partial : 1); i++)
            put_character(d, UTF8_REPLACEMENT);
        d->n_stops = n_stops;
    }
    d->finished = true;
    return hand_out(d, d->n_text);
}

uint64_t detokenizer_n_bytes(const detokenizer *d)
{
    return d->n_bytes;
}

void detokenizer_check(const detokenizer *d)
{
    assert(d->n_final <= d->n_text && d->n_text <= d->capacity);
    assert(d->n_partial < UTF8_BYTES_MAX);
    assert(d->n_stops <= DETOKENIZER_STOPS_MAX);
    assert(d->stopped_by == UINT32_MAX || d->stopped_by < d->n_stops);
    for (uint32_t i = 0; i < d->n_stops; i++) {
        const stop_automaton *s = &d->stops[i];
        assert(s->state < s->size || d->stopped_by != UINT32_MAX);
        if (d->stopped_by == UINT32_MAX && !d->finished) /* what it has matched is kept back, byte for byte */
            assert(s->state <= d->n_text - d->n_final &&
                   memcmp(d->text + d->n_text - s->state, s->text, s->state) == 0);
    }
    assert(utf8_is_valid((span){d->text, d->n_text}));
}
