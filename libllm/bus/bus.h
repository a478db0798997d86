/* The bus: nodes that exchange typed messages over ZeroMQ, or over in-process queues.
 *
 * One message is two frames: an envelope and a body, both msgpack, both checked before anything reads them
 * (bus/wire.h). This header is what the actor runtime uses; services use actor/actor.h. */
#ifndef TROUPE_BUS_BUS_H
#define TROUPE_BUS_BUS_H

#include "base/clock.h"
#include "base/error.h"
#include "base/span.h"

enum {
    BUS_PROTOCOL_MIN       = 1,
    BUS_PROTOCOL_MAX       = 1,
    BUS_MESSAGE_BYTES_MAX  = 32 << 20,
    BUS_ENVELOPE_BYTES_MAX = 256,
    BUS_NAME_BYTES         = 64,
    BUS_ENDPOINT_BYTES     = 256,
};

/* 128 random bits; all zero is "no request". Given by the gateway (or by a client on the bus). */
typedef struct {
    uint8_t bytes[16];
} request_id;

/* In every message from the first day: who says it, for which request and attempt, under which epoch. */
typedef struct {
    uint16_t   type;     /* MSG_... */
    uint16_t   protocol; /* version of the message's schema */
    request_id request;
    uint32_t   attempt;     /* 0, 1, ...: a receiver drops what an older attempt says */
    uint64_t   incarnation; /* of the sender's process */
    uint64_t
        epoch; /* lease epoch of the sender, 0 when it holds none: receivers drop lower than the highest they saw */
    uint64_t sequence;         /* rises by one with each message of a sender on a link: holes are counted */
    int64_t  deadline_unix_ms; /* 0: none */
    uint8_t  trace[25];        /* W3C trace context: trace id (16), span id (8), flags (1); all zero: none */
} envelope;

typedef struct bus bus;

/* Security of tcp endpoints. Without keys a tcp endpoint is refused unless `insecure` is set. */
typedef struct {
    const char *secret_key_file; /* CURVE key pair of this process, as `troupe keys` writes it */
    const char *peers_file;      /* lines "public-key role": who may connect, and as what; see bus/keys.h */
    const char *server_key_file; /* public key (FILE.pub) of the servers that this process connects to */
    bool        insecure;        /* tcp without CURVE: loopback and closed networks only */
    uint32_t    n_io_threads;    /* 0: 1 */
} bus_options;

/* One a process. Starts the ZeroMQ context on the first zmq endpoint, and the ZAP handler when there are keys. NULL
 * options: inproc, queue and ipc only. */
bus *bus_new(const bus_options *options, error *err);

/* Every actor of the process must be freed before. */
void bus_free(bus **b);

/* Whether this process may connect to an endpoint, as far as keys go: for endpoints that are opened later. */
bool bus_may_connect(const bus *b, const char *endpoint, error *err) MUST_CHECK;

/* Makes a CURVE key pair: both keys into `path` (mode 0600), the public one into `path`.pub. Overwrites nothing. */
bool bus_write_keypair(const char *path, error *err) MUST_CHECK;

bool request_id_is_zero(const request_id *id);
bool request_id_equal(const request_id *a, const request_id *b);

/* 32 hex digits and a NUL. */
void request_id_print(const request_id *id, char text[33]);

#endif
