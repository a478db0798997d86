/* Pooled outputs of the engine: embeddings and scores. */
#include "support_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_HIDDEN = 32, N_LENGTHS = 3, N_POOLINGS = 3, POOLED_BLOCKS = 4 };

static const uint32_t lengths[N_LENGTHS] = {40, 17, 5}; /* of tests/data/models/bert.f32 */

static void *read_data(const char *name, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, TESTS_DIR "/data/models/%s", name);
    FILE *file = fopen(path, "rb");
    void *data = calloc(n, 4);
    assert_true(file && data && fread(data, 4, n, file) == n);
    fclose(file);
    return data;
}

static engine *pooling_engine(const char *path, uint32_t pooling)
{
    executor_options o       = tiny_options();
    o.model                  = path;
    o.pooling                = pooling;
    o.max_num_batched_tokens = 64;
    o.kv_cache_memory        = 1 << 20;
    return engine_of(&o);
}

/* The sequences of the reference, in slots and blocks of their own; types change in the middle. */
static void plan_pooled(const uint32_t *tokens, slot_open *opens, step_entry *entries)
{
    static uint32_t blocks[N_LENGTHS * POOLED_BLOCKS];
    for (uint32_t i = 0; i < COUNT(blocks); i++)
        blocks[i] = COUNT(blocks) - i;
    for (uint32_t i = 0; i < N_LENGTHS; i++) {
        opens[i]   = (slot_open){.slot            = i,
                                 .tokens          = tokens,
                                 .n_tokens        = lengths[i],
                                 .n_prompt_tokens = lengths[i],
                                 .sampling        = greedy(),
                                 .second_start    = lengths[i] / 2};
        entries[i] = (step_entry){.slot      = i,
                                  .n_tokens  = lengths[i],
                                  .blocks    = blocks + i * POOLED_BLOCKS,
                                  .n_blocks  = lengths[i] / KERN_KV_BLOCK_TOKENS + 1,
                                  .logits    = LOGITS_WANTED_POOLED,
                                  .no_sample = true};
    }
}

static void an_embedding_is_the_pooled_state_at_length_1(void **state)
{
    (void)state;
    uint32_t  *tokens   = read_data("tokens.u32", 40);
    float     *expected = read_data("bert.f32", N_LENGTHS * N_POOLINGS * N_HIDDEN);
    slot_open  opens[N_LENGTHS];
    step_entry entries[N_LENGTHS];
    plan_pooled(tokens, opens, entries);
    for (uint32_t pooling = 0; pooling <= N_POOLINGS; pooling++) { /* auto is the mean, then mean, cls, last */
        engine        *e     = pooling_engine(TESTS_DIR "/data/models/bert", pooling);
        executor_ready about = engine_about(e);
        arena         *own   = arena_new(engine_result_bytes(e), NULL);
        step_plan      plan  = {.opens = opens, .n_opens = 3, .entries = entries, .n_entries = 3};
        step_result    r     = run_plan(e, &plan, own);
        assert_true(about.encoder && about.n_pooled == N_HIDDEN && r.n_outputs == N_LENGTHS);
        for (uint32_t i = 0; i < N_LENGTHS; i++) {
            const float *state_of = expected + (i * N_POOLINGS + (pooling ? pooling - 1 : 0)) * N_HIDDEN;
            double       sum      = 0;
            assert_int_equal(N_HIDDEN, r.outputs[i].n_pooled);
            for (uint32_t k = 0; k < N_HIDDEN; k++)
                sum += state_of[k] * state_of[k];
            for (uint32_t k = 0; k < N_HIDDEN; k++)
                assert_true(fabs(r.outputs[i].pooled[k] - state_of[k] / sqrt(sum)) < 1e-4);
        }
        arena_free(&own);
        engine_free(&e);
    }
    free(tokens);
    free(expected);
}

static void a_score_is_what_the_classifier_gives(void **state)
{
    (void)state;
    uint32_t  *tokens   = read_data("tokens.u32", 40);
    float     *expected = read_data("bert_score.f32", N_LENGTHS);
    slot_open  opens[N_LENGTHS];
    step_entry entries[N_LENGTHS];
    engine    *e    = pooling_engine(TESTS_DIR "/data/models/bert_score", 0);
    arena     *own  = arena_new(engine_result_bytes(e), NULL);
    step_plan  plan = {.opens = opens, .n_opens = 3, .entries = entries, .n_entries = 3};
    plan_pooled(tokens, opens, entries);
    step_result r = run_plan(e, &plan, own);
    for (uint32_t i = 0; i < N_LENGTHS; i++)
        assert_true(r.outputs[i].n_pooled == 1 && fabsf(r.outputs[i].pooled[0] - expected[i]) < 1e-4f);
    arena_free(&own);
    engine_free(&e);
    free(tokens);
    free(expected);
}

static void a_model_that_generates_pools_beside_it(void **state)
{
    (void)state;
    sampling_params sampling  = greedy();
    engine         *e         = pooling_engine(TESTS_DIR "/data/models/gqa_tied.gguf", 3);
    arena          *own       = arena_new(engine_result_bytes(e), NULL);
    uint32_t        token     = run_prompt(e, 0, 0, known, N_PROMPT, &sampling, own);
    slot_open       opens[]   = {{.slot = 1, .tokens = known, .n_tokens = N_PROMPT, .sampling = sampling},
                                 {.slot = 2, .tokens = known, .n_tokens = 5, .sampling = sampling},
                                 {.slot = 3, .tokens = known, .n_tokens = N_PROMPT, .sampling = sampling}};
    step_entry      entries[] = {
             {.slot = 2, .n_tokens = 5, .blocks = U32S(4), .n_blocks = 1, .logits = LOGITS_WANTED_POOLED},
             {.slot = 1, .n_tokens = N_PROMPT, .blocks = U32S(5, 6), .n_blocks = 2, .logits = LOGITS_WANTED_LAST},
             {.slot = 3, .n_tokens = N_PROMPT, .blocks = U32S(7, 8), .n_blocks = 2, .logits = LOGITS_WANTED_POOLED}};
    step_plan   plan = {.opens = opens, .n_opens = 3, .entries = entries, .n_entries = 3};
    step_result r    = run_plan(e, &plan, own);
    assert_false(engine_about(e).encoder);
    assert_int_equal(3, r.n_outputs);
    assert_true(r.outputs[0].n_pooled == 64 && r.outputs[2].n_pooled == 64 && r.outputs[1].n_pooled == 0);
    assert_int_equal(token, r.outputs[1].tokens[0]);
    assert_memory_not_equal(r.outputs[0].pooled, r.outputs[2].pooled, 64 * sizeof(float));
    arena_free(&own);
    engine_free(&e);
}

static void what_cannot_be_pooled_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *model, *says;
        step_entry  entry;
    } cases[] = {
        {"bert", "an encoder gives pooled outputs alone", {.n_tokens = 5, .logits = LOGITS_WANTED_LAST}},
        {"bert", "an encoder gives pooled outputs alone", {.n_tokens = 5}},
        {"bert", "a pooled output of 4 of 5 tokens", {.n_tokens = 4, .logits = LOGITS_WANTED_POOLED}},
        {"bert", "a pooled output of 4 of 5 tokens", {.position = 1, .n_tokens = 4, .logits = LOGITS_WANTED_POOLED}},
        {"gqa_tied.gguf", "gives no pooled outputs", {.n_tokens = 5, .logits = LOGITS_WANTED_POOLED}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[512];
        snprintf(path, sizeof path, TESTS_DIR "/data/models/%s", cases[i].model);
        engine    *e     = pooling_engine(path, 0);
        arena     *own   = arena_new(engine_result_bytes(e), NULL);
        step_entry entry = cases[i].entry;
        entry.blocks     = U32S(1);
        entry.n_blocks   = 1;
        step_plan   plan = {OPEN(.slot = 0, .tokens = known, .n_tokens = 5), .entries = &entry, .n_entries = 1};
        step_result r    = engine_run(e, &plan, own);
        if (!r.error.data || !strstr(r.error.data, cases[i].says))
            fail_msg("expected \"%s\", got \"%.*s\"", cases[i].says, SPAN_ARG(r.error));
        arena_free(&own);
        engine_free(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_embedding_is_the_pooled_state_at_length_1),
        cmocka_unit_test(a_score_is_what_the_classifier_gives),
        cmocka_unit_test(a_model_that_generates_pools_beside_it),
        cmocka_unit_test(what_cannot_be_pooled_is_refused),
    };
    return cmocka_run_group_tests_name("executor/pooled", tests, NULL, NULL);
}
