/* Turns one request's token ids back into text as they arrive.
 *
 * A token may end inside a UTF-8 character or inside what could become a stop string, so text leaves later than tokens
 * come: the detokenizer keeps back the shortest tail that may still change. What it has handed out is final.
 *
 * Memory: all from `memory`, taken in detokenizer_new; no free. One owner at a time. Never allocates after
 * detokenizer_new. */
#ifndef TROUPE_TEXT_DETOKENIZER_H
#define TROUPE_TEXT_DETOKENIZER_H

#include "text/tokenizer.h"

typedef struct detokenizer detokenizer;

enum { DETOKENIZER_STOPS_MAX = 16, DETOKENIZER_STOP_BYTES_MAX = 256 };

typedef struct {
    const tokenizer *tokenizer;    /* borrowed */
    const span      *stops;        /* stop strings, copied */
    uint32_t         n_stops;      /* 0..DETOKENIZER_STOPS_MAX */
    bool             include_stop; /* hand out the stop string itself too */
    bool             specials;     /* print special tokens instead of skipping them */
    bool             continues;    /* the text goes on from another: a blank at its beginning stays */
} detokenizer_options;

/* NULL with *err set: ERR_INVALID (a stop string is empty, too long or not UTF-8) or ERR_NO_MEMORY. */
detokenizer *detokenizer_new(arena *memory, const detokenizer_options *options, error *err);

/* Adds one token. *text is what became final (valid until the next call, may be empty). Returns true when a stop string
 * is complete: *text ends before it (or after it with include_stop), *stop_index says which, and later pushes add
 * nothing. */
bool detokenizer_push(detokenizer *d, uint32_t token, span *text, uint32_t *stop_index);

/* Ends the sequence: the tail kept back, an unfinished character as U+FFFD. */
span detokenizer_finish(detokenizer *d);

/* Bytes handed out so far. */
uint64_t detokenizer_n_bytes(const detokenizer *d);

void detokenizer_check(const detokenizer *d); /* asserts every invariant */

#endif
