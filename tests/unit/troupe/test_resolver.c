/* Names in endpoints: which are looked up, and who hears of it. */
#include "troupe/resolver.h"

#include "actor/simulation.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void names_are_looked_up_and_addresses_are_not(void **state)
{
    static const struct {
        const char *endpoint;
        bool        wants;
    } cases[] = {
        {"tcp://scheduler:5571", true},  {"tcp://localhost:1", true}, {"tcp://a.b.example:65535", true},
        {"tcp://10.0.0.1:5571", false},  {"tcp://[::1]:5571", false}, {"tcp://*:5571", false},
        {"tcp://scheduler", false},      {"ipc:///tmp/x", false},     {"inproc://scheduler", false},
        {"tcp://scheduler:http", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        if (resolver_wants(cases[i].endpoint) != cases[i].wants)
            fail_msg("%s", cases[i].endpoint);
}

/* ---- two nodes that say hello ---- */

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return (void *)(uintptr_t)options;
}

static void destroy(void *self)
{
    (void)self;
}

static const actor_route client_routes[]  = {{MSG_TEXT_DELTA, actor_ignore},
                                             {MSG_TEXT_REFUSED, actor_ignore},
                                             {MSG_TEXT_ENCODED, actor_ignore},
                                             {MSG_TEXT_DECODED, actor_ignore}};
static const actor_class client_class     = {.name     = "client",
                                             .role     = ROLE_CLIENT,
                                             .routes   = client_routes,
                                             .n_routes = COUNT(client_routes),
                                             .create   = create,
                                             .destroy  = destroy};
static const actor_route drafter_routes[] = {{MSG_DRAFT_REQUEST, actor_ignore}, {MSG_DRAFT_FORGET, actor_ignore}};
static const actor_class drafter_class    = {.name     = "drafter",
                                             .role     = ROLE_DRAFTER,
                                             .routes   = drafter_routes,
                                             .n_routes = COUNT(drafter_routes),
                                             .create   = create,
                                             .destroy  = destroy};

static char     answer[3][ACTOR_PLACE_BYTES];
static uint32_t n_answers, n_asked;

static bool look_up(const char *host, char (*out)[ACTOR_PLACE_BYTES], uint32_t *n)
{
    assert_string_equal("node", host);
    n_asked++;
    memcpy(out, answer, sizeof answer);
    *n = n_answers;
    return n_answers > 0;
}

static void list(uint32_t n, const char *a, const char *b)
{
    n_answers = n;
    snprintf(answer[0], sizeof answer[0], "%s", a);
    snprintf(answer[1], sizeof answer[1], "%s", b);
}

static void count(void *arg, peer *p)
{
    (void)p;
    ++*(uint32_t *)arg;
}

static uint32_t n_peers_after(resolver *r, simulation *sim, actor *a)
{
    uint32_t n = 0;
    resolver_turn(r);
    simulation_run_until(sim, NULL, NULL, 5 * NS_PER_S);
    actor_each_peer(a, ROLE_UNKNOWN, count, &n);
    return n;
}

static actor *add(simulation *sim, const actor_class *class, const char *bind)
{
    static int    nothing;
    actor_options options = {.bind = {bind}, .credits = 1};
    actor        *a       = simulation_add(sim, class, &nothing, &options, NULL);
    assert_non_null(a);
    return a;
}

static void an_actor_hears_of_every_address_and_of_changes(void **state)
{
    (void)state;
    error       err;
    simulation *sim = simulation_new(1, NULL);
    resolver   *r   = resolver_new(look_up, &err);
    add(sim, &drafter_class, "tcp://10.0.0.1:77");
    add(sim, &drafter_class, "tcp://10.0.0.2:77");
    actor *caller = add(sim, &client_class, NULL);
    assert_true(resolver_add(r, caller, "tcp://node:77", &err));
    list(0, "", "");
    assert_int_equal(0, n_peers_after(r, sim, caller));
    list(1, "10.0.0.2", "");
    assert_int_equal(1, n_peers_after(r, sim, caller));
    list(2, "10.0.0.1", "10.0.0.2");
    assert_int_equal(2, n_peers_after(r, sim, caller));
    list(0, "", ""); /* the name server is away: nobody is left for that */
    assert_int_equal(2, n_peers_after(r, sim, caller));
    assert_int_equal(4, n_asked);
    resolver_free(&r);
    simulation_free(&sim);
}

static void the_system_is_asked_on_a_thread(void **state)
{
    (void)state;
    error       err;
    simulation *sim    = simulation_new(2, NULL);
    resolver   *r      = resolver_new(NULL, &err);
    actor      *caller = add(sim, &client_class, NULL);
    add(sim, &drafter_class, "tcp://127.0.0.1:77");
    assert_true(resolver_add(r, caller, "tcp://localhost:77", &err));
    assert_int_equal(1, n_peers_after(r, sim, caller));
    assert_true(resolver_start(r, &err));
    resolver_free(&r); /* its thread ends at once */
    simulation_free(&sim);
}

int main(void)
{
    log_set_level(LOG_OFF);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_looked_up_and_addresses_are_not),
        cmocka_unit_test(an_actor_hears_of_every_address_and_of_changes),
        cmocka_unit_test(the_system_is_asked_on_a_thread),
    };
    return cmocka_run_group_tests_name("troupe/resolver", tests, NULL, NULL);
}
