/* Looks up the names in tcp endpoints again and again, and tells actors every address that they stand for.
 *
 * In a deployment a service's name stands for all of its copies, and they come and go: with `--scale scheduler=2` the
 * name has two addresses. A thread of its own asks, because looking up may block. */
#ifndef TROUPE_TROUPE_RESOLVER_H
#define TROUPE_TROUPE_RESOLVER_H

#include "actor/actor.h"

typedef struct resolver resolver;

/* Fills out[0..*n) with the addresses of a host, as endpoints write them, and returns true; false: it is not known now.
 * The default asks the system, and takes IPv6 only where there is no IPv4: a server of both would be called twice. */
typedef bool resolver_lookup(const char *host, char (*out)[ACTOR_PLACE_BYTES], uint32_t *n);

/* Whether an endpoint has a name in it that is to be looked up: "tcp://scheduler:5571" has, "tcp://10.0.0.1:5571",
 * "tcp://[::1]:5571" and "ipc://x" have none. */
bool resolver_wants(const char *endpoint);

/* NULL: the system's. */
resolver *resolver_new(resolver_lookup *lookup, error *err);

/* Nobody is told anything any more. */
void resolver_free(resolver **r);

/* Tells `a`, which outlives the resolver's thread, of the servers behind an endpoint. Before resolver_start. */
bool resolver_add(resolver *r, actor *a, const char *endpoint, error *err) MUST_CHECK;

/* Looks everything up once a second from now on. Nothing is done without endpoints. */
bool resolver_start(resolver *r, error *err) MUST_CHECK;

/* One round, on the calling thread. An actor hears of an endpoint whose addresses changed. */
void resolver_turn(resolver *r);

#endif
