/* Stands in for the engine (executor/step.h) in simulations of thousands of schedules: a forward pass that costs a
 * hash.
 *
 * It has a KV cache all the same. The entry of a position is a hash of its token and of the entry before it, which is
 * read through the block table, as attention would: so a block that is given to two sequences, freed too early or found
 * under a wrong prefix changes tokens. What is sampled is a function of that entry, the seed and the position. A pass
 * takes virtual time. */
#ifndef TROUPE_TESTS_SIM_ENGINE_DOUBLE_H
#define TROUPE_TESTS_SIM_ENGINE_DOUBLE_H

#include "executor/executor.h"

enum { DOUBLE_TOKEN_FIRST = 2, DOUBLE_TOKENS = 300, DOUBLE_VOCAB = 806, DOUBLE_BLOCK_BYTES = 128 };

/* What the executor class gets as its options. */
typedef struct {
    executor_options executor;          /* first; kv_cache_memory / DOUBLE_BLOCK_BYTES blocks */
    uint32_t         step_us, token_us; /* of a pass, and more for each row */
    uint32_t         hang_us;           /* of the next pass, once: its thread hangs for so long */
} double_options;

#endif
