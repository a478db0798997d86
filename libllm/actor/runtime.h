/* The inside of an actor; only for the files of libllm/actor.
 *
 *   actor.c      life: open, loop, wait, leave
 *   handshake.c  hello, welcome, heartbeat, bye; who comes and who goes
 *   inbox.c      what may come in: checks in a fixed order, then the handler
 *   outbox.c     what goes out: envelopes, credits, refusals
 *   places.c     servers that are known by a name */
#ifndef TROUPE_ACTOR_RUNTIME_H
#define TROUPE_ACTOR_RUNTIME_H

#include "actor/actor.h"
#include "actor/actor_metrics.h"
#include "actor/peers.h"
#include "actor/timer_heap.h"
#include "base/random.h"
#include "bus/envelope.h"
#include "bus/transport.h"

#include <pthread.h>
#include <stdatomic.h>

enum { ACTOR_WATCHES_MAX = 32, TICKS_PER_HEARTBEAT = 4 };

/* A connected link's way to a peer: unused (bound links stay here), waiting to say hello, hello said, welcomed. */
typedef enum { LINK_APART, LINK_ASKED, LINK_UP } link_state;

typedef struct {
    transport  *mailbox;
    char        endpoint[BUS_ENDPOINT_BYTES];
    bool        connects;
    const char *name;   /* in actor.names, of a server behind one; NULL */
    bool        listed; /* of a server behind a name: still there */
    link_state  state;
    uint32_t    n_tries;  /* hellos since it was up last */
    uint32_t    n_knocks; /* looks for a server since the last hello */
    actor_timer timer;    /* connected: the next try, or the end of patience with a hello */
    actor      *owner;
} actor_link;

typedef struct {
    int fd; /* -1: free */
    void (*ready)(void *arg, short events);
    void *arg;
} actor_watch_entry;

/* Where the servers behind a name are (places.c). */
typedef struct {
    char     name[ACTOR_PLACE_BYTES];
    uint32_t n;
    char     places[ACTOR_PLACES_MAX][ACTOR_PLACE_BYTES];
} actor_name_places;

struct actor {
    const actor_class *class;
    void                *self;
    actor_options        options;
    const clock_source  *clock;
    int64_t              now_ns;
    char                 name[BUS_NAME_BYTES + 1];
    uint64_t             incarnation, epoch;
    random_seeded        jitter;
    const actor_metrics *metrics;
    actor_handler      **handlers; /* by index in message_infos */

    pthread_mutex_t   names_mutex;
    actor_name_places names[ACTOR_NAMES_MAX]; /* guarded by it */
    atomic_bool       names_changed;

    transport  *mailboxes[N_TRANSPORT_KINDS];
    actor_link  links[ACTOR_LINKS_MAX];
    uint32_t    n_links;
    peer_table  peers;
    peer_entry *gone;    /* their on_peer_down is due */
    uint32_t    n_owing; /* peers with credits to give back */
    timer_heap  timers;
    actor_timer tick;
    uint32_t    n_ticks;
    int64_t     ticked_ns;
    arena      *decoded;     /* the body of the message in hand */
    arena      *send_memory; /* send_buffer lives in it */
    uint8_t    *send_buffer;

    int               epoll_fd, wake_fd;
    actor_watch_entry watches[ACTOR_WATCHES_MAX];
    uint32_t          n_watches;
    bool              started, in_turn, ready, draining, finished, left;
    uint32_t          capacity;
    pthread_t         thread;
    bool              thread_runs;

    atomic_uint_fast64_t n_wakes; /* written to wake_fd, or about to be */
    uint64_t             n_wakes_taken;
    atomic_bool          woken, stop_asked, drain_asked, dump_asked, reload_asked; /* what other threads may touch */
};

/* actor.c */
bool       actor_is_due(actor *a);         /* a turn would do something; for simulations */
bool       actor_has_left(const actor *a); /* it takes no more turns */
void       actor_check(const actor *a);    /* asserts the invariants of the runtime, then of the service */
void       actor_crash(actor **a);         /* frees it as a killed process would leave: no bye. For simulations */
transport *actor_mailbox(const actor *a, transport_kind kind);

transport *actor_mailbox_for(actor *a, const char *endpoint, error *err);

/* places.c */
void actor_take_places(actor *a);                /* what another thread said of names */
void actor_drop_link(actor *a, uint32_t number); /* is called no more */

/* handshake.c */
void actor_link_start(actor_link *link); /* a connected link begins to say hello */
void actor_tick_start(actor *a);         /* heartbeats begin */
void actor_say_heartbeats(actor *a);     /* now, because readiness or capacity changed */
void actor_on_hello(actor *a, const transport_message *t, const message *m);
void actor_on_welcome(actor *a, uint32_t link, const message *m);
void actor_on_handshake_refused(actor *a, uint32_t link, const node_refused *refused);
void actor_part(actor *a, peer_entry *entry, const char *reason); /* says bye and marks it gone */
void actor_mark_gone(actor *a, peer_entry *entry, const char *reason);
void actor_report_gone(actor *a); /* calls on_peer_down for each that is gone; never inside a handler */

/* inbox.c */
void actor_take_in(actor *a, const transport_message *t);

/* outbox.c */
/* Encodes and sends outside of any session or as its first message: `sequence` is given. */
bool actor_send_raw(actor *a, uint32_t link, span identity, uint32_t protocol, uint64_t sequence, uint16_t type,
                    const void *body, const envelope *regarding, error *err);
bool actor_send_entry(actor *a, peer_entry *to, uint16_t type, const void *body, const envelope *regarding, error *err);
void actor_refuse(actor *a, const transport_message *t, peer_entry *from, const envelope *regarding,
                  refusal_cause cause, const error *why);
void actor_owe(actor *a, peer_entry *to, uint32_t n);
void actor_pay_credits(actor *a); /* sends the grants of a turn */

static inline peer_entry *entry_of(peer *p)
{
    return (peer_entry *)p;
}

#endif
