/* KV blocks as bytes: what one engine computed is used by another as if it were its own, to the bit. */
#include "support_engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FROM = 3, TO = 20 };

/* The first output of `plan` must be one token. */
static token_logprob first_of(engine *e, const step_plan *plan, arena *memory)
{
    step_result result = run_plan(e, plan, memory);
    assert_int_equal(1, result.n_outputs);
    assert_int_equal(1, result.outputs[0].n_logprobs);
    return result.outputs[0].logprobs[0];
}

static void a_block_carried_to_another_engine_gives_the_same_bits(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "ref"};
    for (uint32_t i = 0; i < 2 * 5; i++) {
        executor_options o    = tiny_options();
        error            err  = {0};
        o.backend             = backends[i / 5];
        o.kv_cache_dtype      = 1 + i % 5;
        o.kv_cache_memory     = TINY_BLOCKS * 8192;
        engine         *first = engine_of(&o), *second = engine_of(&o);
        arena          *memory = arena_new(engine_result_bytes(first) + 4096, &err);
        sampling_params scored = greedy();
        scored.logprobs        = true;
        assert_int_equal(engine_about(first).fingerprint, engine_about(second).fingerprint);
        assert_int_equal(engine_block_bytes(first), engine_block_bytes(second));
        token_logprob whole = first_of(
            first,
            &(step_plan){
                .step = 1,
                OPEN(.slot = 0, .tokens = known, .n_tokens = 17, .n_prompt_tokens = 17, .sampling = scored),
                ENTRY(.slot = 0, .n_tokens = 17, .blocks = U32S(FROM, 4), .n_blocks = 2, .logits = LOGITS_WANTED_LAST)},
            memory);
        void *bytes = malloc(engine_block_bytes(first));
        assert_non_null(bytes);
        engine_read_block(first, FROM, bytes);
        engine_write_block(second, TO, bytes);
        free(bytes);
        token_logprob carried = first_of(
            second,
            &(step_plan){.step = 1,
                         OPEN(.slot = 0, .tokens = known, .n_tokens = 17, .n_prompt_tokens = 17, .sampling = scored),
                         ENTRY(.slot = 0, .position = 16, .n_tokens = 1, .blocks = U32S(TO, 1), .n_blocks = 2,
                               .logits = LOGITS_WANTED_LAST)},
            memory);
        assert_int_equal(whole.token, carried.token);
        assert_memory_equal(&whole.logprob, &carried.logprob, sizeof whole.logprob);
        arena_free(&memory);
        engine_free(&first);
        engine_free(&second);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_carried_to_another_engine_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
