/* A text.delta in the making: the memory for one, which every stream uses in its turn. */
#ifndef TROUPE_POSTPROCESSOR_DELTA_H
#define TROUPE_POSTPROCESSOR_DELTA_H

#include "postprocessor/stream.h"

enum {
    DELTA_TOKENS_MAX = 256,     /* with log probabilities that is a message of a few MB */
    DELTA_TEXT_BYTES = 8 << 20, /* what the schema allows */
    DELTA_TEXT_SENT  = 1 << 20, /* a delta with so much text is sent, and another begun */
};

typedef struct {
    uint32_t      index, n_tokens, n_logprobs, n_top;
    bool          prompt;
    filter_output text;
    uint32_t     *tokens;   /* [DELTA_TOKENS_MAX] */
    text_logprob *logprobs; /* [DELTA_TOKENS_MAX] */
    text_top     *top;      /* [DELTA_TOKENS_MAX * LOGPROB_TOP_MAX] */
} delta;

/* Takes its arrays from `memory`. */
bool   delta_init(delta *d, arena *memory, error *err) MUST_CHECK;
size_t delta_bytes(void);

/* Empties it; its first token will be the index-th of a choice's output or, with `prompt`, of the prompt. */
void delta_begin(delta *d, uint32_t index, bool prompt);

/* No more tokens or text should be added before it is sent. */
bool delta_is_full(const delta *d);

/* One log probability; `scored` NULL: `token` is the first of a prompt and has none. */
void delta_add_logprob(delta *d, const tokenizer *t, uint32_t token, const token_logprob *scored, uint32_t text_offset);

#endif
