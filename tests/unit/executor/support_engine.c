/* See support_engine.h. */
#include "support_engine.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

executor_options tiny_options(void)
{
    executor_options o     = {0};
    error            err   = {0};
    option_group     group = {"executor", executor_option_rows, n_executor_option_rows, &o};
    if (!option_parse(&group, 1, 0, NULL, NULL, &err))
        fail_msg("%s", err.text);
    o.model                  = TESTS_DIR "/data/models/gqa_tied.gguf";
    o.weight_cache           = "off"; /* leaves no file beside the test's data */
    o.backend                = "cpu";
    o.n_threads              = 1;
    o.max_model_len          = TINY_POSITIONS;
    o.max_num_seqs           = TINY_SLOTS / 2;
    o.max_num_batched_tokens = TINY_BATCH;
    o.max_logit_rows         = TINY_LOGIT_ROWS;
    o.kv_cache_memory        = TINY_BLOCKS * 4096; /* 2 layers, 2 heads of 16 numbers of 16 bits */
    return o;
}

engine *engine_of(const executor_options *options)
{
    error   err = {0};
    engine *e   = engine_new(options, &err);
    if (!e)
        fail_msg("%s", err.text);
    return e;
}

sampling_params greedy(void)
{
    sampling_params p = sampling_params_defaults;
    p.temperature     = 0;
    return p;
}

step_result run_plan(engine *e, const step_plan *plan, arena *memory)
{
    arena_reset(memory);
    step_result result = engine_run(e, plan, memory);
    if (result.error.size > 0)
        fail_msg("step %llu: %.*s", (unsigned long long)plan->step, SPAN_ARG(result.error));
    return result;
}

void random_tokens(uint64_t seed, uint32_t *tokens, uint32_t n)
{
    random_seeded rng = random_from_seed(seed);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (uint32_t)random_below(&rng, TINY_VOCAB);
}

uint32_t run_prompt(engine *e, uint32_t slot, uint32_t first_block, const uint32_t *tokens, uint32_t n,
                    const sampling_params *sampling, arena *memory)
{
    uint32_t   blocks[8];
    slot_open  open  = {.slot            = slot,
                        .tokens          = tokens,
                        .n_tokens        = n,
                        .n_prompt_tokens = n,
                        .sampling        = *sampling,
                        .seed            = sampling->seed};
    step_entry entry = {.slot     = slot,
                        .n_tokens = n,
                        .blocks   = blocks,
                        .n_blocks = n / KERN_KV_BLOCK_TOKENS + 1,
                        .logits   = LOGITS_WANTED_LAST};
    step_plan  plan  = {.opens = &open, .n_opens = 1, .entries = &entry, .n_entries = 1};
    assert_true(entry.n_blocks <= COUNT(blocks));
    for (uint32_t i = 0; i < entry.n_blocks; i++)
        blocks[i] = first_block + i;
    step_result result = run_plan(e, &plan, memory);
    assert_int_equal(1, result.n_outputs);
    assert_int_equal(slot, result.outputs[0].slot);
    assert_int_equal(n, result.outputs[0].position);
    assert_int_equal(1, result.outputs[0].n_tokens);
    return result.outputs[0].tokens[0];
}
