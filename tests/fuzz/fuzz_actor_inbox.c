// links: llm_actor
/* Any frames into an actor that a simulated peer has said hello to. Input: records of an envelope (type, sequence step,
 * flags) and a body, or raw frames. The actor must take them all, keep its invariants, and still welcome the next peer.
 */
#include "actor/simulation.h"
#include "base/log.h"
#include "bus/envelope.h"
#include "bus/transport.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *create(actor *a, const void *options, error *err)
{
    (void)options;
    (void)err;
    return a;
}

static void destroy(void *self)
{
    (void)self;
}

static void answer(void *self, const message *m)
{
    error       err;
    draft_reply reply = draft_reply_defaults;
    if (actor_send(self, m->from, MSG_DRAFT_REPLY, &reply, m->envelope, &err))
        actor_grant(self, m->from, 1);
}

static const actor_route routes[] = {{MSG_DRAFT_REQUEST, answer}, {MSG_DRAFT_FORGET, actor_ignore}};
static const actor_class class    = {.name     = "drafter",
                                     .role     = ROLE_DRAFTER,
                                     .routes   = routes,
                                     .n_routes = COUNT(routes),
                                     .create   = create,
                                     .destroy  = destroy};

static void say(transport *t, uint16_t type, uint64_t sequence, span body)
{
    uint8_t  frame[ENVELOPE_BYTES];
    envelope e = {.type = type, .protocol = 1, .incarnation = 7, .sequence = sequence};
    envelope_encode(&e, frame);
    (void)!transport_send(t, 0, (span){0}, (span){(char *)frame, sizeof frame}, body, NULL);
}

static void say_hello(transport *t)
{
    uint8_t     bytes[256];
    wire_writer out    = {.data = bytes, .capacity = sizeof bytes};
    node_hello  hello  = node_hello_defaults;
    hello.name         = SPAN("scheduler-0000000000000007");
    hello.role         = ROLE_SCHEDULER;
    hello.incarnation  = 7;
    hello.credits      = 2;
    hello.protocol_min = hello.protocol_max = 1;
    if (!message_encode(MSG_NODE_HELLO, &hello, &out, NULL))
        abort();
    say(t, MSG_NODE_HELLO, 1, (span){(char *)bytes, out.size});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_set_level(LOG_OFF);
    simulation   *sim      = simulation_new(1, NULL);
    actor_options options  = {.bind = {"tcp://drafter:1"}, .credits = 2};
    actor        *a        = simulation_add(sim, &class, NULL, &options, NULL);
    transport    *t        = transport_new(simulation_bus(sim), TRANSPORT_SIM, "fuzzer", NULL);
    uint64_t      sequence = 1;
    if (!a || !t || !transport_connect(t, 0, "tcp://drafter:1", NULL))
        abort();
    say_hello(t);
    while (size >= 4) {
        size_t bytes = data[3] < size - 4 ? data[3] : size - 4;
        span   body  = {(const char *)data + 4, bytes};
        if (data[2] & 1)
            (void)!transport_send(t, 0, (span){0}, body, body, NULL);
        else
            say(t, (uint16_t)(data[0] | (data[1] & 1) << 8), sequence += data[2] >> 1 & 1 ? data[2] >> 6 : 1, body);
        if (data[2] & 4)
            simulation_run_until(sim, NULL, NULL, (data[2] >> 3 & 7) * NS_PER_S / 2);
        data += 4 + bytes;
        size -= 4 + bytes;
    }
    simulation_run_until(sim, NULL, NULL, 10 * NS_PER_S);
    assert(transport_connect(t, 0, "tcp://drafter:1", NULL));
    say_hello(t);
    simulation_run_until(sim, NULL, NULL, NS_PER_S);
    assert(actor_find_peer(a, SPAN("scheduler-0000000000000007")));
    transport_free(&t);
    simulation_free(&sim);
    return 0;
}
