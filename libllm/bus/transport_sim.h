/* A network that exists only in memory and virtual time, for simulations on one thread.
 *
 * Messages of one connection arrive in order, each after a delay drawn from a seeded generator; the connections of one
 * mailbox take random turns. A pair of nodes can be cut from each other, messages can come twice, a mailbox can vanish
 * as a killed process does. The same seed and the same calls give the same run. */
#ifndef TROUPE_BUS_TRANSPORT_SIM_H
#define TROUPE_BUS_TRANSPORT_SIM_H

#include "base/clock.h"
#include "bus/transport.h"

typedef struct sim_network sim_network;

typedef struct {
    int64_t delay_min_ns, delay_max_ns; /* of each message */
    double  duplicate;                  /* share of messages that arrive twice */
    double  lose;                       /* ... that do not arrive, of which nobody is told */
} sim_network_options;

/* The clock is borrowed. sim_network_attach makes a bus use the network for every endpoint; free the bus and all actors
 * first. */
sim_network *sim_network_new(uint64_t seed, const clock_source *clock, error *err);
void         sim_network_free(sim_network **n);
void         sim_network_attach(sim_network *n, bus *b);
void         sim_network_set(sim_network *n, const sim_network_options *options);

/* From now on (or no longer) every message between the two named nodes is lost without a sign. Forgets the oldest of
 * more than 64 cuts. */
void sim_network_cut(sim_network *n, const char *name_a, const char *name_b, bool cut);

/* No pair is cut any more. */
void sim_network_heal(sim_network *n);

/* The mailbox is about to be freed as by a crash: what it sent may be lost, and those who send to it may not notice. */
void sim_network_crash(sim_network *n, transport *t);

/* When the next message arrives anywhere; INT64_MAX when none is on its way. Those that arrived and were not received
 * do not count. */
int64_t sim_network_next_due_ns(const sim_network *n);

#endif
