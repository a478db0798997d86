/* An operation in hand, and what a kind of store has to offer: the seam between store.c and its implementations. */
#ifndef TROUPE_STORE_REQUEST_H
#define TROUPE_STORE_REQUEST_H

#include "base/metric.h"
#include "store/store.h"

typedef enum {
    STORE_OP_REGISTER,
    STORE_OP_RENEW,
    STORE_OP_RELEASE,
    STORE_OP_LIST,
    STORE_OP_SESSION_SET,
    STORE_OP_SESSION_GET,
    STORE_OP_PUBLISH,
    STORE_OP_FORGET,
    STORE_OP_READ,
    STORE_OP_COUNT,
    STORE_OP_LOG_OPEN,
    STORE_OP_LOG_APPEND,
    STORE_OP_LOG_READ,
    STORE_OP_LOG_RELEASE,
    N_STORE_OPS
} store_op;

typedef struct {
    uint32_t size;
    char     bytes[STORE_NAME_BYTES];
} store_name;

/* Lives in a slot of the store from the call to the callback. */
typedef struct store_request {
    struct store_request *next;
    store                *owner;
    store_callback       *done;
    void                 *arg;
    store_op              op;
    int64_t               deadline_ns;
    bool                  was_reloaded; /* Redis: its script was missing once and has been loaded */

    store_name id;     /* worker, session, counter or log */
    store_name role;   /* workers */
    store_name second; /* a lease's address, a session's worker, an inventory's model, a log's fingerprint */
    uint32_t   ttl_ms;
    uint32_t   n_hashes;
    uint32_t   bucket;
    uint8_t    tier;
    uint64_t   epoch, fence, n_blocks, last_hash;
    int64_t    amount; /* a log's note */
    uint64_t   n_before;
    uint32_t   lease_ms;
    bool       is_last; /* entry, or the end of the log */
    span       entry;   /* the caller's, until the callback */
    union {
        uint64_t hashes[STORE_BLOCKS_MAX];
        struct {
            uint32_t size;
            char     bytes[STORE_CAPABILITY_BYTES];
        } capabilities;
    };
} store_request;

/* Requests in the order they were handed in. */
typedef struct {
    store_request *first, *last;
} store_queue;

typedef struct {
    /* NULL with *err set on failure. */
    void *(*open)(store *s, const store_options *options, error *err);
    void (*close)(void *self);
    /* Takes a request; later gives it to store_complete. Makes no callback itself. */
    void (*submit)(void *self, store_request *request);
    bool (*turn)(void *self, int64_t now_ns);
    int64_t (*next_ns)(const void *self);
    int (*fd)(const void *self);
} store_backend;

extern const store_backend store_memory_backend;
extern const store_backend store_redis_backend;

/* Makes the callback and frees the request's slot. Only from a backend's turn. */
void store_complete(store_request *request, const store_reply *reply);

/* The request's callback comes at the end of this turn, or of the next one, with STORE_DEGRADED. */
void store_degrade(store_request *request);

/* Raises or lowers the store's degraded state and its gauge. */
void store_set_degraded(store *s, bool is_degraded);

/* By id: the order that store_list promises. */
void store_sort_workers(store_worker *workers, uint32_t n_workers);

const clock_source *store_clock(const store *s);
const char         *store_metric_labels(const store *s);

static inline span store_name_span(const store_name *name)
{
    return (span){name->bytes, name->size};
}

static inline void store_queue_push(store_queue *queue, store_request *request)
{
    request->next = NULL;
    if (queue->last)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
}

static inline store_request *store_queue_pop(store_queue *queue)
{
    store_request *request = queue->first;
    if (request) {
        queue->first = request->next;
        if (!queue->first)
            queue->last = NULL;
    }
    return request;
}

#endif
