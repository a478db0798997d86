/* See reply_log.h. One append of an answer is in flight at a time; what comes meanwhile is the next entry. */
#include "services/gateway/reply_log.h"

#include "base/hex.h"
#include "base/log.h"
#include "services/gateway/reply_records.h"
#include "store/store.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdlib.h>

enum {
    LEASE_MS     = 2000,
    RENEW_MS     = 500,
    POLL_MS      = 25,   /* of one that follows */
    AGAIN_MS     = 250,  /* after the store gave no answer */
    OVERLOAD_MS  = 5,    /* after it took no operation */
    DEADLINE_MS  = 1000, /* of the store: a client waits so long once before its reply goes on without protection */
    BUFFER_FIRST = 1024,
    BUFFER_MAX   = 256 << 10, /* said to the client or not, but not in the log yet */
};

typedef enum {
    LOG_READING, /* opening too */
    LOG_WRITING,
    LOG_LOST, /* the answer goes on without */
} log_state;

/* Records, of which the client has the first `handed` bytes. */
typedef struct {
    uint8_t *bytes;
    size_t   size, capacity, handed;
} record_buffer;

struct reply_log {
    gateway    *gateway;
    answer     *answer; /* NULL: it ended, and this goes with the last operation in hand */
    reply_log  *next, *previous;
    log_state   state;
    char        key[65], fingerprint[65];
    uint64_t    fence;
    uint64_t    n_entries; /* that the client has got */
    bool        is_writer, was_there, is_unsure;
    bool        in_flight; /* an append */
    uint32_t    n_in_hand; /* operations */
    int64_t     away_since_ns;
    actor_timer timer;
    /* One entry, sent or to be sent again, which the store borrows; and what comes behind it. */
    record_buffer sending, waiting;
};

struct reply_logs {
    store        *store;
    struct event *ready;
    actor_timer   due;
    arena        *scratch; /* of one record */
    reply_log    *first;
    metric       *resumed, *followed, *lost;
};

/* ---- identity ---- */

/* Sizes go before the parts, so that no two lists of parts have the same bytes. */
static bool digest_of(const span *parts, size_t n, uint8_t out[32], error *err)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool        ok     = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        uint64_t size = parts[i].size;
        ok            = EVP_DigestUpdate(digest, &size, sizeof size) == 1 &&
             EVP_DigestUpdate(digest, parts[i].data, parts[i].size) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(digest, out, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return ok || error_set(err, ERR_INTERNAL, "OpenSSL computes no SHA-256");
}

bool reply_identity_make(reply_identity *out, span tenant, span idempotency_key, span path, span body, error *err)
{
    const span key[]     = {SPAN("log"), tenant, idempotency_key};
    const span print[]   = {SPAN("request"), idempotency_key, path, body}; /* the key salts what the body could be */
    const span derived[] = {SPAN("identity"), tenant, idempotency_key, path, body};
    uint8_t    digests[3][32];
    if (!digest_of(key, COUNT(key), digests[0], err) || !digest_of(print, COUNT(print), digests[1], err) ||
        !digest_of(derived, COUNT(derived), digests[2], err))
        return false;
    hex_print(digests[0], sizeof digests[0], out->log_key);
    hex_print(digests[1], sizeof digests[1], out->fingerprint);
    memcpy(out->id, digests[2], sizeof out->id);
    memcpy(&out->seed, digests[2] + sizeof out->id, sizeof out->seed);
    return true;
}

/* ---- to the client ---- */

/* Whether a record can be what comes next of a run. */
static bool fits(const answer *a, uint32_t run_index, const text_delta *d)
{
    if (run_index >= a->n_runs || d->choice >= a->n_choices)
        return false;
    const choice_state *c = &a->runs[run_index].choices[d->choice];
    return !c->finished && (d->prompt || d->index == c->n_tokens) && d->finish != FINISH_REASON_CANCELLED &&
           d->finish != FINISH_REASON_TIMEOUT && d->finish != FINISH_REASON_ERROR;
}

/* Hands records out: of the log, or (`own`) those that this answer took in before. The answer may end. False: they are
 * none. */
static bool hand_out(reply_log *l, span records, bool own, error *err)
{
    arena            *scratch = l->gateway->logs->scratch;
    const text_delta *d;
    uint32_t          run_index;
    while (records.size > 0 && l->answer) {
        arena_reset(scratch);
        if (!reply_record_read(&records, scratch, &run_index, &d, err))
            return false;
        if (!own && !fits(l->answer, run_index, d))
            return error_set(err, ERR_INVALID, "it goes on with something else");
        run *r = &l->answer->runs[run_index];
        if (own)
            run_hand_out(r, d);
        else
            run_deliver(r, d);
    }
    return true;
}

static void hand_out_own(reply_log *l, record_buffer *b)
{
    error err;
    if (b->handed == b->size)
        return; /* perhaps there is no buffer yet */
    span records = {(const char *)b->bytes + b->handed, b->size - b->handed};
    b->handed    = b->size;
    if (!hand_out(l, records, true, &err))
        log_error("a record of a reply can't be read", "why=\"%s\"", err.text);
}

static void hand_out_all(reply_log *l)
{
    hand_out_own(l, &l->sending);
    hand_out_own(l, &l->waiting);
}

/* The answer goes on, but another gateway could not go on with it. */
static void lose(reply_log *l, const char *why)
{
    log_warn("a reply goes on without its log", "why=\"%s\"", why);
    metric_add(l->gateway->logs->lost, 1);
    actor_timer_cancel(l->gateway->actor, &l->timer);
    l->state = LOG_LOST;
    hand_out_all(l);
}

static void refuse(reply_log *l, error_code code, const char *text)
{
    error why;
    error_set(&why, code, "%s", text);
    answer_refuse(l->answer, &why, (span){0}, 0);
}

/* ---- operations ---- */

static void free_log(reply_log *l)
{
    *(l->previous ? &l->previous->next : &l->gateway->logs->first) = l->next;
    if (l->next)
        l->next->previous = l->previous;
    free(l->sending.bytes);
    free(l->waiting.bytes);
    free(l);
}

/* The end of every callback. */
static void settle(reply_log *l)
{
    l->n_in_hand--;
    if (!l->answer && l->n_in_hand == 0)
        free_log(l);
}

static void set_timer(reply_log *l, int64_t ms, void (*fire)(void *, actor_timer *))
{
    gateway_timer_set(l->gateway, &l->timer, ms * NS_PER_MS, fire);
}

static uint32_t ttl_ms(const reply_log *l)
{
    return (uint32_t)(l->gateway->options->idempotency_ttl_s * 1e3);
}

static reply_log *log_of(actor_timer *timer)
{
    return (reply_log *)((char *)timer - offsetof(reply_log, timer));
}

/* ---- writing ---- */

static void flush(reply_log *l);

static void on_renew(void *self, actor_timer *timer)
{
    (void)self;
    flush(log_of(timer));
}

static void on_appended(void *arg, const store_reply *reply)
{
    reply_log *l = arg;
    l->in_flight = false;
    if (!l->answer || l->state != LOG_WRITING) {
        settle(l);
        return;
    }
    set_timer(l, RENEW_MS, on_renew);
    switch (reply->status) {
    case STORE_OK:
        l->is_unsure = false;
        l->n_entries += l->sending.size > 0;
        hand_out_own(l, &l->sending);
        l->sending.size = l->sending.handed = 0;
        if (l->answer && l->waiting.size > 0)
            flush(l);
        break;
    case STORE_DEGRADED: /* said again at the next turn of the timer: the store adds it once */
        if (!l->is_unsure)
            log_warn("a reply goes on without protection", " ");
        l->is_unsure = true;
        hand_out_all(l);
        break;
    case STORE_REFUSED:
        refuse(l, ERR_GONE, "another gateway goes on with this response; ask again with the same Idempotency-Key");
        break;
    case STORE_NOT_FOUND:
        lose(l, "it is gone, or full");
        break;
    }
    settle(l);
}

/* Sends what there is, or renews the lease. */
static void flush(reply_log *l)
{
    error err;
    if (l->in_flight || l->state != LOG_WRITING)
        return;
    if (l->sending.size == 0) {
        record_buffer empty = l->sending;
        l->sending          = l->waiting;
        l->waiting          = empty;
    }
    store_log_entry entry = {.key      = span_of(l->key),
                             .fence    = l->fence,
                             .n_before = l->n_entries,
                             .entry    = {(const char *)l->sending.bytes, l->sending.size},
                             .is_last  = l->waiting.size == 0 && answer_is_complete(l->answer),
                             .lease_ms = LEASE_MS,
                             .ttl_ms   = ttl_ms(l)};
    if (store_log_append(l->gateway->logs->store, &entry, on_appended, l, &err)) {
        l->in_flight = true;
        l->n_in_hand++;
    } else {
        set_timer(l, OVERLOAD_MS, on_renew);
    }
}

static bool wait_to_be_sent(reply_log *l, span entry)
{
    record_buffer *b        = &l->waiting;
    size_t         capacity = b->capacity ? b->capacity : BUFFER_FIRST;
    while (capacity < b->size + entry.size)
        capacity *= 2;
    if (capacity > BUFFER_MAX)
        return false;
    if (capacity > b->capacity) {
        uint8_t *grown = realloc(b->bytes, capacity);
        if (!grown)
            return false;
        l->answer->kept_bytes += capacity - b->capacity;
        l->gateway->kept_bytes += capacity - b->capacity;
        b->bytes    = grown;
        b->capacity = capacity;
    }
    memcpy(b->bytes + b->size, entry.data, entry.size);
    b->size += entry.size;
    return true;
}

bool reply_log_add(run *r, const text_delta *delta)
{
    reply_log  *l     = r->answer->log;
    wire_writer entry = {.data = (uint8_t *)l->gateway->out, .capacity = l->gateway->out_bytes};
    error       err;
    if (l->state != LOG_WRITING)
        return run_hand_out(r, delta);
    if (!reply_record_write(&entry, r->index, delta, &err) ||
        !wait_to_be_sent(l, (span){(const char *)entry.data, entry.size})) {
        l->n_in_hand++; /* the answer may end in here */
        lose(l, "a piece is too large, or the store too slow");
        bool goes_on = l->answer && run_hand_out(r, delta);
        settle(l);
        return goes_on;
    }
    if (!l->is_unsure) {
        flush(l);
        return true;
    }
    l->n_in_hand++;
    hand_out_all(l); /* the timer tells the store */
    bool goes_on = l->answer != NULL;
    settle(l);
    return goes_on;
}

static void begin_writing(reply_log *l)
{
    if (l->answer->stream && l->answer->last_event.number > l->answer->event.number) {
        refuse(l, ERR_MISMATCH, "Last-Event-ID names an event that is not kept; ask again without it, for all of them");
        return;
    }
    l->state = LOG_WRITING;
    set_timer(l, RENEW_MS, on_renew);
    if (l->n_entries > 0) {
        metric_add(l->gateway->logs->resumed, 1);
        log_info("goes on with a reply", "entries=%llu", (unsigned long long)l->n_entries);
    }
    answer_begin(l->answer, l->n_entries > 0);
}

/* ---- reading ---- */

static void open_again(void *self, actor_timer *timer);
static void read_on(void *self, actor_timer *timer);

/* The store gave no answer. Who has nothing yet begins without a log; who has a part waits for the rest of it. */
static void wait_for_store(reply_log *l, void (*again)(void *, actor_timer *))
{
    int64_t now = gateway_now_ns(l->gateway);
    if (l->away_since_ns == 0)
        l->away_since_ns = now;
    if (l->n_entries == 0 && (!l->answer->stream || l->answer->last_event.number == 0)) {
        lose(l, "the store gives no answer");
        answer_begin(l->answer, false);
    } else if ((double)(now - l->away_since_ns) / 1e9 > l->gateway->options->resume_wait_s) {
        refuse(l, ERR_NOT_READY, "the store with the rest of this response gives no answer; ask again");
    } else {
        set_timer(l, AGAIN_MS, again);
    }
}

/* What it says is the beginning of the reply, so with a part of it given out the rest is computed. */
static void on_log_gone(reply_log *l)
{
    if (l->n_entries == 0) {
        open_again(NULL, &l->timer);
        return;
    }
    lose(l, "it is gone");
    answer_begin(l->answer, true);
}

static void on_read(void *arg, const store_reply *reply)
{
    reply_log *l = arg;
    error      err;
    bool       good = true;
    if (l->answer && reply->status == STORE_DEGRADED)
        wait_for_store(l, read_on);
    else if (l->answer && reply->status == STORE_NOT_FOUND)
        on_log_gone(l);
    if (!l->answer || reply->status != STORE_OK) {
        settle(l);
        return;
    }
    l->away_since_ns = 0;
    l->is_writer     = l->is_writer && reply->log.fence == l->fence;
    for (uint32_t i = 0; i < reply->n_entries && good && l->answer; i++) {
        l->n_entries++;
        good = hand_out(l, reply->entries[i], false, &err);
    }
    if (!good)
        log_error("a reply's log can't be read", "why=\"%s\"", err.text);
    if (!l->answer)
        ; /* it had all */
    else if (!good || (reply->log.is_done && l->n_entries >= reply->log.n_entries))
        refuse(l, ERR_INTERNAL, "what is kept of this response can't be read; use another Idempotency-Key");
    else if (l->n_entries < reply->log.n_entries)
        read_on(NULL, &l->timer);
    else if (l->is_writer)
        begin_writing(l);
    else if (!reply->log.is_held)
        open_again(NULL, &l->timer);
    else
        set_timer(l, POLL_MS, read_on);
    settle(l);
}

static void read_on(void *self, actor_timer *timer)
{
    reply_log *l = log_of(timer);
    error      err;
    (void)self;
    if (store_log_read(l->gateway->logs->store, span_of(l->key), l->n_entries, on_read, l, &err))
        l->n_in_hand++;
    else
        set_timer(l, OVERLOAD_MS, read_on);
}

static void on_opened(void *arg, const store_reply *reply)
{
    reply_log *l = arg;
    if (l->answer && reply->status == STORE_DEGRADED) {
        wait_for_store(l, open_again);
    } else if (l->answer && reply->status == STORE_REFUSED) {
        refuse(l, ERR_MISMATCH, "this Idempotency-Key was used for another request");
    } else if (l->answer) {
        l->away_since_ns          = 0;
        l->fence                  = reply->log.fence;
        l->is_writer              = reply->log.is_granted;
        l->was_there              = l->was_there || reply->log.n_entries > 0 || !reply->log.is_granted;
        l->answer->head.created_s = reply->log.note;
        if (!reply->log.is_granted && l->n_entries == 0)
            metric_add(l->gateway->logs->followed, 1);
        if (l->is_writer && reply->log.n_entries == l->n_entries)
            begin_writing(l);
        else if (l->is_writer && reply->log.n_entries < l->n_entries)
            on_log_gone(l); /* and made anew: what the client has is not in it */
        else
            read_on(NULL, &l->timer);
    } else if (reply->status == STORE_OK && reply->log.is_granted) {
        store_log_release(l->gateway->logs->store, span_of(l->key), reply->log.fence, reply->log.n_entries == 0, NULL,
                          NULL, NULL); /* the client left meanwhile */
    }
    settle(l);
}

static void open_again(void *self, actor_timer *timer)
{
    reply_log      *l     = log_of(timer);
    store_log_claim claim = {.key         = span_of(l->key),
                             .fingerprint = span_of(l->fingerprint),
                             .note        = l->answer->head.created_s,
                             .lease_ms    = LEASE_MS,
                             .ttl_ms      = ttl_ms(l)};
    error           err;
    (void)self;
    if (store_log_open(l->gateway->logs->store, &claim, on_opened, l, &err))
        l->n_in_hand++;
    else
        set_timer(l, OVERLOAD_MS, open_again);
}

/* ---- an answer's ---- */

bool reply_log_new(answer *a, const reply_identity *identity, event_id last_event, error *err)
{
    reply_logs *logs = a->gateway->logs;
    reply_log  *l    = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes", sizeof *l);
    *l = (reply_log){.gateway = a->gateway, .answer = a, .next = logs->first};
    memcpy(l->key, identity->log_key, sizeof l->key);
    memcpy(l->fingerprint, identity->fingerprint, sizeof l->fingerprint);
    if (logs->first)
        logs->first->previous = l;
    logs->first   = l;
    a->log        = l;
    a->last_event = last_event;
    return true;
}

void reply_log_open(answer *a)
{
    open_again(NULL, &a->log->timer);
}

void reply_log_close(answer *a, bool refused)
{
    reply_log *l = a->log;
    error      err;
    if (!l)
        return;
    a->log    = NULL;
    l->answer = NULL;
    actor_timer_cancel(l->gateway->actor, &l->timer);
    bool is_empty = l->n_entries == 0 && l->sending.size == 0 && l->waiting.size == 0;
    if (l->is_writer && a->n_open > 0 &&
        !store_log_release(l->gateway->logs->store, span_of(l->key), l->fence, refused && is_empty, NULL, NULL, &err))
        log_debug("a lease is left to run out", "why=\"%s\"", err.text);
    if (l->n_in_hand == 0)
        free_log(l);
}

size_t reply_log_fields(const answer *a, http_field *fields)
{
    const reply_log *l = a->log;
    if (!l)
        return 0;
    bool is_kept = l->state != LOG_LOST && !l->is_unsure;
    fields[0]    = (http_field){"X-Troupe-Resumable", is_kept ? SPAN("yes") : SPAN("no")};
    fields[1]    = (http_field){"Idempotent-Replayed", l->was_there ? SPAN("true") : SPAN("false")};
    return 2;
}

/* ---- the store ---- */

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg; /* the same */
}

bool reply_logs_open(gateway *g, error *err)
{
    reply_logs   *logs = g->logs = calloc(1, sizeof *logs);
    store_options options        = {.url           = g->options->store_url,
                                    .password_file = g->options->store_password_file,
                                    .metric_labels = "service=\"gateway\"",
                                    .deadline_ms   = DEADLINE_MS,
                                    .clock         = actor_clock(g->actor)};
    if (!logs)
        return error_set(err, ERR_NO_MEMORY, "no memory for the store");
    logs->resumed  = metric_counter("troupe_gateway_replies_resumed_total", "", "Replies begun by another request.");
    logs->followed = metric_counter("troupe_gateway_replies_followed_total", "",
                                    "Requests whose reply was complete, or being made for another connection.");
    logs->lost     = metric_counter("troupe_gateway_reply_logs_lost_total", "", "Replies that went on without a log.");
    logs->scratch  = arena_new(g->options->request_memory_bytes, err);
    logs->store    = logs->scratch ? store_open(&options, err) : NULL;
    return logs->store || error_wrap(err, "--store-url");
}

void reply_logs_start(gateway *g)
{
    int fd = store_fd(g->logs->store);
    if (fd < 0)
        return;
    g->logs->ready = event_new(g->base, fd, EV_READ | EV_PERSIST, on_ready, NULL);
    if (!g->logs->ready || event_add(g->logs->ready, NULL) != 0)
        log_error("the store can't be watched", "fd=%d", fd);
}

void reply_logs_turn(gateway *g)
{
    reply_logs *logs = g->logs;
    while (store_turn(logs->store))
        ;
    actor_turn_by(g->actor, &logs->due, store_next_ns(logs->store));
}

void reply_logs_free(gateway *g)
{
    reply_logs *logs = g->logs;
    if (!logs)
        return;
    store_free(&logs->store);
    actor_timer_cancel(g->actor, &logs->due);
    while (logs->first)
        free_log(logs->first);
    if (logs->ready)
        event_free(logs->ready);
    arena_free(&logs->scratch);
    free(logs);
    g->logs = NULL;
}
