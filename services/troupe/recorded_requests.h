/* What the flight recorder's files say of requests: what was asked, and which tokens came. */
#ifndef TROUPE_TROUPE_RECORDED_REQUESTS_H
#define TROUPE_TROUPE_RECORDED_REQUESTS_H

#include "bus/bus.h"
#include "bus/messages.h"

#include <stdio.h>

enum { RECORDED_CHOICES_MAX = 64, RECORDED_INDEX_MAX = 1 << 20 };

/* Tokens of one choice, as one message had them. The same tokens may be there several times: sent, taken in, and by
 * another attempt. */
typedef struct recorded_tokens {
    uint32_t                choice, index, n_tokens;
    const uint32_t         *tokens;
    struct recorded_tokens *next;
} recorded_tokens;

typedef struct recorded_request {
    request_id       id;
    int64_t          unix_ms;     /* of the first message that names it */
    uint64_t         fingerprint; /* of the model, as an executor.ready in the same file said; 0: not known */
    span             gen;         /* body of its gen.request, of the earliest attempt that is there; empty: none */
    span             text;        /* the same of text.request */
    uint32_t         gen_attempt, text_attempt;
    int64_t          text_unix_ms;
    recorded_tokens *tokens;                       /* of gen.tokens, or else of text.delta */
    uint32_t         ends[RECORDED_CHOICES_MAX];   /* behind the last token of each choice */
    uint8_t          finish[RECORDED_CHOICES_MAX]; /* finish_reason; NONE: its end is not there */
    bool whole[RECORDED_CHOICES_MAX]; /* it came to its end by its tokens alone, and so will again: a stop token or the
                                         length, not a stop string or a client that left */

    /* While the files are read. */
    recorded_tokens         *delta_tokens;
    bool                     has_gen_tokens;
    bool                     delta_whole[RECORDED_CHOICES_MAX];
    struct recorded_request *next_of_bucket;
} recorded_request;

typedef struct recorded_requests recorded_requests;

/* Reads every *.rec file of a folder; what is torn or damaged is told on `warnings` (NULL: nobody), and the rest is
 * taken. NULL with *err set: no folder, no file, no memory. Takes as much memory as the files have bytes. */
recorded_requests *recorded_requests_read(const char *folder, FILE *warnings, error *err);
void               recorded_requests_free(recorded_requests **all);

/* Makes one of bytes in memory as if they were one file; for tests. `file` is borrowed. */
recorded_requests *recorded_requests_of(span file, error *err);

uint32_t                recorded_requests_n(const recorded_requests *all);
const recorded_request *recorded_requests_at(const recorded_requests *all, uint32_t i); /* by time */
uint64_t                recorded_requests_n_lost(const recorded_requests *all); /* messages that gaps stand for */

/* The one whose id begins with these hex digits. NULL with *err set: none, or several. */
const recorded_request *recorded_requests_find(const recorded_requests *all, const char *digits, error *err);

#endif
