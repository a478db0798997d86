/* What a scheduler says of itself to those who watch. */
#include "support_stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool reported(void *arg)
{
    return ((stage *)arg)->n_reports > 0;
}

static void look(stage *t, uint32_t round)
{
    status_get body = {.round = round};
    peer      *to   = actor_find_peer(t->gateway, span_of(actor_name(t->scheduler)));
    t->n_reports    = 0;
    assert_true(actor_send(t->gateway, to, MSG_STATUS_GET, &body, NULL, NULL));
    assert_true(simulation_run_until(t->sim, reported, t, NS_PER_S));
    assert_int_equal(round, t->report.round);
}

static void the_status_tells_queue_executors_and_blocks(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_send(&t, stage_add(&t, 20, 10), 0);
    stage_wait_ms(&t, 100);
    look(&t, 7);
    assert_int_equal(1, t.report.n_requests);
    assert_int_equal(1, t.report.n_waiting);
    assert_int_equal(20, t.report.n_waiting_tokens);
    assert_int_equal(0, t.report.executors_in_all);
    stage_add_executor(&t, NULL);
    stage_run(&t, 30);
    stage_wait_ms(&t, 1100); /* the speed is measured once a second */
    look(&t, 8);
    assert_int_equal(0, t.report.n_waiting);
    assert_int_equal(1, t.report.executors_in_all);
    assert_int_equal(STAGE_BLOCKS, t.report_executor.n_kv_blocks);
    assert_int_equal(0, t.report_executor.n_kv_blocks_used);
    assert_int_equal(STAGE_SLOTS, t.report_executor.n_slots);
    assert_true(t.report_executor.tokens_per_s > 0);
    assert_true(t.report.tokens_per_s >= t.report_executor.tokens_per_s);
    assert_true(t.report_executor.node.ready && !t.report_executor.node.draining);
    stage_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_status_tells_queue_executors_and_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
