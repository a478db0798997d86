/* A node played by a test, frame by frame, in a simulation: for what a well-behaved actor never says. */
#ifndef TROUPE_TESTS_UNIT_ACTOR_SUPPORT_WIRE_H
#define TROUPE_TESTS_UNIT_ACTOR_SUPPORT_WIRE_H

#include "actor/simulation.h"
#include "bus/envelope.h"
#include "bus/transport.h"

typedef struct {
    simulation *sim;
    transport  *mailbox; /* link 0 */
    arena      *memory;
    bool        listens;
    char        name[BUS_NAME_BYTES + 1];
    role        role;
    uint64_t    incarnation, sequence, epoch;
    uint16_t    protocol;                               /* of what it says; 1 */
    char        identity[TRANSPORT_IDENTITY_BYTES_MAX]; /* of the last sender, when listening */
    size_t      identity_bytes;
    envelope    got; /* of the last message */
    const void *body;
} wire_node;

wire_node wire_node_new(simulation *sim, role r, uint64_t incarnation, const char *endpoint, bool listens);
void      wire_node_free(wire_node *n);

/* Drops the connection for a new one; the sequence begins again. */
void wire_node_reconnect(wire_node *n, const char *endpoint);

/* One message with the next sequence number. */
void wire_say(wire_node *n, uint16_t type, const void *body);
void wire_say_frames(wire_node *n, const envelope *e, span body);

/* A hello with everything in order; `credits` are given to the actor. */
void wire_say_hello(wire_node *n, uint32_t credits);
void wire_say_welcome(wire_node *n, uint32_t credits);

/* Runs the simulation until a message of `type` came (others are passed over), and fails the test when none came within
 * ten seconds. */
const void *wire_expect(wire_node *n, uint16_t type);

/* Runs for ms, and tells how many messages of the type came. */
uint32_t wire_count(wire_node *n, uint16_t type, int64_t ms);

#endif
