/* Prompt lookup: what followed the last n tokens the last time they stood here is a good guess of what follows now
 * (Saxena 2023, "Prompt Lookup Decoding"; as assisted generation in transformers). Good on summaries, edits and code,
 * useless on free talk.
 *
 * An index from hashed n-gram to its latest end makes a proposal O(n) and a new token O(1), whatever the length. */
#ifndef TROUPE_DRAFTER_NGRAM_H
#define TROUPE_DRAFTER_NGRAM_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

enum { NGRAM_LONGEST = 4, NGRAM_SHORTEST = 2 };

typedef struct ngram_index ngram_index;

/* Room for `n_tokens_max` tokens, taken at once. */
ngram_index *ngram_new(uint32_t n_tokens_max, error *err);
void         ngram_free(ngram_index **index);

uint32_t ngram_n_tokens(const ngram_index *index);

/* Forgets everything behind the first `n` tokens, then adds `tokens`. False when there is no room: nothing was added.
 */
bool ngram_extend(ngram_index *index, uint32_t n, const uint32_t *tokens, uint32_t n_tokens) MUST_CHECK;

/* Up to n_max tokens that followed the longest recent n-gram the last time; returns how many. */
uint32_t ngram_propose(const ngram_index *index, uint32_t *drafts, uint32_t n_max);

#endif
