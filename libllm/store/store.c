/* What every store does alike: judge arguments, keep the slots of operations in hand, make the callbacks. */
#include "store/store.h"

#include "store/request.h"

#include <assert.h>
#include <stdlib.h>

struct store {
    const store_backend *backend;
    void                *self; /* the backend's state */
    const clock_source  *clock;
    const char          *metric_labels;
    int64_t              deadline_ns;
    bool                 is_degraded;
    uint32_t             n_pending;
    store_queue          degraded; /* wait for the end of a turn to be called back */
    store_request       *free_slots;
    metric              *degraded_gauge, *degraded_counter, *refused_counter;
    store_request        slots[STORE_PENDING_MAX];
};

store *store_open(const store_options *options, error *err)
{
    span url = span_of(options->url ? options->url : "");
    if (options->key_prefix && strlen(options->key_prefix) > STORE_ROLE_BYTES) {
        error_set(err, ERR_INVALID, "store: the key prefix is over %d bytes", STORE_ROLE_BYTES);
        return NULL;
    }
    store *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, ERR_NO_MEMORY, "store: no memory for %zu bytes", sizeof *s);
        return NULL;
    }
    const char *labels = options->metric_labels ? options->metric_labels : "";
    s->backend         = span_is(url, "memory:") ? &store_memory_backend : &store_redis_backend;
    s->clock           = options->clock ? options->clock : clock_system();
    s->metric_labels   = labels;
    s->deadline_ns     = (options->deadline_ms ? options->deadline_ms : STORE_DEADLINE_MS) * NS_PER_MS;
    s->degraded_gauge  = metric_gauge("troupe_store_degraded", labels, "1 while the shared store gives no answers.");
    s->degraded_counter =
        metric_counter("troupe_store_degraded_total", labels, "Store operations that ended without an answer.");
    s->refused_counter =
        metric_counter("troupe_store_refused_total", labels, "Store operations refused because too many were in hand.");
    for (size_t i = STORE_PENDING_MAX; i-- > 0;) {
        s->slots[i].owner = s;
        s->slots[i].next  = s->free_slots;
        s->free_slots     = &s->slots[i];
    }
    s->self = s->backend->open(s, options, err);
    if (!s->self) {
        free(s);
        return NULL;
    }
    return s;
}

void store_free(store **s)
{
    if (!*s)
        return;
    (*s)->backend->close((*s)->self);
    free(*s);
    *s = NULL;
}

int store_fd(const store *s)
{
    return s->backend->fd(s->self);
}

int64_t store_next_ns(const store *s)
{
    return s->degraded.first ? 0 : s->backend->next_ns(s->self);
}

bool store_is_degraded(const store *s)
{
    return s->is_degraded;
}

uint32_t store_n_pending(const store *s)
{
    return s->n_pending;
}

const clock_source *store_clock(const store *s)
{
    return s->clock;
}

const char *store_metric_labels(const store *s)
{
    return s->metric_labels;
}

void store_set_degraded(store *s, bool is_degraded)
{
    s->is_degraded = is_degraded;
    metric_set(s->degraded_gauge, is_degraded);
}

void store_complete(store_request *request, const store_reply *reply)
{
    store          *s    = request->owner;
    store_callback *done = request->done;
    void           *arg  = request->arg;
    request->next        = s->free_slots;
    s->free_slots        = request;
    s->n_pending--;
    if (reply->status == STORE_DEGRADED)
        metric_add(s->degraded_counter, 1);
    if (done)
        done(arg, reply);
}

void store_degrade(store_request *request)
{
    store_queue_push(&request->owner->degraded, request);
}

static int compare_workers(const void *a, const void *b)
{
    span x = ((const store_worker *)a)->id, y = ((const store_worker *)b)->id;
    int  order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

void store_sort_workers(store_worker *workers, uint32_t n_workers)
{
    if (n_workers)
        qsort(workers, n_workers, sizeof *workers, compare_workers);
}

bool store_turn(store *s)
{
    bool                     did_something = s->backend->turn(s->self, clock_now_ns(s->clock));
    static const store_reply nothing       = {.status = STORE_DEGRADED};
    /* Callbacks may hand in operations that degrade at once: those wait for the next turn. */
    store_queue due = s->degraded;
    s->degraded     = (store_queue){NULL, NULL};
    for (store_request *request; (request = store_queue_pop(&due)); did_something = true)
        store_complete(request, &nothing);
    return did_something;
}

/* --------------------------------------------------------------------------------------------------- arguments */

/* A free slot for an operation, or NULL with *err set. */
static store_request *take_slot(store *s, store_op op, store_callback *done, void *arg, error *err)
{
    store_request *request = s->free_slots;
    if (!request) {
        metric_add(s->refused_counter, 1);
        error_set(err, ERR_OVERLOADED, "store: %d operations are in hand already", STORE_PENDING_MAX);
        return NULL;
    }
    request->op           = op;
    request->done         = done;
    request->arg          = arg;
    request->deadline_ns  = clock_now_ns(s->clock) + s->deadline_ns;
    request->was_reloaded = false;
    request->n_hashes     = 0;
    return request;
}

static bool submit(store *s, store_request *request)
{
    assert(request == s->free_slots);
    s->free_slots = request->next;
    s->n_pending++;
    s->backend->submit(s->self, request);
    return true;
}

static bool copy_bytes(store_name *name, span text, const char *what, error *err)
{
    if (text.size > STORE_NAME_BYTES)
        return error_set(err, ERR_INVALID, "store: the %s has %zu bytes, the limit is %d", what, text.size,
                         STORE_NAME_BYTES);
    name->size = (uint32_t)text.size;
    if (text.size)
        memcpy(name->bytes, text.data, text.size);
    return true;
}

static bool copy_name(store_name *name, span text, const char *what, error *err)
{
    if (text.size == 0)
        return error_set(err, ERR_INVALID, "store: the %s is empty", what);
    return copy_bytes(name, text, what, err);
}

/* Worker ids and roles are parts of keys, so they get by without separators. */
static bool copy_word(store_name *name, span text, const char *what, error *err)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
              c == '-'))
            return error_set(err, ERR_INVALID, "store: the %s has a byte other than letters, digits and \"._-\"", what);
    }
    return copy_name(name, text, what, err);
}

static bool copy_role(store_name *name, span text, error *err)
{
    if (text.size > STORE_ROLE_BYTES)
        return error_set(err, ERR_INVALID, "store: the role has %zu bytes, the limit is %d", text.size,
                         STORE_ROLE_BYTES);
    return copy_word(name, text, "role", err);
}

static bool copy_number(uint64_t *field, uint64_t number, const char *what, error *err)
{
    *field = number;
    return number <= STORE_NUMBER_MAX || error_set(err, ERR_INVALID, "store: the %s is not below 2^53", what);
}

static bool copy_ttl(store_request *request, uint32_t ttl_ms, error *err)
{
    request->ttl_ms = ttl_ms;
    return ttl_ms > 0 || error_set(err, ERR_INVALID, "store: a time to live of 0 ms");
}

/* -------------------------------------------------------------------------------------------------- operations */

bool store_register(store *s, const store_lease *lease, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_REGISTER, done, arg, err);
    if (!r || !copy_word(&r->id, lease->id, "worker id", err) || !copy_role(&r->role, lease->role, err) ||
        !copy_bytes(&r->second, lease->address, "address", err) ||
        !copy_number(&r->epoch, lease->last_epoch, "last epoch", err) || !copy_ttl(r, lease->ttl_ms, err))
        return false;
    if (lease->capabilities.size > STORE_CAPABILITY_BYTES)
        return error_set(err, ERR_INVALID, "store: the capabilities have %zu bytes, the limit is %d",
                         lease->capabilities.size, STORE_CAPABILITY_BYTES);
    r->capabilities.size = (uint32_t)lease->capabilities.size;
    if (lease->capabilities.size)
        memcpy(r->capabilities.bytes, lease->capabilities.data, lease->capabilities.size);
    return submit(s, r);
}

static store_request *take_lease_slot(store *s, store_op op, span id, span role, uint64_t epoch, store_callback *done,
                                      void *arg, error *err)
{
    store_request *r       = take_slot(s, op, done, arg, err);
    bool           is_good = r && copy_word(&r->id, id, "worker id", err) && copy_role(&r->role, role, err) &&
                   copy_number(&r->epoch, epoch, "epoch", err);
    return is_good ? r : NULL;
}

bool store_renew(store *s, span id, span role, uint64_t epoch, uint32_t ttl_ms, store_callback *done, void *arg,
                 error *err)
{
    store_request *r = take_lease_slot(s, STORE_OP_RENEW, id, role, epoch, done, arg, err);
    return r && copy_ttl(r, ttl_ms, err) && submit(s, r);
}

bool store_release(store *s, span id, span role, uint64_t epoch, store_callback *done, void *arg, error *err)
{
    store_request *r = take_lease_slot(s, STORE_OP_RELEASE, id, role, epoch, done, arg, err);
    return r && submit(s, r);
}

bool store_list(store *s, span role, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_LIST, done, arg, err);
    return r && copy_role(&r->role, role, err) && submit(s, r);
}

bool store_session_set(store *s, span session_id, const store_session *session, uint32_t ttl_ms, store_callback *done,
                       void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_SESSION_SET, done, arg, err);
    if (!r || !copy_name(&r->id, session_id, "session id", err) ||
        !copy_word(&r->second, session->worker, "worker id", err) ||
        !copy_number(&r->epoch, session->epoch, "epoch", err) ||
        !copy_number(&r->fence, session->fence, "fence", err) || !copy_ttl(r, ttl_ms, err))
        return false;
    r->n_blocks  = session->n_blocks;
    r->last_hash = session->last_hash;
    return submit(s, r);
}

bool store_session_get(store *s, span session_id, uint32_t ttl_ms, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_SESSION_GET, done, arg, err);
    return r && copy_name(&r->id, session_id, "session id", err) && copy_ttl(r, ttl_ms, err) && submit(s, r);
}

static store_request *take_inventory_slot(store *s, store_op op, const store_inventory *inventory,
                                          const uint64_t *hashes, uint32_t n_hashes, store_callback *done, void *arg,
                                          error *err)
{
    store_request *r = take_slot(s, op, done, arg, err);
    if (!r || !copy_word(&r->id, inventory->worker, "worker id", err) ||
        !copy_name(&r->second, inventory->model, "model name", err) ||
        !copy_number(&r->epoch, inventory->epoch, "epoch", err))
        return NULL;
    if (n_hashes > STORE_BLOCKS_MAX) {
        error_set(err, ERR_INVALID, "store: %u block hashes at once, the limit is %d", n_hashes, STORE_BLOCKS_MAX);
        return NULL;
    }
    r->n_hashes = n_hashes;
    if (n_hashes)
        memcpy(r->hashes, hashes, n_hashes * sizeof *hashes);
    return r;
}

bool store_blocks_publish(store *s, const store_inventory *inventory, const uint64_t *hashes, uint32_t n_hashes,
                          uint8_t tier, uint32_t ttl_ms, store_callback *done, void *arg, error *err)
{
    store_request *r = take_inventory_slot(s, STORE_OP_PUBLISH, inventory, hashes, n_hashes, done, arg, err);
    if (!r || !copy_ttl(r, ttl_ms, err))
        return false;
    r->tier = tier;
    return submit(s, r);
}

bool store_blocks_forget(store *s, const store_inventory *inventory, const uint64_t *hashes, uint32_t n_hashes,
                         store_callback *done, void *arg, error *err)
{
    store_request *r = take_inventory_slot(s, STORE_OP_FORGET, inventory, hashes, n_hashes, done, arg, err);
    return r && submit(s, r);
}

bool store_blocks_read(store *s, const store_inventory *inventory, uint32_t bucket, store_callback *done, void *arg,
                       error *err)
{
    store_request *r = take_inventory_slot(s, STORE_OP_READ, inventory, NULL, 0, done, arg, err);
    if (!r)
        return false;
    if (bucket >= STORE_BLOCK_BUCKETS)
        return error_set(err, ERR_INVALID, "store: bucket %u of %d", bucket, STORE_BLOCK_BUCKETS);
    r->bucket = bucket;
    return submit(s, r);
}

bool store_count(store *s, span name, int64_t amount, uint32_t ttl_ms, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_COUNT, done, arg, err);
    if (!r || !copy_name(&r->id, name, "counter's name", err) || !copy_ttl(r, ttl_ms, err))
        return false;
    r->amount = amount;
    return submit(s, r);
}

/* -------------------------------------------------------------------------------------------------------- logs */

bool store_log_open(store *s, const store_log_claim *claim, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_LOG_OPEN, done, arg, err);
    if (!r || !copy_name(&r->id, claim->key, "log's key", err) ||
        !copy_name(&r->second, claim->fingerprint, "log's fingerprint", err) || !copy_ttl(r, claim->ttl_ms, err))
        return false;
    r->amount   = claim->note;
    r->lease_ms = claim->lease_ms;
    return submit(s, r);
}

bool store_log_append(store *s, const store_log_entry *entry, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_LOG_APPEND, done, arg, err);
    if (!r || !copy_name(&r->id, entry->key, "log's key", err) || !copy_number(&r->epoch, entry->fence, "fence", err) ||
        !copy_ttl(r, entry->ttl_ms, err))
        return false;
    r->n_before = entry->n_before;
    r->entry    = entry->entry.size ? entry->entry : SPAN("");
    r->is_last  = entry->is_last;
    r->lease_ms = entry->lease_ms;
    return submit(s, r);
}

bool store_log_read(store *s, span key, uint64_t n_before, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_LOG_READ, done, arg, err);
    if (!r || !copy_name(&r->id, key, "log's key", err))
        return false;
    r->n_before = n_before;
    return submit(s, r);
}

bool store_log_release(store *s, span key, uint64_t fence, bool forget, store_callback *done, void *arg, error *err)
{
    store_request *r = take_slot(s, STORE_OP_LOG_RELEASE, done, arg, err);
    if (!r || !copy_name(&r->id, key, "log's key", err) || !copy_number(&r->epoch, fence, "fence", err))
        return false;
    r->is_last = forget;
    return submit(s, r);
}
