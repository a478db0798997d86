/* The requests whose tokens arrive, by request id. All memory is taken at the start. */
#ifndef TROUPE_POSTPROCESSOR_STREAM_H
#define TROUPE_POSTPROCESSOR_STREAM_H

#include "actor/actor.h"
#include "postprocessor/choice.h"

enum { STREAM_CHOICES_MAX = 64, STREAM_REPLY_TO_BYTES = 64 };

typedef struct stream {
    struct stream *next_in_table; /* or the next free one */
    struct stream *previous, *next;
    arena         *memory;
    envelope       envelope;  /* of its gen.open: request, attempt, deadline, trace */
    peer          *scheduler; /* who gets the credit back */
    char           reply_to[STREAM_REPLY_TO_BYTES + 1];
    output_params  output;
    output_filter *filter; /* held; NULL: none */
    choice        *choices;
    arena         *logprob_memory; /* of held ones; NULL until one comes, and few do */
    int64_t        opened_ns;      /* monotonic, for its span */
    uint32_t       n_choices, n_open;
    uint32_t       n_prompt_tokens;
    uint32_t       n_prompt_scored; /* prompt tokens whose log probabilities were handed on */
    text_position  prompt_position; /* of the next of them */
} stream;

typedef struct stream_table stream_table;

/* Room for `n_max` streams of `bytes` each. */
stream_table *stream_table_new(uint32_t n_max, size_t bytes, error *err);
void          stream_table_free(stream_table **t);

uint32_t stream_table_n(const stream_table *t);
stream  *stream_table_first(const stream_table *t); /* newest first, by stream.next */

stream *stream_find(const stream_table *t, const request_id *id);

/* A stream for e->request, empty but for its envelope; NULL when all are taken. */
stream *stream_open(stream_table *t, const envelope *e);
void    stream_close(stream_table *t, stream *s);

void stream_table_check(const stream_table *t); /* asserts every invariant */

#endif
