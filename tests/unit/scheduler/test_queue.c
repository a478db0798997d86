/* Which requests the queue takes, and what attempts of one request do to each other. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint32_t outside[] = {1, 2, STAGE_VOCAB};
static const uint32_t few[]     = {1, 2, 3};

/* Each is sent to a scheduler with one idle executor. */
static const struct {
    const char  *says, *field;
    gen_request  change; /* fields that are not zero replace the defaults */
    resume_point resume;
    error_code   code;
} refusals[] = {
    {"prompt token 2 is 100; the vocabulary has 100", "prompt", {.prompt = outside, .n_prompt = 3}, {0}, ERR_INVALID},
    {"3 prompt tokens and 600 to generate are 603 positions; 512 fit",
     "prompt",
     {.prompt = few, .n_prompt = 3, .max_tokens = 600},
     {0},
     ERR_INVALID},
    {"0 requests are waiting already", "n", {.prompt = few, .n_prompt = 3, .n = 64}, {0}, ERR_OVERLOADED},
    {"resume: choice 0 has more tokens than max_tokens",
     "",
     {.prompt = few, .n_prompt = 3, .max_tokens = 2},
     {.tokens = few, .n_tokens = 3},
     ERR_INVALID},
    {"resume: choice 1", "", {.prompt = few, .n_prompt = 3}, {.choice = 1, .tokens = few, .n_tokens = 1}, ERR_INVALID},
    {"resume: token 2 is 100", "", {.prompt = few, .n_prompt = 3}, {.tokens = outside, .n_tokens = 3}, ERR_INVALID},
    {"3 choices from 2 beams",
     "beam_width",
     {.prompt = few, .n_prompt = 3, .n = 3, .sampling = {.beam_width = 2}},
     {0},
     ERR_INVALID},
    {"beam search does not go with prompt log probabilities",
     "beam_width",
     {.prompt = few, .n_prompt = 3, .prompt_logprobs = true, .sampling = {.beam_width = 2}},
     {0},
     ERR_UNSUPPORTED},
    {"log probabilities are not reported of beams whose logits are edited",
     "logprobs",
     {.prompt = few, .n_prompt = 3, .sampling = {.beam_width = 2, .logprobs = true, .min_tokens = 1}},
     {0},
     ERR_UNSUPPORTED},
    {"16 beams of up to 13 positions need 32 KV blocks and 32 slots; there are 64 and 16",
     "beam_width",
     {.prompt = few, .n_prompt = 3, .sampling = {.beam_width = 16}},
     {0},
     ERR_INVALID},
};

static void a_request_that_cannot_be_served_is_refused_with_the_field_at_fault(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        const gen_request *change = &refusals[i].change;
        stage              t;
        stage_init(&t);
        t.options.max_queue = 16;
        stage_start(&t, i + 1);
        stage_add_executor(&t, NULL);
        stage_request *q            = stage_add(&t, 3, change->max_tokens ? change->max_tokens : 10);
        q->body.prompt              = change->prompt;
        q->body.n_prompt            = change->n_prompt;
        q->body.n                   = change->n ? change->n : 1;
        q->body.prompt_logprobs     = change->prompt_logprobs;
        q->body.sampling.beam_width = change->sampling.beam_width;
        q->body.sampling.logprobs   = change->sampling.logprobs;
        q->body.sampling.min_tokens = change->sampling.min_tokens;
        q->body.resume              = &refusals[i].resume;
        q->body.n_resume            = refusals[i].resume.n_tokens > 0;
        stage_send(&t, q, 0);
        stage_run(&t, 10);
        assert_int_equal(refusals[i].code, q->refused);
        assert_string_equal(refusals[i].field, q->field);
        if (!strstr(q->why, refusals[i].says))
            fail_msg("expected \"%s\", got \"%s\"", refusals[i].says, q->why);
        stage_wait_ms(&t, 100);
        assert_int_equal(64, actor_find_peer(t.tokenizer, span_of(actor_name(t.scheduler)))->credits);
        assert_int_equal(0, stage_scheduler(&t)->n_requests);
        stage_end(&t);
    }
}

static void a_request_waits_for_an_executor_to_come(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 5000);
    assert_int_equal(1, stage_scheduler(&t)->n_waiting);
    stage_add_executor(&t, NULL);
    stage_run(&t, 10);
    stage_check_tokens(&t.requests[0], 0, 10);
    stage_end(&t);
}

static void a_newer_attempt_goes_on_where_the_older_one_was_heard_last(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_request  *q = stage_add(&t, 20, 40);
    uint32_t        delivered[40];
    stage_send(&t, q, 0);
    while (x->n_plans < 20)
        stage_wait_ms(&t, 1);
    simulation_kill(t.sim, x->actor);
    uint32_t n = q->n_tokens;
    assert_in_range(n, 1, 39);
    memcpy(delivered, q->tokens, sizeof delivered);
    resume_point resume = {.tokens = delivered, .n_tokens = n};
    q->body.resume      = &resume;
    q->body.n_resume    = 1;
    stage_send(&t, q, 1);
    stage_wait_ms(&t, 100);
    t.executors[0].actor = NULL;
    stage_add_executor(&t, NULL);
    stage_run(&t, 30);
    assert_int_equal(2, q->n_opens);
    assert_int_equal(FINISH_REASON_LENGTH, q->finish);
    stage_check_tokens(q, 0, 40);
    stage_wait_ms(&t, 5000);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    stage_end(&t);
}

/* Its last words were lost, but not its tokens. */
static void a_choice_that_has_all_its_tokens_ends_at_once(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_add_executor(&t, NULL);
    stage_request *q           = stage_add(&t, 20, 5);
    uint32_t       delivered[] = {1, 2, 3, 4, 5};
    resume_point   resume      = {.tokens = delivered, .n_tokens = 5};
    q->body.resume             = &resume;
    q->body.n_resume           = 1;
    stage_send(&t, q, 1);
    stage_run(&t, 10);
    assert_int_equal(FINISH_REASON_LENGTH, q->finish);
    assert_int_equal(5, q->n_tokens);
    stage_wait_ms(&t, 100);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    assert_int_equal(64, actor_find_peer(t.tokenizer, span_of(actor_name(t.scheduler)))->credits);
    stage_end(&t);
}

/* It was taken when no executor was there to say how much fits; others go on. */
static void a_request_too_long_for_the_executor_that_came_is_refused(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_request *q = stage_add(&t, 20, 500); /* of 512 positions */
    stage_send(&t, q, 0);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 1000);
    stage_add_executor(&t, NULL);
    stage_run(&t, 10);
    assert_int_equal(ERR_INVALID, q->refused);
    stage_check_tokens(&t.requests[1], 0, 10);
    stage_end(&t);
}

/* Nobody could say how large the vocabulary is. Its step would fail, and that of everybody in it. */
static void a_token_outside_of_the_vocabulary_that_came_is_refused(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    uint32_t     tokens[]  = {1, STAGE_VOCAB, 2};
    resume_point delivered = {.tokens = tokens, .n_tokens = 3};
    for (uint32_t i = 0; i < 3; i++) {
        stage_request *q = stage_add(&t, i == 0 ? 3 : 20, 10);
        q->body.prompt   = i == 0 ? tokens : q->prompt;
        q->body.resume   = &delivered;
        q->body.n_resume = i == 1;
        stage_send(&t, q, i == 1);
    }
    stage_wait_ms(&t, 1000);
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_run(&t, 10);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(ERR_INVALID, t.requests[i].refused);
        assert_string_equal("prompt", t.requests[i].field);
        assert_non_null(strstr(t.requests[i].why, "token 100 is outside of the vocabulary of 100"));
    }
    stage_check_tokens(&t.requests[2], 0, 10);
    for (uint32_t i = 0; i < x->n_plans; i++)
        assert_int_equal(1, x->entries[i]);
    stage_end(&t);
}

/* However long the scheduler had nothing to do before. */
static void a_deadline_is_kept_to_the_millisecond(void **state)
{
    (void)state;
    for (int64_t phase_ms = 0; phase_ms < 1200; phase_ms += 97) {
        stage t;
        stage_init(&t);
        stage_start(&t, 1);
        stage_wait_ms(&t, 5000 + phase_ms);
        int64_t        begin_ms = clock_unix_ms(simulation_clock(t.sim));
        stage_request *q        = stage_add(&t, 20, 10);
        q->deadline_unix_ms     = begin_ms + 30;
        stage_send(&t, q, 0);
        while (q->n_refusals == 0)
            stage_wait_ms(&t, 1);
        assert_int_equal(ERR_TIMEOUT, q->refused);
        assert_in_range(clock_unix_ms(simulation_clock(t.sim)) - begin_ms, 30, 35);
        stage_end(&t);
    }
}

static void an_attempt_that_is_here_already_goes_on_and_costs_nothing(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_request *q = stage_add(&t, 20, 10);
    stage_send(&t, q, 3);
    stage_send(&t, q, 3);
    stage_send(&t, q, 2);
    stage_wait_ms(&t, 1000);
    assert_int_equal(0, q->n_refusals);
    stage_add_executor(&t, NULL);
    stage_run(&t, 10);
    stage_check_tokens(q, 0, 10);
    assert_int_equal(1, q->n_opens);
    assert_int_equal(actor_find_peer(t.tokenizer, span_of(actor_name(t.scheduler)))->credits, STAGE_CREDITS);
    stage_end(&t);
}

static void a_scheduler_that_leaves_finishes_what_it_has_and_takes_nothing(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    simulation_set_network(t.sim,
                           &(sim_network_options){.delay_min_ns = 10 * NS_PER_MS, .delay_max_ns = 12 * NS_PER_MS});
    stage_send(&t, stage_add(&t, 20, 40), 0);
    while (x->n_plans < 5)
        stage_wait_ms(&t, 1);
    actor_drain(t.scheduler);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_run(&t, 30);
    stage_check_tokens(&t.requests[0], 0, 40);
    assert_int_equal(ERR_NOT_READY, t.requests[1].refused);
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_cannot_be_served_is_refused_with_the_field_at_fault),
        cmocka_unit_test(a_request_waits_for_an_executor_to_come),
        cmocka_unit_test(a_newer_attempt_goes_on_where_the_older_one_was_heard_last),
        cmocka_unit_test(a_choice_that_has_all_its_tokens_ends_at_once),
        cmocka_unit_test(a_request_too_long_for_the_executor_that_came_is_refused),
        cmocka_unit_test(a_token_outside_of_the_vocabulary_that_came_is_refused),
        cmocka_unit_test(a_deadline_is_kept_to_the_millisecond),
        cmocka_unit_test(an_attempt_that_is_here_already_goes_on_and_costs_nothing),
        cmocka_unit_test(a_scheduler_that_leaves_finishes_what_it_has_and_takes_nothing),
    };
    return cmocka_run_group_tests_name("scheduler/queue", tests, NULL, NULL);
}
