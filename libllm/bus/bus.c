/* What the endpoints of one process share: keys, the ZeroMQ context, and the names bound inside it. */
#include "bus/bus.h"
#include "bus/process.h"
#include "bus/zap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <zmq.h>

enum { ZMQ_SOCKETS_MAX = 4096 };

bus *bus_new(const bus_options *options, error *err)
{
    bus *b = calloc(1, sizeof *b);
    if (!b) {
        error_set(err, ERR_NO_MEMORY, "no memory for the bus");
        return NULL;
    }
    pthread_mutex_init(&b->lock, NULL);
    if (options)
        b->options = *options;
    b->queues = queue_hub_new(err);
    if (!b->queues ||
        !bus_keys_read(&b->keys, b->options.secret_key_file, b->options.server_key_file, b->options.peers_file, err))
        bus_free(&b);
    return b;
}

void bus_free(bus **b)
{
    if (!*b)
        return;
    assert((*b)->n_transports == 0);
    if ((*b)->zmq) {
        zmq_ctx_shutdown((*b)->zmq); /* ends the ZAP handler; every other socket is closed */
        if ((*b)->zap_runs)
            pthread_join((*b)->zap_thread, NULL);
        while (zmq_ctx_term((*b)->zmq) != 0 && zmq_errno() == EINTR)
            ;
    }
    queue_hub_free(&(*b)->queues);
    bus_keys_clear(&(*b)->keys);
    pthread_mutex_destroy(&(*b)->lock);
    free(*b);
    *b = NULL;
}

static void *start_context(bus *b, error *err)
{
    void *context = zmq_ctx_new();
    if (!context) {
        error_set(err, ERR_NO_MEMORY, "ZeroMQ cannot start: %s", zmq_strerror(zmq_errno()));
        return NULL;
    }
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, ZMQ_SOCKETS_MAX);
    zmq_ctx_set(context, ZMQ_IO_THREADS, b->options.n_io_threads ? (int)b->options.n_io_threads : 1);
    /* The handler must be there before the first server socket, or ZeroMQ lets everybody in. */
    if (b->keys.n_peers > 0 && !(b->zap_runs = zap_start(context, &b->keys, &b->zap_thread, err))) {
        zmq_ctx_term(context);
        return NULL;
    }
    return context;
}

void *bus_zmq_context(bus *b, error *err)
{
    pthread_mutex_lock(&b->lock);
    if (!b->zmq)
        b->zmq = start_context(b, err);
    void *context = b->zmq;
    pthread_mutex_unlock(&b->lock);
    return context;
}

/* The index of an endpoint among those bound, or BUS_INPROC_MAX. The lock is held. */
static uint32_t inproc_index(const bus *b, const char *endpoint)
{
    uint32_t i = 0;
    while (i < BUS_INPROC_MAX && strcmp(b->inproc[i], endpoint) != 0)
        i++;
    return i;
}

bool bus_inproc_add(bus *b, const char *endpoint, error *err)
{
    bool ok = true;
    pthread_mutex_lock(&b->lock);
    uint32_t unused = inproc_index(b, "");
    if (strlen(endpoint) >= BUS_ENDPOINT_BYTES || unused == BUS_INPROC_MAX)
        ok = error_set(err, ERR_TOO_LARGE, "%s: over %d bytes, or more than %d inproc endpoints", endpoint,
                       BUS_ENDPOINT_BYTES - 1, BUS_INPROC_MAX);
    else
        memcpy(b->inproc[unused], endpoint, strlen(endpoint) + 1);
    pthread_mutex_unlock(&b->lock);
    return ok;
}

void bus_inproc_remove(bus *b, const char *endpoint)
{
    pthread_mutex_lock(&b->lock);
    uint32_t i = inproc_index(b, endpoint);
    if (i < BUS_INPROC_MAX)
        b->inproc[i][0] = '\0';
    pthread_mutex_unlock(&b->lock);
}

bool bus_inproc_exists(bus *b, const char *endpoint)
{
    pthread_mutex_lock(&b->lock);
    bool found = inproc_index(b, endpoint) < BUS_INPROC_MAX;
    pthread_mutex_unlock(&b->lock);
    return found;
}

bool transport_kind_of(const bus *b, const char *endpoint, transport_kind *kind, error *err)
{
    if (b->network)
        *kind = TRANSPORT_SIM;
    else if (strncmp(endpoint, "queue://", 8) == 0)
        *kind = TRANSPORT_QUEUE;
    else if (strncmp(endpoint, "inproc://", 9) == 0 || strncmp(endpoint, "ipc://", 6) == 0 ||
             strncmp(endpoint, "tcp://", 6) == 0)
        *kind = TRANSPORT_ZMQ;
    else
        return error_set(err, ERR_INVALID,
                         "endpoint %s: queue://NAME, inproc://NAME, ipc://PATH or tcp://HOST:PORT was expected",
                         endpoint);
    return true;
}

transport *transport_new(bus *b, transport_kind kind, const char *name, error *err)
{
    transport *t = kind == TRANSPORT_QUEUE ? transport_queue_new(b, err)
                   : kind == TRANSPORT_ZMQ ? transport_zmq_new(b, name, err)
                                           : transport_sim_new(b, name, err);
    if (t) {
        t->bus  = b;
        t->keys = &b->keys;
        pthread_mutex_lock(&b->lock);
        b->n_transports++;
        pthread_mutex_unlock(&b->lock);
    }
    return t;
}

void transport_free(transport **t)
{
    if (!*t)
        return;
    bus *b = (*t)->bus;
    (*t)->class->free(*t);
    *t = NULL;
    pthread_mutex_lock(&b->lock);
    b->n_transports--;
    pthread_mutex_unlock(&b->lock);
}
