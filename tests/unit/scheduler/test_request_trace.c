/* The spans of a request in virtual time: phases that follow one another, and what interrupted them. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t context[TRACE_CONTEXT_BYTES] = {[0] = 7, [16] = 9, [24] = TRACE_SAMPLED};

enum { LINK_MS = 50 };

static void open_stage(stage *t)
{
    error err;
    assert_true(trace_open(64, 1, &err));
    stage_init(t);
    t->options.max_num_seqs     = 1;
    t->options.priority_aging_s = 1;
    stage_start(t, 1);
}

static stage_request *send(stage *t, uint32_t max_tokens, int32_t priority, const uint8_t *trace)
{
    stage_request *q = stage_add(t, 20, max_tokens);
    q->body.priority = priority;
    if (trace)
        memcpy(q->trace, trace, TRACE_CONTEXT_BYTES);
    stage_send(t, q, 0);
    return q;
}

static int64_t number(const trace_span *t, const char *key)
{
    for (uint32_t i = 0; i < t->n_attributes; i++)
        if (strcmp(t->attributes[i].key, key) == 0)
            return t->attributes[i].number;
    fail_msg("no %s in %s", key, t->name);
    return -1;
}

static trace_span take(const char *name)
{
    trace_span t = {0};
    assert_true(trace_take(&t));
    assert_string_equal(t.name, name);
    assert_string_equal(t.service, "scheduler");
    assert_memory_equal(t.trace_id, context, TRACE_ID_BYTES);
    assert_memory_equal(t.parent_id, context + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    return t;
}

static void phases_follow_one_another(void **state)
{
    stage      t;
    trace_span rest;
    (void)state;
    open_stage(&t);
    stage_add_executor(&t, NULL);
    simulation_set_network(
        t.sim, &(sim_network_options){.delay_min_ns = LINK_MS * NS_PER_MS, .delay_max_ns = LINK_MS * NS_PER_MS});
    send(&t, 5, 0, context);
    stage_run(&t, 60);
    stage_wait_ms(&t, 1000); /* until no plan mentions it */
    trace_span queue = take("queue"), prefill = take("prefill"), decode = take("decode");
    assert_false(trace_take(&rest));
    assert_true(queue.start_ns <= queue.end_ns);
    assert_int_equal(queue.end_ns, prefill.start_ns);
    assert_int_equal(prefill.end_ns, decode.start_ns);
    assert_true(prefill.end_ns - prefill.start_ns >= 2 * LINK_MS * NS_PER_MS); /* a plan there, its result back */
    assert_true(decode.end_ns - decode.start_ns >= 2 * LINK_MS * NS_PER_MS);
    assert_int_equal(number(&prefill, "gen_ai.usage.input_tokens"), 20);
    assert_int_equal(number(&decode, "gen_ai.usage.output_tokens"), 5);
    assert_int_equal(queue.n_events + prefill.n_events + decode.n_events, 0);
    stage_end(&t);
    trace_close();
}

static void who_gives_way_says_when_and_when_it_goes_on(void **state)
{
    stage      t;
    trace_span rest;
    (void)state;
    open_stage(&t);
    stage_add_executor(&t, NULL);
    simulation_set_network(
        t.sim, &(sim_network_options){.delay_min_ns = LINK_MS * NS_PER_MS, .delay_max_ns = LINK_MS * NS_PER_MS});
    send(&t, 60, 2, context);
    stage_wait_ms(&t, 1000);
    send(&t, 3, 0, NULL); /* urgent, and of no trace */
    stage_run(&t, 60);
    stage_wait_ms(&t, 1000);
    take("queue");
    take("prefill");
    trace_span decode = take("decode");
    assert_false(trace_take(&rest));
    assert_int_equal(decode.n_events, 2);
    assert_string_equal(decode.events[0].name, "preempted");
    assert_string_equal(decode.events[1].name, "resumed");
    assert_true(decode.start_ns < decode.events[0].at_ns && decode.events[0].at_ns < decode.events[1].at_ns &&
                decode.events[1].at_ns < decode.end_ns);
    stage_end(&t);
    trace_close();
}

static void who_never_starts_leaves_its_time_in_the_queue(void **state)
{
    stage      t;
    trace_span rest;
    (void)state;
    open_stage(&t);
    stage_request *q    = stage_add(&t, 20, 5);
    q->deadline_unix_ms = clock_unix_ms(simulation_clock(t.sim)) + 2000;
    memcpy(q->trace, context, sizeof context);
    stage_send(&t, q, 0); /* and there is no executor */
    stage_run(&t, 60);
    stage_wait_ms(&t, 1000);
    trace_span queue = take("queue");
    assert_false(trace_take(&rest));
    assert_true(queue.end_ns - queue.start_ns >= 1900 * NS_PER_MS);
    stage_end(&t);
    trace_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phases_follow_one_another),
        cmocka_unit_test(who_gives_way_says_when_and_when_it_goes_on),
        cmocka_unit_test(who_never_starts_leaves_its_time_in_the_queue),
    };
    log_set_level(LOG_OFF);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
