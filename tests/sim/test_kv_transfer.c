// links: service_scheduler service_executor service_drafter
/* KV blocks move between executors with a tiny real model: for prompts that are handed over, and for warm prefixes. No
 * token shows it, whatever dies meanwhile. */
#include "support_generation.h"

#include "base/metric.h"
#include "scheduler/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { N_REQUESTS = 24, MAX_TOKENS = 24 };

static uint32_t reference[N_REQUESTS][MAX_TOKENS];

static void add_requests(deployment *d, bool speculate)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        generation *g                = deployment_add(d, i / 2, 3 + 17 * (i % 8), MAX_TOKENS);
        g->body.sampling.temperature = i % 2 ? 0.9f : 0;
        g->body.sampling.seed        = 1000 + i;
        g->body.draft_tokens         = speculate ? 4 : 0;
        if (i % 8 == 3)
            g->body.sampling.repetition_penalty = 1.3f;
    }
}

static double transfers(const char *result)
{
    char labels[64];
    snprintf(labels, sizeof labels, "result=\"%s\"", result);
    const metric *m = metric_find("troupe_kv_transfers_total", labels);
    assert_non_null(m);
    return metric_value(m);
}

static int make_reference(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 1, 1, 0);
    add_requests(&d, false);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        deployment_send(&d, &d.generations[i]);
        deployment_run_one(&d, &d.generations[i], 60);
        memcpy(reference[i], d.generations[i].tokens[0], sizeof reference[i]);
    }
    deployment_end(&d);
    return 0;
}

static void start(deployment *d, uint64_t seed, uint32_t n, const executor_role *roles, bool speculate)
{
    deployment_init(d);
    d->kv_bind = true;
    memcpy(d->roles, roles, n * sizeof *roles);
    deployment_start(d, seed, n, speculate);
    add_requests(d, speculate);
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        deployment_send(d, &d->generations[i]);
}

static void end(deployment *d, const char *what)
{
    deployment_run(d, 600);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        const generation *g = &d->generations[i];
        assert_int_equal(FINISH_REASON_LENGTH, g->finish[0]);
        if (memcmp(reference[i], g->tokens[0], sizeof reference[i]) != 0)
            fail_msg("%s: request %u says something else than alone", what, i);
    }
    deployment_check_idle(d);
    deployment_end(d);
}

static const executor_role apart[] = {EXECUTOR_ROLE_PREFILL, EXECUTOR_ROLE_DECODE};

static void prompts_are_computed_on_one_executor_and_go_on_at_another(void **state)
{
    (void)state;
    for (uint32_t speculate = 0; speculate < 2; speculate++) {
        deployment d;
        start(&d, 5 + speculate, 2, apart, speculate);
        double moved = transfers("ok"), failed = transfers("failed"), before = metric_of("troupe_kv_handovers_total");
        end(&d, speculate ? "handed over, with drafts" : "handed over");
        assert_true(metric_of("troupe_kv_handovers_total") - before == N_REQUESTS);
        assert_true(transfers("ok") - moved == N_REQUESTS && transfers("failed") == failed);
    }
}

static void a_role_that_is_missing_is_filled_by_the_other(void **state)
{
    (void)state;
    static const executor_role alone[][2] = {{EXECUTOR_ROLE_PREFILL, EXECUTOR_ROLE_PREFILL},
                                             {EXECUTOR_ROLE_DECODE, EXECUTOR_ROLE_DECODE}};
    for (uint32_t i = 0; i < 2; i++) {
        deployment d;
        start(&d, 9 + i, 2, alone[i], false);
        double before = metric_of("troupe_kv_handovers_total");
        end(&d, i ? "decode executors alone" : "prefill executors alone");
        assert_true(metric_of("troupe_kv_handovers_total") == before);
    }
}

static bool blocks_are_on_their_way(void *arg)
{
    const scheduler *s = actor_self(((deployment *)arg)->scheduler);
    for (const executor_link *x = s->executors; x; x = x->next)
        if (x->n_moves > 0)
            return true;
    return false;
}

static bool all_have_joined(void *arg)
{
    const scheduler *s = actor_self(((deployment *)arg)->scheduler);
    return s->executors && s->executors->next;
}

/* At several moments of a move: before the two are connected, while blocks travel, when they are there. */
static void whoever_dies_while_blocks_move_no_token_changes(void **state)
{
    (void)state;
    double failed = transfers("failed");
    for (uint32_t i = 0; i < 12; i++) {
        deployment d;
        char       what[64];
        uint32_t   victim = i % 2;
        snprintf(what, sizeof what, "the %s dies, moment %u", victim ? "target" : "source", i / 2);
        start(&d, 20 + i, 2, apart, false);
        simulation_set_network(d.sim, &(sim_network_options){.delay_min_ns = NS_PER_MS, .delay_max_ns = 9 * NS_PER_MS});
        assert_true(simulation_run_until(d.sim, blocks_are_on_their_way, &d, 10 * NS_PER_S));
        simulation_run_until(d.sim, NULL, NULL, (int64_t)(i / 2) * 7 * NS_PER_MS);
        simulation_kill(d.sim, d.executors[victim]);
        d.executors[victim] = NULL;
        simulation_run_until(d.sim, NULL, NULL, (i % 3) * NS_PER_S);
        deployment_add_executor(&d, victim);
        assert_true(simulation_run_until(d.sim, all_have_joined, &d, 10 * NS_PER_S));
        end(&d, what);
    }
    assert_true(transfers("failed") > failed);
}

/* A cut or a freeze: the target gives up and computes, and what comes late changes nothing. */
static void a_source_that_falls_silent_costs_time_alone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        deployment d;
        start(&d, 50 + i, 2, apart, false);
        assert_true(simulation_run_until(d.sim, blocks_are_on_their_way, &d, 10 * NS_PER_S));
        if (i % 2)
            simulation_freeze(d.sim, d.executors[0], 5 * NS_PER_S);
        else
            simulation_cut(d.sim, d.executors[0], d.executors[1], true);
        simulation_run_until(d.sim, NULL, NULL, 5 * NS_PER_S);
        simulation_heal(d.sim);
        end(&d, i % 2 ? "a frozen source" : "a cut link");
    }
}

static void a_warm_prefix_is_fetched_where_its_executor_is_full(void **state)
{
    (void)state;
    static const executor_role both[2] = {EXECUTOR_ROLE_BOTH, EXECUTOR_ROLE_BOTH};
    deployment                 d;
    deployment_init(&d);
    d.kv_bind                        = true;
    d.scheduler_options.max_num_seqs = 1;
    memcpy(d.roles, both, sizeof both);
    deployment_start(&d, 71, 2, 0);
    double      moved = transfers("ok");
    generation *first = deployment_add(&d, 3, 200, 8);
    deployment_send(&d, first);
    deployment_run(&d, 60);
    generation *again[2];
    for (uint32_t i = 0; i < 2; i++)
        deployment_send(&d, again[i] = deployment_add(&d, 3, 200, 8));
    deployment_run(&d, 60);
    assert_true(transfers("ok") - moved == 1);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(192, again[i]->n_cached); /* of both: one found them, one fetched them */
        assert_memory_equal(first->tokens[0], again[i]->tokens[0], 8 * sizeof(uint32_t));
    }
    deployment_check_idle(&d);
    deployment_end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_computed_on_one_executor_and_go_on_at_another),
        cmocka_unit_test(a_role_that_is_missing_is_filled_by_the_other),
        cmocka_unit_test(whoever_dies_while_blocks_move_no_token_changes),
        cmocka_unit_test(a_source_that_falls_silent_costs_time_alone),
        cmocka_unit_test(a_warm_prefix_is_fetched_where_its_executor_is_full),
    };
    return cmocka_run_group_tests_name("sim/kv_transfer", tests, make_reference, NULL);
}
