/* What an executor may not say: it is dropped for it, and its work is done by another. And what the loss of others
 * does. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- lies ---- */

static uint32_t *array(arena *memory, uint32_t n, uint32_t value)
{
    uint32_t *a = arena_take_array(memory, n, sizeof *a);
    assert_non_null(a);
    for (uint32_t i = 0; i < n; i++)
        a[i] = value;
    return a;
}

static void of_another_step(step_result *r, step_output *o, arena *memory)
{
    (void)o, (void)memory;
    r->step += 1000;
}

static void of_another_slot(step_result *r, step_output *o, arena *memory)
{
    (void)r, (void)memory;
    o[0].slot++;
}

static void without_an_output(step_result *r, step_output *o, arena *memory)
{
    (void)o, (void)memory;
    r->n_outputs--;
}

static void with_one_output_more(step_result *r, step_output *o, arena *memory)
{
    (void)memory;
    o[r->n_outputs] = o[0];
    r->n_outputs++;
}

static void without_a_token(step_result *r, step_output *o, arena *memory)
{
    (void)r, (void)memory;
    o[0].n_tokens = 0;
}

static void with_two_tokens(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    o[0].tokens   = array(memory, 2, 1);
    o[0].n_tokens = 2;
}

static void with_sixty_four_tokens(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    o[0].tokens   = array(memory, 64, 1);
    o[0].n_tokens = 64;
}

static void outside_of_the_vocabulary(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    o[0].tokens = array(memory, 1, STAGE_VOCAB);
}

static void set_logprob(step_output *o, token_logprob value, arena *memory)
{
    token_logprob *l = arena_take(memory, sizeof *l);
    assert_non_null(l);
    *l            = value;
    o->logprobs   = l;
    o->n_logprobs = 1;
}

static void likely_tokens_without_their_logprobs(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    set_logprob(&o[0], (token_logprob){.top_tokens = array(memory, 60, 1), .n_top_tokens = 60}, memory);
}

static void a_likely_token_outside_of_the_vocabulary(step_result *r, step_output *o, arena *memory)
{
    static const float logprob = -1;
    (void)r;
    set_logprob(&o[0],
                (token_logprob){.top_tokens     = array(memory, 1, UINT32_MAX),
                                .n_top_tokens   = 1,
                                .top_logprobs   = &logprob,
                                .n_top_logprobs = 1},
                memory);
}

static void scores_of_more_rows_than_there_were(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    token_logprob *scores = arena_take_array(memory, 40, sizeof *scores);
    assert_non_null(scores);
    o[0].prompt_logprobs   = scores;
    o[0].n_prompt_logprobs = 40;
}

static const struct {
    const char *what;
    stage_lie  *lie;
} lies[] = {
    {"another step", of_another_step},
    {"another slot", of_another_slot},
    {"an output too few", without_an_output},
    {"an output too many", with_one_output_more},
    {"no token", without_a_token},
    {"two tokens", with_two_tokens},
    {"sixty-four tokens", with_sixty_four_tokens},
    {"a token outside of the vocabulary", outside_of_the_vocabulary},
    {"likely tokens without log probabilities", likely_tokens_without_their_logprobs},
    {"a likely token outside of the vocabulary", a_likely_token_outside_of_the_vocabulary},
    {"too many scores", scores_of_more_rows_than_there_were},
};

static void an_executor_that_lies_is_dropped_and_its_work_done_by_another(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lies); i++) {
        stage t;
        stage_init(&t);
        stage_start(&t, i + 1);
        stage_executor *liar = stage_add_executor(&t, lies[i].lie);
        for (uint32_t k = 0; k < 3; k++)
            stage_send(&t, stage_add(&t, 20, 10), 0);
        stage_wait_ms(&t, 1000);
        if (stage_scheduler(&t)->executors)
            fail_msg("%s: the executor is still used", lies[i].what);
        assert_int_equal(3, stage_scheduler(&t)->n_waiting);
        stage_add_executor(&t, NULL);
        stage_run(&t, 30);
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(FINISH_REASON_LENGTH, t.requests[k].finish);
            assert_int_equal(1, t.requests[k].n_opens);
            stage_check_tokens(&t.requests[k], 0, 10);
        }
        assert_true(liar->n_plans <= 2);
        stage_end(&t);
    }
}

static void fail_once(step_result *r, step_output *o, arena *memory)
{
    static uint32_t n_steps;
    (void)o, (void)memory;
    if (++n_steps == 5)
        *r = (step_result){.step = r->step, .error = SPAN("a bit fell over")};
}

static void fail_always(step_result *r, step_output *o, arena *memory)
{
    (void)o, (void)memory;
    *r = (step_result){.step = r->step, .error = SPAN("no electricity")};
}

static void a_step_that_fails_is_run_again_and_its_executor_kept(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, fail_once);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_run(&t, 30);
    stage_check_tokens(&t.requests[0], 0, 10);
    assert_non_null(stage_scheduler(&t)->executors);
    stage_end(&t);
}

static void a_request_that_fails_three_steps_ends_with_an_error(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, fail_always);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_run(&t, 30);
    assert_int_equal(FINISH_REASON_ERROR, t.requests[0].finish);
    assert_string_equal("the executor failed on this request", t.requests[0].why);
    stage_wait_ms(&t, 100);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    assert_true(x->n_plans <= SEQUENCE_FAILURES_MAX * PLANS_IN_FLIGHT_MAX);
    stage_end(&t);
}

static void one_sequence_fails(step_result *r, step_output *o, arena *memory)
{
    (void)memory;
    if (r->n_outputs > 1)
        o[1] = (step_output){.slot = o[1].slot, .error = SPAN("the model gave no finite logit")};
}

static void a_sequence_that_fails_alone_takes_no_other_with_it(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 3);
    stage_add_executor(&t, one_sequence_fails);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_run(&t, 30);
    uint32_t failed = t.requests[0].finish == FINISH_REASON_ERROR ? 0 : 1;
    assert_string_equal("the model gave no finite logit", t.requests[failed].why);
    stage_check_tokens(&t.requests[1 - failed], 0, 10);
    stage_end(&t);
}

static uint32_t n_executors(const stage *t)
{
    uint32_t n = 0;
    for (const executor_link *x = stage_scheduler(t)->executors; x; x = x->next)
        n++;
    return n;
}

/* Its heartbeats go on, so nobody else would notice. */
static void an_executor_that_hangs_is_given_up_until_it_answers(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    t.options.step_timeout_ms = 2000;
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    for (uint32_t k = 0; k < 3; k++)
        stage_send(&t, stage_add(&t, 20, 60), 0);
    while (x->n_plans < 10)
        stage_wait_ms(&t, 1);
    x->hangs = true;
    stage_add_executor(&t, NULL);
    stage_wait_ms(&t, 1900);
    assert_int_equal(2, n_executors(&t));
    stage_wait_ms(&t, 200);
    assert_int_equal(1, n_executors(&t));
    stage_run(&t, 5);
    for (uint32_t k = 0; k < 3; k++)
        stage_check_tokens(&t.requests[k], 0, 60);
    uint32_t n_plans = x->n_plans;
    stage_wait_ms(&t, 10000);
    assert_int_equal(n_plans, x->n_plans);
    stage_wake(x);
    stage_wait_ms(&t, 2000);
    assert_int_equal(2, n_executors(&t));
    for (uint32_t k = 0; k < 4; k++)
        stage_send(&t, stage_add(&t, 20, 20), 0);
    stage_run(&t, 5);
    stage_end(&t);
}

/* ---- beams ---- */

static void no_likely_tokens(step_result *r, step_output *o, arena *memory)
{
    (void)r;
    set_logprob(&o[0], (token_logprob){.token = 1}, memory);
}

static void a_beam_without_a_way_on_ends_with_what_it_has(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, no_likely_tokens);
    stage_request *q            = stage_add(&t, 20, 10);
    q->body.sampling.beam_width = 2;
    stage_send(&t, q, 0);
    stage_run(&t, 30);
    assert_int_equal(0, q->n_tokens);
    stage_end(&t);
}

static void beams_whose_likely_tokens_all_stop_end_there(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, NULL);
    uint32_t       stops[]      = {stage_token(20), stage_token(20) + 1};
    stage_request *q            = stage_add(&t, 20, 10);
    q->body.sampling.beam_width = 2;
    q->body.stop_tokens         = stops;
    q->body.n_stop_tokens       = 2;
    stage_send(&t, q, 0);
    stage_run(&t, 30);
    assert_int_equal(FINISH_REASON_STOP, q->finish);
    stage_check_tokens(q, 0, 1);
    stage_end(&t);
}

static void last_beam_fails(step_result *r, step_output *o, arena *memory)
{
    (void)memory;
    uint32_t last = r->n_outputs - 1;
    if (r->n_outputs > 1)
        o[last] = (step_output){.slot = o[last].slot, .error = SPAN("the model gave no finite logit")};
}

static void a_beam_that_fails_ends_the_search_and_says_why(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, last_beam_fails);
    stage_request *q            = stage_add(&t, 20, 10);
    q->body.sampling.beam_width = 2;
    stage_send(&t, q, 0);
    stage_run(&t, 30);
    assert_int_equal(FINISH_REASON_ERROR, q->finish);
    assert_string_equal("the model gave no finite logit", q->why);
    stage_wait_ms(&t, 100);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    stage_end(&t);
}

/* A search may need 8 * (82 / 16 + 2) = 56 of the 64 blocks in the end, however few it begins with. */
static void searches_that_fit_one_by_one_do_not_stop_each_other(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        stage_request *q            = stage_add(&t, 20, 62);
        q->body.sampling.beam_width = 8;
        stage_send(&t, q, 0);
    }
    for (uint32_t i = 0; i < 8; i++)
        stage_send(&t, stage_add(&t, 60, 60), 0);
    stage_run(&t, 60);
    for (uint32_t i = 0; i < 11; i++)
        assert_int_equal(FINISH_REASON_LENGTH, t.requests[i].finish);
    stage_end(&t);
}

/* ---- what an executor says it is ---- */

static void an_executor_whose_sizes_do_not_fit_is_not_used(void **state)
{
    static const executor_ready good = {.n_kv_blocks      = STAGE_BLOCKS,
                                        .kv_block_tokens  = KV_BLOCK_TOKENS,
                                        .n_slots          = STAGE_SLOTS,
                                        .n_tokens_max     = 64,
                                        .n_vocab          = STAGE_VOCAB,
                                        .max_model_len    = 512,
                                        .n_logit_rows_max = 64};
    static const struct {
        const char *what;
        size_t      offset;
        uint32_t    value;
        bool        used;
    } cases[] = {
        {"nothing is wrong", offsetof(executor_ready, n_slots), STAGE_SLOTS, true},
        {"no slots", offsetof(executor_ready, n_slots), 0, false},
        {"more slots than a plan may name", offsetof(executor_ready, n_slots), 4097, false},
        {"blocks of another size", offsetof(executor_ready, kv_block_tokens), 2 * KV_BLOCK_TOKENS, false},
        {"no blocks", offsetof(executor_ready, n_kv_blocks), 0, false},
        {"the largest cache", offsetof(executor_ready, n_kv_blocks), KV_BLOCKS_MAX, true},
        {"more blocks than anybody has", offsetof(executor_ready, n_kv_blocks), KV_BLOCKS_MAX + 1, false},
        {"blocks without number", offsetof(executor_ready, n_kv_blocks), UINT32_MAX, false},
        {"steps without tokens", offsetof(executor_ready, n_tokens_max), 0, false},
    };
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    peer           *p = actor_find_peer(t.scheduler, span_of(actor_name(x->actor)));
    for (size_t i = 0; i < COUNT(cases); i++) {
        executor_ready about = good;
        memcpy((char *)&about + cases[i].offset, &cases[i].value, sizeof cases[i].value);
        executors_add(stage_scheduler(&t), p, &about);
        if ((executors_find(stage_scheduler(&t), p) != NULL) != cases[i].used)
            fail_msg("%s", cases[i].what);
    }
    stage_end(&t);
}

/* ---- others that leave ---- */

static void a_lost_postprocessor_is_told_to_the_owner_who_may_try_again(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    simulation_set_network(t.sim, &(sim_network_options){.delay_min_ns = 100 * NS_PER_MS,
                                                         .delay_max_ns = 120 * NS_PER_MS}); /* slow steps */
    for (uint32_t k = 0; k < 3; k++)
        stage_send(&t, stage_add(&t, 20, 60), 0);
    while (x->n_plans < 5)
        stage_wait_ms(&t, 1);
    simulation_kill(t.sim, t.postprocessor);
    stage_run(&t, 30);
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(1, t.requests[k].n_refusals);
        assert_int_equal(ERR_GONE, t.requests[k].refused);
        assert_true(error_may_retry((error_code)t.requests[k].refused));
    }
    stage_wait_ms(&t, 1000);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_executor_that_lies_is_dropped_and_its_work_done_by_another),
        cmocka_unit_test(a_step_that_fails_is_run_again_and_its_executor_kept),
        cmocka_unit_test(a_request_that_fails_three_steps_ends_with_an_error),
        cmocka_unit_test(a_sequence_that_fails_alone_takes_no_other_with_it),
        cmocka_unit_test(an_executor_that_hangs_is_given_up_until_it_answers),
        cmocka_unit_test(a_beam_without_a_way_on_ends_with_what_it_has),
        cmocka_unit_test(beams_whose_likely_tokens_all_stop_end_there),
        cmocka_unit_test(a_beam_that_fails_ends_the_search_and_says_why),
        cmocka_unit_test(searches_that_fit_one_by_one_do_not_stop_each_other),
        cmocka_unit_test(an_executor_whose_sizes_do_not_fit_is_not_used),
        cmocka_unit_test(a_lost_postprocessor_is_told_to_the_owner_who_may_try_again),
    };
    return cmocka_run_group_tests_name("scheduler/results", tests, NULL, NULL);
}
