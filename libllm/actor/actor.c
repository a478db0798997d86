/* The life of an actor: open its sockets, take turns, wait, leave. */
#include "actor/runtime.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { HEARTBEAT_MS = 1000, DEAD_AFTER_MS = 3000 };
static const uint32_t not_a_watch = UINT32_MAX; /* epoll data of mailboxes and the wake fd */
static const size_t   decoded_bytes =
    2 * (size_t)BUS_MESSAGE_BYTES_MAX; /* structs, lists, and copies of unaligned numbers */

/* ---- opening ---- */

/* Fills the table of handlers; every message that the schema addresses to this role must have one. */
static bool fill_handlers(actor *a, error *err)
{
    const actor_class *class = a->class;
    for (uint32_t i = 0; i < class->n_routes; i++) {
        const message_info *info = message_info_find(class->routes[i].type);
        if (!info || !(info->to >> class->role & 1) || info->type <= MSG_NODE_REFUSED)
            return error_set(err, ERR_INTERNAL, "%s: route %u is for message type %u, which no %s receives",
                             class->name, i, class->routes[i].type, role_name(class->role));
        a->handlers[info - message_infos] = class->routes[i].handle;
    }
    for (uint32_t i = 0; i < n_message_infos; i++) {
        const message_info *info = &message_infos[i];
        if (info->type > MSG_NODE_REFUSED && (info->to >> class->role & 1) && !a->handlers[i])
            return error_set(err, ERR_INTERNAL, "%s: there is no route for %s, which the schema addresses to a %s",
                             class->name, info->name, role_name(class->role));
    }
    return true;
}

static bool watch(actor *a, int fd, short events, uint32_t index, int operation)
{
    struct epoll_event event = {.events = (uint32_t)events, .data.u32 = index};
    return epoll_ctl(a->epoll_fd, operation, fd, &event) == 0;
}

transport *actor_mailbox_for(actor *a, const char *endpoint, error *err)
{
    transport_kind kind;
    if (!transport_kind_of(a->options.bus, endpoint, &kind, err))
        return NULL;
    if (a->mailboxes[kind])
        return a->mailboxes[kind];
    a->mailboxes[kind] = transport_new(a->options.bus, kind, a->name, err);
    if (a->mailboxes[kind] && transport_fd(a->mailboxes[kind]) >= 0 &&
        !watch(a, transport_fd(a->mailboxes[kind]), EPOLLIN, not_a_watch, EPOLL_CTL_ADD)) {
        error_set(err, ERR_IO, "%s: a mailbox cannot be watched: %s", a->name, strerror(errno));
        return NULL;
    }
    return a->mailboxes[kind];
}

static bool open_link(actor *a, const char *endpoint, bool connects, error *err)
{
    actor_link *link = &a->links[a->n_links];
    if (strlen(endpoint) >= sizeof link->endpoint)
        return error_set(err, ERR_TOO_LARGE, "%s: an endpoint has at most %zu bytes", endpoint,
                         sizeof link->endpoint - 1);
    link->mailbox  = actor_mailbox_for(a, endpoint, err);
    link->connects = connects;
    link->owner    = a;
    memcpy(link->endpoint, endpoint, strlen(endpoint) + 1);
    if (!link->mailbox)
        return false;
    bool ok = connects ? transport_connect(link->mailbox, a->n_links, endpoint, err)
                       : transport_bind(link->mailbox, a->n_links, endpoint, err);
    a->n_links += ok;
    return ok;
}

static bool open_links(actor *a, error *err)
{
    for (size_t i = 0; i < COUNT(a->options.bind); i++)
        if (a->options.bind[i] && !open_link(a, a->options.bind[i], false, err))
            return error_wrap(err, "%s cannot listen", a->class->name);
    for (size_t i = 0; i < COUNT(a->options.connect); i++)
        if (a->options.connect[i] && !open_link(a, a->options.connect[i], true, err))
            return error_wrap(err, "%s cannot connect", a->class->name);
    memset(a->options.bind, 0, sizeof a->options.bind); /* the caller's strings; a link has its own copy */
    memset(a->options.connect, 0, sizeof a->options.connect);
    return true;
}

static bool open_memory(actor *a, error *err)
{
    a->handlers    = calloc(n_message_infos, sizeof *a->handlers);
    a->decoded     = arena_new(decoded_bytes, err);
    a->send_memory = arena_new(BUS_MESSAGE_BYTES_MAX, err);
    a->epoll_fd    = epoll_create1(EPOLL_CLOEXEC);
    a->wake_fd     = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!a->decoded || !a->send_memory)
        return false;
    if (!a->handlers || a->epoll_fd < 0 || a->wake_fd < 0 || !watch(a, a->wake_fd, EPOLLIN, not_a_watch, EPOLL_CTL_ADD))
        return error_set(err, ERR_IO, "%s: no memory or descriptors for an actor: %s", a->class->name, strerror(errno));
    a->send_buffer = arena_take(a->send_memory, BUS_MESSAGE_BYTES_MAX);
    return true;
}

static bool fill_identity(actor *a, error *err)
{
    a->incarnation = a->options.incarnation;
    while (a->incarnation == 0)
        if (!random_bytes(&a->incarnation, sizeof a->incarnation, err))
            return false;
    a->jitter = random_from_seed(a->incarnation);
    snprintf(a->name, sizeof a->name, "%s-%016llx", role_name(a->class->role), (unsigned long long)a->incarnation);
    return true;
}

actor *actor_new(const actor_class *class, const void *service_options, const actor_options *options, error *err)
{
    assert(options->bus && class->role != ROLE_UNKNOWN);
    actor *a = calloc(1, sizeof *a);
    if (!a) {
        error_set(err, ERR_NO_MEMORY, "no memory for an actor");
        return NULL;
    }
    a->class    = class;
    a->options  = *options;
    a->clock    = options->clock ? options->clock : clock_system();
    a->now_ns   = clock_now_ns(a->clock);
    a->metrics  = actor_metrics_of(class->role);
    a->ready    = true;
    a->capacity = 1;
    if (a->options.protocol_max == 0) {
        a->options.protocol_min = BUS_PROTOCOL_MIN;
        a->options.protocol_max = BUS_PROTOCOL_MAX;
    }
    if (a->options.heartbeat_ms == 0)
        a->options.heartbeat_ms = HEARTBEAT_MS;
    if (a->options.dead_after_ms == 0)
        a->options.dead_after_ms = DEAD_AFTER_MS;
    for (uint32_t i = 0; i < ACTOR_WATCHES_MAX; i++)
        a->watches[i].fd = -1;
    if (!fill_identity(a, err) || !open_memory(a, err) || !fill_handlers(a, err) || !open_links(a, err) ||
        !(a->self = class->create(a, service_options, err)))
        actor_free(&a);
    return a;
}

/* ---- leaving ---- */

static void leave(actor *a, bool say_bye)
{
    if (a->left)
        return;
    a->left      = true;
    node_bye bye = {.reason = SPAN("leaving")};
    error    err;
    for (uint32_t i = 0; i < a->peers.n; i++) {
        if (say_bye && !actor_send_entry(a, a->peers.all[i], MSG_NODE_BYE, &bye, NULL, &err))
            log_debug("could not say bye", "peer=%s reason=\"%s\"", a->peers.all[i]->name, err.text);
        actor_mark_gone(a, a->peers.all[i], NULL);
    }
    actor_report_gone(a);
}

static void free_parts(actor **a)
{
    timer_heap_clear(&(*a)->timers); /* before the service's memory, which the timers lie in */
    if ((*a)->self)
        (*a)->class->destroy((*a)->self);
    for (uint32_t i = 0; i < N_TRANSPORT_KINDS; i++)
        transport_free(&(*a)->mailboxes[i]);
    arena_free(&(*a)->decoded);
    arena_free(&(*a)->send_memory);
    free((*a)->handlers);
    pthread_mutex_destroy(&(*a)->names_mutex);
    if ((*a)->epoll_fd > 0)
        close((*a)->epoll_fd);
    if ((*a)->wake_fd > 0)
        close((*a)->wake_fd);
    free(*a);
    *a = NULL;
}

void actor_free(actor **a)
{
    if (!*a)
        return;
    assert(!(*a)->thread_runs);
    leave(*a, true);
    free_parts(a);
}

void actor_crash(actor **a)
{
    leave(*a, false);
    free_parts(a);
}

/* ---- a turn ---- */

static bool take_messages(actor *a)
{
    transport_message t;
    uint32_t          n = 0, n_before;
    do {
        n_before = n;
        for (uint32_t i = 0; i < N_TRANSPORT_KINDS; i++)
            if (n < ACTOR_TURN_MESSAGES && a->mailboxes[i] && transport_receive(a->mailboxes[i], &t)) {
                actor_take_in(a, &t);
                actor_report_gone(a);
                n++;
            }
    } while (n > n_before);
    return n > 0;
}

static bool fire_timers(actor *a)
{
    uint32_t     n_left = a->timers.n; /* timers set while these fire are for the next turn */
    bool         fired  = false;
    actor_timer *timer;
    for (; n_left > 0 && (timer = timer_heap_take_due(&a->timers, a->now_ns)); n_left--) {
        timer->fire(a->self, timer);
        actor_report_gone(a);
        fired = true;
    }
    return fired;
}

static bool serve_watches(actor *a)
{
    struct epoll_event events[ACTOR_WATCHES_MAX + N_TRANSPORT_KINDS + 1];
    int                n      = a->n_watches > 0 ? epoll_wait(a->epoll_fd, events, COUNT(events), 0) : 0;
    bool               served = false;
    for (int i = 0; i < n; i++) {
        uint32_t index = events[i].data.u32;
        if (index == not_a_watch || a->watches[index].fd < 0)
            continue; /* a mailbox; or forgotten by a watch before it */
        a->watches[index].ready(a->watches[index].arg, (short)events[i].events);
        actor_report_gone(a);
        served = true;
    }
    return served;
}

static void serve_requests(actor *a)
{
    atomic_store(&a->woken, false);
    actor_take_places(a);
    if (atomic_exchange(&a->dump_asked, false)) {
        fprintf(stderr, "%s: %u peers, %u timers\n", a->name, a->peers.n, a->timers.n);
        for (uint32_t i = 0; i < a->peers.n; i++)
            fprintf(stderr, "  %s credits %u load %u ready %d, may spend %u\n", a->peers.all[i]->name,
                    a->peers.all[i]->public.credits, a->peers.all[i]->public.load, a->peers.all[i]->public.ready,
                    a->peers.all[i]->spendable);
        if (a->class->dump)
            a->class->dump(a->self);
    }
    if (atomic_exchange(&a->reload_asked, false) && a->class->on_reload)
        a->class->on_reload(a->self);
    if (atomic_exchange(&a->drain_asked, false) && !a->draining) {
        a->draining = true;
        actor_set_ready(a, false);
        if (a->class->on_drain)
            a->class->on_drain(a->self);
        else
            a->finished = true;
    }
}

static void start(actor *a)
{
    a->started = true;
    actor_tick_start(a);
    for (uint32_t i = 0; i < a->n_links; i++)
        if (a->links[i].connects)
            actor_link_start(&a->links[i]);
    if (a->class->on_start)
        a->class->on_start(a->self);
}

bool actor_turn(actor *a)
{
    if (a->left)
        return false;
    log_set_thread_service(a->class->name);
    a->now_ns  = clock_now_ns(a->clock);
    a->in_turn = true;
    if (!a->started)
        start(a);
    serve_requests(a);
    bool did = take_messages(a);
    did      = serve_watches(a) || did;
    did      = fire_timers(a) || did;
    if (a->class->on_turn)
        a->class->on_turn(a->self);
    actor_pay_credits(a);
    actor_report_gone(a);
    a->in_turn = false;
    if (a->finished || atomic_load(&a->stop_asked))
        leave(a, true);
    return did;
}

int64_t actor_next_due_ns(const actor *a)
{
    return timer_heap_next_ns(&a->timers);
}

static bool has_mail(const actor *a)
{
    bool pending = false;
    for (uint32_t i = 0; i < N_TRANSPORT_KINDS; i++)
        pending =
            (a->mailboxes[i] && transport_pending(a->mailboxes[i])) || pending; /* each must be asked before a wait */
    return pending;
}

bool actor_is_due(actor *a)
{
    return !a->left &&
           (!a->started || atomic_load(&a->woken) || actor_next_due_ns(a) <= clock_now_ns(a->clock) || has_mail(a));
}

bool actor_has_left(const actor *a)
{
    return a->left;
}

void actor_check(const actor *a)
{
    uint32_t n_owing = 0;
    peer_table_check(&a->peers);
    for (uint32_t i = 0; i < a->peers.n; i++) {
        const peer_entry *entry = a->peers.all[i];
        assert(!entry->gone); /* reported by the end of every turn */
        assert(!entry->is_server || a->links[entry->link].state == LINK_UP);
        n_owing += entry->owed > 0;
    }
    assert(n_owing == a->n_owing);
    if (a->class->check && !a->left)
        a->class->check(a->self);
}

transport *actor_mailbox(const actor *a, transport_kind kind)
{
    return a->mailboxes[kind];
}

/* ---- the loop ---- */

#if !defined(__has_feature)
#define __has_feature(name) 0 /* gcc tells by a macro, clang by a feature */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer)
static const bool check_when_idle = true; /* invariants are checked in instrumented builds and in simulations */
#else
static const bool check_when_idle = false;
#endif

static void wait_for_work(actor *a, bool did)
{
    int64_t  timeout_ns = 0, due_ns = actor_next_due_ns(a);
    uint64_t n;
    /* Wakes are taken before the flag is looked at: a later one makes the descriptor readable. One that is counted and
     * not yet written is taken another time. */
    if (atomic_load(&a->n_wakes) != a->n_wakes_taken && read(a->wake_fd, &n, sizeof n) == sizeof n)
        a->n_wakes_taken += n;
    if (!has_mail(a) && !did && !atomic_load(&a->woken))
        timeout_ns = due_ns == INT64_MAX ? -1 : due_ns - clock_now_ns(a->clock);
    if (timeout_ns < 0 && due_ns != INT64_MAX)
        timeout_ns = 0;
    if (a->class->wait)
        a->class->wait(a->self, a->epoll_fd, timeout_ns);
    else if (timeout_ns != 0) {
        if (check_when_idle)
            actor_check(a);
        struct timespec timeout = {timeout_ns / NS_PER_S, timeout_ns % NS_PER_S};
        struct pollfd   ready   = {.fd = a->epoll_fd, .events = POLLIN};
        ppoll(&ready, 1, timeout_ns < 0 ? NULL : &timeout, NULL);
    }
}

void actor_run(actor *a)
{
    while (!a->left) {
        bool did = actor_turn(a);
        if (!a->left && (!did || a->class->wait))
            wait_for_work(a, did);
    }
}

static void *run_thread(void *arg)
{
    actor_run(arg);
    return NULL;
}

bool actor_start(actor *a, error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the thread that started us */
    int failure = pthread_create(&a->thread, NULL, run_thread, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure)
        return error_set(err, ERR_IO, "%s: its thread cannot be started: %s", a->class->name, strerror(failure));
    a->thread_runs = true;
    pthread_setname_np(a->thread, a->class->name);
    return true;
}

void actor_join(actor *a)
{
    if (a->thread_runs)
        pthread_join(a->thread, NULL);
    a->thread_runs = false;
}

/* ---- from other threads ---- */

void actor_wake(actor *a)
{
    int before = errno; /* may run in a signal handler */
    if (!atomic_exchange(&a->woken, true)) {
        atomic_fetch_add(&a->n_wakes, 1);
        (void)!write(a->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    errno = before;
}

void actor_drain(actor *a)
{
    atomic_store(&a->drain_asked, true);
    actor_wake(a);
}

void actor_stop(actor *a)
{
    atomic_store(&a->stop_asked, true);
    actor_wake(a);
}

void actor_dump(actor *a)
{
    atomic_store(&a->dump_asked, true);
    actor_wake(a);
}

void actor_reload(actor *a)
{
    atomic_store(&a->reload_asked, true);
    actor_wake(a);
}

/* ---- from its own ---- */

void actor_finish(actor *a)
{
    a->finished = true;
    actor_wake(a); /* a class with an event loop of its own may be about to wait */
}

bool actor_is_draining(const actor *a)
{
    return a->draining;
}

void *actor_self(const actor *a)
{
    return a->self;
}

const char *actor_name(const actor *a)
{
    return a->name;
}

uint64_t actor_incarnation(const actor *a)
{
    return a->incarnation;
}

const clock_source *actor_clock(const actor *a)
{
    return a->clock;
}

int64_t actor_now_ns(const actor *a)
{
    /* Outside a turn - in create, in the callbacks of a class's own event loop - the turn's time may be long past. */
    return a->in_turn ? a->now_ns : clock_now_ns(a->clock);
}

void actor_set_epoch(actor *a, uint64_t epoch)
{
    a->epoch = epoch;
}

void actor_set_ready(actor *a, bool ready)
{
    if (a->ready == ready)
        return;
    a->ready = ready;
    actor_say_heartbeats(a);
}

void actor_set_capacity(actor *a, uint32_t n)
{
    if (a->capacity == n)
        return;
    a->capacity = n;
    actor_say_heartbeats(a);
}

bool actor_endpoint(const actor *a, uint32_t index, char *text, size_t text_bytes)
{
    const actor_link *link = &a->links[index];
    return index < a->n_links && !link->connects &&
           link->mailbox->class->endpoint(link->mailbox, index, text, text_bytes);
}

void actor_timer_set(actor *a, actor_timer *timer, int64_t delay_ns, void (*fire)(void *self, actor_timer *timer))
{
    int64_t due_ns;
    if (__builtin_add_overflow(actor_now_ns(a), delay_ns > 0 ? delay_ns : 0, &due_ns))
        due_ns = INT64_MAX;
    timer->fire = fire;
    timer_heap_set(&a->timers, timer, due_ns > 0 ? due_ns : 1);
}

void actor_timer_cancel(actor *a, actor_timer *timer)
{
    timer_heap_cancel(&a->timers, timer);
}

static void on_turn_due(void *self, actor_timer *timer)
{
    (void)self, (void)timer; /* the turn is what was wanted */
}

void actor_turn_by(actor *a, actor_timer *timer, int64_t due_ns)
{
    int64_t now = actor_now_ns(a);
    if (due_ns == INT64_MAX)
        actor_timer_cancel(a, timer);
    else
        actor_timer_set(a, timer, due_ns > now ? due_ns - now : NS_PER_MS, on_turn_due);
}

void actor_watch(actor *a, int fd, short events, void (*ready)(void *arg, short events), void *arg)
{
    uint32_t unused = ACTOR_WATCHES_MAX, index = ACTOR_WATCHES_MAX;
    for (uint32_t i = ACTOR_WATCHES_MAX; i-- > 0;)
        if (a->watches[i].fd == fd)
            index = i;
        else if (a->watches[i].fd < 0)
            unused = i;
    if (events == 0) {
        if (index < ACTOR_WATCHES_MAX) {
            epoll_ctl(a->epoll_fd, EPOLL_CTL_DEL, fd,
                      NULL); /* fails when the descriptor was closed before: gone as well */
            a->watches[index].fd = -1;
            a->n_watches--;
        }
        return;
    }
    bool known = index < ACTOR_WATCHES_MAX;
    index      = known ? index : unused;
    assert(index < ACTOR_WATCHES_MAX);
    a->watches[index] = (actor_watch_entry){fd, ready, arg};
    a->n_watches += !known;
    if (!watch(a, fd, events, index, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD))
        log_error("a descriptor cannot be watched", "fd=%d reason=\"%s\"", fd, strerror(errno));
}
