/* The forward pass on tiny random models against transformers' logits, and against itself in other batches. */
#include "model/model.h"

#include "support_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA TESTS_DIR "/data/models/"

enum { N_TOKENS = 40, N_SHORT = 16, N_VOCAB = 128, N_LOGITS = N_TOKENS * N_VOCAB };

static uint32_t *tokens;

static double largest_difference(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - b[i]);
        if (!(difference <= largest)) /* also when it is NaN */
            largest = difference;
    }
    return largest;
}

/* A model folder or file, and the logits of its first n_tokens when no sequence is longer than n_positions. */
typedef struct {
    const char *model, *logits;
    double      tolerance;
    uint32_t    n_tokens, n_positions;
} reference;

#define WHOLE(name)                                                                                                    \
    {                                                                                                                  \
        DATA name, DATA name ".f32", 1e-3, N_TOKENS, N_TOKENS                                                          \
    }
#define WHOLE_GGUF(name)                                                                                               \
    {                                                                                                                  \
        DATA name ".gguf", DATA name ".f32", 1e-3, N_TOKENS, N_TOKENS                                                  \
    }

static const reference references[] = {
    WHOLE("gqa_tied"),
    WHOLE_GGUF("gqa_tied"),
    WHOLE("mha_untied"),
    WHOLE_GGUF("mha_untied"),
    WHOLE("biases"),
    WHOLE_GGUF("biases"),
    WHOLE("mistral"),
    WHOLE_GGUF("mistral"),
    WHOLE("qwen2"),
    WHOLE_GGUF("qwen2"),
    WHOLE("qwen2_window"),
    WHOLE("qwen3"),
    WHOLE_GGUF("qwen3"),
    WHOLE("gemma2"),
    WHOLE_GGUF("gemma2"),
    WHOLE("gemma3"),
    WHOLE_GGUF("gemma3"),
    WHOLE("phi3"),
    WHOLE_GGUF("phi3"),
    {DATA "phi3", DATA "phi3_short.f32", 1e-3, N_SHORT, N_SHORT},
    {DATA "phi3.gguf", DATA "phi3_short.f32", 1e-3, N_SHORT, N_SHORT},
    WHOLE("olmo2"),
    WHOLE_GGUF("olmo2"),
    WHOLE("smollm3"),
    WHOLE_GGUF("smollm3"),
    WHOLE("granite"),
    WHOLE_GGUF("granite"),
    WHOLE("linear"),
    WHOLE_GGUF("linear"),
    WHOLE("dynamic"),
    WHOLE("llama3"),
    WHOLE_GGUF("llama3"),
    WHOLE("yarn"),
    WHOLE_GGUF("yarn"),
    /* cpu rounds activations to 16 bits before quantised weights: about 1e-5 of a block's largest at every product. */
    {DATA "quantized.gguf", DATA "quantized.f32", 5e-3, N_TOKENS, N_TOKENS},
    {DATA "kquants.gguf", DATA "kquants.f32", 5e-3, N_TOKENS, N_TOKENS},
};

static void check_against_reference(const char *backend, const char *variant)
{
    for (size_t i = 0; i < COUNT(references); i++) {
        const reference *c = &references[i];
        static float     logits[N_LOGITS];
        size_t           n        = (size_t)c->n_tokens * N_VOCAB;
        float           *expected = read_numbers(c->logits, n);
        runner           r        = runner_open_for(backend, variant, c->model, KERN_F32, c->n_positions);
        runner_sequence(&r, tokens, c->n_tokens, c->n_tokens, logits);
        double difference = largest_difference(logits, expected, n);
        double tolerance  = strcmp(backend, "ref") == 0 ? 1e-3 : c->tolerance;
        print_message("%-8s %-12s %-18s largest difference %.2e\n", backend, kern_device_variant(r.device),
                      strrchr(c->model, '/') + 1, difference);
        if (!(difference < tolerance))
            fail_msg("%s on %s: logits differ by %g", c->model, kern_device_name(r.device), difference);
        runner_close(&r);
        free(expected);
    }
}

static void agrees_with_transformers_on_ref(void **state)
{
    (void)state;
    check_against_reference("ref", NULL);
}

static void agrees_with_transformers_on_every_cpu_variant(void **state)
{
    (void)state;
    const char *names[16];
    uint32_t    n = kern_cpu_variants(names, COUNT(names));
    assert_true(n >= 1 && n <= COUNT(names));
    for (uint32_t i = 0; i < n; i++)
        check_against_reference("cpu", names[i]);
}

static void says_the_same_whole_or_in_chunks(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "ref"};
    static const char *const models[]   = {DATA "quantized.gguf", DATA "kquants.gguf", DATA "gemma2",
                                           DATA "gemma3",         DATA "phi3",         DATA "olmo2"};
    static const uint32_t    chunks[]   = {1, 3, 7, 16, 17, 39};
    for (size_t i = 0; i < COUNT(backends) * COUNT(models); i++) {
        static float whole[N_LOGITS], parts[N_LOGITS];
        const char  *backend = backends[i % COUNT(backends)], *model_path = models[i / COUNT(backends)];
        runner       r = runner_open(backend, NULL, model_path, KERN_F32);
        runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, whole);
        for (size_t c = 0; c < COUNT(chunks); c++) {
            runner_sequence(&r, tokens, N_TOKENS, chunks[c], parts);
            if (memcmp(whole, parts, sizeof whole) != 0)
                fail_msg("%s, %s: chunks of %u give other logits", model_path, backend, chunks[c]);
        }
        runner_close(&r);
    }
}

/* What fewer bits cost, and no more: on the CPU and by the reference, from heads of 16 and 32 dimensions. */
static void a_cache_in_fewer_bits_is_near_the_whole_one(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "ref"};
    static const char *const models[]   = {DATA "gqa_tied", DATA "gemma3", DATA "qwen3"};
    static const struct {
        kern_dtype dtype;
        double     largest;
    } caches[] = {{KERN_F16, 2e-2}, {KERN_BF16, 0.1}, {KERN_Q8_0, 0.3}, {KERN_Q4_1, 4}};
    for (size_t i = 0; i < COUNT(backends) * COUNT(models); i++) {
        static float whole[N_LOGITS], logits[N_LOGITS];
        const char  *backend = backends[i % COUNT(backends)], *model_path = models[i / COUNT(backends)];
        runner       r = runner_open(backend, NULL, model_path, KERN_F32);
        runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, whole);
        runner_close(&r);
        for (size_t c = 0; c < COUNT(caches); c++) {
            r = runner_open(backend, NULL, model_path, caches[c].dtype);
            runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, logits);
            double difference = largest_difference(logits, whole, N_LOGITS);
            print_message("%-8s %-12s %-8s largest difference %.2e\n", backend, strrchr(model_path, '/') + 1,
                          kern_dtype_name(caches[c].dtype), difference);
            assert_true(difference > 0 && difference < caches[c].largest);
            runner_close(&r);
        }
    }
}

/* Six sequences of other lengths, some with a past, in one step; each alone before. */
static void says_the_same_alone_or_in_a_ragged_batch(void **state)
{
    (void)state;
    static const struct {
        const char *backend;
        kern_dtype  kv_dtype;
    } caches[] = {{"cpu", KERN_F16}, {"ref", KERN_F16}, {"cpu", KERN_Q8_0}, {"cpu", KERN_Q4_1}, {"ref", KERN_Q4_1}};
    static const struct {
        uint32_t start, n_done, n_tokens;
    } cases[] = {{0, 0, 17}, {5, 9, 1}, {1, 0, 1}, {11, 15, 2}, {20, 16, 4}, {3, 0, 33}};
    for (size_t b = 0; b < COUNT(caches); b++) {
        static float alone[RUN_TOKENS_MAX * N_VOCAB], together[RUN_TOKENS_MAX * N_VOCAB],
            past[RUN_TOKENS_MAX * N_VOCAB];
        runner    r = runner_open(caches[b].backend, NULL, DATA "gqa_tied.gguf", caches[b].kv_dtype);
        run_piece pieces[COUNT(cases)];
        uint32_t  n = 0;
        for (uint32_t i = 0; i < COUNT(cases); i++) {
            run_piece before = {tokens + cases[i].start, 0, cases[i].n_done, 20 * i, 1};
            pieces[i]        = (run_piece){before.tokens, cases[i].n_done, cases[i].n_tokens, 20 * i, 1};
            if (before.n_tokens > 0)
                runner_step(&r, &before, 1, past);
            runner_step(&r, &pieces[i], 1, alone + (size_t)n * N_VOCAB);
            n += cases[i].n_tokens;
        }
        runner_step(&r, pieces, COUNT(cases), together);
        assert_memory_equal(alone, together, (size_t)n * N_VOCAB * sizeof(float));
        runner_close(&r);
    }
}

static void gives_logits_of_the_rows_that_are_wanted_in_the_order_asked(void **state)
{
    (void)state;
    static float   all[N_LOGITS], some[3 * N_VOCAB];
    const uint32_t rows[] = {39, 0, 17}, table[] = {3, 8, 13};
    uint32_t       positions[N_TOKENS], slots[N_TOKENS];
    runner         r = runner_open("cpu", NULL, DATA "gqa_tied", KERN_F32);
    runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, all);
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        positions[i] = i;
        slots[i]     = table[i / KERN_KV_BLOCK_TOKENS] * KERN_KV_BLOCK_TOKENS + i % KERN_KV_BLOCK_TOKENS;
    }
    kern_sequence sequence = {0, N_TOKENS, 0, 0};
    forward_batch batch    = {tokens, positions,    slots,       &sequence, table, rows, N_TOKENS,
                              1,      COUNT(table), COUNT(rows), NULL,      NULL,  0};
    kern_download(r.device, some, forward_run(r.f, r.cache, &batch), sizeof some);
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_memory_equal(all + (size_t)rows[i] * N_VOCAB, some + i * N_VOCAB, N_VOCAB * sizeof(float));
    batch.n_logit_rows = 0;
    assert_non_null(forward_run(r.f, r.cache, &batch));
    runner_close(&r);
}

static void takes_all_its_memory_at_the_start(void **state)
{
    (void)state;
    error          err   = {0};
    runner         r     = runner_open("cpu", NULL, DATA "gqa_tied", KERN_F32);
    forward_limits small = {1, 1, 1, 1, 0, MODEL_POOLING_NONE}, large = {100, 1, 1, 1, 0, MODEL_POOLING_NONE};
    forward       *a = forward_new(r.m, &small, &err), *b = forward_new(r.m, &large, &err);
    assert_true(a && b);
    assert_true(forward_bytes(b) > forward_bytes(a) + 99 * 4 * (2 * 64 + 64 + 2 * 32 + 64 + 2 * 96));
    forward_free(&a);
    forward_free(&b);
    assert_null(a);
    forward_free(&a);
    runner_close(&r);
}

static int read_tokens(void **state)
{
    (void)state;
    tokens = read_numbers(DATA "tokens.u32", N_TOKENS);
    return 0;
}

static int free_tokens(void **state)
{
    (void)state;
    free(tokens);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_transformers_on_ref),
        cmocka_unit_test(agrees_with_transformers_on_every_cpu_variant),
        cmocka_unit_test(says_the_same_whole_or_in_chunks),
        cmocka_unit_test(says_the_same_alone_or_in_a_ragged_batch),
        cmocka_unit_test(a_cache_in_fewer_bits_is_near_the_whole_one),
        cmocka_unit_test(gives_logits_of_the_rows_that_are_wanted_in_the_order_asked),
        cmocka_unit_test(takes_all_its_memory_at_the_start),
    };
    return cmocka_run_group_tests_name("forward", tests, read_tokens, free_tokens);
}
