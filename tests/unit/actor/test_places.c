/* Servers behind a name: all are called, those that come later too, and those that went no more. */
#include "actor/simulation.h"
#include "support_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char name[]                       = "tcp://scheduler:5571";
static const char places[3][ACTOR_PLACE_BYTES] = {"inproc://a", "inproc://b", "inproc://c"};

typedef struct {
    simulation *sim;
    player      servers[3], caller;
    actor      *listening[3], *calling;
} world;

static void add_server(world *w, uint32_t i)
{
    actor_options options = {.bind = {places[i]}, .credits = 4};
    w->listening[i]       = simulation_add(w->sim, &scheduler_class, &w->servers[i], &options, NULL);
    assert_non_null(w->listening[i]);
}

static void open_world(world *w, uint32_t n_servers)
{
    actor_options options = {.credits = 4};
    *w                    = (world){.sim = simulation_new(1, NULL)};
    for (uint32_t i = 0; i < n_servers; i++)
        add_server(w, i);
    w->calling = simulation_add(w->sim, &drafter_class, &w->caller, &options, NULL);
    assert_non_null(w->calling);
}

static void count(void *arg, peer *p)
{
    (void)p;
    ++*(uint32_t *)arg;
}

static uint32_t n_servers_of(const world *w)
{
    uint32_t n = 0;
    actor_each_peer(w->calling, ROLE_SCHEDULER, count, &n);
    return n;
}

static void set_places(world *w, const char (*at)[ACTOR_PLACE_BYTES], uint32_t n, double wait_s)
{
    assert_true(actor_set_places(w->calling, name, at, n, NULL));
    simulation_run_until(w->sim, NULL, NULL, (int64_t)(wait_s * 1e9));
}

static void every_address_of_a_name_is_called(void **state)
{
    (void)state;
    world w;
    open_world(&w, 3);
    set_places(&w, places, 2, 1);
    assert_int_equal(2, n_servers_of(&w));
    set_places(&w, places, 3, 1);
    assert_int_equal(3, n_servers_of(&w));
    assert_int_equal(3, w.caller.n_up); /* the sessions of the first two stand */
    simulation_free(&w.sim);
}

static void one_that_is_listed_before_it_listens_is_found_when_it_does(void **state)
{
    (void)state;
    world w;
    open_world(&w, 1);
    set_places(&w, places, 2, 1);
    assert_int_equal(1, n_servers_of(&w));
    add_server(&w, 1);
    simulation_run_until(w.sim, NULL, NULL, 3 * NS_PER_S);
    assert_int_equal(2, n_servers_of(&w));
    simulation_free(&w.sim);
}

static void one_that_is_listed_no_more_is_left_when_its_session_ends(void **state)
{
    (void)state;
    world w;
    open_world(&w, 2);
    set_places(&w, places, 2, 1);
    set_places(&w, places + 1, 1, 10);
    assert_int_equal(2, n_servers_of(&w)); /* it lives: the list may be wrong */
    simulation_kill(w.sim, w.listening[0]);
    simulation_run_until(w.sim, NULL, NULL, 5 * NS_PER_S);
    assert_int_equal(1, n_servers_of(&w));
    add_server(&w, 0);
    simulation_run_until(w.sim, NULL, NULL, 30 * NS_PER_S);
    assert_int_equal(1, n_servers_of(&w));
    set_places(&w, places, 2, 1);
    assert_int_equal(2, n_servers_of(&w));
    simulation_free(&w.sim);
}

/* As of a server in two networks, of which one is cut. */
static void another_address_of_the_same_server_takes_its_session_over(void **state)
{
    (void)state;
    world         w;
    actor_options options = {.bind = {places[0], places[1]}, .credits = 4};
    open_world(&w, 0);
    assert_non_null(simulation_add(w.sim, &scheduler_class, &w.servers[0], &options, NULL));
    set_places(&w, places, 1, 1);
    assert_int_equal(1, n_servers_of(&w));
    for (uint32_t i = 0; i < 8; i++) {
        set_places(&w, &places[1], 1, 0.5);
        assert_int_equal(1, n_servers_of(&w));
        assert_int_equal(2, w.caller.n_up);
    }
    set_places(&w, places, 2, 9); /* both: it does not go back and forth */
    assert_int_equal(1, n_servers_of(&w));
    assert_true(w.caller.n_up <= 3);
    simulation_free(&w.sim);
}

/* A deployment that is moved all the time never runs out of links. */
static void links_are_used_again(void **state)
{
    (void)state;
    world w;
    open_world(&w, 0);
    for (uint32_t i = 0; i < 3 * ACTOR_LINKS_MAX; i++)
        set_places(&w, &places[i % 3], 1, 0.1);
    add_server(&w, 2);
    set_places(&w, &places[2], 1, 3);
    assert_int_equal(1, n_servers_of(&w));
    simulation_free(&w.sim);
}

static void too_many_are_refused(void **state)
{
    (void)state;
    static const char many[ACTOR_PLACES_MAX + 1][ACTOR_PLACE_BYTES];
    static const char names[][8] = {"a", "b", "c", "d", "e"};
    world             w;
    error             err;
    open_world(&w, 0);
    assert_false(actor_set_places(w.calling, name, many, ACTOR_PLACES_MAX + 1, &err));
    assert_int_equal(ERR_TOO_LARGE, err.code);
    for (uint32_t i = 0; i < ACTOR_NAMES_MAX; i++)
        assert_true(actor_set_places(w.calling, names[i], places, 1, &err));
    assert_false(actor_set_places(w.calling, names[ACTOR_NAMES_MAX], places, 1, &err));
    simulation_free(&w.sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_address_of_a_name_is_called),
        cmocka_unit_test(one_that_is_listed_before_it_listens_is_found_when_it_does),
        cmocka_unit_test(one_that_is_listed_no_more_is_left_when_its_session_ends),
        cmocka_unit_test(another_address_of_the_same_server_takes_its_session_over),
        cmocka_unit_test(links_are_used_again),
        cmocka_unit_test(too_many_are_refused),
    };
    return cmocka_run_group_tests_name("actor/places", tests, NULL, NULL);
}
