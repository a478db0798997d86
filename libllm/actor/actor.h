/* An actor: one struct of state, one table from message type to handler, timers, and one mailbox.
 *
 * Handlers run one at a time, to completion, and never block. A handler gets a decoded, validated body. After the inbox
 * is drained (or ACTOR_TURN_MESSAGES were handled) `on_turn` runs once: batching belongs there. The runtime owns
 * everything about the bus: hello and welcome, heartbeats, credits, refusal of what the schema does not allow,
 * reconnects. A service sees peers come and go, and messages.
 *
 * A process may hold several actors, each on a thread of its own (actor_start) or all on one thread in a simulation.
 * One actor is touched by one thread, except actor_stop and actor_wake. */
#ifndef TROUPE_ACTOR_ACTOR_H
#define TROUPE_ACTOR_ACTOR_H

#include "actor/recorder.h"
#include "base/clock.h"
#include "base/error.h"
#include "bus/bus.h"
#include "bus/messages.h"

typedef struct actor actor;

/* A peer as this actor sees it: a connected node that said hello or welcome. The pointer lives until on_peer_down
 * returns. */
typedef struct peer {
    const char *name; /* "executor-3f2a9c01d2b4e5f6"; unique, never reused */
    role        role;
    uint64_t    incarnation;
    uint64_t    epoch;    /* as it last said */
    uint32_t    credits;  /* messages that cost a credit which may be sent to it now */
    uint32_t    load;     /* from its last heartbeat */
    uint32_t    capacity; /* from its last heartbeat: what it can take, in units of its kind. 1 after hello */
    bool        ready;    /* from its last heartbeat; true after hello */
    bool        draining; /* from its last heartbeat */
    const char *version;  /* of its program, "" when it does not say; outside text */
    int64_t     since_ns; /* when its session began */
    bool        died;     /* in on_peer_down: it fell silent or its connection closed; nobody ended the session */
    void       *user;     /* the service's own; NULL at first */
} peer;

/* A message that arrived. Everything it points to dies when the handler returns. */
typedef struct {
    const envelope *envelope;
    peer           *from;
    const void     *body; /* the decoded struct of envelope->type */
} message;

typedef void actor_handler(void *self, const message *m);

typedef struct {
    uint16_t       type; /* MSG_... */
    actor_handler *handle;
} actor_route;

/* Handles a message that this service has no use for. Every message that the schema addresses to a role needs a route;
 * this one says that leaving it is meant. A credit that it cost is given back. */
actor_handler actor_ignore;

/* A service as the runtime sees it. */
typedef struct {
    const char        *name; /* "scheduler": for logs and the node's name */
    role               role;
    const actor_route *routes;
    uint32_t           n_routes;

    /* Makes the state. `options` is the service's own struct, borrowed for the actor's life. NULL with *err set on
     * failure. */
    void *(*create)(actor *a, const void *options, error *err);
    void (*destroy)(void *self);

    void (*on_start)(void *self);            /* sockets are open; may send nothing yet (no peers) */
    void (*on_turn)(void *self);             /* once a turn of the loop, after messages and timers */
    void (*on_peer_up)(void *self, peer *p); /* said hello or welcome */
    void (*on_peer_down)(void *self,
                         peer *p); /* once for each on_peer_up, never inside another handler; also before destroy. Left,
                                      or missed its heartbeats: everything sent to it may be lost */
    void (*on_credit)(void *self, peer *p); /* p->credits rose from 0 */

    /* m->from refused a message of ours; m->body is the node_refused, m->envelope has request and attempt of that
     * message. NULL: it is only logged. */
    void (*on_refused)(void *self, const message *m);
    void (*on_reload)(void *self);      /* read its files again; what can't be read stays as it was. NULL: has none */
    void (*on_drain)(void *self);       /* take nothing new; call actor_finish when the last request is done */
    uint32_t (*load)(const void *self); /* requests in hand, for heartbeats; NULL: 0 */

    /* Waits for something to do when the service has an event loop of its own (libevent): returns when `fd` is
     * readable, when timeout_ns (-1: none) passed, or earlier. NULL: the runtime polls fd and the watched descriptors.
     */
    void (*wait)(void *self, int fd, int64_t timeout_ns);

    void (*check)(const void *self); /* asserts the invariants; run when idle in debug builds and in simulations */
    void (*dump)(const void *self);  /* prints them to stderr on SIGUSR1 */
} actor_class;

enum { ACTOR_PLACE_BYTES = 128 };
enum {
    ACTOR_TURN_MESSAGES = 256,
    ACTOR_LINKS_MAX     = 64,
    ACTOR_NAMES_MAX     = 4,
    ACTOR_PLACES_MAX    = 16,
    ACTOR_PEERS_MAX     = 1024
};

/* Where an actor listens and whom it calls. Endpoints: "inproc://name", "queue://name" (in-process mutex queues, no
 * ZeroMQ), "ipc://path", "tcp://host:port". */
typedef struct {
    const char *bind[4];    /* unused are NULL */
    const char *connect[8]; /* each is a server this actor says hello to, again and again until it answers */
    uint32_t credits; /* given to each peer at hello and welcome: credit-costing messages it may have in flight to us */
    bus     *bus;     /* the process's; borrowed */
    recorder           *recorder;                    /* the process's, borrowed; NULL: nothing is recorded */
    const clock_source *clock;                       /* NULL: clock_system() */
    uint64_t            incarnation;                 /* 0: random. Simulations set it */
    int64_t             heartbeat_ms, dead_after_ms; /* 0: 1000 and 3000 */
    uint32_t            protocol_min, protocol_max;  /* 0: BUS_PROTOCOL_MIN and _MAX. Tests set others */
} actor_options;

/* Makes the actor, opens its sockets and calls class->create. Fails when an endpoint cannot be opened, or when the
 * routes lack a message that the schema addresses to this role. `options` and what it points to may be gone afterwards,
 * but for bus and clock. */
actor *actor_new(const actor_class *class, const void *service_options, const actor_options *options, error *err);
void   actor_free(actor **a);

/* Runs the loop on the calling thread until actor_stop, or until a drain finished. */
void actor_run(actor *a);

/* One turn without waiting, for simulations: handles what is there and what timers are due. Returns true when it did
 * anything. */
bool actor_turn(actor *a);

/* When the next timer is due (clock's monotonic ns); INT64_MAX when none. */
int64_t actor_next_due_ns(const actor *a);

/* actor_run on a thread of its own; actor_join waits for its end. */
bool actor_start(actor *a, error *err) MUST_CHECK;
void actor_join(actor *a);

/* From any thread and from a signal handler: ask to drain, to stop at once, to take a turn, to call class->dump, to
 * call class->on_reload. */
void actor_drain(actor *a);
void actor_stop(actor *a);
void actor_wake(actor *a);
void actor_dump(actor *a);
void actor_reload(actor *a);

/* From the actor's own thread, while draining: the work is done, leave. */
void actor_finish(actor *a);
bool actor_is_draining(const actor *a);

void               *actor_self(const actor *a);
const char         *actor_name(const actor *a); /* node name */
uint64_t            actor_incarnation(const actor *a);
const clock_source *actor_clock(const actor *a);
int64_t             actor_now_ns(const actor *a);              /* monotonic; stands still during a turn */
void                actor_set_epoch(actor *a, uint64_t epoch); /* goes into every envelope from now on */
void                actor_set_ready(actor *a, bool ready);     /* said in heartbeats; true at first */
void                actor_set_capacity(actor *a, uint32_t n);  /* the same; 1 at first */

/* Sends one message. `body` is the struct of `type`. `regarding` (may be NULL) gives request id, attempt, deadline and
 * trace of the envelope: pass the envelope of the message that caused this one, or one built by the service for a
 * request of its own. A type that costs a credit takes one from the peer: ERR_OVERLOADED when it has none (nothing was
 * sent). ERR_GONE when the peer is not there any more. ERR_TOO_LARGE when the encoded body is over
 * BUS_MESSAGE_BYTES_MAX. Messages to one peer arrive in order. */
bool actor_send(actor *a, peer *to, uint16_t type, const void *body, const envelope *regarding, error *err) MUST_CHECK;

/* Says bye to a peer that cannot be worked with, though it seems well. on_peer_down follows; whoever calls whom, they
 * begin a new session at once. */
void actor_end_session(actor *a, peer *p, const char *why);

/* Gives `n` credits back to a peer: its work is done. What a turn gives is sent in one message at its end. */
void actor_grant(actor *a, peer *to, uint32_t n);

/* From any thread: behind `name`, which stands for the servers of one kind, they listen at these `n` endpoints from now
 * on. Those that are new are called like options.connect; those that are not among them any more are called no more
 * when their session ends. False: a name, or an endpoint, is over the limits. */
bool actor_set_places(actor *a, const char *name, const char (*places)[ACTOR_PLACE_BYTES], uint32_t n, error *err);

/* The endpoint that bind[index] really listens on, for those that let the system choose a port; with CURVE "#" and the
 * public key follow. */
bool actor_endpoint(const actor *a, uint32_t index, char *text, size_t text_bytes);

/* A peer by node name, or NULL. */
peer *actor_find_peer(const actor *a, span name);

/* The ready peer of a role, of those with a credit, that has the fewest of our messages in hand for its capacity (then
 * the most credits, the least load for its capacity, the name); NULL when none has a credit.
 * `n_ready`, when not NULL, gets how many peers of that role are ready. */
peer *actor_pick_peer(const actor *a, role wanted, uint32_t *n_ready);

/* Calls visit(self_arg, peer) for each peer of a role (ROLE_UNKNOWN: all). */
void actor_each_peer(const actor *a, role wanted, void (*visit)(void *arg, peer *p), void *arg);

/* One-shot timers, embedded in the service's structs; zero-initialised is "not set". Setting again moves it. */
typedef struct actor_timer {
    int64_t  due_ns; /* 0: not set */
    uint32_t heap_index;
    void (*fire)(void *self, struct actor_timer *timer);
} actor_timer;

void actor_timer_set(actor *a, actor_timer *timer, int64_t delay_ns, void (*fire)(void *self, actor_timer *timer));
void actor_timer_cancel(actor *a, actor_timer *timer);

/* Sees to it that a turn begins by `due_ns` of the clock, when a library that the service turns wants to be turned
 * again; INT64_MAX: it does not. */
void actor_turn_by(actor *a, actor_timer *timer, int64_t due_ns);

/* Calls ready(arg, events) on the actor's thread when fd has one of `events` (POLLIN, POLLOUT); events 0 forgets the
 * fd. */
void actor_watch(actor *a, int fd, short events, void (*ready)(void *arg, short events), void *arg);

#endif
