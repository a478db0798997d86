/* A mailbox: how one actor's messages travel. The actor runtime knows only this.
 *
 * A mailbox has links, numbered by its owner. A bound link hears many peers, each with an identity of its own; a
 * connected link has one, the server, and its identity is empty. The messages between two ends of one connection arrive
 * in order, or the connection is lost; a link that is connected anew gets a new identity, so that what is left of the
 * old one cannot be mistaken for the new. Whether a lost connection is noticed at once depends on the kind: the runtime
 * above relies on heartbeats.
 *
 * Three kinds: ZeroMQ (inproc, ipc, tcp), mutex queues within a process (queue), and the simulated network, which takes
 * endpoints of every scheme when the bus has one. A mailbox belongs to one thread at a time. */
#ifndef TROUPE_BUS_TRANSPORT_H
#define TROUPE_BUS_TRANSPORT_H

#include "bus/bus.h"
#include "bus/keys.h"

enum {
    TRANSPORT_LINKS_MAX          = 64,
    TRANSPORT_IDENTITY_BYTES_MAX = 80,
    TRANSPORT_KEY_BYTES          = 40,
};

typedef enum { TRANSPORT_QUEUE, TRANSPORT_ZMQ, TRANSPORT_SIM, N_TRANSPORT_KINDS } transport_kind;

/* What arrived. The bytes are valid until the next receive or connect of the mailbox. */
typedef struct {
    uint32_t link;
    uint32_t n_frames; /* 2 in every proper message: else envelope and body are what there was of them */
    span     identity; /* of the sender on a bound link: give it to send to answer */
    span     key;      /* of the sender, TRANSPORT_KEY_BYTES of Z85, on a bound link with CURVE; else empty */
    span     envelope;
    span     body;
} transport_message;

typedef struct transport transport;

typedef struct {
    /* Opens a link. A name that nobody has bound yet is no error to connect. Fails when the endpoint is malformed,
     * taken, or not allowed without keys. Connecting an open link again drops its connection and what was not sent yet;
     * to NULL, that is all. "tcp://host:port#KEY" is a server whose public CURVE key is not the process's
     * --bus-server-key. */
    bool (*bind)(transport *t, uint32_t link, const char *endpoint, error *err);
    bool (*connect)(transport *t, uint32_t link, const char *endpoint, error *err);

    /* Copies a message into the connection, never waits. ERR_NOT_READY: a connected link has reached no server yet, or
     * lost it; ERR_GONE: the peer left; ERR_TOO_LARGE, ERR_OVERLOADED: nothing was sent, the connection stands. */
    bool (*send)(transport *t, uint32_t link, span identity, span envelope_frame, span body, error *err);

    /* Takes the next message if there is one. */
    bool (*receive)(transport *t, transport_message *m);

    /* To be asked before each wait on `fd`: true when there is something to receive now, so do not wait. Skipping it
     * can sleep through a message: the fd only tells of what happened since this was asked. */
    bool (*pending)(transport *t);

    /* Readable when there may be something to receive; -1 for a simulation. It is the same for the mailbox's life. */
    int (*fd)(const transport *t);

    /* Where a bound link really listens, for endpoints that let the system choose a port; with CURVE its public key
     * follows behind a #, so that whoever is told can connect. */
    bool (*endpoint)(transport *t, uint32_t link, char *text, size_t text_bytes);

    void (*free)(transport *t);
} transport_class;

struct transport {
    const transport_class *class;
    bus            *bus;
    const bus_keys *keys; /* the bus's: which role a message's key may take */
};

/* The kind that serves an endpoint. Fails when the scheme is unknown. */
bool transport_kind_of(const bus *b, const char *endpoint, transport_kind *kind, error *err) MUST_CHECK;

/* A mailbox of one kind. `name` becomes part of the identities that its connections show. The bus is borrowed and must
 * outlive it. */
transport *transport_new(bus *b, transport_kind kind, const char *name, error *err);

/* Closes every link. What was sent on them is still delivered where the transport can (ZeroMQ: for up to a second). */
void transport_free(transport **t);

static inline bool transport_bind(transport *t, uint32_t link, const char *endpoint, error *err)
{
    return t->class->bind(t, link, endpoint, err);
}

static inline bool transport_connect(transport *t, uint32_t link, const char *endpoint, error *err)
{
    return t->class->connect(t, link, endpoint, err);
}

static inline bool transport_send(transport *t, uint32_t link, span identity, span envelope_frame, span body,
                                  error *err)
{
    return t->class->send(t, link, identity, envelope_frame, body, err);
}

static inline bool transport_receive(transport *t, transport_message *m)
{
    return t->class->receive(t, m);
}

static inline bool transport_pending(transport *t)
{
    return t->class->pending(t);
}

static inline int transport_fd(const transport *t)
{
    return t->class->fd(t);
}

#endif
