/* Many seeds of small worlds: killed nodes, cut links, messages that come twice. */
#include "actor/simulation.h"
#include "support_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const char endpoint[] = "tcp://scheduler:5555";

enum { N_DRAFTERS = 3 };

typedef struct {
    simulation *sim;
    player      scheduler, drafters[N_DRAFTERS];
    actor      *listening, *calling[N_DRAFTERS];
} world;

static void add_scheduler(world *w)
{
    error         err;
    actor_options options = {.bind = {endpoint}};
    w->listening          = simulation_add(w->sim, &scheduler_class, &w->scheduler, &options, &err);
    assert_non_null(w->listening);
}

static void add_drafter(world *w, uint32_t i)
{
    error         err;
    actor_options options  = {.connect = {endpoint}, .credits = 4};
    w->drafters[i].answers = true;
    w->calling[i]          = simulation_add(w->sim, &drafter_class, &w->drafters[i], &options, &err);
    assert_non_null(w->calling[i]);
}

static void open_world(world *w, uint64_t seed, uint32_t n_drafters)
{
    error err;
    *w = (world){.sim = simulation_new(seed, &err)};
    assert_non_null(w->sim);
    for (uint32_t i = 0; i < n_drafters; i++)
        add_drafter(w, i);
    add_scheduler(w);
}

static void close_world(world *w)
{
    simulation_free(&w->sim);
    assert_int_equal(w->scheduler.n_up, w->scheduler.n_down); /* every on_peer_up has its on_peer_down */
    for (uint32_t i = 0; i < N_DRAFTERS; i++)
        assert_int_equal(w->drafters[i].n_up, w->drafters[i].n_down);
}

static bool all_are_up(void *arg)
{
    world *w = arg;
    for (uint32_t i = 0; i < N_DRAFTERS; i++)
        if (w->calling[i] && w->drafters[i].n_up - w->drafters[i].n_down != 1)
            return false;
    return true;
}

static bool scheduler_sees_all(void *arg)
{
    world *w = arg;
    return w->scheduler.n_up - w->scheduler.n_down == N_DRAFTERS && all_are_up(w);
}

static bool has_all_replies(void *arg)
{
    return ((world *)arg)->scheduler.n_replies == 200;
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    uint64_t turns[2], times[2], other = 0;
    for (uint32_t i = 0; i < 3; i++) {
        world w;
        open_world(&w, i < 2 ? 11 : 12, N_DRAFTERS);
        w.scheduler.requests_to_send = 200;
        assert_true(simulation_run_until(w.sim, has_all_replies, &w, 60 * NS_PER_S));
        if (i < 2) {
            turns[i] = simulation_turns(w.sim);
            times[i] = (uint64_t)clock_now_ns(simulation_clock(w.sim));
        } else
            other = (uint64_t)clock_now_ns(simulation_clock(w.sim));
        close_world(&w);
    }
    assert_int_equal(turns[0], turns[1]);
    assert_int_equal(times[0], times[1]);
    assert_int_not_equal(times[0], other);
}

static void an_idle_world_passes_an_hour_of_heartbeats_at_once(void **state)
{
    (void)state;
    world w;
    open_world(&w, 5, N_DRAFTERS);
    assert_false(simulation_run_until(w.sim, NULL, NULL, 3600 * NS_PER_S));
    assert_int_equal(w.scheduler.n_up, N_DRAFTERS);
    assert_int_equal(w.scheduler.n_down, 0);
    close_world(&w);
}

static void killed_drafters_are_noticed_and_new_ones_are_taken_in(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world w;
        open_world(&w, seed, N_DRAFTERS);
        for (uint32_t round = 0; round < 5; round++) {
            if (!simulation_run_until(w.sim, scheduler_sees_all, &w, 60 * NS_PER_S))
                fail_msg("seed %llu round %u: not all came", (unsigned long long)seed, round);
            uint32_t i = (uint32_t)random_below(simulation_random(w.sim), N_DRAFTERS);
            simulation_kill(w.sim, w.calling[i]);
            uint32_t wait_ms = (uint32_t)random_below(simulation_random(w.sim), 6000);
            w.calling[i]     = NULL;
            simulation_run_until(w.sim, NULL, NULL, wait_ms * NS_PER_MS);
            add_drafter(&w, i);
        }
        close_world(&w);
    }
}

static void a_killed_server_is_found_again_by_all(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world w;
        open_world(&w, seed, N_DRAFTERS);
        for (uint32_t round = 0; round < 3; round++) {
            assert_true(simulation_run_until(w.sim, scheduler_sees_all, &w, 60 * NS_PER_S));
            simulation_kill(w.sim, w.listening);
            simulation_run_until(w.sim, NULL, NULL, (int64_t)random_below(simulation_random(w.sim), 10000) * NS_PER_MS);
            add_scheduler(&w);
        }
        if (!simulation_run_until(w.sim, scheduler_sees_all, &w, 60 * NS_PER_S))
            fail_msg("seed %llu: not all came back", (unsigned long long)seed);
        close_world(&w);
    }
}

static void a_cut_link_heals_and_no_message_is_heard_twice_or_out_of_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        world w;
        open_world(&w, seed, 1);
        simulation_set_network(
            w.sim, &(sim_network_options){.delay_min_ns = 1000, .delay_max_ns = 5 * NS_PER_MS, .duplicate = 0.1});
        for (uint32_t round = 0; round < 4; round++) {
            assert_true(simulation_run_until(w.sim, all_are_up, &w, 60 * NS_PER_S));
            simulation_cut(w.sim, w.listening, w.calling[0], true);
            simulation_run_until(w.sim, NULL, NULL, (int64_t)random_below(simulation_random(w.sim), 8000) * NS_PER_MS);
            simulation_cut(w.sim, w.listening, w.calling[0], false);
        }
        /* What came before was between sessions; a burst in a sound session arrives whole, once, in order. */
        simulation_run_until(w.sim, NULL, NULL, 30 * NS_PER_S);
        assert_true(all_are_up(&w));
        peer *p                      = actor_find_peer(w.listening, span_of(actor_name(w.calling[0])));
        w.scheduler.requests_to_send = 200;
        player_send_requests(&w.scheduler, p);
        if (!simulation_run_until(w.sim, has_all_replies, &w, 60 * NS_PER_S))
            fail_msg("seed %llu: %u replies", (unsigned long long)seed, w.scheduler.n_replies);
        assert_int_equal(w.drafters[0].n_requests, 200);
        assert_int_equal(w.drafters[0].n_out_of_order, 0);
        assert_int_equal(w.scheduler.n_out_of_order, 0);
        close_world(&w);
    }
}

static bool drafter_left(void *arg)
{
    return ((world *)arg)->scheduler.n_down == 1;
}

static void a_drained_actor_says_it_is_not_ready_and_leaves_when_it_is_done(void **state)
{
    (void)state;
    world w;
    open_world(&w, 9, 1);
    w.drafters[0].keeps_requests = true;
    assert_true(simulation_run_until(w.sim, all_are_up, &w, 60 * NS_PER_S));
    actor_drain(w.calling[0]);
    assert_false(simulation_run_until(w.sim, drafter_left, &w, 30 * NS_PER_S));
    peer *p = actor_find_peer(w.listening, span_of(actor_name(w.calling[0])));
    assert_false(p->ready);
    error err;
    assert_true(actor_send(w.listening, p, MSG_DRAFT_FORGET, &draft_forget_defaults, NULL, &err));
    assert_true(simulation_run_until(w.sim, drafter_left, &w, NS_PER_S));
    assert_int_equal(w.drafters[0].n_drains, 1);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(an_idle_world_passes_an_hour_of_heartbeats_at_once),
        cmocka_unit_test(killed_drafters_are_noticed_and_new_ones_are_taken_in),
        cmocka_unit_test(a_killed_server_is_found_again_by_all),
        cmocka_unit_test(a_cut_link_heals_and_no_message_is_heard_twice_or_out_of_order),
        cmocka_unit_test(a_drained_actor_says_it_is_not_ready_and_leaves_when_it_is_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
