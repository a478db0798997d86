/* What the scheduler keeps in the store: its lease, and where sessions were. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- leases ---- */

static void count_workers(void *arg, const store_reply *reply)
{
    assert_int_equal(STORE_OK, reply->status);
    *(uint32_t *)arg = reply->n_workers;
}

static uint32_t n_schedulers_with_a_lease(const stage *t)
{
    store   *leases = metadata_store(stage_scheduler(t));
    uint32_t n      = UINT32_MAX;
    assert_true(store_list(leases, SPAN("scheduler"), count_workers, &n, NULL));
    while (store_turn(leases))
        ;
    assert_int_not_equal(UINT32_MAX, n);
    return n;
}

static void a_scheduler_that_leaves_gives_its_lease_back(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    stage_start(&t, 1);
    stage_wait_ms(&t, 1500);
    assert_int_equal(1, n_schedulers_with_a_lease(&t));
    actor_drain(t.scheduler);
    stage_wait_ms(&t, 100);
    assert_int_equal(0, n_schedulers_with_a_lease(&t));
    stage_end(&t);
}

static void a_scheduler_whose_store_is_gone_leaves_too(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    t.options.store_url = "unix:/nonexistent/socket";
    stage_start(&t, 1);
    stage_wait_ms(&t, 1500);
    assert_non_null(actor_find_peer(t.gateway, span_of(actor_name(t.scheduler))));
    actor_drain(t.scheduler);
    stage_wait_ms(&t, 200);
    assert_null(actor_find_peer(t.gateway, span_of(actor_name(t.scheduler))));
    stage_end(&t);
}

/* ---- sessions ---- */

/* The second turn of a session when another executor joined after the first, and no cache knows the prompt. */
static uint32_t n_opened_by_the_first(span session)
{
    stage t;
    stage_init(&t);
    t.options.prefix_caching = false;
    stage_start(&t, 1);
    stage_executor *first = stage_add_executor(&t, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        stage_request *q = stage_add(&t, 20, 3);
        q->body.session  = session;
        stage_send(&t, q, 0);
        stage_run(&t, 10);
        if (i == 0)
            stage_add_executor(&t, NULL);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < first->n_plans; i++)
        n += first->opens[i];
    stage_end(&t);
    return n;
}

static void a_session_goes_on_where_it_was(void **state)
{
    (void)state;
    assert_int_equal(1, n_opened_by_the_first((span){0}));
    assert_int_equal(2, n_opened_by_the_first(SPAN("a session")));
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scheduler_that_leaves_gives_its_lease_back),
        cmocka_unit_test(a_scheduler_whose_store_is_gone_leaves_too),
        cmocka_unit_test(a_session_goes_on_where_it_was),
    };
    return cmocka_run_group_tests_name("scheduler/metadata", tests, NULL, NULL);
}
