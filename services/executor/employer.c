/* See employer.h. */
#include "executor/employer.h"

#include "base/log.h"

#include <stddef.h>

enum {
    PATIENCE_MS     = 2000, /* with a scheduler that does not answer an offer */
    MOVE_SOON_MS    = 400,  /* the longest pause before a move to a scheduler that holds nobody */
    MOVE_MS         = 4000, /* ... that holds somebody */
    MOVE_DIFFERENCE = 2,    /* executors; with one the richer would change place with the poorer */
};

void employer_init(employer *e, actor *a)
{
    e->actor  = a;
    e->random = random_from_seed(actor_incarnation(a));
}

/* A peer's mark: it did not answer an offer. */
static char passed_over;

/* Of schedulers that hold equally many each executor has an order of its own, so that they spread (rendezvous hashing,
 * Thaler and Ravishankar 1996). */
static uint64_t rank_of(const employer *e, const peer *p)
{
    random_seeded r = random_from_seed(p->incarnation ^ actor_incarnation(e->actor));
    return random_u64(&r);
}

typedef struct {
    const employer *employer;
    peer           *best;
    bool            passed_over; /* look among these */
} search;

/* One that holds executors and is not ready is about to leave. */
static void look_at(void *arg, peer *p)
{
    search *s = arg;
    if ((p->user == &passed_over) != s->passed_over || (!p->ready && p->capacity > 0))
        return;
    if (!s->best || p->capacity < s->best->capacity ||
        (p->capacity == s->best->capacity && rank_of(s->employer, p) < rank_of(s->employer, s->best)))
        s->best = p;
}

static peer *find_best(employer *e)
{
    search s = {.employer = e};
    actor_each_peer(e->actor, ROLE_SCHEDULER, look_at, &s);
    if (s.best)
        return s.best;
    s.passed_over = true;
    actor_each_peer(e->actor, ROLE_SCHEDULER, look_at, &s);
    return s.best;
}

static employer *employer_of(actor_timer *timer)
{
    return (employer *)((char *)timer - offsetof(employer, timer));
}

static void lose_patience(void *self, actor_timer *timer)
{
    (void)self;
    employer *e = employer_of(timer);
    log_warn("a scheduler does not take this executor", "node=%s", e->scheduler->name);
    e->scheduler->user = &passed_over;
    employer_leave(e);
}

static void offer(employer *e, const executor_ready *about)
{
    error err;
    peer *to = find_best(e);
    if (!to)
        return;
    executor_ready said = *about;
    said.term           = atomic_fetch_add(&e->term, 1) + 1;
    if (!actor_send(e->actor, to, MSG_EXECUTOR_READY, &said, NULL, &err)) {
        log_error("not announced", "node=%s why=\"%s\"", to->name, err.text);
        return;
    }
    e->scheduler = to;
    e->taken     = false;
    actor_timer_set(e->actor, &e->timer, PATIENCE_MS * NS_PER_MS, lose_patience);
}

static peer *poorer_scheduler(employer *e)
{
    peer *best = find_best(e);
    return best && best != e->scheduler && best->user != &passed_over &&
                   best->capacity + MOVE_DIFFERENCE <= e->scheduler->capacity
               ? best
               : NULL;
}

static void move(void *self, actor_timer *timer)
{
    (void)self;
    employer *e      = employer_of(timer);
    peer     *to     = poorer_scheduler(e);
    e->wants_to_move = false;
    if (!to)
        return;
    log_info("moves to another scheduler", "from=%s to=%s", e->scheduler->name, to->name);
    employer_leave(e);
}

static void reconsider(employer *e)
{
    peer *to = poorer_scheduler(e);
    if ((to != NULL) == e->wants_to_move)
        return;
    e->wants_to_move = to != NULL;
    if (!to) {
        actor_timer_cancel(e->actor, &e->timer);
        return;
    }
    uint64_t pause_ms = to->capacity == 0 ? MOVE_SOON_MS : MOVE_MS;
    actor_timer_set(e->actor, &e->timer, (int64_t)random_below(&e->random, pause_ms * NS_PER_MS), move);
}

void employer_turn(employer *e, bool is_free, const executor_ready *about)
{
    if (!e->scheduler && is_free)
        offer(e, about);
    else if (e->scheduler && e->taken)
        reconsider(e);
}

bool employer_takes(employer *e, peer *scheduler, uint64_t term)
{
    if (scheduler != e->scheduler || term != atomic_load(&e->term))
        return false;
    if (!e->taken)
        actor_timer_cancel(e->actor, &e->timer);
    e->taken        = true;
    scheduler->user = NULL;
    return true;
}

static void forget(employer *e)
{
    actor_timer_cancel(e->actor, &e->timer);
    atomic_fetch_add(&e->term, 1);
    e->scheduler     = NULL;
    e->wants_to_move = false;
}

void employer_leave(employer *e)
{
    static const executor_leave leave = {0};
    error                       err;
    if (!e->scheduler)
        return;
    if (!actor_send(e->actor, e->scheduler, MSG_EXECUTOR_LEAVE, &leave, NULL, &err))
        log_debug("not told", "node=%s why=\"%s\"", e->scheduler->name, err.text);
    forget(e);
}

void employer_peer_down(employer *e, const peer *gone)
{
    if (e->scheduler == gone)
        forget(e);
}
