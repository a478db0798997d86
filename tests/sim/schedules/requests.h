/* The requests that simulated clients make, and what each says when nothing disturbs it. */
#ifndef TROUPE_TESTS_SIM_REQUESTS_H
#define TROUPE_TESTS_SIM_REQUESTS_H

#include "bus/messages.h"

enum { KINDS = 120, KIND_PROMPT_MAX = 64, KIND_TOKENS_MAX = 32, KIND_CHOICES_MAX = 4, KIND_TEXT_BYTES = 512 };

typedef struct {
    uint32_t      n_tokens, n_logprobs, n_prompt_logprobs, text_bytes;
    uint32_t      tokens[KIND_TOKENS_MAX];
    float         logprobs[KIND_TOKENS_MAX], prompt_logprobs[KIND_PROMPT_MAX];
    char          text[KIND_TEXT_BYTES];
    finish_reason finish;
    uint32_t      prompt_tokens, completion_tokens; /* of the usage */
} choice_outcome;

typedef struct {
    choice_outcome choices[KIND_CHOICES_MAX];
    uint32_t       n_finished;
    uint32_t       refused; /* error code; 0: not */
} outcome;

typedef struct {
    text_request body;
    uint32_t     prompt[KIND_PROMPT_MAX];
    char         stop_text[8];
    span         stop;
    outcome      expected;
} kind;

extern kind kinds[KINDS];

/* Draws them, and asks each in a world where nothing happens. The same in every process. */
void requests_prepare(void);

/* NULL when `got` is what `k` says, or, when it was cancelled, a beginning of it. */
const char *requests_compare(const kind *k, const outcome *got, bool cancelled);

#endif
