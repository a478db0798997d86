/* Embeddings and scores: prompts that are computed whole, in one pass, and answered to the gateway with numbers. */
#include "support_stage.h"

#include "base/log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { PASS_TOKENS = 50 };

/* Executors that pool, with small passes. */
static void init(stage *t)
{
    stage_init(t);
    t->about.n_pooled     = STAGE_POOLED;
    t->about.n_tokens_max = PASS_TOKENS;
}

static stage_request *add(stage *t, uint32_t n_prompt)
{
    stage_request *q = stage_add(t, n_prompt, 0);
    q->body.pooled   = true;
    return q;
}

static stage_request *send(stage *t, uint32_t n_prompt)
{
    stage_request *q = add(t, n_prompt);
    stage_send(t, q, 0);
    return q;
}

static void check_answer(const stage_request *q)
{
    assert_int_equal(1, q->n_answers);
    assert_int_equal(0, q->n_refusals);
    assert_int_equal(0, q->n_opens); /* no postprocessor has heard of it */
    assert_int_equal(FINISH_REASON_STOP, q->finish);
    assert_true(q->pooled[0] == (float)q->body.n_prompt);
}

static void texts_share_a_pass_but_none_is_cut(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {20, 20, 20, 50, 1, 49}; /* two a pass; then one; then two */
    static const uint32_t pass[]    = {1, 1, 2, 3, 4, 4};
    stage                 t;
    init(&t);
    stage_start(&t, 1);
    for (size_t i = 0; i < COUNT(lengths); i++)
        send(&t, lengths[i]);
    stage_wait_ms(&t, 100);
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_run(&t, 5);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        check_answer(&t.requests[i]);
        assert_int_equal(pass[i], (uint32_t)t.requests[i].pooled[1]);
    }
    assert_int_equal(4, x->n_plans);
    stage_end(&t);
}

/* Hidden states are not in the cache; an encoder's keys and values would be wrong for any other text. */
static void a_text_neither_finds_its_prefix_in_the_cache_nor_leaves_it_there(void **state)
{
    (void)state;
    stage t;
    init(&t);
    stage_start(&t, 2);
    stage_add_executor(&t, NULL);
    for (uint32_t i = 0; i < 4; i++) { /* the executor asserts that what is pooled begins at its first token */
        bool           generates = i == 1 || i == 3;
        stage_request *q         = generates ? stage_add(&t, 40, 1) : add(&t, 40);
        memcpy(q->prompt, t.requests[0].prompt, sizeof q->prompt);
        stage_send(&t, q, 0);
        stage_run(&t, 5);
        if (generates)
            assert_int_equal(i == 1 ? 0 : 32, q->n_cached);
        else
            check_answer(q);
    }
    stage_end(&t);
}

static void a_text_as_long_as_a_pass_gets_its_turn_beside_others_that_generate(void **state)
{
    (void)state;
    stage t;
    init(&t);
    stage_start(&t, 3);
    stage_add_executor(&t, NULL);
    for (uint32_t i = 0; i < 4; i++)
        stage_send(&t, stage_add(&t, 10, 300), 0);
    stage_wait_ms(&t, 20);
    stage_request *q = send(&t, PASS_TOKENS);
    stage_wait_ms(&t, 200);
    check_answer(q);
    for (uint32_t i = 0; i < 4; i++)
        assert_false(stage_has_ended(&t.requests[i]));
    stage_run(&t, 60);
    for (uint32_t i = 0; i < 4; i++)
        stage_check_tokens(&t.requests[i], 0, 300);
    stage_end(&t);
}

static void what_no_executor_can_do_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *says, *field;
        bool        encoder, pools, pooled;
        uint32_t    n_prompt, max_tokens, n, second_start;
    } cases[] = {
        {"this model is an encoder", "model", true, true, false, 5, 5, 1, 0},
        {"this model generates text; for embeddings", "model", false, false, true, 5, 0, 1, 0},
        {"the text has 51 tokens; it is computed in one pass, which takes 50", "input", true, true, true, 51, 0, 1, 0},
        {"a pooled output is of one prompt", "prompt", true, true, true, 5, 1, 1, 0},
        {"a pooled output is of one prompt", "prompt", true, true, true, 5, 0, 2, 0},
        {"a pooled output is of one prompt", "prompt", true, true, true, 5, 0, 1, 5},
    };
    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        bool  early = i % 2; /* before any executor came: refused when one does, or at once where nothing can help */
        stage t;
        init(&t);
        t.about.encoder  = cases[i / 2].encoder;
        t.about.n_pooled = cases[i / 2].pools ? STAGE_POOLED : 0;
        stage_start(&t, i);
        if (!early)
            stage_add_executor(&t, NULL);
        stage_request *q     = stage_add(&t, cases[i / 2].n_prompt, cases[i / 2].max_tokens);
        q->body.pooled       = cases[i / 2].pooled;
        q->body.n            = cases[i / 2].n;
        q->body.second_start = cases[i / 2].second_start;
        stage_send(&t, q, 0);
        stage_wait_ms(&t, 50);
        if (early)
            stage_add_executor(&t, NULL);
        stage_run(&t, 5);
        if (q->n_refusals != 1 || !strstr(q->why, cases[i / 2].says) || strcmp(q->field, cases[i / 2].field) != 0)
            fail_msg("case %zu: %u refusals, field \"%s\": %s", i, q->n_refusals, q->field, q->why);
        stage_end(&t);
    }
}

static void a_lost_executor_s_texts_are_computed_by_another(void **state)
{
    (void)state;
    stage t;
    init(&t);
    stage_start(&t, 4);
    stage_executor *x = stage_add_executor(&t, NULL);
    x->hangs          = true;
    for (uint32_t i = 0; i < 3; i++)
        send(&t, 20);
    stage_wait_ms(&t, 100);
    assert_true(x->n_plans > 0);
    simulation_kill(t.sim, x->actor);
    stage_add_executor(&t, NULL);
    stage_run(&t, 30);
    for (uint32_t i = 0; i < 3; i++)
        check_answer(&t.requests[i]);
    stage_end(&t);
}

static void say_too_little(step_result *result, step_output *outputs, arena *memory)
{
    (void)result, (void)memory;
    outputs[0].n_pooled--;
}

static void say_nan(step_result *result, step_output *outputs, arena *memory)
{
    float *numbers = arena_take_array(memory, STAGE_POOLED, sizeof *numbers);
    (void)result;
    numbers[1]        = NAN;
    outputs[0].pooled = numbers;
}

static void say_nothing(step_result *result, step_output *outputs, arena *memory)
{
    (void)outputs, (void)memory;
    result->n_outputs = 0;
}

static void an_executor_with_wrong_numbers_is_not_used(void **state)
{
    (void)state;
    static stage_lie *const lies[] = {say_too_little, say_nan, say_nothing};
    for (size_t i = 0; i < COUNT(lies); i++) {
        stage t;
        init(&t);
        stage_start(&t, 5 + i);
        stage_add_executor(&t, lies[i]);
        stage_request *q = send(&t, 20);
        stage_wait_ms(&t, 200);
        assert_false(stage_has_ended(q));
        stage_add_executor(&t, NULL);
        stage_run(&t, 30);
        check_answer(q);
        stage_end(&t);
    }
}

static void say_error(step_result *result, step_output *outputs, arena *memory)
{
    (void)result, (void)memory;
    outputs[0] = (step_output){.slot = outputs[0].slot, .error = SPAN("the model gave no finite number")};
}

static void a_text_that_fails_alone_is_refused_with_the_reason(void **state)
{
    (void)state;
    stage t;
    init(&t);
    stage_start(&t, 9);
    stage_add_executor(&t, say_error);
    stage_request *q = send(&t, 20);
    stage_run(&t, 30);
    assert_int_equal(1, q->n_refusals);
    assert_int_equal(ERR_INTERNAL, q->refused);
    assert_non_null(strstr(q->why, "no finite number"));
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_share_a_pass_but_none_is_cut),
        cmocka_unit_test(a_text_neither_finds_its_prefix_in_the_cache_nor_leaves_it_there),
        cmocka_unit_test(a_text_as_long_as_a_pass_gets_its_turn_beside_others_that_generate),
        cmocka_unit_test(what_no_executor_can_do_is_refused),
        cmocka_unit_test(a_lost_executor_s_texts_are_computed_by_another),
        cmocka_unit_test(an_executor_with_wrong_numbers_is_not_used),
        cmocka_unit_test(a_text_that_fails_alone_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests_name("pooled", tests, NULL, NULL);
}
