/* Metadata that processes share and may lose: who is alive, which executor is warm for which session, which KV blocks
 * it holds. Never weights, KV data or prompts; and of responses only those whose client asked for it (logs, below).
 *
 * Everything here is a hint or a lease. Losing it costs recomputation, never correctness, so nobody waits for it: an
 * operation is handed in and its callback comes later, at the latest when its deadline passes, if need be with
 * STORE_DEGRADED. Two stores stand behind the interface: "memory:" inside the process, and Redis
 * ("redis://host:port/db", "unix:/path/to/socket"). With Redis down every operation is degraded at once, the outage is
 * logged once, the gauge troupe_store_degraded is 1, and the store keeps reconnecting with growing, jittered pauses.
 *
 * A lease comes with a fencing epoch: a number that rises with every registration of any worker, also across a lost
 * database. A worker puts it in every message; receivers drop lower ones than they have seen. That check at the
 * receiver is what makes a paused worker harmless; the lease only says whom to try.
 *
 * One thread owns a store: it makes the calls, polls store_fd and calls store_turn. Callbacks are made by store_turn
 * only, never from inside an operation, in no particular order; they may hand in new operations. */
#ifndef TROUPE_STORE_STORE_H
#define TROUPE_STORE_STORE_H

#include "base/clock.h"
#include "base/error.h"
#include "base/span.h"

typedef struct store store;

enum {
    STORE_DEADLINE_MS      = 50,
    STORE_PENDING_MAX      = 512, /* operations handed in and not yet called back */
    STORE_NAME_BYTES       = 128, /* worker, session, model and counter names, addresses */
    STORE_ROLE_BYTES       = 32,
    STORE_CAPABILITY_BYTES = 512,
    STORE_WORKERS_MAX      = 1024, /* workers in one list */
    STORE_BLOCKS_MAX       = 256,  /* block hashes in one publish or forget */
    STORE_BLOCK_BUCKETS    = 64,   /* an inventory is read bucket by bucket */
    STORE_BUCKET_BLOCKS    = 4096, /* blocks in one bucket's reply */
    STORE_LOG_ENTRIES      = 65536,
    STORE_LOG_BYTES        = 4 << 20,   /* of all entries of a log */
    STORE_LOG_READ_ENTRIES = 1024,      /* entries in one reply, and ... */
    STORE_LOG_READ_BYTES   = 256 << 10, /* ... no further one when they have so many bytes */
};

/* Epochs and fences are below 2^53: Redis' scripts count in doubles. */
#define STORE_NUMBER_MAX ((UINT64_C(1) << 53) - 1)

/* Borrowed for the store's life; metric_labels for ever. */
typedef struct {
    const char         *url;           /* "memory:", "redis://[user@]host[:port][/db]" or "unix:/path" */
    const char         *password_file; /* NULL: none. Read again at every connection, so it can be changed */
    const char         *key_prefix;    /* of every key in Redis; NULL: "troupe" */
    const char         *metric_labels; /* as metric_gauge wants them, other for each store of a process; NULL: "" */
    const clock_source *clock;         /* NULL: clock_system() */
    uint32_t            deadline_ms;   /* of one operation; 0: STORE_DEADLINE_MS */
} store_options;

/* Checks the options and returns at once; the connection is made by store_turn. NULL with *err set when the URL is
 * malformed or the password file can't be read. A process with a Redis store ignores SIGPIPE from here on. */
store *store_open(const store_options *options, error *err);

/* Operations in hand are dropped without a callback. Not to be called from a callback. */
void store_free(store **s);

/* One descriptor for the store's whole life, readable when store_turn has something to do; -1 when there is none. */
int store_fd(const store *s);

/* The monotonic time at which store_turn must be called at the latest: 0 when at once, INT64_MAX when only store_fd
 * counts. Changes with every operation and every turn. */
int64_t store_next_ns(const store *s);

/* Does all that can be done without waiting: reads, writes, reconnects, judges deadlines, makes callbacks. True when it
 * did anything. */
bool store_turn(store *s);

bool     store_is_degraded(const store *s);
uint32_t store_n_pending(const store *s);

/* ---------------------------------------------------------------------------------------------------- replies */

typedef enum {
    STORE_OK,
    STORE_REFUSED,   /* fenced: another holds a newer epoch or fence, or the lease ran out */
    STORE_NOT_FOUND, /* no such session or log */
    STORE_DEGRADED,  /* nothing is known; go on without */
} store_status;

typedef struct {
    span     id;
    span     address;
    span     capabilities;
    uint64_t epoch;
} store_worker;

typedef struct {
    span     worker;    /* whose cache is warm */
    uint64_t epoch;     /* of that worker: a lower one than it has now means that its cache is gone */
    uint64_t fence;     /* of the write that put this here */
    uint64_t last_hash; /* of the last block of the session's prefix */
    uint64_t n_blocks;  /* of that prefix */
} store_session;

typedef struct {
    uint64_t hash;
    uint8_t  tier; /* the publisher's: 0 device memory, 1 host memory, ... */
} store_block;

typedef struct {
    uint64_t fence;      /* of its writer, or of its last one */
    uint64_t n_entries;  /* in all, also those not in this reply */
    int64_t  note;       /* its maker's */
    bool     is_done;    /* complete: it takes no writer any more */
    bool     is_held;    /* a writer's lease runs */
    bool     is_granted; /* store_log_open: the caller is the writer now */
} store_log;

/* What an operation found; only the fields that its comment names are set. Everything it points to dies when the
 * callback returns. */
typedef struct {
    store_status        status;
    uint32_t            n_workers, n_blocks;
    uint64_t            epoch;
    int64_t             value;
    store_session       session;
    const store_worker *workers;
    const store_block  *blocks;
    store_log           log;
    uint32_t            n_entries; /* in this reply */
    const span         *entries;
} store_reply;

/* `done` may be NULL in every operation. */
typedef void store_callback(void *arg, const store_reply *reply);

/* Every operation copies its arguments. It returns false with *err set, and makes no callback, when an argument is over
 * a limit (ERR_INVALID) or STORE_PENDING_MAX operations are in hand (ERR_OVERLOADED, counted). Worker ids and roles
 * consist of letters, digits and "._-"; the other names may be any bytes, but not empty. */

/* ---------------------------------------------------------------------------------------------------- workers */

typedef struct {
    span     id;           /* "executor-3f2a" */
    span     role;         /* "executor" */
    span     address;      /* may be empty */
    span     capabilities; /* opaque bytes; may be empty */
    uint64_t last_epoch;   /* the epoch it had before, or 0: the new one is higher even if the store forgot */
    uint32_t ttl_ms;       /* the lease's length */
} store_lease;

/* Takes a lease; whoever had one under this id is fenced. STORE_OK with .epoch, or STORE_DEGRADED. */
bool store_register(store *s, const store_lease *lease, store_callback *done, void *arg, error *err);

/* Extends a lease by its length. STORE_REFUSED: it ran out or another registered under this id; stop emitting, register
 * again. */
bool store_renew(store *s, span id, span role, uint64_t epoch, uint32_t ttl_ms, store_callback *done, void *arg,
                 error *err);

/* Gives a lease back. STORE_REFUSED when it was not held (any more). */
bool store_release(store *s, span id, span role, uint64_t epoch, store_callback *done, void *arg, error *err);

/* The workers of a role whose lease runs: .workers and .n_workers, by id. */
bool store_list(store *s, span role, store_callback *done, void *arg, error *err);

/* --------------------------------------------------------------------------------------------------- sessions */

/* Remembers where a session is warm, for ttl_ms from the last set or get. STORE_REFUSED when the stored fence is
 * higher: a later turn of the session was there first. session->worker is a worker id. */
bool store_session_set(store *s, span session_id, const store_session *session, uint32_t ttl_ms, store_callback *done,
                       void *arg, error *err);

/* STORE_OK with .session, or STORE_NOT_FOUND. */
bool store_session_get(store *s, span session_id, uint32_t ttl_ms, store_callback *done, void *arg, error *err);

/* ------------------------------------------------------------------------------------------------------ blocks */

/* The blocks that one worker, in one epoch, holds for one model. Another epoch is another inventory: what a worker held
 * before its restart can't be taken for what it holds now. */
typedef struct {
    span     model;
    span     worker;
    uint64_t epoch;
} store_inventory;

/* Adds blocks (n_hashes may be 0) and extends the life of the whole inventory to ttl_ms from now. */
bool store_blocks_publish(store *s, const store_inventory *inventory, const uint64_t *hashes, uint32_t n_hashes,
                          uint8_t tier, uint32_t ttl_ms, store_callback *done, void *arg, error *err);

/* Takes blocks out; n_hashes 0 takes all out. */
bool store_blocks_forget(store *s, const store_inventory *inventory, const uint64_t *hashes, uint32_t n_hashes,
                         store_callback *done, void *arg, error *err);

/* One bucket of an inventory: .blocks and .n_blocks, in no order. A block lies in bucket hash % STORE_BLOCK_BUCKETS. */
bool store_blocks_read(store *s, const store_inventory *inventory, uint32_t bucket, store_callback *done, void *arg,
                       error *err);

/* ---------------------------------------------------------------------------------------------------- counters */

/* Adds to a counter that dies ttl_ms after it was first added to; .value is the new count. With a deadline passed it is
 * unknown whether the amount was added. */
bool store_count(store *s, span name, int64_t amount, uint32_t ttl_ms, store_callback *done, void *arg, error *err);

/* -------------------------------------------------------------------------------------------------------- logs */

/* A log is what one writer at a time appends and others read behind it: the response to one request, so that another
 * gateway can go on with it. It is the one thing here that is a client's text, kept because that client asked for it,
 * under a key that nobody can guess, for ttl_ms after its last entry.
 *
 * The writer holds a lease, which every append renews, and writes under a fence. When its lease has run out another may
 * take the log, under a higher fence, also across a lost database; from then on the first one's appends are refused,
 * however late they come. */
typedef struct {
    span     key;
    span     fingerprint; /* of what the log is about: under another one it is refused */
    int64_t  note;        /* kept with a new log */
    uint32_t lease_ms, ttl_ms;
} store_log_claim;

/* Makes the log or finds it: .log. The caller becomes its writer when it is new, or neither done nor held.
 * STORE_REFUSED: it is about something else. */
bool store_log_open(store *s, const store_log_claim *claim, store_callback *done, void *arg, error *err);

typedef struct {
    span     key;
    uint64_t fence;
    uint64_t n_before; /* entries before this one. Saying an entry again after STORE_DEGRADED adds it once */
    span     entry;    /* borrowed until the callback. Empty: only the lease is renewed */
    bool     is_last;  /* the log is done with it */
    uint32_t lease_ms, ttl_ms;
} store_log_entry;

/* STORE_REFUSED: another writes now. STORE_NOT_FOUND: the log is gone, or full. */
bool store_log_append(store *s, const store_log_entry *entry, store_callback *done, void *arg, error *err);

/* The entries behind the first n_before: .log, .entries, .n_entries. STORE_NOT_FOUND: it is gone, or a part of it. */
bool store_log_read(store *s, span key, uint64_t n_before, store_callback *done, void *arg, error *err);

/* The writer leaves: its lease ends at once; with `forget` the log does. STORE_REFUSED: it was not the writer. */
bool store_log_release(store *s, span key, uint64_t fence, bool forget, store_callback *done, void *arg, error *err);

#endif
