/* KV blocks that move between executors: when, and what becomes of sequences whose blocks do not come. */
#include "support_stage.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static stage_executor *add_executor(stage *t, executor_role serves)
{
    t->about.serves         = serves;
    t->about.kv_endpoint    = SPAN("inproc://somewhere");
    t->about.kv_block_bytes = 1000;
    return stage_add_executor(t, NULL);
}

static executor_link *link_of(stage *t, const stage_executor *x)
{
    return executors_find(stage_scheduler(t), actor_find_peer(t->scheduler, span_of(actor_name(x->actor))));
}

static void start(stage *t, uint64_t seed, stage_executor **prefill, stage_executor **decode)
{
    stage_init(t);
    stage_start(t, seed);
    *prefill = add_executor(t, EXECUTOR_ROLE_PREFILL);
    *decode  = add_executor(t, EXECUTOR_ROLE_DECODE);
}

static void end(stage *t)
{
    for (const executor_link *x = stage_scheduler(t)->executors; x; x = x->next)
        assert_int_equal(kv_pool_n_blocks(x->pool), kv_pool_n_available(x->pool));
    scheduler_class.check(stage_scheduler(t));
    stage_end(t);
}

/* 40 tokens are two full blocks and a part of the third, which goes along. */
static void a_prompt_goes_on_at_the_decode_executor_behind_what_came(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_come, first_position;
    } table[] = {{UINT32_MAX, 40}, {2, 32}, {1, 16}, {0, 0}};
    for (size_t i = 0; i < COUNT(table); i++) {
        stage           t;
        stage_executor *prefill, *decode;
        start(&t, 1, &prefill, &decode);
        decode->n_loaded_max = table[i].n_come;
        stage_request *q     = stage_add(&t, 40, 10);
        stage_send(&t, q, 0);
        stage_run(&t, 10);
        stage_check_tokens(q, 0, 10);
        assert_int_equal(1, prefill->n_plans);
        assert_int_equal(1, decode->n_loads);
        assert_int_equal(3, decode->n_load_blocks);
        assert_int_equal(table[i].first_position, decode->first_positions[0]);
        assert_int_equal(0, q->n_cached);
        end(&t);
    }
}

static bool has_load(void *arg)
{
    return ((stage_executor *)arg)->n_loads > 0;
}

static void blocks_are_held_until_the_executor_says_that_it_writes_no_more(void **state)
{
    (void)state;
    stage           t;
    stage_executor *prefill, *decode;
    start(&t, 2, &prefill, &decode);
    decode->keeps_loads = true;
    stage_request *q    = stage_add(&t, 40, 10);
    q->deadline_unix_ms = clock_unix_ms(simulation_clock(t.sim)) + 500;
    stage_send(&t, q, 0);
    assert_true(simulation_run_until(t.sim, has_load, decode, 10 * NS_PER_S));
    assert_int_equal(0, decode->n_plans);
    stage_run(&t, 10); /* its deadline ends it */
    assert_int_equal(FINISH_REASON_TIMEOUT, q->finish);
    assert_int_equal(STAGE_BLOCKS - 3, kv_pool_n_available(link_of(&t, decode)->pool));
    assert_int_equal(STAGE_BLOCKS - 3, kv_pool_n_available(link_of(&t, prefill)->pool));
    stage_end_load(decode, 3);
    stage_wait_ms(&t, 10);
    end(&t);
}

static void when_the_source_is_lost_the_target_computes(void **state)
{
    (void)state;
    stage           t;
    stage_executor *prefill, *decode;
    start(&t, 3, &prefill, &decode);
    decode->keeps_loads = true;
    stage_request *q    = stage_add(&t, 40, 10);
    stage_send(&t, q, 0);
    assert_true(simulation_run_until(t.sim, has_load, decode, 10 * NS_PER_S));
    simulation_kill(t.sim, prefill->actor);
    stage_wait_ms(&t, 5000);
    stage_end_load(decode, 1);
    stage_run(&t, 10);
    stage_check_tokens(q, 0, 10);
    assert_int_equal(16, decode->first_positions[0]);
    end(&t);
}

static void an_executor_that_says_more_came_than_was_asked_for_begins_anew(void **state)
{
    (void)state;
    stage           t;
    stage_executor *prefill, *decode;
    start(&t, 4, &prefill, &decode);
    decode->keeps_loads = true;
    stage_request *q    = stage_add(&t, 40, 10);
    stage_send(&t, q, 0);
    assert_true(simulation_run_until(t.sim, has_load, decode, 10 * NS_PER_S));
    stage_end_load(decode, 4);
    decode->keeps_loads = false;
    stage_run(&t, 30); /* at the prefill executor, which is left */
    stage_check_tokens(q, 0, 10);
    assert_true(prefill->n_plans > 1);
    end(&t);
}

static void who_may_compute_prompts(void **state)
{
    (void)state;
    stage           t;
    stage_executor *prefill, *decode;
    start(&t, 5, &prefill, &decode);
    const scheduler *s = stage_scheduler(&t);
    assert_true(kv_moves_may_prefill(s, link_of(&t, prefill)));
    assert_false(kv_moves_may_prefill(s, link_of(&t, decode)));
    simulation_kill(t.sim, prefill->actor);
    stage_wait_ms(&t, 5000);
    assert_true(kv_moves_may_prefill(s, link_of(&t, decode)));
    end(&t);
}

static void blocks_are_fetched_when_that_is_cheaper(void **state)
{
    (void)state;
    static const struct {
        double   tokens_per_s, bytes_per_s;
        uint32_t n_blocks;
        bool     is_cheaper;
    } table[] = {
        {0, 0, 1, true},                                                    /* what was not measured is tried */
        {1000, 0, 1, true},      {0, 1000, 1, true}, {1000, 1e9, 10, true}, /* 160 ms against 12 */
        {1000, 50e6, 10, false},                                            /* against 202 */
        {1e6, 1e12, 10, false},                                             /* 160 us, less than a fetch takes anyhow */
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        executor_link x = {.about.kv_block_bytes = 1000000,
                           .prefill_tokens_per_s = table[i].tokens_per_s,
                           .kv_bytes_per_s       = table[i].bytes_per_s};
        assert_int_equal(table[i].is_cheaper, kv_moves_fetch_is_cheaper(&x, table[i].n_blocks));
    }
}

/* The executor that has the prefix is full, so the other one starts; and then it is known to be slow at fetching. */
static void a_prefix_is_fetched_from_an_executor_that_is_full_and_has_it(void **state)
{
    (void)state;
    for (uint32_t slow = 0; slow < 2; slow++) {
        stage t;
        stage_init(&t);
        t.options.max_num_seqs = 1;
        stage_start(&t, 6);
        stage_executor *first = add_executor(&t, EXECUTOR_ROLE_BOTH);
        stage_request  *q     = stage_add(&t, 50, 3);
        stage_send(&t, q, 0);
        stage_run(&t, 10);
        stage_executor *second                    = add_executor(&t, EXECUTOR_ROLE_BOTH);
        link_of(&t, second)->prefill_tokens_per_s = 1000;
        link_of(&t, second)->kv_bytes_per_s       = slow ? 1000 : 1e9;
        for (uint32_t i = 0; i < 2; i++) {
            stage_request *again = stage_add(&t, 50, 3);
            memcpy(again->prompt, q->prompt, sizeof again->prompt);
            stage_send(&t, again, 0);
        }
        stage_run(&t, 10);
        assert_int_equal(0, first->n_loads);
        assert_int_equal(!slow, second->n_loads);
        assert_int_equal(slow ? 0 : 48, second->first_positions[0]);
        end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_goes_on_at_the_decode_executor_behind_what_came),
        cmocka_unit_test(blocks_are_held_until_the_executor_says_that_it_writes_no_more),
        cmocka_unit_test(when_the_source_is_lost_the_target_computes),
        cmocka_unit_test(an_executor_that_says_more_came_than_was_asked_for_begins_anew),
        cmocka_unit_test(who_may_compute_prompts),
        cmocka_unit_test(blocks_are_fetched_when_that_is_cheaper),
        cmocka_unit_test(a_prefix_is_fetched_from_an_executor_that_is_full_and_has_it),
    };
    log_set_level(LOG_OFF);
    return cmocka_run_group_tests_name("scheduler/kv_moves", tests, NULL, NULL);
}
