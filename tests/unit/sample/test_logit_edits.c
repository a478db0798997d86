/* Logit edits: counts, bans and biases of a history. */
#include "sample/logit_edits.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N_VOCAB = 100, ROOM = 64 };

static kern_logit_edit edits[ROOM];

static uint32_t build(sampling_params *p, const uint32_t *tokens, uint32_t n_tokens, uint32_t n_prompt)
{
    static const uint32_t stops[] = {2, 3};
    logit_editor         *e       = logit_editor_new(N_VOCAB, NULL);
    logit_history         h       = {p, tokens, n_tokens, n_prompt, stops, 2};
    assert_true(logit_edits_max(e, &h) <= ROOM);
    uint32_t n     = logit_edits_build(e, &h, edits);
    uint32_t again = logit_edits_build(e, &h, edits); /* the editor is clean after a build */
    assert_int_equal(n, again);
    logit_editor_free(&e);
    return n;
}

static const kern_logit_edit *find(uint32_t n, uint32_t token)
{
    for (uint32_t i = 0; i < n; i++)
        if (edits[i].token == token)
            return &edits[i];
    return NULL;
}

static void neutral_parameters_edit_nothing(void **state)
{
    (void)state;
    sampling_params p        = sampling_params_defaults;
    uint32_t        tokens[] = {5, 6, 7};
    assert_int_equal(0, build(&p, tokens, 3, 1));
}

static void penalties_count_output_and_mark_prompt(void **state)
{
    (void)state;
    sampling_params p   = sampling_params_defaults;
    p.frequency_penalty = 0.5f;
    uint32_t tokens[]   = {5, 6, 6, 7, 6, 300};
    uint32_t n          = build(&p, tokens, 6, 2);
    assert_int_equal(3, n); /* 300 is not in the vocabulary */
    assert_true(find(n, 5)->seen && find(n, 5)->n_output == 0);
    assert_true(find(n, 6)->seen && find(n, 6)->n_output == 2);
    assert_int_equal(1, find(n, 7)->n_output);
}

static void what_would_repeat_an_ngram_is_banned(void **state)
{
    (void)state;
    sampling_params p = sampling_params_defaults;
    p.no_repeat_ngram = 3;
    uint32_t tokens[] = {1, 2, 9, 4, 1, 2, 8, 1, 2};
    uint32_t n        = build(&p, tokens, 9, 0);
    assert_int_equal(2, n);
    assert_true(find(n, 9)->banned && find(n, 8)->banned);
    p.no_repeat_ngram = 1; /* nothing may come twice */
    assert_int_equal(5, build(&p, tokens, 9, 0));
    p.no_repeat_ngram = 64; /* longer than the text */
    assert_int_equal(0, build(&p, tokens, 9, 0));
}

static void bias_adds_up_and_keeps_other_edits(void **state)
{
    (void)state;
    sampling_params p      = sampling_params_defaults;
    logit_bias      bias[] = {{5, 1.5f}, {5, 2}, {99, -100}, {100, 1}};
    p.logit_bias           = bias;
    p.n_logit_bias         = 4;
    p.presence_penalty     = 1;
    uint32_t tokens[]      = {5};
    uint32_t n             = build(&p, tokens, 1, 0);
    assert_int_equal(2, n);
    assert_true(find(n, 5)->bias == 3.5f && find(n, 5)->n_output == 1);
    assert_true(find(n, 99)->bias == -100);
}

static void stop_tokens_are_banned_before_min_tokens(void **state)
{
    (void)state;
    sampling_params p = sampling_params_defaults;
    p.min_tokens      = 2;
    uint32_t tokens[] = {5, 6, 7};
    uint32_t n        = build(&p, tokens, 2, 1);
    assert_int_equal(2, n);
    assert_true(find(n, 2)->banned && find(n, 3)->banned);
    assert_int_equal(0, build(&p, tokens, 3, 1));
    p.ignore_eos = true;
    assert_int_equal(0, build(&p, tokens, 2, 1));
}

/* A token has one edit however often it was said: a long history needs no more room than the vocabulary. */
static void room_is_bounded_by_the_vocabulary(void **state)
{
    (void)state;
    enum { N = 10 * N_VOCAB };
    static uint32_t        tokens[N];
    static kern_logit_edit room[N_VOCAB];
    sampling_params        p      = sampling_params_defaults;
    logit_bias             bias[] = {{5, 1}, {N_VOCAB, 1}};
    logit_editor          *e      = logit_editor_new(N_VOCAB, NULL);
    logit_history          h      = {.sampling = &p, .tokens = tokens, .n_tokens = N};
    p.repetition_penalty          = 1.1f;
    p.logit_bias                  = bias;
    p.n_logit_bias                = 2;
    for (uint32_t i = 0; i < N; i++)
        tokens[i] = i % N_VOCAB;
    assert_int_equal(N_VOCAB, logit_edits_max(e, &h));
    assert_int_equal(N_VOCAB, logit_edits_build(e, &h, room));
    h.n_tokens = 10;
    assert_int_equal(12, logit_edits_max(e, &h));
    logit_editor_free(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neutral_parameters_edit_nothing),
        cmocka_unit_test(penalties_count_output_and_mark_prompt),
        cmocka_unit_test(what_would_repeat_an_ngram_is_banned),
        cmocka_unit_test(bias_adds_up_and_keeps_other_edits),
        cmocka_unit_test(stop_tokens_are_banned_before_min_tokens),
        cmocka_unit_test(room_is_bounded_by_the_vocabulary),
    };
    return cmocka_run_group_tests_name("sample/logit_edits", tests, NULL, NULL);
}
