#include "support_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

wire_node wire_node_new(simulation *sim, role r, uint64_t incarnation, const char *endpoint, bool listens)
{
    error     err;
    wire_node n = {.sim = sim, .role = r, .incarnation = incarnation, .listens = listens, .protocol = 1};
    snprintf(n.name, sizeof n.name, "%s-%016llx", role_name(r), (unsigned long long)incarnation);
    n.mailbox = transport_new(simulation_bus(sim), TRANSPORT_SIM, n.name, &err);
    n.memory  = arena_new(1 << 20, &err);
    assert_non_null(n.mailbox);
    assert_true(listens ? transport_bind(n.mailbox, 0, endpoint, &err)
                        : transport_connect(n.mailbox, 0, endpoint, &err));
    return n;
}

void wire_node_free(wire_node *n)
{
    transport_free(&n->mailbox);
    arena_free(&n->memory);
}

void wire_node_reconnect(wire_node *n, const char *endpoint)
{
    error err;
    assert_true(transport_connect(n->mailbox, 0, endpoint, &err));
    n->sequence = 0;
}

void wire_say_frames(wire_node *n, const envelope *e, span body)
{
    error   err;
    uint8_t frame[ENVELOPE_BYTES];
    envelope_encode(e, frame);
    if (!transport_send(n->mailbox, 0, (span){n->identity, n->identity_bytes}, (span){(char *)frame, sizeof frame},
                        body, &err))
        fail_msg("%s", err.text);
}

void wire_say(wire_node *n, uint16_t type, const void *body)
{
    static uint8_t buffer[1 << 16];
    wire_writer    out = {.data = buffer, .capacity = sizeof buffer};
    error          err;
    assert_true(message_encode(type, body, &out, &err));
    envelope e = {.type        = type,
                  .protocol    = n->protocol,
                  .incarnation = n->incarnation,
                  .sequence    = ++n->sequence,
                  .epoch       = n->epoch};
    wire_say_frames(n, &e, (span){(char *)buffer, out.size});
}

void wire_say_hello(wire_node *n, uint32_t credits)
{
    node_hello hello   = node_hello_defaults;
    hello.name         = span_of(n->name);
    hello.role         = n->role;
    hello.incarnation  = n->incarnation;
    hello.credits      = credits;
    hello.protocol_min = hello.protocol_max = 1;
    wire_say(n, MSG_NODE_HELLO, &hello);
}

void wire_say_welcome(wire_node *n, uint32_t credits)
{
    node_welcome welcome = node_welcome_defaults;
    welcome.name         = span_of(n->name);
    welcome.role         = n->role;
    welcome.incarnation  = n->incarnation;
    welcome.protocol     = n->protocol;
    welcome.credits      = credits;
    n->sequence          = 0;
    wire_say(n, MSG_NODE_WELCOME, &welcome);
}

static bool has_mail(void *arg)
{
    return transport_pending(((wire_node *)arg)->mailbox);
}

/* The next message within max_ns; false when none came. */
static bool next_message(wire_node *n, int64_t max_ns)
{
    transport_message t;
    error             err;
    if (!simulation_run_until(n->sim, has_mail, n, max_ns))
        return false;
    assert_true(transport_receive(n->mailbox, &t));
    assert_true(envelope_decode(t.envelope, &n->got, &err));
    arena_reset(n->memory);
    span body = arena_copy(n->memory, t.body);
    assert_true(message_decode(n->got.type, body, n->memory, &n->body, &err));
    if (n->listens) {
        n->identity_bytes = t.identity.size;
        memcpy(n->identity, t.identity.data, t.identity.size);
    }
    return true;
}

const void *wire_expect(wire_node *n, uint16_t type)
{
    int64_t end_ns = clock_now_ns(simulation_clock(n->sim)) + 10 * NS_PER_S;
    for (;;) {
        int64_t left_ns = end_ns - clock_now_ns(simulation_clock(n->sim));
        if (left_ns <= 0 || !next_message(n, left_ns))
            fail_msg("no message of type %u came", type);
        if (n->got.type == type)
            return n->body;
    }
}

uint32_t wire_count(wire_node *n, uint16_t type, int64_t ms)
{
    int64_t  end_ns = clock_now_ns(simulation_clock(n->sim)) + ms * NS_PER_MS;
    uint32_t count  = 0;
    for (;;) {
        int64_t left_ns = end_ns - clock_now_ns(simulation_clock(n->sim));
        if (left_ns <= 0 || !next_message(n, left_ns))
            return count;
        count += n->got.type == type;
    }
}
