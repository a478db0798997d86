/* Who is in a plan: whose turn it is, who gives way to whom, on which executor, and what a prefix in the cache saves.
 */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Passes of 20 to 24 ms, two plans in flight. */
static void slow_down(stage *t)
{
    simulation_set_network(t->sim,
                           &(sim_network_options){.delay_min_ns = 10 * NS_PER_MS, .delay_max_ns = 12 * NS_PER_MS});
}

static stage_request *send(stage *t, uint32_t n_prompt, uint32_t max_tokens, int32_t priority)
{
    stage_request *q = stage_add(t, n_prompt, max_tokens);
    q->body.priority = priority;
    stage_send(t, q, 0);
    return q;
}

static uint32_t n_opened(const stage_executor *x)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n_plans; i++)
        n += x->opens[i];
    return n;
}

static void wait_for_plans(stage *t, const stage_executor *x, uint32_t n)
{
    while (x->n_plans < n)
        stage_wait_ms(t, 1);
}

static bool has_ended(void *arg)
{
    return stage_has_ended(arg);
}

static uint32_t n_ended(const stage *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->n_requests; i++)
        n += stage_has_ended(&t->requests[i]);
    return n;
}

/* ---- whose turn it is ---- */

static const struct {
    const char *what;
    uint64_t    max_num_seqs;
    uint32_t    n_kv_blocks;
} scarce[] = {
    {"sequences", 4, STAGE_BLOCKS},
    {"KV blocks", 64, 20},
};

static void an_urgent_request_takes_the_place_of_one_that_runs(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(scarce); i++) {
        stage t;
        stage_init(&t);
        t.options.max_num_seqs = scarce[i].max_num_seqs;
        t.about.n_kv_blocks    = scarce[i].n_kv_blocks;
        stage_start(&t, 1);
        stage_executor *x = stage_add_executor(&t, NULL);
        slow_down(&t);
        for (uint32_t k = 0; k < 4; k++)
            send(&t, 60, 60, 10);
        wait_for_plans(&t, x, 12);
        stage_request *urgent = send(&t, 60, 5, -10);
        assert_true(simulation_run_until(t.sim, has_ended, urgent, 300 * NS_PER_MS));
        if (n_ended(&t) > 1)
            fail_msg("too few %s: it waited until another ended", scarce[i].what);
        stage_run(&t, 60);
        stage_check_tokens(urgent, 0, 5);
        for (uint32_t k = 0; k < 4; k++) /* the one that gave way too */
            stage_check_tokens(&t.requests[k], 0, 60);
        stage_end(&t);
    }
}

/* One sequence runs at a time. A level of priority is worth a second; the second request comes `gap_ms` later. */
static const struct {
    int32_t first, second;
    int64_t gap_ms;
    bool    takes_place;
} turns[] = {
    {0, 0, 100, false},  /* in order of arrival */
    {1, 0, 100, false},  /* less than a whole level earlier: not worth to compute again */
    {2, 0, 100, true},   /* its turn is 1.9 s before the other's */
    {2, 0, 1500, false}, /* too late for two levels: those that run have waited too */
    {20, 0, 1500, true}, {0, 2, 100, false},
};

static void a_level_of_priority_is_worth_a_time_of_waiting(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(turns); i++) {
        stage t;
        stage_init(&t);
        t.options.max_num_seqs     = 1;
        t.options.priority_aging_s = 1;
        stage_start(&t, 1);
        stage_add_executor(&t, NULL);
        simulation_set_network(t.sim,
                               &(sim_network_options){.delay_min_ns = 50 * NS_PER_MS, .delay_max_ns = 50 * NS_PER_MS});
        stage_request *first = send(&t, 20, 60, turns[i].first);
        stage_wait_ms(&t, turns[i].gap_ms);
        stage_request *second = send(&t, 20, 3, turns[i].second);
        assert_false(stage_has_ended(first));
        simulation_run_until(t.sim, has_ended, second, 60 * NS_PER_S);
        if (stage_has_ended(first) == turns[i].takes_place)
            fail_msg("case %zu: who came second was %s", i, turns[i].takes_place ? "last" : "first");
        stage_run(&t, 60);
        stage_check_tokens(first, 0, 60);
        stage_check_tokens(second, 0, 3);
        stage_end(&t);
    }
}

/* What cannot make enough room takes nobody's: eight of the ten blocks are not to be had from the one that is less
 * urgent. */
static void nobody_gives_way_for_nothing(void **state)
{
    (void)state;
    stage t;
    stage_init(&t);
    t.about.n_kv_blocks = 10;
    stage_start(&t, 1);
    stage_executor *x = stage_add_executor(&t, NULL);
    slow_down(&t);
    send(&t, 60, 60, -100);
    stage_request *less_urgent = send(&t, 20, 5, 50);
    wait_for_plans(&t, x, 3);
    send(&t, 64, 60, 0);
    assert_true(simulation_run_until(t.sim, has_ended, less_urgent, 300 * NS_PER_MS));
    assert_int_equal(1, n_ended(&t));
    stage_run(&t, 60);
    stage_end(&t);
}

/* ---- which executor ---- */

static const uint32_t other_prompt[60] = {9, 8, 7, 6, 5, 4, 3, 2, 1};

/* Two executors; the first has the prefix of `t->requests[0]` in its cache. */
static void start_with_a_warm_one(stage *t, uint64_t max_num_seqs)
{
    stage_init(t);
    t->options.max_num_seqs = max_num_seqs;
    stage_start(t, 1);
    stage_add_executor(t, NULL);
    send(t, 60, 1, 0);
    stage_run(t, 10);
    slow_down(t);
}

static stage_request *send_warm(stage *t, uint32_t max_tokens)
{
    stage_request *q = stage_add(t, 60, max_tokens);
    q->body.prompt   = t->requests[0].prompt;
    stage_send(t, q, 0);
    return q;
}

static void a_full_executor_is_not_waited_for_however_warm(void **state)
{
    (void)state;
    stage t;
    start_with_a_warm_one(&t, 2);
    send(&t, 20, 60, 0);
    send(&t, 20, 60, 0);
    wait_for_plans(&t, &t.executors[0], 8);
    stage_executor *cold = stage_add_executor(&t, NULL);
    stage_request  *q    = send_warm(&t, 3);
    assert_true(simulation_run_until(t.sim, has_ended, q, 300 * NS_PER_MS));
    assert_int_equal(1, n_opened(cold));
    stage_run(&t, 30);
    stage_check_tokens(q, 0, 3);
    stage_end(&t);
}

static void an_executor_that_is_not_ready_is_not_waited_for(void **state)
{
    (void)state;
    stage t;
    start_with_a_warm_one(&t, 2);
    stage_executor *cold = stage_add_executor(&t, NULL);
    actor_set_ready(t.executors[0].actor, false);
    stage_wait_ms(&t, 1500); /* a heartbeat says so */
    send_warm(&t, 3);
    stage_run(&t, 1);
    assert_int_equal(1, n_opened(cold));
    stage_end(&t);
}

/* Its executor has room, but two plans in flight; who is behind it in the queue need not wait for that. */
static void a_request_that_waits_for_a_warm_executor_lets_others_pass(void **state)
{
    (void)state;
    stage t;
    start_with_a_warm_one(&t, 4);
    stage_executor *warm = &t.executors[0], *cold = stage_add_executor(&t, NULL);
    send_warm(&t, 60);
    wait_for_plans(&t, warm, 8);
    uint32_t       n_before = n_opened(warm);
    stage_request *q        = send_warm(&t, 3);
    stage_request *behind   = stage_add(&t, 60, 3);
    behind->body.prompt     = other_prompt;
    stage_send(&t, behind, 0);
    assert_true(simulation_run_until(t.sim, has_ended, behind, 300 * NS_PER_MS));
    assert_int_equal(1, n_opened(cold));
    stage_run(&t, 30);
    assert_int_equal(1, n_opened(cold));
    assert_int_equal(n_before + 1, n_opened(warm));
    assert_int_equal(48, q->n_cached);
    stage_end(&t);
}

/* ---- the prefix cache ---- */

/* A prompt of ten blocks in a pool of sixteen. What comes between needs three of them. */
static void a_prompt_is_forgotten_from_its_end(void **state)
{
    (void)state;
    uint32_t prompt[160], between[130];
    for (uint32_t i = 0; i < COUNT(prompt); i++)
        prompt[i] = i % STAGE_VOCAB;
    for (uint32_t i = 0; i < COUNT(between); i++)
        between[i] = (i + 50) % STAGE_VOCAB;
    stage t;
    stage_init(&t);
    t.about.n_kv_blocks = 16;
    stage_start(&t, 1);
    stage_add_executor(&t, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        stage_request *q = stage_add(&t, 0, 1);
        q->body.prompt   = i == 1 ? between : prompt;
        q->body.n_prompt = i == 1 ? COUNT(between) : COUNT(prompt);
        stage_send(&t, q, 0);
        stage_run(&t, 10);
    }
    assert_int_equal(7 * KV_BLOCK_TOKENS, t.requests[2].n_cached);
    stage_end(&t);
}

/* ---- the size of a plan ---- */

/* Sixteen prompts of 600 KB each, of which a step takes 16 tokens each: an executor takes plans of 8 MiB. */
static void a_plan_opens_no_more_than_an_executor_takes(void **state)
{
    (void)state;
    enum { N_PROMPT = 150000, OPENED_MAX = 6 << 20 };
    static uint32_t prompt[N_PROMPT];
    stage           t;
    stage_init(&t);
    t.options.max_queued_tokens = 1 << 24;
    t.options.max_prefill_chunk = 16;
    t.about.max_model_len       = 1 << 20;
    t.about.n_kv_blocks         = 1 << 18;
    stage_start(&t, 1);
    for (uint32_t i = 0; i < STAGE_SLOTS; i++) {
        stage_request *q = stage_add(&t, 0, 10);
        q->body.prompt   = prompt;
        q->body.n_prompt = N_PROMPT;
        stage_send(&t, q, 0);
    }
    stage_executor *x = stage_add_executor(&t, NULL);
    while (n_opened(x) < STAGE_SLOTS)
        stage_wait_ms(&t, 1);
    for (uint32_t i = 0; i < x->n_plans; i++)
        assert_in_range(x->tokens_opened[i] * sizeof(uint32_t), 0, OPENED_MAX);
    stage_end(&t);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_urgent_request_takes_the_place_of_one_that_runs),
        cmocka_unit_test(a_level_of_priority_is_worth_a_time_of_waiting),
        cmocka_unit_test(nobody_gives_way_for_nothing),
        cmocka_unit_test(a_full_executor_is_not_waited_for_however_warm),
        cmocka_unit_test(an_executor_that_is_not_ready_is_not_waited_for),
        cmocka_unit_test(a_request_that_waits_for_a_warm_executor_lets_others_pass),
        cmocka_unit_test(a_prompt_is_forgotten_from_its_end),
        cmocka_unit_test(a_plan_opens_no_more_than_an_executor_takes),
    };
    return cmocka_run_group_tests_name("scheduler/batch", tests, NULL, NULL);
}
