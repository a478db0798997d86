/* Who comes and who goes.
 *
 * A session is one hello and its welcome on one connection. Both sides count its messages from 1 without a hole;
 * whoever misses one, hears nothing for dead_after_ms, or is told that the other side knows of no session, ends it. The
 * connecting side then opens a new connection, whose identity the server has never seen, and says hello on that: what
 * is left of the old session cannot reach the new one. So there is one hello a connection, and every retry is a new
 * connection. */
#include "actor/runtime.h"
#include "base/log.h"

#include <stddef.h>
#include <stdio.h>

enum {
    KNOCK_MS      = 20, /* between looks for a server that is not there; doubles up to KNOCK_MAX_MS */
    KNOCK_MAX_MS  = 250,
    REFUSED_BEATS = 10, /* heartbeats until a refused hello is tried again */
};

static void set_link_timer(actor_link *link, int64_t delay_ms, void (*fire)(void *, actor_timer *))
{
    actor  *a        = link->owner;
    int64_t delay_ns = delay_ms * NS_PER_MS;
    /* Up to a quarter is added at random, so that many nodes that lost one server do not come back in step. */
    actor_timer_set(a, &link->timer, delay_ns + (int64_t)random_below(&a->jitter, (uint64_t)delay_ns / 4 + 1), fire);
}

static actor_link *link_of(actor_timer *timer)
{
    return (actor_link *)((char *)timer - offsetof(actor_link, timer));
}

static int64_t doubled(int64_t first_ms, uint32_t times, int64_t max_ms)
{
    int64_t ms = times < 16 ? first_ms << times : max_ms;
    return ms < max_ms ? ms : max_ms;
}

static void say_hello(void *self, actor_timer *timer);

/* Drops the connection of a link and comes back after a while. */
static void start_over(actor_link *link, int64_t delay_ms)
{
    actor   *a      = link->owner;
    uint32_t number = (uint32_t)(link - a->links);
    error    err;
    link->state = LINK_APART;
    if (link->name && !link->listed) {
        actor_drop_link(a, number);
        return;
    }
    if (!transport_connect(link->mailbox, number, link->endpoint, &err))
        log_warn("cannot open a connection", "endpoint=%s reason=\"%s\"", link->endpoint, err.text);
    set_link_timer(link, delay_ms, say_hello);
}

static void lose_patience(void *self, actor_timer *timer)
{
    (void)self;
    actor_link *link = link_of(timer);
    log_debug("no welcome", "endpoint=%s tries=%u", link->endpoint, link->n_tries);
    start_over(link, KNOCK_MS);
}

static void say_hello(void *self, actor_timer *timer)
{
    (void)self;
    actor_link *link  = link_of(timer);
    actor      *a     = link->owner;
    node_hello  hello = node_hello_defaults;
    error       err;
    hello.name         = span_of(a->name);
    hello.role         = a->class->role;
    hello.incarnation  = a->incarnation;
    hello.protocol_min = a->options.protocol_min;
    hello.protocol_max = a->options.protocol_max;
    hello.credits      = a->options.credits;
    hello.epoch        = a->epoch;
    hello.version      = SPAN(TROUPE_VERSION);
    if (actor_send_raw(a, (uint32_t)(link - a->links), (span){0}, hello.protocol_min, 1, MSG_NODE_HELLO, &hello, NULL,
                       &err)) {
        link->state = LINK_ASKED;
        set_link_timer(link, a->options.dead_after_ms, lose_patience);
        link->n_tries++;
        link->n_knocks = 0;
        return;
    }
    if (err.code != ERR_NOT_READY)
        log_warn("cannot say hello", "endpoint=%s reason=\"%s\"", link->endpoint, err.text);
    set_link_timer(link, doubled(KNOCK_MS, link->n_knocks++, KNOCK_MAX_MS), say_hello);
}

void actor_link_start(actor_link *link)
{
    actor_timer_set(link->owner, &link->timer, 0, say_hello);
}

/* ---- a peer comes ---- */

static void welcome_entry(actor *a, peer_entry *entry, role r, uint32_t protocol, uint64_t incarnation,
                          uint32_t credits, uint64_t epoch, span version)
{
    snprintf(entry->version, sizeof entry->version, "%.*s", SPAN_ARG(version));
    entry->public.version     = entry->version;
    entry->public.since_ns    = a->now_ns;
    entry->protocol           = protocol;
    entry->public.role        = r;
    entry->public.incarnation = incarnation;
    entry->public.credits     = credits;
    entry->public.epoch       = epoch;
    entry->public.ready       = true;
    entry->public.capacity    = 1;
    entry->credits_first      = credits;
    entry->spendable          = a->options.credits;
    entry->heard_ns           = a->now_ns;
    entry->sequence_in        = 1; /* its hello or welcome */
    entry->sequence_out       = 1; /* ours */
}

static void say_heartbeat(actor *a, peer_entry *entry)
{
    node_heartbeat beat = {.ready    = a->ready,
                           .load     = a->class->load ? a->class->load(a->self) : 0,
                           .capacity = a->capacity,
                           .draining = a->draining};
    error          err;
    if (!actor_send_entry(a, entry, MSG_NODE_HEARTBEAT, &beat, NULL, &err) && err.code != ERR_GONE)
        log_warn("cannot send a heartbeat", "peer=%s reason=\"%s\"", entry->name, err.text);
}

static void report_up(actor *a, peer_entry *entry)
{
    metric_add(a->metrics->peers, 1);
    log_info("a peer came", "peer=%s credits=%u epoch=%llu", entry->name, entry->public.credits,
             (unsigned long long)entry->public.epoch);
    if (!a->ready || a->capacity != 1 || a->draining)
        say_heartbeat(a, entry);
    if (a->class->on_peer_up)
        a->class->on_peer_up(a->self, &entry->public);
}

/* A node's name says its role and incarnation: then no two nodes share one. */
static bool name_is_right(span name, role r, uint64_t incarnation)
{
    char expected[BUS_NAME_BYTES + 1];
    snprintf(expected, sizeof expected, "%s-%016llx", role_name(r), (unsigned long long)incarnation);
    return r != ROLE_UNKNOWN && span_is(name, expected);
}

/* The role that a sender's key allows; what it claims to be where no keys are used. */
static role keyed_role(const actor *a, const transport_message *t, role claimed)
{
    const actor_link *link = &a->links[t->link];
    bool              used = link->mailbox->keys->n_peers > 0 && strncmp(link->endpoint, "tcp://", 6) == 0;
    return used ? bus_keys_role(link->mailbox->keys, t->key) : claimed;
}

/* The highest that neither side is too old for; the other ends of the ranges are yet to be looked at. */
static uint32_t shared_protocol(const actor *a, const node_hello *hello)
{
    return hello->protocol_max < a->options.protocol_max ? hello->protocol_max : a->options.protocol_max;
}

static bool hello_is_acceptable(actor *a, const transport_message *t, const message *m, error *why)
{
    const node_hello *hello = m->body;
    role              keyed = keyed_role(a, t, hello->role);
    uint32_t          high  = shared_protocol(a, hello);
    if (high < hello->protocol_min || high < a->options.protocol_min)
        return error_set(why, ERR_UNSUPPORTED, "%.*s speaks protocols %u to %u, %s speaks %u to %u: none is shared",
                         SPAN_ARG(hello->name), hello->protocol_min, hello->protocol_max, a->name,
                         a->options.protocol_min, a->options.protocol_max);
    if (!name_is_right(hello->name, hello->role, hello->incarnation))
        return error_set(why, ERR_INVALID,
                         "a node's name is its role, a dash and its incarnation as 16 hex digits, not \"%.*s\"",
                         SPAN_ARG(hello->name));
    if (m->envelope->incarnation != hello->incarnation || m->envelope->sequence != 1)
        return error_set(why, ERR_INVALID, "a hello is message 1 of its sender's incarnation");
    if (keyed != hello->role)
        return error_set(why, ERR_UNAUTHORIZED, "the key of %.*s is for the role %s", SPAN_ARG(hello->name),
                         role_name(keyed));
    return true;
}

/* Ends an older session of the node that says hello. False when it may not be ended. */
static bool replace_session(actor *a, const transport_message *t, const node_hello *hello, error *why)
{
    peer_entry *old = peer_table_named(&a->peers, hello->name);
    if (old && old->is_server)
        return error_set(why, ERR_INVALID, "%s is connected to %s already", a->name, old->name);
    if (old && old->key[0] && !span_is(t->key, old->key))
        return error_set(why, ERR_UNAUTHORIZED, "%s is connected with another key", old->name);
    if (old) {
        actor_mark_gone(a, old, "it connected anew");
        actor_report_gone(a);
    }
    if (a->peers.n == ACTOR_PEERS_MAX)
        return error_set(why, ERR_OVERLOADED, "%s has %d peers; more are not taken", a->name, ACTOR_PEERS_MAX);
    return true;
}

void actor_on_hello(actor *a, const transport_message *t, const message *m)
{
    const node_hello *hello = m->body;
    error             why;
    if (!hello_is_acceptable(a, t, m, &why) || !replace_session(a, t, hello, &why)) {
        actor_refuse(a, t, NULL, m->envelope, REFUSED_HELLO, &why);
        return;
    }
    node_welcome welcome = node_welcome_defaults;
    welcome.name         = span_of(a->name);
    welcome.role         = a->class->role;
    welcome.incarnation  = a->incarnation;
    welcome.protocol     = shared_protocol(a, hello);
    welcome.credits      = a->options.credits;
    welcome.epoch        = a->epoch;
    welcome.version      = SPAN(TROUPE_VERSION);
    if (!actor_send_raw(a, t->link, t->identity, welcome.protocol, 1, MSG_NODE_WELCOME, &welcome, NULL, &why)) {
        log_debug("a peer left before its welcome", "reason=\"%s\"", why.text);
        return;
    }
    peer_entry *entry = peer_table_add(&a->peers, t->link, t->identity, hello->name);
    if (!entry) {
        log_error("no memory for a peer", " ");
        return;
    }
    memcpy(entry->key, t->key.data ? t->key.data : "", t->key.size);
    welcome_entry(a, entry, hello->role, welcome.protocol, hello->incarnation, hello->credits, hello->epoch,
                  hello->version);
    report_up(a, entry);
}

/* A node that has several addresses ended that session when it took this hello. Its first address rests: where both
 * stay listed, they must not take the session from each other without end. */
static void leave_the_old_way(actor *a, peer_entry *old)
{
    actor_link *link = &a->links[old->link];
    actor_mark_gone(a, old, "it is reached at another address");
    actor_report_gone(a);
    if (link->mailbox)
        set_link_timer(link, REFUSED_BEATS * a->options.heartbeat_ms, say_hello);
}

void actor_on_welcome(actor *a, uint32_t number, const message *m)
{
    const node_welcome *welcome = m->body;
    actor_link         *link    = &a->links[number];
    peer_entry         *old     = peer_table_named(&a->peers, welcome->name);
    const char         *wrong   = NULL;
    if (!name_is_right(welcome->name, welcome->role, welcome->incarnation) ||
        m->envelope->incarnation != welcome->incarnation || m->envelope->sequence != 1)
        wrong = "its name, role and incarnation do not agree";
    else if (welcome->protocol < a->options.protocol_min || welcome->protocol > a->options.protocol_max)
        wrong = "it picked a protocol that this node does not speak";
    else if (old && (!old->is_server || old->link == number))
        wrong = "it is connected already";
    else if (old)
        leave_the_old_way(a, old);
    peer_entry *entry = wrong ? NULL : peer_table_add(&a->peers, number, (span){0}, welcome->name);
    if (!entry) {
        log_warn("cannot use a welcome", "endpoint=%s peer=\"%.*s\" reason=\"%s\"", link->endpoint,
                 SPAN_ARG(welcome->name), wrong ? wrong : "there are too many peers");
        start_over(link, REFUSED_BEATS * a->options.heartbeat_ms);
        return;
    }
    actor_timer_cancel(a, &link->timer);
    link->state      = LINK_UP;
    link->n_tries    = 0;
    entry->is_server = true;
    welcome_entry(a, entry, welcome->role, welcome->protocol, welcome->incarnation, welcome->credits, welcome->epoch,
                  welcome->version);
    report_up(a, entry);
}

void actor_on_handshake_refused(actor *a, uint32_t number, const node_refused *refused)
{
    actor_link *link = &a->links[number];
    log_error("the server refused this node", "endpoint=%s reason=\"%.*s\"", link->endpoint, SPAN_ARG(refused->text));
    start_over(link, REFUSED_BEATS * a->options.heartbeat_ms);
}

/* ---- a peer goes ---- */

void actor_mark_gone(actor *a, peer_entry *entry, const char *reason)
{
    if (entry->gone)
        return;
    entry->gone = true;
    metric_add(a->metrics->credits_spent, (double)entry->spendable - a->options.credits);
    a->n_owing -= entry->owed > 0;
    entry->owed           = 0;
    entry->public.credits = 0;
    entry->public.ready   = false;
    if (reason) {
        log_warn("lost a peer", "peer=%s reason=\"%s\"", entry->name, reason);
        metric_add(a->metrics->peers_lost, 1);
    }
    peer_entry **last = &a->gone; /* in the order in which they went */
    while (*last)
        last = &(*last)->next_gone;
    *last = entry;
}

void actor_part(actor *a, peer_entry *entry, const char *reason)
{
    node_bye bye = {.reason = span_of(reason)};
    error    err;
    if (!actor_send_entry(a, entry, MSG_NODE_BYE, &bye, NULL, &err))
        log_debug("could not say bye", "peer=%s reason=\"%s\"", entry->name, err.text);
    actor_mark_gone(a, entry, reason);
}

void actor_end_session(actor *a, peer *p, const char *why)
{
    actor_part(a, entry_of(p), why);
}

void actor_report_gone(actor *a)
{
    while (a->gone) {
        peer_entry *entry = a->gone;
        a->gone           = entry->next_gone;
        metric_add(a->metrics->peers, -1);
        if (a->class->on_peer_down)
            a->class->on_peer_down(a->self, &entry->public);
        if (entry->is_server && !a->left)
            start_over(&a->links[entry->link], KNOCK_MS);
        peer_table_remove(&a->peers, entry);
    }
}

/* ---- heartbeats ---- */

void actor_say_heartbeats(actor *a)
{
    for (uint32_t i = 0; i < a->peers.n; i++)
        if (!a->peers.all[i]->gone)
            say_heartbeat(a, a->peers.all[i]);
}

static void bury_the_silent(actor *a)
{
    for (uint32_t i = 0; i < a->peers.n; i++) {
        peer_entry *entry = a->peers.all[i];
        if (!entry->gone && a->now_ns - entry->heard_ns > a->options.dead_after_ms * NS_PER_MS) {
            entry->public.died = true;
            actor_part(a, entry, "it missed its heartbeats");
        }
    }
}

static void on_tick(void *self, actor_timer *timer)
{
    (void)self;
    actor  *a         = (actor *)((char *)timer - offsetof(actor, tick));
    int64_t period_ns = a->options.heartbeat_ms * NS_PER_MS / TICKS_PER_HEARTBEAT;
    int64_t late_ns   = a->now_ns - a->ticked_ns - period_ns;
    /* When it was this node that stood still, the others' heartbeats lie unread in its mailbox: they get the time back.
     */
    if (late_ns > period_ns)
        for (uint32_t i = 0; i < a->peers.n; i++)
            a->peers.all[i]->heard_ns += late_ns;
    a->ticked_ns = a->now_ns;
    bury_the_silent(a);
    if (++a->n_ticks % TICKS_PER_HEARTBEAT == 0) {
        log_say_dropped();
        actor_say_heartbeats(a);
    }
    actor_timer_set(a, &a->tick, period_ns, on_tick);
}

void actor_tick_start(actor *a)
{
    a->ticked_ns = a->now_ns;
    actor_timer_set(a, &a->tick, a->options.heartbeat_ms * NS_PER_MS / TICKS_PER_HEARTBEAT, on_tick);
}
