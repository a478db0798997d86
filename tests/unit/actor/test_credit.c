/* Credits from both sides: what a sender may spend, what a receiver takes. */
#include "actor/actor_metrics.h"
#include "support_scene.h"
#include "support_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char endpoint[] = "ipc:///run/scheduler";

typedef struct {
    simulation *sim;
    player      player;
    actor      *actor;
    wire_node   wire;
    peer       *peer;
} stage;

/* A scheduler and a drafter played by the test, which gave it `credits`. */
static void open_sender(stage *s, uint32_t credits)
{
    error         err;
    actor_options options = {.bind = {endpoint}};
    *s                    = (stage){.sim = simulation_new(3, &err)};
    s->actor              = simulation_add(s->sim, &scheduler_class, &s->player, &options, &err);
    s->wire               = wire_node_new(s->sim, ROLE_DRAFTER, 7, endpoint, false);
    wire_say_hello(&s->wire, credits);
    wire_expect(&s->wire, MSG_NODE_WELCOME);
    s->peer = actor_find_peer(s->actor, span_of(s->wire.name));
    assert_non_null(s->peer);
}

/* A drafter that takes `credits` messages, and a scheduler played by the test. */
static void open_receiver(stage *s, uint32_t credits, bool answers)
{
    error         err;
    actor_options options   = {.connect = {endpoint}, .credits = credits};
    *s                      = (stage){.sim = simulation_new(3, &err), .player.answers = answers};
    s->wire                 = wire_node_new(s->sim, ROLE_SCHEDULER, 7, endpoint, true);
    s->actor                = simulation_add(s->sim, &drafter_class, &s->player, &options, &err);
    const node_hello *hello = wire_expect(&s->wire, MSG_NODE_HELLO);
    assert_int_equal(hello->credits, credits);
    wire_say_welcome(&s->wire, 0);
}

static void close_stage(stage *s)
{
    wire_node_free(&s->wire);
    simulation_free(&s->sim);
}

static bool request(stage *s, error *err)
{
    draft_request body = draft_request_defaults;
    body.n             = 1;
    return actor_send(s->actor, s->peer, MSG_DRAFT_REQUEST, &body, NULL, err);
}

static void a_sender_stops_at_its_last_credit_and_goes_on_when_it_gets_more(void **state)
{
    (void)state;
    stage s;
    error err;
    open_sender(&s, 2);
    assert_true(request(&s, &err));
    assert_true(request(&s, &err));
    assert_false(request(&s, &err));
    assert_int_equal(err.code, ERR_OVERLOADED);
    assert_true(actor_send(s.actor, s.peer, MSG_DRAFT_FORGET, &draft_forget_defaults, NULL, &err)); /* costs none */
    assert_int_equal(wire_count(&s.wire, MSG_DRAFT_REQUEST, 100), 2);
    wire_say(&s.wire, MSG_NODE_CREDIT, &(node_credit){.n = 3});
    wire_count(&s.wire, 0, 100);
    assert_int_equal(s.player.n_credits, 1);
    assert_int_equal(s.peer->credits, 3);
    wire_say(&s.wire, MSG_NODE_CREDIT, &(node_credit){.n = 1});
    wire_count(&s.wire, 0, 100);
    assert_int_equal(s.player.n_credits, 1); /* it did not rise from 0 */
    assert_int_equal(s.peer->credits, 4);
    close_stage(&s);
}

static void a_failed_send_costs_no_credit(void **state)
{
    (void)state;
    stage s;
    error err;
    open_sender(&s, 2);
    draft_request body = draft_request_defaults;
    body.n             = 17; /* over the schema's limit */
    assert_false(actor_send(s.actor, s.peer, MSG_DRAFT_REQUEST, &body, NULL, &err));
    assert_int_equal(s.peer->credits, 2);
    assert_false(actor_send(s.actor, s.peer, MSG_STEP_PLAN, &step_plan_defaults, NULL, &err)); /* not to a drafter */
    assert_int_equal(err.code, ERR_INTERNAL);
    wire_count(&s.wire, 0, 2000);
    assert_int_equal(s.player.n_down, 0); /* nor a place in the sequence */
    close_stage(&s);
}

static void an_overdraft_is_refused_and_does_not_reach_the_handler(void **state)
{
    (void)state;
    stage                s;
    const actor_metrics *m = actor_metrics_of(ROLE_DRAFTER);
    open_receiver(&s, 2, false);
    double        before = metric_value(m->refused[REFUSED_CREDIT]), spent = metric_value(m->credits_spent);
    draft_request body = draft_request_defaults;
    body.n             = 1;
    for (int i = 0; i < 3; i++)
        wire_say(&s.wire, MSG_DRAFT_REQUEST, &body);
    const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
    assert_int_equal(refused->code, ERR_OVERLOADED);
    assert_int_equal(refused->type, MSG_DRAFT_REQUEST);
    assert_int_equal(s.player.n_requests, 2);
    assert_int_equal(metric_value(m->refused[REFUSED_CREDIT]) - before, 1);
    assert_int_equal(s.player.n_down, 0);
    assert_int_equal(metric_value(m->credits_spent) - spent, 2);
    wire_say(&s.wire, MSG_NODE_BYE, &node_bye_defaults);
    wire_count(&s.wire, 0, 100);
    assert_int_equal(s.player.n_down, 1);
    assert_int_equal(metric_value(m->credits_spent) - spent, 0); /* who left wants nothing back */
    close_stage(&s);
}

static void credits_of_one_turn_come_back_in_one_message(void **state)
{
    (void)state;
    stage s;
    open_receiver(&s, 8, true);
    simulation_set_network(s.sim, &(sim_network_options){.delay_min_ns = 1000, .delay_max_ns = 1000});
    wire_count(&s.wire, 0, 100);
    double        spent = metric_value(actor_metrics_of(ROLE_DRAFTER)->credits_spent);
    draft_request body  = draft_request_defaults;
    body.n              = 1;
    for (int i = 0; i < 5; i++)
        wire_say(&s.wire, MSG_DRAFT_REQUEST, &body);
    assert_int_equal(((const node_credit *)wire_expect(&s.wire, MSG_NODE_CREDIT))->n, 5);
    assert_true(metric_value(actor_metrics_of(ROLE_DRAFTER)->credits_spent) == spent);
    close_stage(&s);
}

static void the_credit_of_a_malformed_message_comes_back(void **state)
{
    (void)state;
    stage s;
    open_receiver(&s, 1, true);
    for (int i = 0; i < 3; i++) {
        envelope e = {.type = MSG_DRAFT_REQUEST, .protocol = 1, .incarnation = 7, .sequence = ++s.wire.sequence};
        wire_say_frames(&s.wire, &e, SPAN("\x80")); /* the required field is not there */
        assert_int_equal(((const node_refused *)wire_expect(&s.wire, MSG_NODE_REFUSED))->code, ERR_INVALID);
        assert_int_equal(((const node_credit *)wire_expect(&s.wire, MSG_NODE_CREDIT))->n, 1);
    }
    assert_int_equal(s.player.n_requests, 0);
    close_stage(&s);
}

static void the_peer_with_most_credits_and_least_load_is_picked(void **state)
{
    (void)state;
    stage s;
    open_sender(&s, 2);
    wire_node second = wire_node_new(s.sim, ROLE_DRAFTER, 8, endpoint, false);
    wire_node third  = wire_node_new(s.sim, ROLE_DRAFTER, 9, endpoint, false);
    wire_say_hello(&second, 4);
    wire_say_hello(&third, 4);
    wire_expect(&second, MSG_NODE_WELCOME);
    wire_expect(&third, MSG_NODE_WELCOME);
    uint32_t n_ready;
    assert_string_equal(actor_pick_peer(s.actor, ROLE_DRAFTER, &n_ready)->name, second.name); /* a tie: by name */
    assert_int_equal(n_ready, 3);
    wire_say(&second, MSG_NODE_HEARTBEAT, &(node_heartbeat){.ready = true, .load = 1});
    wire_count(&second, 0, 100);
    assert_string_equal(actor_pick_peer(s.actor, ROLE_DRAFTER, &n_ready)->name, third.name);
    assert_null(actor_pick_peer(s.actor, ROLE_EXECUTOR, &n_ready));
    wire_node_free(&second);
    wire_node_free(&third);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sender_stops_at_its_last_credit_and_goes_on_when_it_gets_more),
        cmocka_unit_test(a_failed_send_costs_no_credit),
        cmocka_unit_test(an_overdraft_is_refused_and_does_not_reach_the_handler),
        cmocka_unit_test(credits_of_one_turn_come_back_in_one_message),
        cmocka_unit_test(the_credit_of_a_malformed_message_comes_back),
        cmocka_unit_test(the_peer_with_most_credits_and_least_load_is_picked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
