/* One choice of a request on its way from tokens to text: detokenizer and stop strings, then the output filter, and a
 * look for endless repetition. */
#ifndef TROUPE_POSTPROCESSOR_CHOICE_H
#define TROUPE_POSTPROCESSOR_CHOICE_H

#include "bus/messages.h"
#include "postprocessor/held_logprobs.h"
#include "postprocessor/output_filter.h"
#include "postprocessor/repetition.h"
#include "postprocessor/text_position.h"
#include "text/detokenizer.h"

/* Tokens that made no text yet, or whose log probabilities wait, are accounted for later; at most so many. */
enum { CHOICE_HELD_MAX = 64 };

typedef struct {
    const tokenizer     *tokenizer;
    const output_params *output;           /* its stop strings live as long as the choice */
    output_filter       *filter;           /* NULL: none */
    uint32_t             repetition_limit; /* 0: off; else at least 2 */
} choice_options;

typedef struct {
    choice_options options;
    detokenizer   *detokenizer;
    filter_stream *filter; /* NULL: none */
    repetition     repetition;
    text_position  position;      /* of the next token */
    uint32_t       n_said;        /* characters before it that left: as they are, or covered by the filter */
    held_logprobs *held_logprobs; /* NULL: none waits */
    uint32_t       n_tokens;
    uint32_t       n_held; /* the last tokens, which no delta accounted for yet */
    uint32_t       held[CHOICE_HELD_MAX];
    uint32_t       n_skipped; /* bytes of the text to come that an earlier attempt said */
    uint32_t       n_cached, n_drafted, n_accepted;
    bool           ended;
} choice;

/* Why a choice ended; reason none: it goes on. */
typedef struct {
    finish_reason reason;
    span          stop_reason; /* lives as long as the choice */
} choice_end;

/* What choice_init takes of the arena, at most. */
size_t choice_bytes(const tokenizer *t);

/* What one token, and the end after it, append at most. */
size_t choice_output_bytes_max(const tokenizer *t);

/* `c` is zero. ERR_INVALID names what is wrong with the stop strings. */
bool choice_init(choice *c, arena *memory, const choice_options *options, error *err) MUST_CHECK;

/* Adds one token and appends to *out the text that became final, but for n_skipped bytes. */
choice_end choice_push(choice *c, uint32_t token, filter_output *out);

/* Ends it: appends what was kept back. The reason is another than `reason` when the last text was blocked. */
choice_end choice_finish(choice *c, finish_reason reason, filter_output *out);

/* Whether text is kept back, or covered, and log probabilities with it: between choice_hold_logprob and
 * choice_next_logprob. */
bool choice_holds_logprobs(const choice *c);

/* Of the token that is pushed next; `is_printed` false: it has no text. c->held_logprobs is there. */
void choice_hold_logprob(choice *c, const token_logprob *scored, bool is_printed);

/* One whose text left as it is; NULL: none. Valid until the next one is held. */
const held_logprob *choice_next_logprob(choice *c);

/* Of the last tokens, how many have log probabilities that wait: another attempt would have to bring them again. */
uint32_t choice_n_unsettled(const choice *c);

/* The bytes that `token` prints as at this place of the text; empty for a control token that is skipped. */
span choice_printed(const choice *c, const text_position *at, uint32_t token);

#endif
