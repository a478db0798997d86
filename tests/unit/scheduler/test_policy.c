/* When waiting requests join the batch: what the three policies do with the same arrivals. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Two requests at once, and a third when they have run for a while. Steps of 20 to 24 ms. */
static stage_executor *run_arrivals(stage *t, scheduler_policy policy, uint64_t batch_size)
{
    stage_init(t);
    t->options.policy        = policy;
    t->options.batch_wait_ms = 500;
    t->options.batch_size    = batch_size;
    stage_start(t, 1);
    stage_executor *x = stage_add_executor(t, NULL);
    simulation_set_network(t->sim,
                           &(sim_network_options){.delay_min_ns = 10 * NS_PER_MS, .delay_max_ns = 12 * NS_PER_MS});
    stage_wait_ms(t, 100);
    stage_send(t, stage_add(t, 20, 20), 0);
    stage_send(t, stage_add(t, 20, 40), 0);
    while (x->n_plans < 10)
        stage_wait_ms(t, 1);
    stage_send(t, stage_add(t, 20, 20), 0);
    stage_run(t, 60);
    for (uint32_t i = 0; i < 3; i++)
        stage_check_tokens(&t->requests[i], 0, t->requests[i].body.max_tokens);
    return x;
}

static uint32_t most_entries(const stage_executor *x)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < x->n_plans; i++)
        most = x->entries[i] > most ? x->entries[i] : most;
    return most;
}

/* Whether a sequence was opened in a step that ran others. */
static bool joined_a_running_batch(const stage_executor *x)
{
    bool joined = false;
    for (uint32_t i = 1; i < x->n_plans; i++)
        joined = joined || (x->opens[i] > 0 && x->entries[i] > x->opens[i]);
    return joined;
}

static void continuous_batches_take_a_request_at_the_next_step(void **state)
{
    (void)state;
    stage           t;
    stage_executor *x = run_arrivals(&t, POLICY_CONTINUOUS, 8);
    assert_int_equal(3, most_entries(x));
    assert_true(joined_a_running_batch(x));
    stage_end(&t);
}

static void dynamic_batches_gather_for_a_while_and_then_stay_closed(void **state)
{
    (void)state;
    stage           t;
    stage_executor *x = run_arrivals(&t, POLICY_DYNAMIC, 8);
    assert_int_equal(2, most_entries(x));
    assert_int_equal(2, x->opens[0]);
    assert_false(joined_a_running_batch(x));
    stage_end(&t);
}

static void static_batches_start_when_enough_wait(void **state)
{
    (void)state;
    stage           t;
    stage_executor *x = run_arrivals(&t, POLICY_STATIC, 2);
    assert_int_equal(2, most_entries(x));
    assert_int_equal(2, x->opens[0]);
    assert_false(joined_a_running_batch(x));
    stage_end(&t);
}

/* One request alone: how long until its first step? */
static int64_t delay_of_one_ms(scheduler_policy policy, int64_t idle_ms)
{
    stage t;
    stage_init(&t);
    t.options.policy        = policy;
    t.options.batch_wait_ms = 50;
    t.options.batch_size    = 2;
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    stage_wait_ms(&t, idle_ms);
    int64_t begin = actor_now_ns(t.gateway) / NS_PER_MS;
    stage_send(&t, stage_add(&t, 20, 4), 0);
    stage_run(&t, 60);
    int64_t delay = x->at_ms[0] - begin;
    stage_end(&t);
    return delay;
}

static void a_request_alone_waits_for_others_as_long_as_the_policy_says(void **state)
{
    (void)state;
    for (int64_t idle_ms = 100; idle_ms < 1300; idle_ms += 97) {
        assert_in_range(delay_of_one_ms(POLICY_CONTINUOUS, idle_ms), 0, 10);
        assert_in_range(delay_of_one_ms(POLICY_DYNAMIC, idle_ms), 50, 60);
        assert_in_range(delay_of_one_ms(POLICY_STATIC, idle_ms), 50, 60);
    }
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(continuous_batches_take_a_request_at_the_next_step),
        cmocka_unit_test(dynamic_batches_gather_for_a_while_and_then_stay_closed),
        cmocka_unit_test(static_batches_start_when_enough_wait),
        cmocka_unit_test(a_request_alone_waits_for_others_as_long_as_the_policy_says),
    };
    return cmocka_run_group_tests_name("scheduler/policy", tests, NULL, NULL);
}
