/* The client on the bus: asks when it is time, hears the answers, and asks again where a client would: when its gateway
 * was lost, or refused a request that had not begun. */
#ifndef TROUPE_TESTS_SIM_CLIENT_H
#define TROUPE_TESTS_SIM_CLIENT_H

#include "sim/schedules/world.h"

extern const actor_class client_class; /* its options are the world */

/* Ends the process with the seed of the schedule (main.c). */
void schedule_failed(const world *w, const ask *a, const char *why) __attribute__((noreturn));

#endif
