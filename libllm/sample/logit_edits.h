/* What a request's own history and wishes do to its next logits: the sparse list that kern_sample takes.
 *
 * Repetition, frequency and presence penalties count the tokens so far; no_repeat_ngram bans what would complete an
 * n-gram a second time; logit_bias adds; stop tokens are banned before min_tokens. Each token stands in the list at
 * most once. */
#ifndef TROUPE_SAMPLE_LOGIT_EDITS_H
#define TROUPE_SAMPLE_LOGIT_EDITS_H

#include "base/error.h"
#include "bus/messages.h"
#include "kernels/kernels.h"

typedef struct logit_editor logit_editor;

logit_editor *logit_editor_new(uint32_t n_vocab, error *err);
void          logit_editor_free(logit_editor **e);

/* The sequence whose next token is to be sampled. */
typedef struct {
    const sampling_params *sampling;
    const uint32_t        *tokens; /* prompt, then output */
    uint32_t               n_tokens, n_prompt;
    const uint32_t        *stop_tokens;
    uint32_t               n_stop_tokens;
} logit_history;

/* Room that logit_edits_build may need for this history: never more than the vocabulary, of which each token stands in
 * the list once. */
uint32_t logit_edits_max(const logit_editor *e, const logit_history *history);

/* Writes the edits; returns how many. O(n_tokens * no_repeat_ngram) when a penalty is on, else O(n_logit_bias). */
uint32_t logit_edits_build(logit_editor *e, const logit_history *history, kern_logit_edit *edits);

#endif
