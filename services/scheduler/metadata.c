/* What the scheduler shares through the store: leases of its own and of its executors, and which executor is warm for a
 * session.
 *
 * All of it is hints and leases, and nothing here is waited for. A session's hint says little that the index of cached
 * prefixes does not know better: it decides where no executor has any of the prompt. In memory it is there before the
 * request is planned; Redis answers an idle scheduler mostly too late, and then it is not used. */
#include "scheduler/state.h"

#include "base/log.h"

#include <poll.h>
#include <stdlib.h>

enum { LEASE_TTL_MS = 3000, RENEW_MS = 1000, SESSION_TTL_MS = 600 * 1000, LOOKUPS_MAX = 256 };

typedef struct {
    scheduler *s;
    bool       busy;
    request_id request;
    uint32_t   attempt;
} lookup;

struct metadata {
    store      *store;
    uint64_t    epoch;       /* of the scheduler's own lease, or its clock's when there is none */
    bool        registering; /* an answer is on its way */
    bool        registered;
    actor_timer renew, due;
    lookup      lookups[LOOKUPS_MAX];
};

static void on_store_ready(void *arg, short events)
{
    (void)arg, (void)events;
}

void metadata_turn(scheduler *s)
{
    metadata *m = s->metadata;
    while (store_turn(m->store))
        ;
    actor_turn_by(s->actor, &m->due, store_next_ns(m->store));
}

/* ---- leases ---- */

static void on_registered(void *arg, const store_reply *reply)
{
    scheduler *s             = arg;
    s->metadata->registering = false;
    if (reply->status != STORE_OK)
        return; /* degraded: the next renewal tries again */
    s->metadata->registered = true;
    s->metadata->epoch      = reply->epoch;
    actor_set_epoch(s->actor, reply->epoch);
}

static void on_renewed(void *arg, const store_reply *reply)
{
    scheduler *s = arg;
    if (reply->status == STORE_REFUSED)
        s->metadata->registered = false; /* the lease ran out while we were away: take a new one */
}

static void note_failure(const char *what, const error *err)
{
    log_debug("store operation not made", "what=%s why=\"%s\"", what, err->text);
}

static void register_worker(scheduler *s, const char *name, const char *role_text, uint64_t last_epoch,
                            store_callback *done)
{
    error       err;
    store_lease lease = {
        .id = span_of(name), .role = span_of(role_text), .last_epoch = last_epoch, .ttl_ms = LEASE_TTL_MS};
    if (!store_register(s->metadata->store, &lease, done, s, &err)) {
        note_failure("register", &err);
        if (done)
            s->metadata->registering = false;
    }
}

static void on_renew(void *self, actor_timer *timer)
{
    scheduler *s = self;
    metadata  *m = s->metadata;
    error      err;
    if (!m->registered && !m->registering) {
        m->registering = true;
        register_worker(s, actor_name(s->actor), "scheduler", m->epoch, on_registered);
    } else if (m->registered && !store_renew(m->store, span_of(actor_name(s->actor)), SPAN("scheduler"), m->epoch,
                                             LEASE_TTL_MS, on_renewed, s, &err)) {
        note_failure("renew", &err);
    }
    for (executor_link *x = s->executors; x; x = x->next) /* a lease is as good as its last registration */
        register_worker(s, x->peer->name, "executor", 0, NULL);
    actor_timer_set(s->actor, timer, RENEW_MS * NS_PER_MS, on_renew);
}

/* A lease that is left to run out names a scheduler that is not there any more to whoever lists them. */
bool metadata_leave(scheduler *s)
{
    metadata *m = s->metadata;
    error     err;
    actor_timer_cancel(s->actor, &m->renew);
    if (m->registered) {
        m->registered = false;
        if (!store_release(m->store, span_of(actor_name(s->actor)), SPAN("scheduler"), m->epoch, NULL, NULL, &err))
            note_failure("release", &err);
        metadata_turn(s);
    }
    return store_n_pending(m->store) == 0;
}

/* ---- sessions ---- */

static void on_session(void *arg, const store_reply *reply)
{
    lookup  *l = arg;
    request *r = request_find(l->s, &l->request);
    l->busy    = false;
    if (reply->status == STORE_OK && r && r->envelope.attempt == l->attempt)
        snprintf(r->warm_executor, sizeof r->warm_executor, "%.*s", SPAN_ARG(reply->session.worker));
}

void metadata_find_session(scheduler *s, request *r)
{
    metadata *m = s->metadata;
    error     err;
    lookup   *l = m->lookups;
    if (r->session.size == 0)
        return;
    while (l < m->lookups + LOOKUPS_MAX && l->busy)
        l++;
    if (l == m->lookups + LOOKUPS_MAX)
        return;
    *l = (lookup){.s = s, .busy = true, .request = r->envelope.request, .attempt = r->envelope.attempt};
    if (!store_session_get(m->store, r->session, SESSION_TTL_MS, on_session, l, &err)) {
        l->busy = false;
        note_failure("session get", &err);
    }
}

void metadata_keep_session(scheduler *s, const sequence *q)
{
    error err;
    if (q->request->session.size == 0 || !q->executor)
        return;
    store_session session = {
        .worker    = span_of(q->executor->peer->name),
        .epoch     = q->executor->peer->incarnation & STORE_NUMBER_MAX,
        .fence     = q->n_tokens, /* a later turn of a session is a longer one */
        .last_hash = q->last_hash.low,
        .n_blocks  = q->n_blocks_hashed,
    };
    if (!store_session_set(s->metadata->store, q->request->session, &session, SESSION_TTL_MS, NULL, NULL, &err))
        note_failure("session set", &err);
}

/* ---- life ---- */

bool metadata_new(scheduler *s, error *err)
{
    s->metadata           = calloc(1, sizeof *s->metadata);
    store_options options = {
        .url           = s->options->store_url,
        .password_file = s->options->store_password_file,
        .clock         = actor_clock(s->actor),
    };
    if (!s->metadata)
        return error_set(err, ERR_NO_MEMORY, "no memory for the store");
    s->metadata->store = store_open(&options, err);
    if (!s->metadata->store)
        return error_wrap(err, "--store-url");
    /* Until a lease is had, and without a store: the clock, which the store's epochs follow too. */
    s->metadata->epoch = (uint64_t)clock_unix_ms(actor_clock(s->actor)) * 1000 + 1;
    actor_set_epoch(s->actor, s->metadata->epoch);
    return true;
}

void metadata_start(scheduler *s)
{
    if (store_fd(s->metadata->store) >= 0)
        actor_watch(s->actor, store_fd(s->metadata->store), POLLIN, on_store_ready, s);
    on_renew(s, &s->metadata->renew);
}

store *metadata_store(const scheduler *s)
{
    return s->metadata->store;
}

void metadata_free(scheduler *s)
{
    if (s->metadata)
        store_free(&s->metadata->store);
    free(s->metadata);
    s->metadata = NULL;
}
