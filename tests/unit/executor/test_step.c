/* The engine alone: plans in, tokens out, over a tiny model on the cpu backend. */
#include "support_engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static engine *tiny;
static arena  *memory;

static int set_up(void **state)
{
    (void)state;
    executor_options o   = tiny_options();
    error            err = {0};
    tiny                 = engine_of(&o);
    memory               = arena_new(engine_result_bytes(tiny) + 4096, &err);
    assert_non_null(memory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    engine_free(&tiny);
    arena_free(&memory);
    return 0;
}

/* ---- what a plan may not ask for ---- */

static const uint32_t zeros[TINY_POSITIONS + 1];

/* Each comes when slot 0 holds 20 tokens of prompt and one sampled, with KV blocks 0 and 1. */
static const struct {
    const char *says;
    step_plan   plan;
} refusals[] = {
    {"slot 8 of 8", {OPEN(.slot = 8, .tokens = known, .n_tokens = 1)}},
    {"slot 4294967295 of 8", {OPEN(.slot = UINT32_MAX, .tokens = known, .n_tokens = 1)}},
    {"slot 0 is open already", {OPEN(.slot = 0, .tokens = known, .n_tokens = 1)}},
    {"slot 1: 65 tokens, 0 of them prompt, 64 positions", {OPEN(.slot = 1, .tokens = zeros, .n_tokens = 65)}},
    {"slot 1: 1 tokens, 2 of them", {OPEN(.slot = 1, .tokens = known, .n_tokens = 1, .n_prompt_tokens = 2)}},
    {"slot 1: token 128 of a vocabulary of 128", {OPEN(.slot = 1, .tokens = U32S(128), .n_tokens = 1)}},
    {"1 blocks to copy to 2", {.copy_from = U32S(1), .n_copy_from = 1, .copy_to = U32S(2, 3), .n_copy_to = 2}},
    {"a copy of KV block 1 to 1", {.copy_from = U32S(1), .n_copy_from = 1, .copy_to = U32S(1), .n_copy_to = 1}},
    {"a copy of KV block 64 to 2", {.copy_from = U32S(64), .n_copy_from = 1, .copy_to = U32S(2), .n_copy_to = 1}},
    {"a copy of KV block 1 to 64", {.copy_from = U32S(1), .n_copy_from = 1, .copy_to = U32S(64), .n_copy_to = 1}},
    {"slot 9 is not open", {ENTRY(.slot = 9, .n_tokens = 1)}},
    {"slot 1 is not open", {ENTRY(.slot = 1, .n_tokens = 1)}},
    {"slot 0: more than 64 positions",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .append = zeros, .n_append = 44)}},
    {"slot 0: token 128 of a vocabulary of 128",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .append = U32S(5, 128), .n_append = 2)}},
    {"slot 0: block table entry 7 of 6",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .block_start = 6, .blocks = U32S(2), .n_blocks = 1)}},
    {"slot 0: block table entry 4294967296 of 6",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .block_start = UINT32_MAX, .blocks = U32S(2), .n_blocks = 1)}},
    {"slot 0: KV block 64 of 64",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .block_start = 2, .blocks = U32S(64), .n_blocks = 1)}},
    {"slot 0: rows up to position 22 of 21 known", {ENTRY(.slot = 0, .position = 21, .n_tokens = 1)}},
    {"slot 0: rows up to position 4294967296", {ENTRY(.slot = 0, .position = UINT32_MAX, .n_tokens = 1)}},
    {"slot 0: rows up to position 4294967315", {ENTRY(.slot = 0, .position = 20, .n_tokens = UINT32_MAX)}},
    {"slot 0: rows up to position 20 of 21 known",
     {ENTRY(.slot = 0, .position = 19, .n_tokens = 1, .drafts = U32S(1), .n_drafts = 1)}},
    {"slot 0: rows up to position 20 of 21 known",
     {ENTRY(.slot = 0, .position = 19, .n_tokens = 1, .logits = LOGITS_WANTED_LAST)}},
    {"slot 0: no KV block for position 32",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .drafts = zeros, .n_drafts = 12)}},
    {"slot 0: draft 128 of a vocabulary of 128",
     {ENTRY(.slot = 0, .position = 20, .n_tokens = 1, .drafts = U32S(1, 128), .n_drafts = 2)}},
    {"more than 32 tokens in a step",
     {.entries = (const step_entry[]){{.slot = 0, .n_tokens = 20}, {.slot = 0, .n_tokens = 13}}, .n_entries = 2}},
    {"more than 8 rows of logits", {ENTRY(.slot = 0, .n_tokens = 9, .logits = LOGITS_WANTED_ALL)}},
};

static void a_plan_that_asks_for_the_impossible_is_refused_and_the_next_one_runs(void **state)
{
    (void)state;
    sampling_params sampling = greedy();
    uint32_t        token    = run_prompt(tiny, 0, 0, known, N_PROMPT, &sampling, memory);
    for (size_t i = 0; i < COUNT(refusals); i++) {
        step_plan plan = refusals[i].plan;
        plan.step      = 100 + i;
        arena_reset(memory);
        step_result result = engine_run(tiny, &plan, memory);
        assert_int_equal(100 + i, result.step);
        assert_int_equal(0, result.n_outputs);
        if (!result.error.data || !strstr(result.error.data, refusals[i].says))
            fail_msg("expected \"%s\", got \"%.*s\"", refusals[i].says, SPAN_ARG(result.error));
        step_plan close = {.closes = U32S(0, 1, 77), .n_closes = 3};
        run_plan(tiny, &close, memory);
        assert_int_equal(token, run_prompt(tiny, 0, 0, known, N_PROMPT, &sampling, memory));
    }
}

static void a_result_that_does_not_fit_says_so(void **state)
{
    (void)state;
    step_plan   plan    = {OPEN(.slot = 1, .tokens = known, .n_tokens = 5),
                           ENTRY(.slot = 1, .n_tokens = 5, .blocks = U32S(1), .n_blocks = 1, .logits = LOGITS_WANTED_LAST)};
    const char *texts[] = {"the step failed, and there is no memory to say why",
                           "the step's result does not fit into its memory"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        arena *small = arena_new(i ? 64 : 16, NULL);
        assert_non_null(small);
        step_result result = engine_run(tiny, &plan, small);
        assert_true(span_is(result.error, texts[i]));
        arena_free(&small);
        engine_reset(tiny);
    }
    run_plan(tiny, &plan, memory);
}

static void the_fullest_plan_fits_into_the_memory_that_was_promised(void **state)
{
    (void)state;
    sampling_params sampling               = greedy();
    sampling.n_top_logprobs                = 64;
    sampling.logprobs                      = true;
    const uint32_t blocks[TINY_LOGIT_ROWS] = {0, 1, 2, 3, 4, 5, 6, 7};
    slot_open      opens[TINY_LOGIT_ROWS];
    step_entry     entries[TINY_LOGIT_ROWS];
    for (uint32_t i = 0; i < TINY_LOGIT_ROWS; i++) {
        opens[i] = (slot_open){.slot = i, .tokens = known, .n_tokens = 2, .sampling = sampling};
        entries[i] =
            (step_entry){.slot = i, .n_tokens = 2, .blocks = &blocks[i], .n_blocks = 1, .logits = LOGITS_WANTED_LAST};
    }
    step_plan sampled = {.opens = opens, .n_opens = 8, .entries = entries, .n_entries = 8};
    step_plan drafted = {.opens = opens, .n_opens = 1, .entries = entries, .n_entries = 1};
    step_plan scored  = {.opens = opens, .n_opens = 1, .entries = entries, .n_entries = 1};
    arena    *room    = arena_new(engine_result_bytes(tiny), NULL);
    assert_non_null(room);
    assert_int_equal(8, run_plan(tiny, &sampled, room).n_outputs);
    engine_reset(tiny);
    entries[0].drafts   = known;
    entries[0].n_drafts = 7;
    assert_int_equal(1, run_plan(tiny, &drafted, room).n_outputs);
    engine_reset(tiny);
    opens[0].n_tokens = entries[0].n_tokens = 8;
    entries[0].n_drafts                     = 0;
    entries[0].logits                       = LOGITS_WANTED_ALL;
    step_result result                      = run_plan(tiny, &scored, room);
    assert_int_equal(7, result.outputs[0].n_prompt_logprobs);
    assert_int_equal(64, result.outputs[0].prompt_logprobs[6].n_top_tokens);
    assert_int_equal(1, result.outputs[0].n_logprobs);
    arena_free(&room);
}

static void a_reset_forgets_every_slot(void **state)
{
    (void)state;
    sampling_params sampling = greedy();
    uint32_t        token    = run_prompt(tiny, 3, 7, known, N_PROMPT, &sampling, memory);
    engine_reset(tiny);
    step_plan plan = {ENTRY(.slot = 3, .position = 20, .n_tokens = 1)};
    arena_reset(memory);
    assert_true(engine_run(tiny, &plan, memory).error.size > 0);
    assert_int_equal(token, run_prompt(tiny, 3, 7, known, N_PROMPT, &sampling, memory));
}

/* ---- speculation ---- */

enum { N_OUTPUT = 40 };

/* One token a step. */
static void generate_plainly(const sampling_params *sampling, uint32_t *tokens, float *logprobs)
{
    tokens[0] = run_prompt(tiny, 0, 0, known, N_PROMPT, sampling, memory);
    for (uint32_t n = 1; n < N_OUTPUT; n++) {
        step_plan   plan   = {ENTRY(.slot = 0, .position = N_PROMPT + n - 1, .n_tokens = 1, .block_start = 2,
                                    .blocks = U32S(2, 3), .n_blocks = 2, .logits = LOGITS_WANTED_LAST)};
        step_result result = run_plan(tiny, &plan, memory);
        tokens[n]          = result.outputs[0].tokens[0];
        logprobs[n]        = result.outputs[0].logprobs[0].logprob;
    }
}

/* The same, with drafts: each step another number of them is right, one is wrong, and right ones behind it are lost. */
static void drafts_are_accepted_exactly_when_they_are_what_would_be_sampled(void **state)
{
    (void)state;
    sampling_params kinds[3] = {greedy(), sampling_params_defaults, sampling_params_defaults};
    kinds[1].temperature     = 0.8f;
    kinds[1].seed            = 11;
    kinds[2].seed            = 12;
    kinds[2].top_p = 0.9f, kinds[2].repetition_penalty = 1.2f, kinds[2].frequency_penalty = 0.3f;
    for (size_t k = 0; k < COUNT(kinds); k++) {
        uint32_t tokens[N_OUTPUT];
        float    logprobs[N_OUTPUT];
        kinds[k].logprobs = true;
        engine_reset(tiny);
        generate_plainly(&kinds[k], tokens, logprobs);
        engine_reset(tiny);
        assert_int_equal(tokens[0], run_prompt(tiny, 0, 0, known, N_PROMPT, &kinds[k], memory));
        for (uint32_t n = 1, step = 0; n < N_OUTPUT; step++) {
            uint32_t drafts[7], n_drafts = N_OUTPUT - n < 7 ? N_OUTPUT - n : 7;
            uint32_t n_right = step % 8 < n_drafts ? step % 8 : n_drafts - 1, n_expected = n_right + 1;
            for (uint32_t i = 0; i < n_drafts; i++)
                drafts[i] = i == n_right ? (tokens[n + i] + 1) % TINY_VOCAB : tokens[n + i];
            step_plan   plan   = {ENTRY(.slot = 0, .position = N_PROMPT + n - 1, .n_tokens = 1, .drafts = drafts,
                                        .n_drafts = n_drafts, .block_start = 2, .blocks = U32S(2, 3), .n_blocks = 2,
                                        .logits = LOGITS_WANTED_LAST)};
            step_result result = run_plan(tiny, &plan, memory);
            assert_int_equal(n_expected, result.outputs[0].n_tokens);
            assert_int_equal(N_PROMPT + n, result.outputs[0].position);
            assert_memory_equal(tokens + n, result.outputs[0].tokens, n_expected * sizeof *tokens);
            for (uint32_t i = 0; i < n_expected; i++)
                assert_true(logprobs[n + i] == result.outputs[0].logprobs[i].logprob);
            n += n_expected;
        }
    }
}

/* ---- scoring ---- */

static void read_reference(const char *name, void *out, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, TESTS_DIR "/data/models/%s", name);
    FILE *file = fopen(path, "rb");
    if (!file || fread(out, 1, bytes, file) != bytes)
        fail_msg("%s: cannot be read", path);
    fclose(file);
}

/* The reference's logits are transformers': see tests/data/models/make_tiny.py. */
static void prompts_are_scored_alike_in_chunks_of_any_size(void **state)
{
    (void)state;
    enum { N = 40 };
    uint32_t         tokens[N];
    static float     logits[N][TINY_VOCAB];
    float            whole[N];
    uint32_t         chunks[] = {N, 1, 7, 16, 17};
    executor_options o        = tiny_options();
    o.max_num_batched_tokens  = 64;
    o.max_logit_rows          = 64;
    o.kv_cache_dtype          = 1; /* f32 */
    o.kv_cache_memory *= 2;
    engine *e    = engine_of(&o);
    arena  *room = arena_new(engine_result_bytes(e), NULL);
    read_reference("tokens.u32", tokens, sizeof tokens);
    read_reference("gqa_tied.f32", logits, sizeof logits);
    for (size_t c = 0; c < COUNT(chunks); c++) {
        slot_open open = {.slot = 0, .tokens = tokens, .n_tokens = N, .n_prompt_tokens = N, .sampling = greedy()};
        for (uint32_t first = 0; first < N; first += chunks[c]) {
            uint32_t    n      = first + chunks[c] < N ? chunks[c] : N - first;
            step_plan   plan   = {.opens   = &open,
                                  .n_opens = first == 0,
                                  ENTRY(.slot = 0, .position = first, .n_tokens = n, .blocks = U32S(4, 2, 9), .n_blocks = 3,
                                        .logits = LOGITS_WANTED_ALL, .no_sample = true)};
            step_result result = run_plan(e, &plan, room);
            bool        last   = first + n == N;
            assert_int_equal(1, result.n_outputs);
            assert_int_equal(0, result.outputs[0].n_tokens);
            assert_int_equal(n - last, result.outputs[0].n_prompt_logprobs);
            for (uint32_t i = 0; i < result.outputs[0].n_prompt_logprobs; i++) {
                const token_logprob *score = &result.outputs[0].prompt_logprobs[i];
                uint32_t             row   = first + i;
                double               sum   = 0;
                for (uint32_t v = 0; v < TINY_VOCAB; v++)
                    sum += exp((double)logits[row][v]);
                assert_int_equal(row, result.outputs[0].position + i);
                assert_int_equal(tokens[row + 1], score->token);
                assert_float_equal(logits[row][tokens[row + 1]] - log(sum), score->logprob, 2e-3);
                if (c == 0)
                    whole[row] = score->logprob;
                assert_true(whole[row] == score->logprob);
            }
        }
        engine_reset(e);
    }
    arena_free(&room);
    engine_free(&e);
}

/* ---- blocks ---- */

/* Slot 1 goes on from slot 0's twenty tokens: it shares the full block 0 and gets a copy of block 1. */
static void a_copied_block_is_as_good_as_one_that_was_computed(void **state)
{
    (void)state;
    sampling_params sampling = greedy();
    uint32_t        tokens[N_PROMPT + 1];
    memcpy(tokens, known, sizeof known);
    uint32_t token   = run_prompt(tiny, 0, 0, known, N_PROMPT, &sampling, memory);
    tokens[N_PROMPT] = token == 5 ? 6 : 5;
    step_plan fork   = {
          .copy_from   = U32S(1),
          .n_copy_from = 1,
          .copy_to     = U32S(30),
          .n_copy_to   = 1,
          OPEN(.slot = 1, .tokens = known, .n_tokens = N_PROMPT, .n_prompt_tokens = N_PROMPT, .sampling = sampling),
          ENTRY(.slot = 1, .position = N_PROMPT, .n_tokens = 1, .append = &tokens[N_PROMPT], .n_append = 1,
                .blocks = U32S(0, 30), .n_blocks = 2, .logits = LOGITS_WANTED_LAST)};
    step_plan go_on  = {ENTRY(.slot = 0, .position = N_PROMPT, .n_tokens = 1, .logits = LOGITS_WANTED_LAST)};
    uint32_t  forked = run_plan(tiny, &fork, memory).outputs[0].tokens[0];
    uint32_t  parent = run_plan(tiny, &go_on, memory).outputs[0].tokens[0];
    assert_int_equal(run_prompt(tiny, 2, 40, tokens, N_PROMPT + 1, &sampling, memory), forked);
    tokens[N_PROMPT] = token;
    assert_int_equal(run_prompt(tiny, 3, 50, tokens, N_PROMPT + 1, &sampling, memory), parent);
}

/* ---- logit edits ---- */

/* 600 sequences with a bias on each of the 128 tokens are more edits than one sampling call takes. */
static void more_logit_edits_than_one_call_takes_change_nothing(void **state)
{
    (void)state;
    enum { N = 600, GROUP = 100 };
    executor_options o       = tiny_options();
    o.max_num_seqs           = N / 2;
    o.max_num_batched_tokens = o.max_logit_rows = N;
    o.kv_cache_memory                           = N * 4096;
    engine     *e                               = engine_of(&o);
    arena      *room                            = arena_new(engine_result_bytes(e), NULL);
    slot_open  *opens                           = calloc(N, sizeof *opens);
    step_entry *entries                         = calloc(N, sizeof *entries);
    logit_bias(*bias)[TINY_VOCAB]               = calloc(N, sizeof *bias);
    uint32_t *tokens = calloc(N, sizeof *tokens), *blocks = calloc(N, sizeof *blocks);
    uint32_t *sampled = calloc(N, sizeof *sampled), n_distinct = 0;
    assert_true(room && opens && entries && bias && tokens && blocks && sampled);
    random_tokens(5, tokens, N);
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t v = 0; v < TINY_VOCAB; v++)
            bias[i][v] = (logit_bias){.token = v, .bias = (float)((i * 31 + v * 17) % 13)};
        blocks[i]                      = i;
        opens[i]                       = (slot_open){.slot = i, .tokens = &tokens[i], .n_tokens = 1, .seed = i};
        opens[i].sampling              = sampling_params_defaults;
        opens[i].sampling.logit_bias   = bias[i];
        opens[i].sampling.n_logit_bias = TINY_VOCAB;
        entries[i] =
            (step_entry){.slot = i, .n_tokens = 1, .blocks = &blocks[i], .n_blocks = 1, .logits = LOGITS_WANTED_LAST};
    }
    for (uint32_t first = 0; first < N; first += GROUP) {
        step_plan   plan   = {.opens = opens + first, .n_opens = GROUP, .entries = entries + first, .n_entries = GROUP};
        step_result result = run_plan(e, &plan, room);
        for (uint32_t i = 0; i < GROUP; i++)
            sampled[first + i] = result.outputs[i].tokens[0];
    }
    engine_reset(e);
    step_plan   all    = {.opens = opens, .n_opens = N, .entries = entries, .n_entries = N};
    step_result result = run_plan(e, &all, room);
    assert_int_equal(N, result.n_outputs);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(sampled[i], result.outputs[i].tokens[0]);
        n_distinct += i > 0 && sampled[i] != sampled[i - 1];
    }
    assert_true(n_distinct > N / 4);
    free(opens), free(entries), free(bias), free(tokens), free(blocks), free(sampled);
    arena_free(&room);
    engine_free(&e);
}

/* The tiny model, trained for `n` positions as its file says. The caller frees the path and removes the file. */
static char *model_of_context(uint32_t n)
{
    static const char key[] = "llama.context_length";
    static char       image[1 << 20];
    char             *path = strdup("/tmp/test_step_XXXXXX.gguf");
    FILE             *from = fopen(TESTS_DIR "/data/models/gqa_tied.gguf", "rb");
    int               to   = mkstemps(path, 5);
    assert_true(from && to >= 0);
    size_t size  = fread(image, 1, sizeof image, from);
    char  *value = memmem(image, size, key, strlen(key));
    assert_non_null(value);
    memcpy(value + strlen(key) + sizeof(uint32_t), &n, sizeof n); /* behind the key stands its type */
    assert_int_equal(size, write(to, image, size));
    close(to);
    fclose(from);
    return path;
}

/* 70000 tokens of which 128 are distinct. Their keys are zeros, never computed: what counts is that the step runs. */
static void a_penalty_over_a_long_history_runs(void **state)
{
    (void)state;
    enum { N = 70000, N_BLOCKS = N / KERN_KV_BLOCK_TOKENS + 1 };
    executor_options o      = tiny_options();
    char            *path   = model_of_context(2 * N);
    sampling_params  p      = greedy();
    uint32_t        *tokens = calloc(N, sizeof *tokens), *blocks = calloc(N_BLOCKS, sizeof *blocks);
    o.model             = path;
    o.max_model_len     = N + 1;
    o.kv_cache_memory   = (N_BLOCKS + 1) * 4096;
    p.frequency_penalty = 0.1f;
    engine *e           = engine_of(&o);
    arena  *room        = arena_new(engine_result_bytes(e), NULL);
    assert_true(tokens && blocks && room);
    random_tokens(9, tokens, N);
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        blocks[i] = i;
    step_plan plan = {OPEN(.slot = 0, .tokens = tokens, .n_tokens = N, .n_prompt_tokens = N, .sampling = p),
                      ENTRY(.slot = 0, .position = N - 1, .n_tokens = 1, .blocks = blocks, .n_blocks = N_BLOCKS,
                            .logits = LOGITS_WANTED_LAST)};
    assert_int_equal(1, run_plan(e, &plan, room).outputs[0].n_tokens);
    engine_free(&e);
    arena_free(&room);
    unlink(path);
    free(path), free(tokens), free(blocks);
}

/* A beam's row samples nothing and reports its likeliest tokens: of what penalties, bias and bans left. */
static void a_beam_reports_what_its_logit_edits_leave(void **state)
{
    (void)state;
    sampling_params plain = greedy(), biased;
    token_logprob   of[2];
    arena          *room[2] = {memory, arena_new(engine_result_bytes(tiny) + 4096, NULL)};
    plain.beam_width        = 4;
    plain.n_top_logprobs    = 8;
    biased                  = plain;
    biased.no_repeat_ngram  = 1;
    biased.min_tokens       = 1;
    biased.logit_bias       = (const logit_bias[]){{.token = 77, .bias = 100}};
    biased.n_logit_bias     = 1;
    for (uint32_t i = 0; i < 2; i++) {
        slot_open open   = {.slot            = i,
                            .tokens          = known,
                            .n_tokens        = N_PROMPT,
                            .n_prompt_tokens = N_PROMPT,
                            .sampling        = i ? biased : plain};
        uint32_t  stop   = i ? of[0].top_tokens[0] : 0;
        open.stop_tokens = &stop, open.n_stop_tokens = i;
        step_plan   plan = {.opens   = &open,
                            .n_opens = 1,
                            ENTRY(.slot = i, .n_tokens = N_PROMPT, .blocks = U32S(i * 2, i * 2 + 1), .n_blocks = 2,
                                  .logits = LOGITS_WANTED_LAST, .no_sample = true)};
        step_result r    = run_plan(tiny, &plan, room[i]);
        assert_int_equal(0, r.outputs[0].n_tokens);
        assert_int_equal(1, r.outputs[0].n_logprobs);
        of[i] = r.outputs[0].logprobs[0];
        assert_int_equal(8, of[i].n_top_tokens);
    }
    assert_true(of[0].top_logprobs[0] < -0.01f);
    assert_int_equal(77, of[1].top_tokens[0]);
    assert_true(of[1].top_logprobs[0] > -0.01f); /* of the edited distribution, of which 77 is nearly all */
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_not_equal(of[0].top_tokens[0], of[1].top_tokens[i]); /* too early to stop */
        for (uint32_t k = 0; k < N_PROMPT; k++)
            assert_int_not_equal(known[k], of[1].top_tokens[i]);
    }
    arena_free(&room[1]);
}

/* ---- faults of one sequence ---- */

/* Every token stands in its prompt and none may come twice: nothing is left to sample. The next plan was made before
 * anybody knew, and names the token that was not sampled; its neighbours must not notice. */
static void a_sequence_that_fails_alone_does_so_in_the_next_plan_too(void **state)
{
    (void)state;
    enum { N = TINY_VOCAB };
    executor_options o       = tiny_options();
    o.max_model_len          = 256;
    o.max_num_batched_tokens = 256;
    engine         *e        = engine_of(&o);
    arena          *room     = arena_new(engine_result_bytes(e), NULL);
    sampling_params plain = greedy(), unsayable = greedy();
    uint32_t        every[N], tokens[2];
    unsayable.no_repeat_ngram = 1;
    for (uint32_t i = 0; i < N; i++)
        every[i] = i;
    tokens[0]        = run_prompt(e, 0, 20, known, N_PROMPT, &plain, room);
    step_plan second = {ENTRY(.slot = 0, .position = N_PROMPT, .n_tokens = 1, .logits = LOGITS_WANTED_LAST)};
    tokens[1]        = run_plan(e, &second, room).outputs[0].tokens[0];
    engine_reset(e);

    slot_open opens[] = {
        {.slot = 1, .tokens = every, .n_tokens = N, .n_prompt_tokens = N, .sampling = unsayable},
        {.slot = 0, .tokens = known, .n_tokens = N_PROMPT, .n_prompt_tokens = N_PROMPT, .sampling = plain}};
    step_entry entries[] = {
        {.slot     = 1,
         .n_tokens = N,
         .blocks   = U32S(0, 1, 2, 3, 4, 5, 6, 7, 8),
         .n_blocks = 9,
         .logits   = LOGITS_WANTED_LAST},
        {.slot = 0, .n_tokens = N_PROMPT, .blocks = U32S(20, 21), .n_blocks = 2, .logits = LOGITS_WANTED_LAST}};
    step_entry ahead[] = {{.slot = 1, .position = N, .n_tokens = 1, .logits = LOGITS_WANTED_LAST},
                          {.slot = 0, .position = N_PROMPT, .n_tokens = 1, .logits = LOGITS_WANTED_LAST}};
    step_plan  plans[] = {{.opens = opens, .n_opens = 2, .entries = entries, .n_entries = 2},
                          {.entries = ahead, .n_entries = 2}};
    for (size_t i = 0; i < COUNT(plans); i++) {
        step_result result = run_plan(e, &plans[i], room);
        assert_int_equal(2, result.n_outputs);
        assert_int_equal(1, result.outputs[0].slot);
        assert_int_equal(0, result.outputs[0].n_tokens);
        assert_true(result.outputs[0].error.size > 0);
        assert_int_equal(0, result.outputs[1].slot);
        assert_int_equal(0, result.outputs[1].error.size);
        assert_int_equal(tokens[i], result.outputs[1].tokens[0]);
    }
    /* alone, and as a chunk that wants nothing; then its slot is another's */
    step_plan alone  = {.entries = ahead, .n_entries = 1};
    step_plan silent = {ENTRY(.slot = 1, .position = N, .n_tokens = 1)};
    step_plan close  = {.closes = U32S(1), .n_closes = 1};
    assert_true(run_plan(e, &alone, room).outputs[0].error.size > 0);
    assert_int_equal(0, run_plan(e, &silent, room).n_outputs);
    run_plan(e, &close, room);
    assert_int_equal(tokens[0], run_prompt(e, 1, 0, known, N_PROMPT, &plain, room));
    arena_free(&room);
    engine_free(&e);
}

/* ---- start ---- */

static void an_engine_that_cannot_be_made_says_which_flag_is_at_fault(void **state)
{
    (void)state;
    const executor_options good = tiny_options();
    executor_options       bad[6];
    static const char     *says[] = {"nowhere.gguf",
                                     "abacus",
                                     "abacus",
                                     "--max-model-len 300: the model was trained for 256",
                                     "--kv-cache-memory 8191: one block of 16 positions takes 4096 bytes",
                                     "--pooling: a model that scores pairs of texts"};
    for (size_t i = 0; i < COUNT(bad); i++)
        bad[i] = good;
    bad[0].model           = TESTS_DIR "/nowhere.gguf";
    bad[1].backend         = "abacus";
    bad[2].variant         = "abacus";
    bad[3].max_model_len   = 300;
    bad[4].kv_cache_memory = 8191;
    bad[5].model           = TESTS_DIR "/data/models/bert_score";
    bad[5].pooling         = 1;
    for (size_t i = 0; i < COUNT(bad); i++) {
        error   err = {0};
        engine *e   = engine_new(&bad[i], &err);
        assert_null(e);
        if (!strstr(err.text, says[i]))
            fail_msg("expected \"%s\" in \"%s\"", says[i], err.text);
    }
}

static void a_small_cache_bounds_the_length_of_a_sequence(void **state)
{
    (void)state;
    executor_options o = tiny_options();
    o.kv_cache_memory  = 2 * 4096;
    engine        *e   = engine_of(&o);
    executor_ready r   = engine_about(e);
    assert_int_equal(2, r.n_kv_blocks);
    assert_int_equal(32, r.max_model_len);
    engine_free(&e);
}

/* A scheduler takes executors together when these agree. */
static void engines_agree_when_their_tokens_do_whatever_the_model_is_called(void **state)
{
    (void)state;
    enum { SAME = 2, N = 8 };
    executor_options options[N];
    uint64_t         of[N];
    for (size_t i = 0; i < N; i++)
        options[i] = tiny_options();
    options[1].model_name     = "another-name";
    options[1].variant        = "portable";
    options[1].n_threads      = 2;
    options[1].kv_cache_dtype = 2; /* f16, which auto is */
    options[2].model          = TESTS_DIR "/data/models/mha_untied.gguf";
    options[3].backend        = "ref";
    options[4].kv_cache_dtype = 1;
    options[5].kv_cache_dtype = 3;
    options[6].kv_cache_dtype = 4;
    options[7].kv_cache_dtype = 5;
    for (size_t i = 0; i < N; i++) {
        options[i].kv_cache_memory *= 2;
        engine *e = engine_of(&options[i]);
        of[i]     = engine_about(e).fingerprint;
        engine_free(&e);
    }
    assert_true(of[0] == of[1]);
    for (size_t i = SAME; i < N; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(of[i] != of[j]);
}

/* Bytes of a block: 2 layers, keys and values, 2 heads, 16 positions of 16 numbers, which int8 and int4 fill up to 32.
 */
static void memory_for_the_cache_is_counted_in_its_numbers(void **state)
{
    (void)state;
    static const uint32_t bytes[] = {4096, 8192, 4096, 4096, 8 * 16 * 34, 8 * 16 * 20};
    for (uint32_t choice = 0; choice < COUNT(bytes); choice++) {
        executor_options o = tiny_options();
        o.kv_cache_dtype   = choice;
        o.kv_cache_memory  = 12 * bytes[choice] - 1;
        engine *e          = engine_of(&o);
        assert_int_equal(11, engine_about(e).n_kv_blocks);
        engine_free(&e);
    }
}

enum { N_CACHED = 40, N_CACHED_TOP = 8 };

/* Log probabilities behind the prompt, of which positions [first, end) are computed in chunks; its first block is
 * `block`, copied there from block 4 if that is another one. */
static void run_cached(engine *e, arena *room, const uint32_t *tokens, uint32_t first, uint32_t chunk, uint32_t block,
                       float *logprobs)
{
    slot_open open               = {.slot = 0, .tokens = tokens, .n_tokens = N_CACHED, .n_prompt_tokens = N_CACHED};
    open.sampling                = greedy();
    open.sampling.n_top_logprobs = N_CACHED_TOP;
    const uint32_t from[] = {4}, to[] = {block};
    step_result    result = {0};
    engine_reset(e);
    for (uint32_t n, at = first; at < N_CACHED; at += n) {
        n              = N_CACHED - at < chunk ? N_CACHED - at : chunk;
        step_plan plan = {.opens       = &open,
                          .n_opens     = at == first,
                          .copy_from   = from,
                          .n_copy_from = block != 4,
                          .copy_to     = to,
                          .n_copy_to   = block != 4,
                          ENTRY(.slot = 0, .position = at, .n_tokens = n, .blocks = U32S(block, 2, 1), .n_blocks = 3,
                                .logits = at + n == N_CACHED ? LOGITS_WANTED_LAST : LOGITS_WANTED_NONE)};
        result         = run_plan(e, &plan, room);
    }
    assert_int_equal(N_CACHED_TOP, result.outputs[0].logprobs[0].n_top_logprobs);
    memcpy(logprobs, result.outputs[0].logprobs[0].top_logprobs, N_CACHED_TOP * sizeof *logprobs);
}

/* The same prompt at once, in pieces, and behind a copy of its first block. */
static void a_cache_of_any_numbers_gives_the_same_whole_in_chunks_and_copied(void **state)
{
    (void)state;
    uint32_t tokens[N_CACHED];
    float    whole[N_CACHED_TOP], part[N_CACHED_TOP], before[N_CACHED_TOP] = {0};
    random_tokens(3, tokens, N_CACHED);
    for (uint32_t choice = 1; choice <= 5; choice++) {
        executor_options o       = tiny_options();
        o.kv_cache_dtype         = choice;
        o.max_num_batched_tokens = 64;
        o.kv_cache_memory *= 2;
        engine *e    = engine_of(&o);
        arena  *room = arena_new(engine_result_bytes(e), NULL);
        run_cached(e, room, tokens, 0, N_CACHED, 4, whole);
        run_cached(e, room, tokens, 0, 7, 4, part);
        assert_memory_equal(whole, part, sizeof whole);
        run_cached(e, room, tokens, 0, 1, 4, part);
        assert_memory_equal(whole, part, sizeof whole);
        run_cached(e, room, tokens, 16, N_CACHED, 5, part);
        assert_memory_equal(whole, part, sizeof whole);
        assert_memory_not_equal(whole, before, sizeof whole); /* the flag does something */
        memcpy(before, whole, sizeof whole);
        arena_free(&room);
        engine_free(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_plan_that_asks_for_the_impossible_is_refused_and_the_next_one_runs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_result_that_does_not_fit_says_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_fullest_plan_fits_into_the_memory_that_was_promised, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reset_forgets_every_slot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(drafts_are_accepted_exactly_when_they_are_what_would_be_sampled, set_up,
                                        tear_down),
        cmocka_unit_test(prompts_are_scored_alike_in_chunks_of_any_size),
        cmocka_unit_test_setup_teardown(a_copied_block_is_as_good_as_one_that_was_computed, set_up, tear_down),
        cmocka_unit_test(more_logit_edits_than_one_call_takes_change_nothing),
        cmocka_unit_test_setup_teardown(a_beam_reports_what_its_logit_edits_leave, set_up, tear_down),
        cmocka_unit_test(a_penalty_over_a_long_history_runs),
        cmocka_unit_test(a_sequence_that_fails_alone_does_so_in_the_next_plan_too),
        cmocka_unit_test(an_engine_that_cannot_be_made_says_which_flag_is_at_fault),
        cmocka_unit_test(a_small_cache_bounds_the_length_of_a_sequence),
        cmocka_unit_test(engines_agree_when_their_tokens_do_whatever_the_model_is_called),
        cmocka_unit_test(memory_for_the_cache_is_counted_in_its_numbers),
        cmocka_unit_test(a_cache_of_any_numbers_gives_the_same_whole_in_chunks_and_copied),
    };
    return cmocka_run_group_tests_name("executor/step", tests, NULL, NULL);
}
