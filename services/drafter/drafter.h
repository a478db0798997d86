/* The drafter: guesses the next tokens of sequences, for the executor to verify. A wrong guess costs time, never a
 * token. */
#ifndef TROUPE_DRAFTER_DRAFTER_H
#define TROUPE_DRAFTER_DRAFTER_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    uint64_t max_num_seqs;  /* sequences it remembers; the least recently used goes first */
    uint64_t max_model_len; /* tokens of one sequence */
} drafter_options;

extern const option_row drafter_option_rows[];
extern const size_t     n_drafter_option_rows;

extern const actor_class drafter_class;

#endif
