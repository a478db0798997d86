/* Who comes, who goes, and what is refused, against a peer that a test plays frame by frame. */
#include "actor/actor_metrics.h"
#include "support_scene.h"
#include "support_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static const char endpoint[] = "tcp://scheduler:5555";

typedef struct {
    simulation *sim;
    player      player;
    actor      *actor;
    wire_node   wire;
} stage;

static void open_stage_of(stage *s, role r, uint32_t protocol_min, uint32_t protocol_max)
{
    error         err;
    actor_options options = {
        .bind = {endpoint}, .credits = 3, .protocol_min = protocol_min, .protocol_max = protocol_max};
    *s       = (stage){.sim = simulation_new(1, &err)};
    s->actor = simulation_add(s->sim, &scheduler_class, &s->player, &options, &err);
    assert_non_null(s->actor);
    s->wire = wire_node_new(s->sim, r, 7, endpoint, false);
}

/* A scheduler that listens, and a wire node that connects. */
static void open_stage(stage *s, role r)
{
    open_stage_of(s, r, 0, 0);
}

/* A drafter that connects, and a wire node that listens. */
static void open_reversed_stage_of(stage *s, uint32_t protocol_min, uint32_t protocol_max)
{
    error         err;
    actor_options options = {
        .connect = {endpoint}, .credits = 3, .protocol_min = protocol_min, .protocol_max = protocol_max};
    *s                = (stage){.sim = simulation_new(1, &err)};
    s->player.answers = true;
    s->wire           = wire_node_new(s->sim, ROLE_SCHEDULER, 7, endpoint, true);
    s->actor          = simulation_add(s->sim, &drafter_class, &s->player, &options, &err);
    assert_non_null(s->actor);
}

static void open_reversed_stage(stage *s)
{
    open_reversed_stage_of(s, 0, 0);
}

static void close_stage(stage *s)
{
    wire_node_free(&s->wire);
    simulation_free(&s->sim);
    assert_int_equal(s->player.n_up, s->player.n_down);
}

static void a_hello_is_welcomed_with_credits(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    const node_welcome *welcome = wire_expect(&s.wire, MSG_NODE_WELCOME);
    assert_int_equal(welcome->credits, 3);
    assert_int_equal(welcome->protocol, 1);
    assert_true(span_is(welcome->name, actor_name(s.actor)));
    assert_int_equal(s.wire.got.sequence, 1);
    peer *p = actor_find_peer(s.actor, span_of(s.wire.name));
    assert_non_null(p);
    assert_int_equal(p->credits, 5);
    assert_int_equal(p->role, ROLE_DRAFTER);
    assert_true(p->ready);
    close_stage(&s);
}

static void heartbeats_come_each_second_and_carry_the_load(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    assert_in_range(wire_count(&s.wire, MSG_NODE_HEARTBEAT, 2500), 2, 3);
    wire_say(&s.wire, MSG_NODE_HEARTBEAT, &(node_heartbeat){.ready = false, .load = 9});
    wire_count(&s.wire, 0, 100);
    peer *p = actor_find_peer(s.actor, span_of(s.wire.name));
    assert_int_equal(p->load, 9);
    assert_false(p->ready);
    uint32_t n_ready;
    assert_null(actor_pick_peer(s.actor, ROLE_DRAFTER, &n_ready));
    assert_int_equal(n_ready, 0);
    close_stage(&s);
}

static void a_silent_peer_is_gone_once_and_its_next_word_is_refused(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    wire_expect(&s.wire, MSG_NODE_BYE);
    assert_int_equal(s.player.n_down, 1);
    wire_say(&s.wire, MSG_NODE_HEARTBEAT, &(node_heartbeat){.ready = true});
    const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
    assert_int_equal(refused->code, ERR_GONE);
    assert_int_equal(s.player.n_down, 1);
    wire_node_reconnect(&s.wire, endpoint);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    assert_int_equal(s.player.n_up, 2);
    close_stage(&s);
}

static void any_message_counts_as_a_heartbeat(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    for (int i = 0; i < 10; i++) {
        wire_count(&s.wire, 0, 2000);
        wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults);
    }
    assert_int_equal(s.player.n_down, 0);
    close_stage(&s);
}

/* What two nodes settle on; 0: nothing. */
static const struct {
    uint32_t ours_min, ours_max, theirs_min, theirs_max, settled;
} protocol_ranges[] = {
    {1, 1, 1, 3, 1}, {1, 1, 2, 3, 0}, {1, 3, 1, 1, 1}, {1, 3, 2, 3, 3},
    {2, 4, 1, 3, 3}, {3, 4, 1, 2, 0}, {2, 2, 1, 3, 2},
};

/* The highest protocol that both speak, and every message of the session in it. */
static void a_session_speaks_the_highest_protocol_that_both_sides_know(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(protocol_ranges); i++) {
        stage s;
        open_stage_of(&s, ROLE_DRAFTER, protocol_ranges[i].ours_min, protocol_ranges[i].ours_max);
        s.wire.protocol    = (uint16_t)protocol_ranges[i].theirs_max; /* a hello is heard in any */
        node_hello hello   = node_hello_defaults;
        hello.name         = span_of(s.wire.name);
        hello.role         = ROLE_DRAFTER;
        hello.incarnation  = 7;
        hello.protocol_min = protocol_ranges[i].theirs_min;
        hello.protocol_max = protocol_ranges[i].theirs_max;
        wire_say(&s.wire, MSG_NODE_HELLO, &hello);
        if (protocol_ranges[i].settled == 0) {
            const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
            assert_int_equal(ERR_UNSUPPORTED, refused->code);
            close_stage(&s);
            continue;
        }
        const node_welcome *welcome = wire_expect(&s.wire, MSG_NODE_WELCOME);
        assert_int_equal(protocol_ranges[i].settled, welcome->protocol);
        wire_expect(&s.wire, MSG_NODE_HEARTBEAT);
        assert_int_equal(protocol_ranges[i].settled, s.wire.got.protocol);
        s.wire.protocol = (uint16_t)protocol_ranges[i].settled;
        wire_say(&s.wire, MSG_NODE_HEARTBEAT, &(node_heartbeat){.ready = true, .load = 9});
        wire_count(&s.wire, 0, 100);
        assert_int_equal(9, actor_find_peer(s.actor, span_of(s.wire.name))->load);
        s.wire.protocol++; /* another than was settled */
        wire_say(&s.wire, MSG_NODE_HEARTBEAT, &(node_heartbeat){.ready = true, .load = 8});
        const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
        assert_int_equal(ERR_UNSUPPORTED, refused->code);
        close_stage(&s);
    }
}

static void whoever_calls_offers_its_range_and_speaks_what_the_welcome_picks(void **state)
{
    (void)state;
    for (uint16_t picked = 0; picked <= 4; picked++) {
        stage s;
        open_reversed_stage_of(&s, 1, 3);
        const node_hello *hello = wire_expect(&s.wire, MSG_NODE_HELLO);
        assert_int_equal(1, hello->protocol_min);
        assert_int_equal(3, hello->protocol_max);
        s.wire.protocol = picked;
        wire_say_welcome(&s.wire, 5);
        if (picked >= 1 && picked <= 3) {
            wire_expect(&s.wire, MSG_NODE_HEARTBEAT);
            assert_int_equal(picked, s.wire.got.protocol);
        } else {
            assert_int_equal(1, wire_count(&s.wire, MSG_NODE_HELLO, 12900)); /* later, on a new connection */
            assert_int_equal(0, s.player.n_up);
        }
        close_stage(&s);
    }
}

/* One hello that must be refused: how it differs from a good one. */
typedef struct {
    const char *what;
    error_code  code;
    const char *text;
    const char *name;
    role        role;
    uint64_t    incarnation;
    uint32_t    protocol_min, protocol_max;
} bad_hello;

static void a_hello_that_does_not_add_up_is_refused(void **state)
{
    (void)state;
    static const bad_hello table[] = {
        {"newer protocols", ERR_UNSUPPORTED, "speaks protocols 2 to 3", "drafter-0000000000000007", ROLE_DRAFTER, 7, 2,
         3},
        {"older protocols", ERR_UNSUPPORTED, "speaks 1 to 1", "drafter-0000000000000007", ROLE_DRAFTER, 7, 0, 0},
        {"another's name", ERR_INVALID, "name", "scheduler-0000000000000007", ROLE_DRAFTER, 7, 1, 1},
        {"another's incarnation", ERR_INVALID, "name", "drafter-0000000000000007", ROLE_DRAFTER, 8, 1, 1},
        {"incarnation unlike the envelope's", ERR_INVALID, "incarnation", "drafter-0000000000000008", ROLE_DRAFTER, 8,
         1, 1},
        {"no role", ERR_INVALID, "name", "unknown-0000000000000007", ROLE_UNKNOWN, 7, 1, 1},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        stage s;
        open_stage(&s, ROLE_DRAFTER);
        node_hello hello   = node_hello_defaults;
        hello.name         = span_of(table[i].name);
        hello.role         = table[i].role;
        hello.incarnation  = table[i].incarnation;
        hello.protocol_min = table[i].protocol_min;
        hello.protocol_max = table[i].protocol_max;
        wire_say(&s.wire, MSG_NODE_HELLO, &hello);
        const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
        char                text[ERROR_TEXT_BYTES];
        snprintf(text, sizeof text, "%.*s", SPAN_ARG(refused->text));
        if (refused->code != table[i].code || !strstr(text, table[i].text))
            fail_msg("%s: refused with %u \"%s\"", table[i].what, refused->code, text);
        assert_int_equal(refused->type, MSG_NODE_HELLO);
        assert_int_equal(s.player.n_up, 0);
        close_stage(&s);
    }
}

static void a_refused_client_tries_again_slowly(void **state)
{
    (void)state;
    stage s;
    open_reversed_stage(&s);
    for (int i = 0; i < 3; i++) {
        wire_expect(&s.wire, MSG_NODE_HELLO);
        envelope     e = {.type = MSG_NODE_REFUSED, .protocol = 1, .incarnation = 7};
        uint8_t      buffer[256];
        error        err;
        wire_writer  out     = {.data = buffer, .capacity = sizeof buffer};
        node_refused refused = {.type = MSG_NODE_HELLO, .code = ERR_UNSUPPORTED, .text = SPAN("protocols 4 to 5")};
        assert_true(message_encode(MSG_NODE_REFUSED, &refused, &out, &err));
        wire_say_frames(&s.wire, &e, (span){(char *)buffer, out.size});
        assert_int_equal(wire_count(&s.wire, MSG_NODE_HELLO, 9000), 0);
    }
    assert_int_equal(s.player.n_up, 0);
    close_stage(&s);
}

static void a_client_says_hello_until_it_is_welcomed(void **state)
{
    (void)state;
    stage s;
    open_reversed_stage(&s);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    wire_say_welcome(&s.wire, 2);
    wire_count(&s.wire, 0, 1000);
    assert_int_equal(s.player.n_up, 1);
    close_stage(&s);
}

/* The hello that is lost when a server dies before its welcome is said again soon, however long it took to come. */
static void a_server_that_was_away_for_long_is_not_made_to_wait(void **state)
{
    (void)state;
    error         err;
    actor_options options = {.connect = {endpoint}, .credits = 3};
    stage         s       = {.sim = simulation_new(1, &err)};
    s.actor               = simulation_add(s.sim, &drafter_class, &s.player, &options, &err);
    assert_non_null(s.actor);
    simulation_run_until(s.sim, NULL, NULL, 20 * NS_PER_S);
    s.wire = wire_node_new(s.sim, ROLE_SCHEDULER, 7, endpoint, true);
    assert_true(wire_count(&s.wire, MSG_NODE_HELLO, 500) == 1);
    assert_true(wire_count(&s.wire, MSG_NODE_HELLO, 4000) == 1);
    wire_say_welcome(&s.wire, 2);
    wire_count(&s.wire, 0, 1000);
    assert_int_equal(s.player.n_up, 1);
    close_stage(&s);
}

static void a_restarted_server_is_greeted_anew(void **state)
{
    (void)state;
    stage s;
    open_reversed_stage(&s);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    wire_say_welcome(&s.wire, 2);
    wire_expect(&s.wire, MSG_NODE_HEARTBEAT);
    s.wire.incarnation = 8; /* it died and came back, and knows nobody */
    snprintf(s.wire.name, sizeof s.wire.name, "scheduler-%016x", 8);
    s.wire.sequence = 0;
    wire_say(&s.wire, MSG_NODE_HEARTBEAT, &node_heartbeat_defaults);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    assert_int_equal(s.player.n_down, 1);
    wire_say_welcome(&s.wire, 2);
    wire_expect(&s.wire, MSG_NODE_HEARTBEAT);
    assert_int_equal(s.player.n_up, 2);
    close_stage(&s);
}

static void a_session_the_server_forgot_begins_again(void **state)
{
    (void)state;
    stage s;
    open_reversed_stage(&s);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    wire_say_welcome(&s.wire, 2);
    wire_expect(&s.wire, MSG_NODE_HEARTBEAT);
    wire_say(&s.wire, MSG_NODE_REFUSED, &(node_refused){.type = MSG_NODE_HEARTBEAT, .code = ERR_GONE});
    wire_expect(&s.wire, MSG_NODE_HELLO);
    assert_int_equal(s.player.n_down, 1);
    close_stage(&s);
}

static void a_hole_in_the_sequence_ends_the_session(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    double missing_before = metric_value(actor_metrics_of(ROLE_SCHEDULER)->missing);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    s.wire.sequence += 3;
    wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults);
    wire_expect(&s.wire, MSG_NODE_BYE);
    assert_int_equal(s.player.n_replies, 0);
    assert_int_equal(s.player.n_down, 1);
    assert_int_equal(metric_value(actor_metrics_of(ROLE_SCHEDULER)->missing) - missing_before, 3);
    close_stage(&s);
}

static void a_session_that_the_service_ends_is_over_for_both(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    actor_end_session(s.actor, actor_find_peer(s.actor, span_of(s.wire.name)), "it is of no use");
    wire_expect(&s.wire, MSG_NODE_BYE);
    simulation_run_until(s.sim, NULL, NULL, 2 * NS_PER_S);
    assert_int_equal(s.player.n_down, 1);
    assert_null(actor_find_peer(s.actor, span_of(s.wire.name)));
    close_stage(&s);
}

static void duplicates_and_stale_incarnations_are_dropped_and_counted(void **state)
{
    (void)state;
    stage                s;
    const actor_metrics *m = actor_metrics_of(ROLE_SCHEDULER);
    open_stage(&s, ROLE_DRAFTER);
    double duplicates = metric_value(m->dropped[DROPPED_DUPLICATE]),
           stale      = metric_value(m->dropped[DROPPED_INCARNATION]);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults);
    s.wire.sequence--;
    wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults);
    s.wire.incarnation = 6;
    wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults);
    wire_count(&s.wire, 0, 1000);
    assert_int_equal(s.player.n_replies, 1);
    assert_int_equal(metric_value(m->dropped[DROPPED_DUPLICATE]) - duplicates, 1);
    assert_int_equal(metric_value(m->dropped[DROPPED_INCARNATION]) - stale, 1);
    assert_int_equal(s.player.n_down, 0);
    close_stage(&s);
}

/* One message within a session that must be refused, and the counter of its cause. */
typedef struct {
    const char   *what;
    uint16_t      type;
    uint16_t      protocol;
    const char   *body;
    error_code    code;
    refusal_cause cause;
} bad_message;

static void what_the_schema_does_not_allow_is_refused_and_nothing_breaks(void **state)
{
    (void)state;
    static const bad_message table[] = {
        {"an unknown type", 999, 1, "\x80", ERR_UNSUPPORTED, REFUSED_UNKNOWN},
        {"an unknown protocol", MSG_DRAFT_REPLY, 9, "\x80", ERR_UNSUPPORTED, REFUSED_UNKNOWN},
        {"another role's message", MSG_STEP_RESULT, 1, "\x80", ERR_UNAUTHORIZED, REFUSED_ROLE},
        {"a message not for this role", MSG_TEXT_DELTA, 1, "\x80", ERR_UNAUTHORIZED, REFUSED_ROLE},
        {"a body that is no map", MSG_DRAFT_REPLY, 1, "\x93", ERR_INVALID, REFUSED_MALFORMED},
        {"a body that breaks off", MSG_DRAFT_REPLY, 1, "\x81\x01", ERR_INVALID, REFUSED_MALFORMED},
        {"no body", MSG_DRAFT_REPLY, 1, "", ERR_INVALID, REFUSED_MALFORMED},
    };
    stage                s;
    const actor_metrics *m = actor_metrics_of(ROLE_SCHEDULER);
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    for (size_t i = 0; i < COUNT(table); i++) {
        double   before = metric_value(m->refused[table[i].cause]);
        envelope e      = {
                 .type = table[i].type, .protocol = table[i].protocol, .incarnation = 7, .sequence = ++s.wire.sequence};
        e.request.bytes[0] = 0xaa;
        wire_say_frames(&s.wire, &e, span_of(table[i].body));
        const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
        if (refused->code != table[i].code || refused->type != table[i].type || refused->text.size == 0)
            fail_msg("%s: refused as type %u with %s: %.*s", table[i].what, refused->type,
                     error_name((error_code)refused->code), SPAN_ARG(refused->text));
        assert_int_equal(s.wire.got.request.bytes[0], 0xaa);
        assert_int_equal(metric_value(m->refused[table[i].cause]) - before, 1);
    }
    wire_say(&s.wire, MSG_DRAFT_REPLY, &draft_reply_defaults); /* and the session stands */
    wire_count(&s.wire, 0, 100);
    assert_int_equal(s.player.n_replies, 1);
    assert_int_equal(s.player.n_down, 0);
    close_stage(&s);
}

static void an_envelope_that_is_garbage_is_refused(void **state)
{
    (void)state;
    stage s;
    error err;
    open_stage(&s, ROLE_DRAFTER);
    assert_true(transport_send(s.wire.mailbox, 0, (span){0}, SPAN("GET / HTTP/1.1"), SPAN(""), &err));
    const node_refused *refused = wire_expect(&s.wire, MSG_NODE_REFUSED);
    assert_int_equal(refused->code, ERR_INVALID);
    close_stage(&s);
}

static void under_an_older_epoch_than_before_a_node_is_not_heard(void **state)
{
    (void)state;
    stage s;
    open_reversed_stage(&s);
    const actor_metrics *m = actor_metrics_of(ROLE_DRAFTER);
    wire_expect(&s.wire, MSG_NODE_HELLO);
    s.wire.epoch = 5;
    wire_say_welcome(&s.wire, 2);
    draft_request request = draft_request_defaults;
    request.n             = 1;
    wire_say(&s.wire, MSG_DRAFT_REQUEST, &request);
    wire_expect(&s.wire, MSG_DRAFT_REPLY);
    double stale = metric_value(m->dropped[DROPPED_EPOCH]);
    s.wire.epoch = 4;
    wire_say(&s.wire, MSG_DRAFT_REQUEST, &request);
    assert_int_equal(((const node_credit *)wire_expect(&s.wire, MSG_NODE_CREDIT))->n, 1); /* of the first */
    assert_int_equal(((const node_credit *)wire_expect(&s.wire, MSG_NODE_CREDIT))->n, 1); /* its credit is not lost */
    assert_int_equal(s.player.n_requests, 1);
    assert_int_equal(metric_value(m->dropped[DROPPED_EPOCH]) - stale, 1);
    wire_say(&s.wire, MSG_NODE_HEARTBEAT, &node_heartbeat_defaults); /* but it lives */
    wire_count(&s.wire, 0, 2900);
    assert_int_equal(s.player.n_down, 0);
    close_stage(&s);
}

static void a_second_hello_of_one_node_replaces_the_first_session(void **state)
{
    (void)state;
    stage s;
    open_stage(&s, ROLE_DRAFTER);
    wire_say_hello(&s.wire, 5);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    wire_node_reconnect(&s.wire, endpoint);
    wire_say_hello(&s.wire, 2);
    wire_expect(&s.wire, MSG_NODE_WELCOME);
    assert_int_equal(s.player.n_up, 2);
    assert_int_equal(s.player.n_down, 1);
    assert_int_equal(actor_find_peer(s.actor, span_of(s.wire.name))->credits, 2);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_is_welcomed_with_credits),
        cmocka_unit_test(heartbeats_come_each_second_and_carry_the_load),
        cmocka_unit_test(a_silent_peer_is_gone_once_and_its_next_word_is_refused),
        cmocka_unit_test(any_message_counts_as_a_heartbeat),
        cmocka_unit_test(a_session_speaks_the_highest_protocol_that_both_sides_know),
        cmocka_unit_test(whoever_calls_offers_its_range_and_speaks_what_the_welcome_picks),
        cmocka_unit_test(a_hello_that_does_not_add_up_is_refused),
        cmocka_unit_test(a_refused_client_tries_again_slowly),
        cmocka_unit_test(a_client_says_hello_until_it_is_welcomed),
        cmocka_unit_test(a_server_that_was_away_for_long_is_not_made_to_wait),
        cmocka_unit_test(a_restarted_server_is_greeted_anew),
        cmocka_unit_test(a_session_the_server_forgot_begins_again),
        cmocka_unit_test(a_hole_in_the_sequence_ends_the_session),
        cmocka_unit_test(a_session_that_the_service_ends_is_over_for_both),
        cmocka_unit_test(duplicates_and_stale_incarnations_are_dropped_and_counted),
        cmocka_unit_test(what_the_schema_does_not_allow_is_refused_and_nothing_breaks),
        cmocka_unit_test(an_envelope_that_is_garbage_is_refused),
        cmocka_unit_test(under_an_older_epoch_than_before_a_node_is_not_heard),
        cmocka_unit_test(a_second_hello_of_one_node_replaces_the_first_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
