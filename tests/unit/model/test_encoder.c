/* Encoders: tiny random BERTs against what transformers computes with them (tests/data/models/make_bert.py), and
 * against themselves in other batches; and the pooled output of a model that generates. */
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

enum { N_TOKENS = 40, N_LENGTHS = 3, N_POOLINGS = 3, N_EMBD = 32 };

static const uint32_t      lengths[N_LENGTHS]   = {40, 17, 5};
static const model_pooling poolings[N_POOLINGS] = {MODEL_POOLING_MEAN, MODEL_POOLING_CLS, MODEL_POOLING_LAST};

static uint32_t *tokens;

/* The sequences of the reference, in blocks out of order. */
static void fill_pieces(run_piece pieces[N_LENGTHS])
{
    for (uint32_t i = 0; i < N_LENGTHS; i++)
        pieces[i] = (run_piece){tokens, 0, lengths[i], 7 + 20 * i, 3};
}

static void check(const char *path, const char *device, double found, double expected)
{
    if (!(fabs(found - expected) < 1e-4))
        fail_msg("%s on %s gives %.6f, not %.6f", path, device, found, expected);
}

static void check_poolings(const char *backend, const char *variant, const char *path)
{
    run_piece pieces[N_LENGTHS];
    float    *expected = read_numbers(DATA "bert.f32", N_LENGTHS * N_POOLINGS * N_EMBD);
    fill_pieces(pieces);
    for (uint32_t p = 0; p < N_POOLINGS; p++) {
        float  found[N_LENGTHS * N_EMBD];
        runner r = runner_open_pooling(backend, variant, path, KERN_F32, poolings[p]);
        assert_int_equal(N_EMBD, model_n_pooled(r.m));
        runner_pool(&r, pieces, N_LENGTHS, true, found);
        for (uint32_t i = 0; i < N_LENGTHS * N_EMBD; i++)
            check(path, kern_device_name(r.device), found[i],
                  expected[(i / N_EMBD * N_POOLINGS + p) * N_EMBD + i % N_EMBD]);
        runner_close(&r);
    }
    free(expected);
}

static void check_scores(const char *backend, const char *variant)
{
    run_piece pieces[N_LENGTHS];
    float     found[N_LENGTHS], *expected = read_numbers(DATA "bert_score.f32", N_LENGTHS);
    runner    r = runner_open_pooling(backend, variant, DATA "bert_score", KERN_F32, MODEL_POOLING_CLS);
    fill_pieces(pieces);
    assert_int_equal(1, model_n_pooled(r.m));
    runner_pool(&r, pieces, N_LENGTHS, true, found);
    for (uint32_t i = 0; i < N_LENGTHS; i++)
        check("bert_score", kern_device_name(r.device), found[i], expected[i]);
    runner_close(&r);
    free(expected);
}

static void agrees_with_transformers_on_every_device(void **state)
{
    (void)state;
    const char *names[16];
    uint32_t    n = kern_cpu_variants(names, COUNT(names));
    for (uint32_t i = 0; i <= n; i++) {
        const char *backend = i < n ? "cpu" : "ref", *variant = i < n ? names[i] : NULL;
        check_poolings(backend, variant, DATA "bert");
        check_poolings(backend, variant, DATA "bert.gguf");
        check_scores(backend, variant);
    }
}

/* Bit by bit, on every CPU variant. */
static void says_the_same_alone_or_in_a_batch_on_every_cpu_variant(void **state)
{
    (void)state;
    static float first[N_LENGTHS * N_EMBD];
    const char  *names[16];
    uint32_t     n = kern_cpu_variants(names, COUNT(names));
    for (uint32_t v = 0; v < n; v++) {
        static float together[N_LENGTHS * N_EMBD], alone[N_EMBD];
        run_piece    pieces[N_LENGTHS];
        runner       r = runner_open_pooling("cpu", names[v], DATA "bert", KERN_F16, MODEL_POOLING_MEAN);
        fill_pieces(pieces);
        runner_pool(&r, pieces, N_LENGTHS, true, together);
        for (uint32_t i = 0; i < N_LENGTHS; i++) {
            runner_pool(&r, &pieces[i], 1, true, alone);
            assert_memory_equal(alone, together + i * N_EMBD, sizeof alone);
        }
        if (v == 0)
            memcpy(first, together, sizeof first);
        assert_memory_equal(first, together, sizeof first);
        runner_close(&r);
    }
}

/* The last row's hidden state times the head is that row's logits. */
static void a_model_that_generates_pools_its_normed_hidden_states(void **state)
{
    (void)state;
    enum { N_WIDE = 64, N_VOCAB = 128 };
    static float logits[N_TOKENS * N_VOCAB], last[N_WIDE], mean[N_WIDE], of_row[N_WIDE];
    run_piece    piece       = {tokens, 0, 3, 4, 1};
    double       sum[N_WIDE] = {0};
    runner       r           = runner_open_pooling("cpu", NULL, DATA "gqa_tied", KERN_F32, MODEL_POOLING_LAST);
    assert_int_equal(N_WIDE, model_n_pooled(r.m));
    for (piece.n_tokens = 1; piece.n_tokens <= 3; piece.n_tokens++) { /* causal: rows are those of shorter texts */
        runner_pool(&r, &piece, 1, false, of_row);
        for (uint32_t i = 0; i < N_WIDE; i++)
            sum[i] += of_row[i] / 3.0;
    }
    piece.n_tokens = 3;
    runner_pool(&r, &piece, 1, false, last);
    runner_step(&r, &piece, 1, logits);
    assert_memory_equal(of_row, last, sizeof last);
    runner_close(&r);
    r = runner_open_pooling("cpu", NULL, DATA "gqa_tied", KERN_F32, MODEL_POOLING_MEAN);
    runner_pool(&r, &piece, 1, false, mean);
    for (uint32_t i = 0; i < N_WIDE; i++)
        check("gqa_tied", "cpu", mean[i], sum[i]);
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
        cmocka_unit_test(agrees_with_transformers_on_every_device),
        cmocka_unit_test(says_the_same_alone_or_in_a_batch_on_every_cpu_variant),
        cmocka_unit_test(a_model_that_generates_pools_its_normed_hidden_states),
    };
    return cmocka_run_group_tests_name("encoder", tests, read_tokens, free_tokens);
}
