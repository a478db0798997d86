/* Log probabilities of one choice that wait until it is known what becomes of their tokens' text: who reads them reads
 * the tokens' bytes, so they must not say what a stop string or the output filter keeps back. */
#ifndef TROUPE_POSTPROCESSOR_HELD_LOGPROBS_H
#define TROUPE_POSTPROCESSOR_HELD_LOGPROBS_H

#include "base/arena.h"
#include "bus/messages.h"

enum {
    HELD_LOGPROBS_MAX = 640, /* more than the characters that a stop string and a keyword keep back together */
    LOGPROB_TOP_MAX   = 64,  /* the schema's */
};

typedef struct {
    token_logprob scored; /* its top is the next two arrays */
    uint32_t      top_tokens[LOGPROB_TOP_MAX];
    float         top_logprobs[LOGPROB_TOP_MAX];
    uint32_t      first, end; /* the characters of the text that the token has a part in */
    bool          is_covered;
} held_logprob;

typedef struct held_logprobs held_logprobs;

/* What held_logprobs_new takes of the arena. */
size_t         held_logprobs_bytes(void);
held_logprobs *held_logprobs_new(arena *memory); /* NULL: the arena is full */

/* Behind those that wait; one too many, of tokens without text, is forgotten. */
void held_logprobs_add(held_logprobs *h, const token_logprob *scored, uint32_t first, uint32_t end);

uint32_t held_logprobs_n(const held_logprobs *h); /* that wait */

/* The filter covered this character. */
void held_logprobs_cover(held_logprobs *h, uint32_t character);

/* Takes the oldest whose characters all left, of n_said that did, and forgets what was covered before it. NULL: none;
 * valid until the next one is added. */
const held_logprob *held_logprobs_next(held_logprobs *h, uint32_t n_said);

#endif
