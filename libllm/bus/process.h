/* What the endpoints of one process share; only for the files of libllm/bus and for the simulation. */
#ifndef TROUPE_BUS_PROCESS_H
#define TROUPE_BUS_PROCESS_H

#include "bus/keys.h"
#include "bus/transport.h"

#include <pthread.h>

typedef struct queue_hub   queue_hub;
typedef struct sim_network sim_network;

enum { BUS_INPROC_MAX = 64 };

struct bus {
    bus_options  options;
    bus_keys     keys;
    queue_hub   *queues;
    sim_network *network; /* every endpoint is on it; NULL outside simulations. Borrowed */

    pthread_mutex_t lock; /* of what follows */
    void           *zmq;  /* the context; NULL until the first ZeroMQ endpoint */
    pthread_t       zap_thread;
    bool            zap_runs;
    uint32_t        n_transports;
    char            inproc[BUS_INPROC_MAX][BUS_ENDPOINT_BYTES]; /* endpoints bound now; "" is free */
};

/* The process's one ZeroMQ context, started with the ZAP handler on the first call. NULL with *err set on failure. */
void *bus_zmq_context(bus *b, error *err);

/* Which inproc endpoints are bound. ZeroMQ lets a socket connect before there is a bind, but not reconnect to a later
 * one, and a socket closed while it waits is never freed: so we connect when the bind is there. */
bool bus_inproc_add(bus *b, const char *endpoint, error *err);
void bus_inproc_remove(bus *b, const char *endpoint);
bool bus_inproc_exists(bus *b, const char *endpoint);

queue_hub *queue_hub_new(error *err);
void       queue_hub_free(queue_hub **hub);

/* Constructors of the three kinds; transport_new counts and dispatches. */
transport *transport_queue_new(bus *b, error *err);
transport *transport_zmq_new(bus *b, const char *name, error *err);
transport *transport_sim_new(bus *b, const char *name, error *err);

#endif
