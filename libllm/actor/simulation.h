/* Many actors on one thread, in virtual time, from one seed.
 *
 * A simulation picks at random which actor with something to do takes the next turn, delays every message at random,
 * and moves its clock to the next timer or message when nobody has anything to do: hours of heartbeats pass in
 * milliseconds, and a run that failed fails again from its seed. Actors are written as for a real process; one that
 * leaves work to a thread of its own is outside the clock's reach and does not belong here. */
#ifndef TROUPE_ACTOR_SIMULATION_H
#define TROUPE_ACTOR_SIMULATION_H

#include "actor/actor.h"
#include "base/random.h"
#include "bus/transport_sim.h"

typedef struct simulation simulation;

enum { SIMULATION_ACTORS_MAX = 256 };

simulation *simulation_new(uint64_t seed, error *err);

/* Frees the actors too, in the order in which they were added. */
void simulation_free(simulation **s);

/* actor_new with the simulation's bus, clock and, when options->incarnation is 0, an incarnation drawn from the seed.
 * Endpoints of every scheme name places in the simulated network. The simulation owns the actor. */
actor *simulation_add(simulation *s, const actor_class *class, const void *service_options,
                      const actor_options *options, error *err);

/* Ends an actor as SIGKILL would: no bye, and what it sent may be lost. The pointer is dead afterwards. Not from inside
 * a handler. */
void simulation_kill(simulation *s, actor *a);

/* Frees an actor that has left by itself. */
void simulation_remove(simulation *s, actor *a);

/* Stops an actor for so long as SIGSTOP would: it takes no turns, and what is sent to it waits. */
void simulation_freeze(simulation *s, const actor *a, int64_t ns);

/* From now on the turns of an actor take virtual time: the processor's that they took. Then the same run is not the
 * same any more; it is for benchmarks. simulation_charged_ns says how much that was so far. */
void    simulation_charge(simulation *s, const actor *a);
int64_t simulation_charged_ns(const simulation *s);

/* Runs until done(arg) is true (then true is returned) or until max_ns of virtual time have passed. done is asked after
 * each turn; NULL runs for max_ns. */
bool simulation_run_until(simulation *s, bool (*done)(void *arg), void *arg, int64_t max_ns);

/* Delays, duplicates, losses; messages between two nodes lost (cut) or no longer. */
void simulation_set_network(simulation *s, const sim_network_options *options);
void simulation_cut(simulation *s, const actor *a, const actor *b, bool cut);
void simulation_heal(simulation *s); /* no pair is cut any more */

/* For a test's own choices, so that they follow the seed. */
random_seeded      *simulation_random(simulation *s);
const clock_source *simulation_clock(const simulation *s);
bus                *simulation_bus(simulation *s);
uint64_t            simulation_turns(const simulation *s);

#endif
