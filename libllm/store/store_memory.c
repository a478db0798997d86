/* The store of a single process: tables of fixed size, driven by the clock it is given, so that a simulation can run
 * it.
 *
 * Requests wait in a queue and are executed by the next turn, so callers see the same order of events as with Redis. */
#include "store/expiry_table.h"
#include "store/memory_logs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MEMORY_WORKERS     = STORE_WORKERS_MAX,
    MEMORY_SESSIONS    = 16384,
    MEMORY_INVENTORIES = 1024,
    MEMORY_BLOCKS      = 65536,
    MEMORY_COUNTERS    = 4096,
    INVENTORY_BYTES    = 2 * STORE_NAME_BYTES + 32,
};

typedef struct {
    uint64_t   epoch;
    store_name role, address;
    uint32_t   n_capability_bytes;
    char       capabilities[STORE_CAPABILITY_BYTES];
} memory_worker;

typedef struct {
    store_name worker;
    uint64_t   epoch, fence, n_blocks, last_hash;
} memory_session;

/* A block's key: which inventory, which block. The inventory's number is never reused, so forgetting the inventory
 * forgets its blocks; they are evicted when room is needed. */
typedef struct {
    uint64_t inventory, hash;
} block_key;

typedef struct {
    const clock_source *clock;
    uint64_t            epoch, n_inventories;
    store_queue         queue;
    expiry_table       *workers, *sessions, *inventories, *blocks, *counters;
    memory_logs        *logs;
    store_worker        listed[STORE_WORKERS_MAX];
    store_block         found[STORE_BUCKET_BLOCKS];
} memory;

static void memory_close(void *self)
{
    memory *m = self;
    expiry_table_free(&m->workers);
    expiry_table_free(&m->sessions);
    expiry_table_free(&m->inventories);
    expiry_table_free(&m->blocks);
    expiry_table_free(&m->counters);
    memory_logs_free(&m->logs);
    free(m);
}

static void *memory_open(store *s, const store_options *options, error *err)
{
    (void)options;
    memory *m = calloc(1, sizeof *m);
    if (!m) {
        error_set(err, ERR_NO_MEMORY, "store: no memory for %zu bytes", sizeof *m);
        return NULL;
    }
    m->clock    = store_clock(s);
    m->workers  = expiry_table_new(MEMORY_WORKERS, STORE_NAME_BYTES, sizeof(memory_worker), err);
    m->sessions = m->workers ? expiry_table_new(MEMORY_SESSIONS, STORE_NAME_BYTES, sizeof(memory_session), err) : NULL;
    m->inventories = m->sessions ? expiry_table_new(MEMORY_INVENTORIES, INVENTORY_BYTES, sizeof(uint64_t), err) : NULL;
    m->blocks      = m->inventories ? expiry_table_new(MEMORY_BLOCKS, sizeof(block_key), sizeof(uint8_t), err) : NULL;
    m->counters    = m->blocks ? expiry_table_new(MEMORY_COUNTERS, STORE_NAME_BYTES, sizeof(int64_t), err) : NULL;
    m->logs        = m->counters ? memory_logs_new(m->clock, err) : NULL;
    if (!m->logs) {
        error_wrap(err, "store");
        memory_close(m);
        return NULL;
    }
    return m;
}

static int64_t expiry(const store_request *r, int64_t now_ns)
{
    return now_ns + r->ttl_ms * NS_PER_MS;
}

/* ---------------------------------------------------------------------------------------------------- workers */

/* As Redis does it: above every epoch given out, above the one the worker remembers, and not below the clock. */
static void do_register(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    uint64_t unix_us = (uint64_t)clock_unix_ms(m->clock) * 1000;
    m->epoch         = m->epoch + 1 > unix_us ? m->epoch + 1 : unix_us;
    if (m->epoch <= r->epoch)
        m->epoch = r->epoch + 1;
    memory_worker *w      = expiry_table_put(m->workers, store_name_span(&r->id), now_ns);
    w->epoch              = m->epoch;
    w->role               = r->role;
    w->address            = r->second;
    w->n_capability_bytes = r->capabilities.size;
    memcpy(w->capabilities, r->capabilities.bytes, r->capabilities.size);
    expiry_table_touch(m->workers, w, expiry(r, now_ns));
    reply->epoch = m->epoch;
}

static memory_worker *held_lease(memory *m, const store_request *r, int64_t now_ns)
{
    memory_worker *w = expiry_table_find(m->workers, store_name_span(&r->id), now_ns);
    return w && w->epoch == r->epoch ? w : NULL;
}

static void do_renew(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_worker *w = held_lease(m, r, now_ns);
    if (w)
        expiry_table_touch(m->workers, w, expiry(r, now_ns));
    reply->status = w ? STORE_OK : STORE_REFUSED;
}

static void do_release(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_worker *w = held_lease(m, r, now_ns);
    if (w)
        expiry_table_remove(m->workers, w);
    reply->status = w ? STORE_OK : STORE_REFUSED;
}

static void do_list(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_worker *w = NULL;
    while ((w = expiry_table_next(m->workers, w, now_ns))) {
        if (!span_equal(store_name_span(&w->role), store_name_span(&r->role)))
            continue;
        m->listed[reply->n_workers++] = (store_worker){
            .id           = expiry_table_key(m->workers, w),
            .address      = store_name_span(&w->address),
            .capabilities = {w->capabilities, w->n_capability_bytes},
            .epoch        = w->epoch,
        };
    }
    store_sort_workers(m->listed, reply->n_workers);
    reply->workers = m->listed;
}

/* --------------------------------------------------------------------------------------------------- sessions */

static void do_session_set(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_session *session = expiry_table_put(m->sessions, store_name_span(&r->id), now_ns);
    if (session->fence > r->fence) {
        reply->status = STORE_REFUSED;
        return;
    }
    session->worker    = r->second;
    session->epoch     = r->epoch;
    session->fence     = r->fence;
    session->n_blocks  = r->n_blocks;
    session->last_hash = r->last_hash;
    expiry_table_touch(m->sessions, session, expiry(r, now_ns));
}

static void do_session_get(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_session *session = expiry_table_find(m->sessions, store_name_span(&r->id), now_ns);
    if (!session) {
        reply->status = STORE_NOT_FOUND;
        return;
    }
    expiry_table_touch(m->sessions, session, expiry(r, now_ns));
    reply->session = (store_session){
        .worker    = store_name_span(&session->worker),
        .epoch     = session->epoch,
        .fence     = session->fence,
        .last_hash = session->last_hash,
        .n_blocks  = session->n_blocks,
    };
}

/* ------------------------------------------------------------------------------------------------------ blocks */

static span inventory_key(const store_request *r, char out[INVENTORY_BYTES])
{
    int n = snprintf(out, INVENTORY_BYTES, "%" PRIu64 ".%.*s:", r->epoch, SPAN_ARG(store_name_span(&r->id)));
    memcpy(out + n, r->second.bytes, r->second.size);
    return (span){out, (size_t)n + r->second.size};
}

static span block_key_span(const block_key *key)
{
    return (span){(const char *)key, sizeof *key};
}

static void do_publish(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    (void)reply;
    char      text[INVENTORY_BYTES];
    uint64_t *inventory = expiry_table_put(m->inventories, inventory_key(r, text), now_ns);
    if (*inventory == 0)
        *inventory = ++m->n_inventories;
    expiry_table_touch(m->inventories, inventory, expiry(r, now_ns));
    for (uint32_t i = 0; i < r->n_hashes; i++) {
        block_key key  = {*inventory, r->hashes[i]};
        uint8_t  *tier = expiry_table_put(m->blocks, block_key_span(&key), now_ns);
        *tier          = r->tier;
        expiry_table_touch(m->blocks, tier, INT64_MAX);
    }
}

static void do_forget(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    (void)reply;
    char      text[INVENTORY_BYTES];
    uint64_t *inventory = expiry_table_find(m->inventories, inventory_key(r, text), now_ns);
    if (inventory && r->n_hashes == 0)
        expiry_table_remove(m->inventories, inventory);
    for (uint32_t i = 0; inventory && i < r->n_hashes; i++) {
        block_key key  = {*inventory, r->hashes[i]};
        uint8_t  *tier = expiry_table_find(m->blocks, block_key_span(&key), now_ns);
        if (tier)
            expiry_table_remove(m->blocks, tier);
    }
}

static void do_read(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    char      text[INVENTORY_BYTES];
    uint64_t *inventory = expiry_table_find(m->inventories, inventory_key(r, text), now_ns);
    reply->blocks       = m->found;
    if (!inventory)
        return;
    uint8_t *tier = NULL;
    while (reply->n_blocks < STORE_BUCKET_BLOCKS && (tier = expiry_table_next(m->blocks, tier, now_ns))) {
        block_key key;
        memcpy(&key, expiry_table_key(m->blocks, tier).data, sizeof key);
        if (key.inventory == *inventory && key.hash % STORE_BLOCK_BUCKETS == r->bucket)
            m->found[reply->n_blocks++] = (store_block){key.hash, *tier};
    }
}

/* ---------------------------------------------------------------------------------------------------- counters */

static void do_count(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    int64_t *count = expiry_table_find(m->counters, store_name_span(&r->id), now_ns);
    if (!count) {
        count = expiry_table_put(m->counters, store_name_span(&r->id), now_ns);
        expiry_table_touch(m->counters, count, expiry(r, now_ns));
    }
    /* Redis refuses what overflows, too. */
    if (__builtin_add_overflow(*count, r->amount, &reply->value))
        reply->status = STORE_DEGRADED;
    else
        *count = reply->value;
}

/* -------------------------------------------------------------------------------------------------------- logs */

static void do_log(memory *m, store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_logs_execute(m->logs, r, now_ns, reply);
}

/* ------------------------------------------------------------------------------------------------------- turns */

static void memory_submit(void *self, store_request *request)
{
    store_queue_push(&((memory *)self)->queue, request);
}

static bool memory_turn(void *self, int64_t now_ns)
{
    static void (*const execute[N_STORE_OPS])(memory *, store_request *, int64_t, store_reply *) = {
        [STORE_OP_REGISTER]    = do_register,
        [STORE_OP_RENEW]       = do_renew,
        [STORE_OP_RELEASE]     = do_release,
        [STORE_OP_LIST]        = do_list,
        [STORE_OP_SESSION_SET] = do_session_set,
        [STORE_OP_SESSION_GET] = do_session_get,
        [STORE_OP_PUBLISH]     = do_publish,
        [STORE_OP_FORGET]      = do_forget,
        [STORE_OP_READ]        = do_read,
        [STORE_OP_COUNT]       = do_count,
        [STORE_OP_LOG_OPEN]    = do_log,
        [STORE_OP_LOG_APPEND]  = do_log,
        [STORE_OP_LOG_READ]    = do_log,
        [STORE_OP_LOG_RELEASE] = do_log,
    };
    memory *m             = self;
    bool    did_something = m->queue.first != NULL;
    /* Callbacks may hand in more: those wait for the next turn. */
    store_queue due = m->queue;
    m->queue        = (store_queue){NULL, NULL};
    for (store_request *request; (request = store_queue_pop(&due));) {
        store_reply reply = {.status = STORE_OK};
        execute[request->op](m, request, now_ns, &reply);
        store_complete(request, &reply);
    }
    return did_something;
}

static int64_t memory_next_ns(const void *self)
{
    return ((const memory *)self)->queue.first ? 0 : INT64_MAX;
}

static int memory_fd(const void *self)
{
    (void)self;
    return -1;
}

const store_backend store_memory_backend = {
    .open    = memory_open,
    .close   = memory_close,
    .submit  = memory_submit,
    .turn    = memory_turn,
    .next_ns = memory_next_ns,
    .fd      = memory_fd,
};
