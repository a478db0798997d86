/* Executors that come, go, and work for others. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void offer(stage *t, stage_executor *x)
{
    assert_true(actor_send(x->actor, x->scheduler, MSG_EXECUTOR_READY, &t->about, NULL, NULL));
}

static void leave(stage_executor *x)
{
    static const executor_leave body = {0};
    assert_true(actor_send(x->actor, x->scheduler, MSG_EXECUTOR_LEAVE, &body, NULL, NULL));
}

/* More often than a request may lose its executor to something that it may have done. */
static void an_executor_that_leaves_is_not_held_against_its_requests(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    simulation_set_network(t.sim, &(sim_network_options){.delay_max_ns = NS_PER_MS});
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_send(&t, stage_add(&t, 20, 30), 0);
    for (uint32_t i = 0; i < SEQUENCE_FAILURES_MAX + 2; i++) {
        stage_wait_ms(&t, 3);
        leave(x);
        stage_wait_ms(&t, 3);
        assert_null(stage_scheduler(&t)->executors);
        offer(&t, x);
    }
    stage_run(&t, 30);
    assert_int_equal(FINISH_REASON_LENGTH, t.requests[0].finish);
    stage_check_tokens(&t.requests[0], 0, 30);
    stage_end(&t);
}

static void requests_wait_for_an_executor_but_are_handed_back_while_others_have_it(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 2);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 5000);
    assert_int_equal(1, stage_scheduler(&t)->n_requests); /* there is none */
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_run(&t, 30);
    leave(x);
    stage_wait_ms(&t, 100);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 500);
    assert_int_equal(0, t.requests[1].n_refusals); /* it may come back */
    stage_wait_ms(&t, 1000);
    assert_int_equal(1, t.requests[1].n_refusals);
    assert_int_equal(ERR_GONE, t.requests[1].refused);
    assert_int_equal(0, stage_scheduler(&t)->n_requests);
    stage_end(&t);
}

static void say_nothing(step_result *r, step_output *o, arena *memory)
{
    (void)o, (void)memory;
    r->n_outputs = 0;
}

static void an_executor_that_gave_a_wrong_result_rests_and_comes_back(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 3);
    stage_executor *x = stage_add_executor(&t, say_nothing);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 500);
    assert_null(stage_scheduler(&t)->executors);
    x->lie = NULL;
    offer(&t, x);
    stage_wait_ms(&t, 100);
    assert_null(stage_scheduler(&t)->executors);
    stage_wait_ms(&t, 600);
    offer(&t, x);
    stage_run(&t, 30);
    stage_check_tokens(&t.requests[0], 0, 10);
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_executor_that_leaves_is_not_held_against_its_requests),
        cmocka_unit_test(requests_wait_for_an_executor_but_are_handed_back_while_others_have_it),
        cmocka_unit_test(an_executor_that_gave_a_wrong_result_rests_and_comes_back),
    };
    return cmocka_run_group_tests_name("scheduler/executors", tests, NULL, NULL);
}
