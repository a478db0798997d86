/* An engine over a tiny model, and the plans that tests give it. */
#ifndef TROUPE_TESTS_EXECUTOR_SUPPORT_ENGINE_H
#define TROUPE_TESTS_EXECUTOR_SUPPORT_ENGINE_H

#include "executor/step.h"

enum { TINY_VOCAB = 128, TINY_SLOTS = 8, TINY_POSITIONS = 64, TINY_BATCH = 32, TINY_LOGIT_ROWS = 8, TINY_BLOCKS = 64 };

#define U32S(...)                                                                                                      \
    (const uint32_t[])                                                                                                 \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

/* Defaults of the flags, the sizes above, one thread of the cpu backend. */
executor_options tiny_options(void);

/* Fails the test when the engine cannot be made. */
engine *engine_of(const executor_options *options);

/* Greedy, no penalties, no log probabilities. */
sampling_params greedy(void);

/* Runs one plan that must succeed; the result lives in `memory`, which is reset first. */
step_result run_plan(engine *e, const step_plan *plan, arena *memory);

/* `n` tokens of the vocabulary that follow from `seed`. */
void random_tokens(uint64_t seed, uint32_t *tokens, uint32_t n);

/* Opens `slot` with the prompt and KV blocks first_block.., computes it, and returns the token sampled after it. */
uint32_t run_prompt(engine *e, uint32_t slot, uint32_t first_block, const uint32_t *tokens, uint32_t n,
                    const sampling_params *sampling, arena *memory);

enum { N_PROMPT = 20 };

/* A prompt. */
static const uint32_t known[N_PROMPT] = {3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50, 28, 84, 19};

/* Fields of a step_plan: its only entry, the only slot that it opens. */
#define ENTRY(...) .entries = (const step_entry[]){{__VA_ARGS__}}, .n_entries = 1
#define OPEN(...) .opens = (const slot_open[]){{__VA_ARGS__}}, .n_opens = 1

#endif
