/* See kv_transfer.h. */
#include "executor/kv_transfer.h"

#include "base/log.h"
#include "base/metric.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    LOADS_MAX          = 4,
    READS_MAX          = 8, /* of four executors that fetch here at once */
    WRITES_MAX         = 4,
    AHEAD_MAX          = 2, /* messages asked of one source and not written yet: as many as it may send */
    MESSAGE_BYTES      = 1 << 20,
    MESSAGE_BLOCKS_MAX = 16,
    BLOCK_BYTES_MAX    = 16 << 20, /* kv.blocks holds one */
    LOAD_BLOCKS_MAX    = 65536,    /* the schema's limit */
    PATIENCE_MS        = 2000,     /* with a source that sends nothing */
};

typedef struct {
    bool      used, failed, begun;
    uint32_t  n_jobs;            /* to be done first */
    uint64_t  number, fetch;     /* the scheduler's; ours, never used again */
    uint64_t  term, source_term; /* of this executor when it was told; of the source */
    char      source[BUS_NAME_BYTES + 1], endpoint[ACTOR_PLACE_BYTES];
    uint32_t  n, n_asked, n_received, n_written, n_ahead; /* blocks; messages asked for and not written */
    int64_t   began_ns, heard_ns;
    uint32_t *from, *to;
    char      why[ERROR_TEXT_BYTES];
} load;

enum { COPY_FREE, COPY_WAITING, COPY_DONE }; /* the actor's, the compute thread's, the actor's again */

/* Blocks to be read from the cache into `bytes`, or written from there. The state says whose it is. */
typedef struct {
    atomic_int state;
    peer      *other; /* who asked, or who sent; NULL: it left */
    load      *load;  /* of a write */
    uint64_t   fetch; /* of a read */
    uint32_t   first, n, blocks[MESSAGE_BLOCKS_MAX];
    uint8_t   *bytes;
} copy;

/* Copies in the order in which they were asked for; positions rise, modulo n. */
typedef struct {
    copy    *all;
    uint32_t n, next_in, next_out; /* the actor's */
    uint32_t next_copy;            /* the compute thread's */
} copy_ring;

struct kv_transfer {
    actor          *actor;
    engine         *engine;
    const employer *employer;
    char            endpoint[BUS_ENDPOINT_BYTES + 80]; /* "": takes no part */
    size_t          block_bytes;
    uint64_t        fingerprint;
    uint32_t        n_blocks, blocks_a_message, load_blocks_max;
    uint64_t        n_fetches;
    load            loads[LOADS_MAX];
    uint32_t       *tables; /* of all loads */
    uint8_t        *bytes;  /* of all copies */
    copy            read_copies[READS_MAX], write_copies[WRITES_MAX];
    copy_ring       reads, writes;
    bool            submitted;
    actor_timer     patience;
    char            places[LOADS_MAX][ACTOR_PLACE_BYTES];
    uint32_t        n_places;
    metric         *sent, *received;
};

/* ---- start and end ---- */

/* Others reach a socket that listens on every address under this machine's name. */
static void name_endpoint(kv_transfer *t)
{
    char        bound[BUS_ENDPOINT_BYTES], host[65] = "";
    const char *anywhere = "tcp://0.0.0.0:";
    if (!actor_endpoint(t->actor, 0, bound, sizeof bound))
        return;
    if (strncmp(bound, anywhere, strlen(anywhere)) == 0 && gethostname(host, sizeof host - 1) == 0)
        snprintf(t->endpoint, sizeof t->endpoint, "tcp://%s:%s", host, bound + strlen(anywhere));
    else
        snprintf(t->endpoint, sizeof t->endpoint, "%s", bound);
    if (strlen(t->endpoint) >= ACTOR_PLACE_BYTES) {
        log_error("KV blocks are not exchanged: the endpoint is too long", "endpoint=%s", t->endpoint);
        t->endpoint[0] = '\0';
    }
}

static bool take_memory(kv_transfer *t)
{
    size_t message_bytes = t->blocks_a_message * t->block_bytes;
    t->tables            = calloc((size_t)LOADS_MAX * 2 * t->load_blocks_max, sizeof *t->tables);
    t->bytes             = malloc((READS_MAX + WRITES_MAX) * message_bytes);
    if (!t->tables || !t->bytes)
        return false;
    for (uint32_t i = 0; i < LOADS_MAX; i++) {
        t->loads[i].from = t->tables + (size_t)2 * i * t->load_blocks_max;
        t->loads[i].to   = t->loads[i].from + t->load_blocks_max;
    }
    for (uint32_t i = 0; i < READS_MAX; i++)
        t->read_copies[i].bytes = t->bytes + i * message_bytes;
    for (uint32_t i = 0; i < WRITES_MAX; i++)
        t->write_copies[i].bytes = t->bytes + (READS_MAX + i) * message_bytes;
    return true;
}

kv_transfer *kv_transfer_new(actor *a, engine *e, const employer *whose, error *err)
{
    kv_transfer *t = calloc(1, sizeof *t);
    if (!t) {
        error_set(err, ERR_NO_MEMORY, "no memory for transfers of KV blocks");
        return NULL;
    }
    executor_ready about = engine_about(e);
    t->actor             = a;
    t->engine            = e;
    t->employer          = whose;
    t->block_bytes       = engine_block_bytes(e);
    t->fingerprint       = about.fingerprint;
    t->n_blocks          = about.n_kv_blocks;
    t->load_blocks_max   = t->n_blocks < LOAD_BLOCKS_MAX ? t->n_blocks : LOAD_BLOCKS_MAX;
    t->blocks_a_message  = (uint32_t)(MESSAGE_BYTES / t->block_bytes);
    t->blocks_a_message  = t->blocks_a_message > MESSAGE_BLOCKS_MAX ? MESSAGE_BLOCKS_MAX : t->blocks_a_message;
    t->blocks_a_message += t->blocks_a_message == 0;
    t->reads    = (copy_ring){.all = t->read_copies, .n = READS_MAX};
    t->writes   = (copy_ring){.all = t->write_copies, .n = WRITES_MAX};
    t->sent     = metric_counter("troupe_executor_kv_blocks_sent_total", "", "KV blocks given to other executors.");
    t->received = metric_counter("troupe_executor_kv_blocks_received_total", "", "KV blocks got from other executors.");
    name_endpoint(t);
    if (t->block_bytes > BLOCK_BYTES_MAX && t->endpoint[0]) {
        log_warn("KV blocks are not exchanged: one is larger than a message", "kv_block_bytes=%zu", t->block_bytes);
        t->endpoint[0] = '\0';
    }
    if (t->endpoint[0] && !take_memory(t)) {
        error_set(err, ERR_NO_MEMORY, "--kv-bind: no memory for transfers of KV blocks");
        kv_transfer_free(&t);
    }
    return t;
}

void kv_transfer_free(kv_transfer **t)
{
    if (!*t)
        return;
    free((*t)->tables);
    free((*t)->bytes);
    free(*t);
    *t = NULL;
}

void kv_transfer_describe(const kv_transfer *t, executor_ready *about)
{
    about->kv_endpoint    = span_of(t->endpoint);
    about->kv_block_bytes = t->block_bytes;
}

/* ---- copies ---- */

/* The next free one, to be filled and submitted; NULL: all are in use. */
static copy *take_copy(copy_ring *ring)
{
    copy *c = &ring->all[ring->next_in % ring->n];
    return atomic_load(&c->state) == COPY_FREE ? c : NULL;
}

static void submit(kv_transfer *t, copy_ring *ring, copy *c)
{
    ring->next_in++;
    t->submitted = true;
    atomic_store(&c->state, COPY_WAITING);
}

static bool copy_ring_next(kv_transfer *t, copy_ring *ring, bool into_cache)
{
    copy *c = &ring->all[ring->next_copy % ring->n];
    if (atomic_load(&c->state) != COPY_WAITING)
        return false;
    for (uint32_t i = 0; i < c->n; i++) {
        if (into_cache)
            engine_write_block(t->engine, c->blocks[i], c->bytes + i * t->block_bytes);
        else
            engine_read_block(t->engine, c->blocks[i], c->bytes + i * t->block_bytes);
    }
    ring->next_copy++;
    atomic_store(&c->state, COPY_DONE);
    return true;
}

bool kv_transfer_copy(kv_transfer *t)
{
    bool any = false;
    while (copy_ring_next(t, &t->reads, false) || copy_ring_next(t, &t->writes, true))
        any = true;
    return any;
}

/* The oldest one, when it is done. */
static copy *done_copy(const copy_ring *ring)
{
    copy *c = &ring->all[ring->next_out % ring->n];
    return atomic_load(&c->state) == COPY_DONE ? c : NULL;
}

static void free_copy(copy_ring *ring, copy *c)
{
    ring->next_out++;
    atomic_store(&c->state, COPY_FREE);
}

/* ---- the source ---- */

static void refuse_fetch(kv_transfer *t, const message *m, const char *why)
{
    const kv_fetch *body   = m->body;
    kv_blocks       answer = {.fetch = body->fetch, .first = body->first, .error = span_of(why)};
    error           err;
    log_info("KV blocks not given", "node=%s why=\"%s\"", m->from->name, why);
    if (!actor_send(t->actor, m->from, MSG_KV_BLOCKS, &answer, NULL, &err))
        log_debug("refusal not sent", "node=%s why=\"%s\"", m->from->name, err.text);
    actor_grant(t->actor, m->from, 1);
}

static const char *find_fault(const kv_transfer *t, const kv_fetch *f)
{
    const employer *e = t->employer;
    if (!t->endpoint[0] || f->fingerprint != t->fingerprint)
        return "these executors exchange no KV blocks: they differ, or have no --kv-bind";
    if (!e->scheduler || !e->taken || f->term != atomic_load(&e->term))
        return "the blocks were of another scheduler, or of an earlier time";
    if (f->n_blocks == 0 || f->n_blocks > t->blocks_a_message)
        return "more blocks than one message takes";
    for (uint32_t i = 0; i < f->n_blocks; i++)
        if (f->blocks[i] >= t->n_blocks)
            return "there is no such block";
    return NULL;
}

void kv_transfer_on_fetch(kv_transfer *t, const message *m)
{
    const kv_fetch *f   = m->body;
    const char     *why = find_fault(t, f);
    copy           *c   = why ? NULL : take_copy(&t->reads);
    if (!c) {
        refuse_fetch(t, m, why ? why : "too many fetch at once");
        return;
    }
    c->other = m->from;
    c->fetch = f->fetch;
    c->first = f->first;
    c->n     = f->n_blocks;
    memcpy(c->blocks, f->blocks, f->n_blocks * sizeof *c->blocks);
    submit(t, &t->reads, c);
}

static void send_reads(kv_transfer *t)
{
    copy *c;
    while ((c = done_copy(&t->reads))) {
        kv_blocks answer = {.fetch    = c->fetch,
                            .first    = c->first,
                            .n_blocks = c->n,
                            .data     = {(const char *)c->bytes, c->n * t->block_bytes}};
        error     err;
        if (c->other && !actor_send(t->actor, c->other, MSG_KV_BLOCKS, &answer, NULL, &err)) {
            if (err.code == ERR_OVERLOADED)
                return; /* its credit is on its way */
            log_warn("KV blocks not sent", "node=%s why=\"%s\"", c->other->name, err.text);
        } else if (c->other) {
            metric_add(t->sent, c->n);
        }
        if (c->other)
            actor_grant(t->actor, c->other, 1);
        free_copy(&t->reads, c);
    }
}

/* ---- the target ---- */

static void fail(load *l, const char *why)
{
    if (l->failed)
        return;
    l->failed = true;
    snprintf(l->why, sizeof l->why, "%s", why);
}

static bool is_stale(const kv_transfer *t, const load *l)
{
    return l->term != atomic_load(&t->employer->term);
}

static void say_loaded(kv_transfer *t, peer *scheduler, const kv_loaded *what)
{
    error err;
    if (!actor_send(t->actor, scheduler, MSG_KV_LOADED, what, NULL, &err))
        log_warn("the end of a load was not told", "node=%s why=\"%s\"", scheduler->name, err.text);
}

static load *free_load(kv_transfer *t)
{
    for (uint32_t i = 0; i < LOADS_MAX; i++)
        if (!t->loads[i].used)
            return &t->loads[i];
    return NULL;
}

static const char *find_load_fault(const kv_transfer *t, const kv_load *body)
{
    if (!t->endpoint[0])
        return "this executor takes no KV blocks: it has no --kv-bind";
    if (body->n_from == 0 || body->n_from != body->n_to || body->n_from > t->load_blocks_max)
        return "another number of blocks here than there, none, or too many";
    if (body->endpoint.size >= ACTOR_PLACE_BYTES)
        return "the endpoint of the source is too long";
    for (uint32_t i = 0; i < body->n_to; i++)
        if (body->to[i] >= t->n_blocks)
            return "there is no such block";
    return NULL;
}

void kv_transfer_on_load(kv_transfer *t, const message *m, uint32_t n_jobs)
{
    const kv_load *body = m->body;
    if (m->from != t->employer->scheduler || !t->employer->taken)
        return; /* executor.leave is on its way */
    const char *why = find_load_fault(t, body);
    load       *l   = why ? NULL : free_load(t);
    if (!l) {
        why = why ? why : "too many loads at once";
        say_loaded(t, m->from, &(kv_loaded){.load = body->load, .error = span_of(why)});
        return;
    }
    uint32_t *from = l->from, *to = l->to;
    *l = (load){.used        = true,
                .number      = body->load,
                .fetch       = ++t->n_fetches,
                .term        = atomic_load(&t->employer->term),
                .source_term = body->term,
                .n_jobs      = n_jobs,
                .n           = body->n_from,
                .from        = from,
                .to          = to};
    snprintf(l->source, sizeof l->source, "%.*s", SPAN_ARG(body->source));
    snprintf(l->endpoint, sizeof l->endpoint, "%.*s", SPAN_ARG(body->endpoint));
    memcpy(from, body->from, l->n * sizeof *from);
    memcpy(to, body->to, l->n * sizeof *to);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static const char *find_blocks_fault(const kv_transfer *t, const load *l, const message *m)
{
    const kv_blocks *b = m->body;
    if (strcmp(l->source, m->from->name) != 0)
        return "another executor answered";
    if (b->first != l->n_received || b->first >= l->n_asked ||
        b->n_blocks != least(t->blocks_a_message, l->n - b->first))
        return "other blocks came than were asked for";
    if (b->data.size != b->n_blocks * t->block_bytes)
        return "the blocks have another size";
    return NULL;
}

void kv_transfer_on_blocks(kv_transfer *t, const message *m)
{
    const kv_blocks *b = m->body;
    load            *l = NULL;
    for (uint32_t i = 0; i < LOADS_MAX; i++)
        if (t->loads[i].used && t->loads[i].fetch == b->fetch)
            l = &t->loads[i];
    if (!l || l->failed || is_stale(t, l)) { /* it was given up */
        actor_grant(t->actor, m->from, 1);
        return;
    }
    char        text[ERROR_TEXT_BYTES];
    const char *why = find_blocks_fault(t, l, m);
    copy       *c   = take_copy(&t->writes);
    snprintf(text, sizeof text, "%.*s", SPAN_ARG(b->error));
    if (b->error.size > 0 || why || !c) {
        fail(l, b->error.size > 0 ? text : why ? why : "more blocks came than were asked for");
        actor_grant(t->actor, m->from, 1);
        return;
    }
    c->other = m->from;
    c->load  = l;
    c->n     = b->n_blocks;
    memcpy(c->blocks, l->to + b->first, c->n * sizeof *c->blocks);
    memcpy(c->bytes, b->data.data, b->data.size);
    l->n_received += c->n;
    l->heard_ns = actor_now_ns(t->actor);
    submit(t, &t->writes, c);
}

static void take_writes(kv_transfer *t)
{
    copy *c;
    while ((c = done_copy(&t->writes))) {
        c->load->n_written += c->n;
        c->load->n_ahead--;
        metric_add(t->received, c->n);
        if (c->other)
            actor_grant(t->actor, c->other, 1);
        free_copy(&t->writes, c);
    }
}

static uint32_t n_ahead(const kv_transfer *t, const char *source)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LOADS_MAX; i++)
        if (t->loads[i].used && (!source || strcmp(t->loads[i].source, source) == 0))
            n += t->loads[i].n_ahead;
    return n;
}

static void ask(kv_transfer *t, load *l)
{
    peer *source = actor_find_peer(t->actor, span_of(l->source));
    while (source && source->credits > 0 && l->n_asked < l->n && n_ahead(t, l->source) < AHEAD_MAX &&
           n_ahead(t, NULL) < WRITES_MAX) {
        kv_fetch f = {.fetch       = l->fetch,
                      .first       = l->n_asked,
                      .term        = l->source_term,
                      .fingerprint = t->fingerprint,
                      .blocks      = l->from + l->n_asked,
                      .n_blocks    = least(t->blocks_a_message, l->n - l->n_asked)};
        error    err;
        if (!actor_send(t->actor, source, MSG_KV_FETCH, &f, NULL, &err)) {
            fail(l, err.text);
            return;
        }
        l->began_ns = l->n_asked == 0 ? actor_now_ns(t->actor) : l->began_ns;
        l->n_asked += f.n_blocks;
        l->n_ahead++;
    }
}

static void on_patience(void *self, actor_timer *timer)
{
    (void)self, (void)timer; /* the turn that follows looks */
}

/* A load that ended is told; true when `l` goes on. */
static bool settle(kv_transfer *t, load *l)
{
    if (!is_stale(t, l) && !l->failed && l->n_written < l->n) {
        if (!l->begun || actor_now_ns(t->actor) - l->heard_ns < PATIENCE_MS * NS_PER_MS)
            return true;
        fail(l, "the executor that has the blocks does not answer");
    }
    if (l->n_received > l->n_written)
        return true; /* a copy still names it */
    if (!is_stale(t, l)) {
        int64_t   elapsed_us = (actor_now_ns(t->actor) - l->began_ns) / 1000;
        kv_loaded done       = {.load = l->number, .n_blocks = l->n_written, .elapsed_us = (uint32_t)elapsed_us};
        done.error           = l->failed ? span_of(l->why) : (span){0};
        say_loaded(t, t->employer->scheduler, &done);
    }
    l->used = false;
    return false;
}

/* Sources that are not connected yet are called, as long as a load waits for them. */
static void call_sources(kv_transfer *t)
{
    char     places[LOADS_MAX][ACTOR_PLACE_BYTES] = {0};
    uint32_t n                                    = 0;
    error    err;
    for (uint32_t i = 0; i < LOADS_MAX; i++) {
        const load *l = &t->loads[i];
        if (l->used && !l->failed && !actor_find_peer(t->actor, span_of(l->source)))
            memcpy(places[n++], l->endpoint, sizeof places[0]);
    }
    if (n == t->n_places && memcmp(places, t->places, sizeof places) == 0)
        return;
    memcpy(t->places, places, sizeof places);
    t->n_places = n;
    if (!actor_set_places(t->actor, "kv", (const char(*)[ACTOR_PLACE_BYTES])places, n, &err))
        log_error("executors not called", "why=\"%s\"", err.text);
}

bool kv_transfer_turn(kv_transfer *t, uint32_t n_jobs_done)
{
    int64_t due_ns = INT64_MAX;
    send_reads(t);
    take_writes(t);
    for (uint32_t i = 0; i < LOADS_MAX; i++) {
        load *l = &t->loads[i];
        if (l->used && !l->begun && (int32_t)(n_jobs_done - l->n_jobs) >= 0) {
            l->begun    = true;
            l->began_ns = l->heard_ns = actor_now_ns(t->actor);
        }
        if (!l->used || !settle(t, l) || !l->begun)
            continue;
        if (!l->failed && !is_stale(t, l))
            ask(t, l);
        if (l->heard_ns + PATIENCE_MS * NS_PER_MS < due_ns)
            due_ns = l->heard_ns + PATIENCE_MS * NS_PER_MS;
    }
    call_sources(t);
    int64_t delay_ns = due_ns - actor_now_ns(t->actor);
    if (due_ns < INT64_MAX && delay_ns > 0)
        actor_timer_set(t->actor, &t->patience, delay_ns, on_patience);
    bool submitted = t->submitted;
    t->submitted   = false;
    return submitted;
}

void kv_transfer_peer_down(kv_transfer *t, const peer *gone)
{
    for (uint32_t i = 0; i < READS_MAX; i++)
        if (t->read_copies[i].other == gone)
            t->read_copies[i].other = NULL;
    for (uint32_t i = 0; i < WRITES_MAX; i++)
        if (t->write_copies[i].other == gone)
            t->write_copies[i].other = NULL;
    for (uint32_t i = 0; i < LOADS_MAX; i++)
        if (t->loads[i].used && strcmp(t->loads[i].source, gone->name) == 0)
            fail(&t->loads[i], "the executor that has the blocks left");
}
