/* An array of logs, looked through one by one: keys are digests, so a comparison ends at the first byte. An entry is
 * its length and its bytes, one behind the other. */
#include "store/memory_logs.h"

#include <stdlib.h>

enum { LOGS_MAX = 1024, LOGS_BYTES_MAX = 64 << 20, LOG_BYTES_FIRST = 1024 };

typedef struct {
    bool       is_used, is_done;
    store_name key, fingerprint;
    uint64_t   fence, n_entries;
    int64_t    note, lease_ends_ns, expires_ns, touched_ns;
    size_t     size, capacity, n_entry_bytes; /* size: with the lengths */
    char      *bytes;
} memory_log;

struct memory_logs {
    const clock_source *clock;
    uint64_t            fence; /* of the last log that was given to a writer */
    size_t              capacity;
    span                found[STORE_LOG_READ_ENTRIES];
    memory_log          all[LOGS_MAX];
};

memory_logs *memory_logs_new(const clock_source *clock, error *err)
{
    memory_logs *logs = calloc(1, sizeof *logs);
    if (logs)
        logs->clock = clock;
    else
        error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", sizeof *logs);
    return logs;
}

static void forget(memory_logs *logs, memory_log *log)
{
    logs->capacity -= log->capacity;
    free(log->bytes);
    *log = (memory_log){0};
}

void memory_logs_free(memory_logs **logs)
{
    for (size_t i = 0; *logs && i < LOGS_MAX; i++)
        free((*logs)->all[i].bytes);
    free(*logs);
    *logs = NULL;
}

static memory_log *find(memory_logs *logs, span key, int64_t now_ns)
{
    for (memory_log *log = logs->all; log < logs->all + LOGS_MAX; log++) {
        if (!log->is_used || !span_equal(store_name_span(&log->key), key))
            continue;
        if (log->expires_ns > now_ns)
            return log;
        forget(logs, log);
        return NULL;
    }
    return NULL;
}

/* Frees the log that was touched longest ago, but not `spared`. */
static memory_log *make_room(memory_logs *logs, const memory_log *spared)
{
    memory_log *oldest = NULL;
    for (memory_log *log = logs->all; log < logs->all + LOGS_MAX; log++)
        if (log->is_used && log != spared && (!oldest || log->touched_ns < oldest->touched_ns))
            oldest = log;
    if (oldest)
        forget(logs, oldest);
    return oldest;
}

static memory_log *new_log(memory_logs *logs)
{
    for (memory_log *log = logs->all; log < logs->all + LOGS_MAX; log++)
        if (!log->is_used)
            return log;
    return make_room(logs, NULL);
}

static void describe(const memory_log *log, int64_t now_ns, store_reply *reply)
{
    reply->log = (store_log){.fence     = log->fence,
                             .n_entries = log->n_entries,
                             .note      = log->note,
                             .is_done   = log->is_done,
                             .is_held   = !log->is_done && log->lease_ends_ns > now_ns};
}

static void touch(memory_log *log, const store_request *r, int64_t now_ns)
{
    log->touched_ns = now_ns;
    log->expires_ns = now_ns + r->ttl_ms * NS_PER_MS;
}

static void do_open(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_log *log = find(logs, store_name_span(&r->id), now_ns);
    if (log && !span_equal(store_name_span(&log->fingerprint), store_name_span(&r->second))) {
        reply->status = STORE_REFUSED;
        return;
    }
    if (!log) {
        log  = new_log(logs);
        *log = (memory_log){.is_used = true, .key = r->id, .fingerprint = r->second, .note = r->amount};
    }
    bool is_free = !log->is_done && log->lease_ends_ns <= now_ns;
    if (is_free) {
        uint64_t unix_us   = (uint64_t)clock_unix_ms(logs->clock) * 1000;
        logs->fence        = logs->fence + 1 > unix_us ? logs->fence + 1 : unix_us;
        log->fence         = logs->fence;
        log->lease_ends_ns = now_ns + r->lease_ms * NS_PER_MS;
    }
    touch(log, r, now_ns);
    describe(log, now_ns, reply);
    reply->log.is_granted = is_free;
    reply->log.is_held    = reply->log.is_held && !is_free;
}

static bool grow(memory_logs *logs, memory_log *log, size_t size)
{
    size_t capacity = log->capacity ? log->capacity : LOG_BYTES_FIRST;
    while (capacity < size)
        capacity *= 2;
    while (logs->capacity - log->capacity + capacity > LOGS_BYTES_MAX)
        if (!make_room(logs, log))
            return false;
    char *bytes = realloc(log->bytes, capacity);
    if (!bytes)
        return false;
    logs->capacity += capacity - log->capacity;
    log->bytes    = bytes;
    log->capacity = capacity;
    return true;
}

static bool add_entry(memory_logs *logs, memory_log *log, const store_request *r)
{
    uint32_t length = (uint32_t)r->entry.size;
    size_t   size   = log->size + sizeof length + length;
    if (log->n_entries >= STORE_LOG_ENTRIES || log->n_entry_bytes + length > STORE_LOG_BYTES ||
        (size > log->capacity && !grow(logs, log, size)))
        return false;
    memcpy(log->bytes + log->size, &length, sizeof length);
    memcpy(log->bytes + log->size + sizeof length, r->entry.data, length);
    log->size = size;
    log->n_entry_bytes += length;
    log->n_entries++;
    log->is_done = r->is_last;
    return true;
}

static void do_append(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_log *log = find(logs, store_name_span(&r->id), now_ns);
    reply->status   = !log ? STORE_NOT_FOUND : log->fence != r->epoch ? STORE_REFUSED : STORE_OK;
    if (reply->status != STORE_OK)
        return;
    if (r->entry.size > 0 && log->n_entries != r->n_before + 1 &&
        (log->n_entries != r->n_before || !add_entry(logs, log, r))) {
        reply->status = STORE_NOT_FOUND;
        return;
    }
    log->lease_ends_ns = now_ns + r->lease_ms * NS_PER_MS;
    touch(log, r, now_ns);
}

static void do_read(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_log *log     = find(logs, store_name_span(&r->id), now_ns);
    size_t      n_bytes = 0, at = 0;
    if (!log) {
        reply->status = STORE_NOT_FOUND;
        return;
    }
    describe(log, now_ns, reply);
    reply->entries = logs->found;
    for (uint64_t i = 0; i < log->n_entries && reply->n_entries < STORE_LOG_READ_ENTRIES; i++) {
        uint32_t length;
        memcpy(&length, log->bytes + at, sizeof length);
        at += sizeof length;
        if (i >= r->n_before && n_bytes < STORE_LOG_READ_BYTES) {
            logs->found[reply->n_entries++] = (span){log->bytes + at, length};
            n_bytes += length;
        }
        at += length;
    }
}

static void do_release(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply)
{
    memory_log *log = find(logs, store_name_span(&r->id), now_ns);
    reply->status   = log && log->fence == r->epoch ? STORE_OK : STORE_REFUSED;
    if (reply->status != STORE_OK)
        return;
    if (r->is_last)
        forget(logs, log);
    else
        log->lease_ends_ns = 0;
}

void memory_logs_execute(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply)
{
    switch ((int)r->op) {
    case STORE_OP_LOG_OPEN:
        do_open(logs, r, now_ns, reply);
        break;
    case STORE_OP_LOG_APPEND:
        do_append(logs, r, now_ns, reply);
        break;
    case STORE_OP_LOG_READ:
        do_read(logs, r, now_ns, reply);
        break;
    case STORE_OP_LOG_RELEASE:
        do_release(logs, r, now_ns, reply);
        break;
    }
}
