/* Lost executors and failed steps: who is at fault, and who is not. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static stage_executor *replace(stage *t, stage_executor *x, stage_lie *lie)
{
    simulation_kill(t->sim, x->actor);
    x->actor = NULL;
    return stage_add_executor(t, lie);
}

static void a_request_outlives_any_number_of_executors(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    for (uint32_t k = 0; k < 4; k++)
        stage_send(&t, stage_add(&t, 20, 120), 0);
    for (uint32_t i = 0; i < 10; i++) {
        while (x->n_plans < 8)
            stage_wait_ms(&t, 1);
        x = replace(&t, x, NULL);
    }
    stage_run(&t, 30);
    for (uint32_t k = 0; k < 4; k++)
        stage_check_tokens(&t.requests[k], 0, 120);
    stage_end(&t);
}

static uint32_t n_steps_to_failure;

static void fail_now_and_then(step_result *r, step_output *o, arena *memory)
{
    (void)o, (void)memory;
    if (--n_steps_to_failure > 0)
        return;
    *r                 = (step_result){.step = r->step, .error = SPAN("a bit fell over")};
    n_steps_to_failure = 100;
}

/* A long life sees many: they are none of its fault. */
static void failures_far_apart_end_nobody(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    n_steps_to_failure = 100;
    stage_executor *x  = stage_add_executor(&t, fail_now_and_then);
    stage_request  *q  = stage_add(&t, 20, STAGE_TOKENS);
    stage_send(&t, q, 0);
    stage_run(&t, 30);
    assert_true(x->n_plans > 4 * 100);
    assert_int_equal(FINISH_REASON_LENGTH, q->finish);
    stage_check_tokens(q, 0, STAGE_TOKENS);
    stage_end(&t);
}

enum { POISON_POSITION = 125 };

static uint32_t n_poisoned;

static void fail_at_poison(step_result *r, step_output *o, arena *memory)
{
    (void)memory;
    bool found = false;
    for (uint32_t i = 0; i < r->n_outputs; i++)
        found = found || o[i].position >= POISON_POSITION;
    if (!found)
        return;
    *r = (step_result){.step = r->step, .error = SPAN("poison")};
    n_poisoned++;
}

/* They were there all three times: in its batch when it came to the place, and when all were computed again. */
static void whoever_fails_three_steps_is_convicted_and_none_of_its_neighbours(void **state)
{
    (void)state;
    for (uint32_t n_executors = 1; n_executors <= 2; n_executors++) {
        stage t;
        stage_init(&t);
        stage_start(&t, n_executors);
        n_poisoned = 0;
        for (uint32_t i = 0; i < n_executors; i++)
            stage_add_executor(&t, fail_at_poison);
        for (uint32_t k = 0; k < 6; k++)
            stage_send(&t, k == 2 ? stage_add(&t, 60, 100) : stage_add(&t, 20, 90), 0);
        stage_run(&t, 30);
        for (uint32_t k = 0; k < 6; k++)
            if (k != 2)
                stage_check_tokens(&t.requests[k], 0, 90);
        assert_int_equal(FINISH_REASON_ERROR, t.requests[2].finish);
        assert_string_equal("the executor failed on this request", t.requests[2].why);
        stage_check_tokens(&t.requests[2], 0, POISON_POSITION - 60);
        assert_in_range(n_poisoned, SEQUENCE_FAILURES_MAX, SEQUENCE_FAILURES_MAX * PLANS_IN_FLIGHT_MAX);
        stage_end(&t);
    }
}

/* Nothing of it was said. */
static void a_search_that_loses_its_executor_begins_again(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_executor *x           = stage_add_executor(&t, NULL);
    stage_request  *q           = stage_add(&t, 20, 40);
    q->body.sampling.beam_width = 2;
    stage_send(&t, q, 0);
    for (uint32_t i = 0; i < 5; i++) {
        while (x->n_plans < 10 + i)
            stage_wait_ms(&t, 1);
        x = replace(&t, x, NULL);
    }
    stage_run(&t, 30);
    assert_int_equal(FINISH_REASON_LENGTH, q->finish);
    stage_check_tokens(q, 0, 40);
    stage_wait_ms(&t, 100);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_outlives_any_number_of_executors),
        cmocka_unit_test(failures_far_apart_end_nobody),
        cmocka_unit_test(whoever_fails_three_steps_is_convicted_and_none_of_its_neighbours),
        cmocka_unit_test(a_search_that_loses_its_executor_begins_again),
    };
    return cmocka_run_group_tests_name("scheduler/suspicion", tests, NULL, NULL);
}
