/* The executors this scheduler drives. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

enum { HAND_BACK_MS = 1000, REST_FIRST_MS = 1000, REST_DOUBLINGS = 6 };

executor_link *executors_find(scheduler *s, const peer *p)
{
    for (executor_link *x = s->executors; x; x = x->next)
        if (x->peer == p)
            return x;
    return NULL;
}

static void free_link(executor_link *x)
{
    offload_free(x);
    kv_pool_free(&x->pool);
    for (int i = 0; i < PLANS_IN_FLIGHT_MAX; i++)
        free(x->plans[i].entries);
    free(x->free_slots);
    free(x->pending_closes);
    free(x->opens);
    free(x->entries);
    free(x->closes);
    free(x->copy_from);
    free(x->copy_to);
    free(x->move_blocks);
    free(x);
}

static executor_link *new_link(peer *p, const executor_ready *about, error *err)
{
    executor_link *x = calloc(1, sizeof *x);
    if (!x) {
        error_set(err, ERR_NO_MEMORY, "no memory for an executor");
        return NULL;
    }
    uint32_t n        = about->n_slots;
    x->peer           = p;
    x->about          = *about;
    x->pool           = kv_pool_new(about->n_kv_blocks, err);
    x->free_slots     = calloc(n, sizeof *x->free_slots);
    x->pending_closes = calloc(n, sizeof *x->pending_closes);
    x->opens          = calloc(n, sizeof *x->opens);
    x->entries        = calloc(n, sizeof *x->entries);
    x->closes         = calloc(n, sizeof *x->closes);
    x->copy_from      = calloc(n, sizeof *x->copy_from);
    x->copy_to        = calloc(n, sizeof *x->copy_to);
    bool ok = x->pool && x->free_slots && x->pending_closes && x->opens && x->entries && x->closes && x->copy_from &&
              x->copy_to && kv_moves_take_memory(x) && offload_new(x, err);
    for (int i = 0; i < PLANS_IN_FLIGHT_MAX; i++)
        ok = (x->plans[i].entries = calloc(n, sizeof *x->plans[i].entries)) && ok;
    if (!ok) {
        free_link(x);
        error_set(err, ERR_NO_MEMORY, "no memory for an executor with %u slots", n);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++)
        x->free_slots[i] = n - 1 - i;
    x->n_free_slots = n;
    snprintf(x->model, sizeof x->model, "%.*s", SPAN_ARG(about->model));
    snprintf(x->device, sizeof x->device, "%.*s", SPAN_ARG(about->device));
    x->about.model  = span_of(x->model);
    x->about.device = span_of(x->device);
    snprintf(x->kv_endpoint, sizeof x->kv_endpoint, "%.*s", SPAN_ARG(about->kv_endpoint));
    x->about.kv_endpoint = span_of(x->kv_endpoint);
    return x;
}

/* What an executor that gives wrong results computes is lost, and a request is failed by the third loss: its session
 * ends and it begins anew, but not at once, and each time later. */
void executors_wrong(scheduler *s, executor_link *x, const char *why)
{
    executor_fault *f = s->faults;
    for (uint32_t i = 0; i < EXECUTOR_FAULTS_MAX; i++) { /* its own, or the one whose rest ended first */
        if (strcmp(s->faults[i].name, x->peer->name) == 0) {
            f = &s->faults[i];
            break;
        }
        if (s->faults[i].rest_until_ns < f->rest_until_ns)
            f = &s->faults[i];
    }
    if (strcmp(f->name, x->peer->name) != 0)
        *f = (executor_fault){0};
    snprintf(f->name, sizeof f->name, "%s", x->peer->name);
    int64_t rest_ms  = REST_FIRST_MS << (f->n < REST_DOUBLINGS ? f->n : REST_DOUBLINGS);
    f->rest_until_ns = actor_now_ns(s->actor) + rest_ms * NS_PER_MS;
    f->n++;
    log_error("an executor gives wrong results", "node=%s why=\"%s\" rest_ms=%lld", x->peer->name, why,
              (long long)rest_ms);
    executors_start_over(s, x, why);
}

static bool is_resting(const scheduler *s, const peer *p)
{
    for (uint32_t i = 0; i < EXECUTOR_FAULTS_MAX; i++)
        if (strcmp(s->faults[i].name, p->name) == 0)
            return actor_now_ns(s->actor) < s->faults[i].rest_until_ns;
    return false;
}

void executors_add(scheduler *s, peer *p, const executor_ready *about)
{
    executor_link *known = executors_find(s, p);
    if (known)
        executors_lost(s, known, "it started again", false);
    if (is_resting(s, p))
        return; /* it asks again, here or elsewhere */
    if (about->kv_block_tokens != KV_BLOCK_TOKENS || about->n_slots == 0 || about->n_tokens_max == 0 ||
        about->n_kv_blocks == 0 || about->n_kv_blocks > KV_BLOCKS_MAX || about->n_slots > 4096) {
        log_error("executor not used: its sizes do not fit", "node=%s kv_block_tokens=%u slots=%u kv_blocks=%u",
                  p->name, about->kv_block_tokens, about->n_slots, about->n_kv_blocks);
        return;
    }
    if (s->executors && s->executors->about.fingerprint != about->fingerprint) {
        log_error("executor not used: it differs from the others in its model, kind of device or --kv-cache-dtype",
                  "node=%s model=%.*s device=\"%.*s\"", p->name, SPAN_ARG(about->model), SPAN_ARG(about->device));
        return;
    }
    error          err;
    executor_link *x     = new_link(p, about, &err);
    executor_reset reset = {.epoch = actor_incarnation(s->actor), .term = about->term};
    if (!x || !actor_send(s->actor, p, MSG_EXECUTOR_RESET, &reset, NULL, &err)) {
        log_error("executor not used", "node=%s why=\"%s\"", p->name, err.text);
        if (x)
            free_link(x);
        return;
    }
    x->next      = s->executors;
    s->executors = x;
    log_info("executor joined", "node=%s model=%s device=\"%s\" kv_blocks=%u", p->name, x->model, x->device,
             about->n_kv_blocks);
    request_refuse_unfit(s); /* taken when nobody could say how much fits */
}

/* A peer's mark: it was given up while it computed, and answers perhaps. */
static char given_up;

/* It sends heartbeats, so nobody else notices: a thread that computes may hang for ever. It is not used until it
 * answers at last. */
void executors_check_timeouts(scheduler *s)
{
    int64_t limit_ns = (int64_t)s->options->step_timeout_ms * NS_PER_MS;
    for (executor_link *x = s->executors, *next; x; x = next) {
        next = x->next;
        if (limit_ns == 0 || x->n_plans == 0 || actor_now_ns(s->actor) - x->oldest_since_ns < limit_ns)
            continue;
        log_error("an executor hangs", "node=%s step=%llu timeout_ms=%llu", x->peer->name,
                  (unsigned long long)x->plans[0].step, (unsigned long long)s->options->step_timeout_ms);
        x->peer->user = &given_up;
        executors_lost(s, x, "no result within --step-timeout-ms", true);
    }
}

void executors_late_result(scheduler *s, peer *p)
{
    if (p->user != &given_up)
        return;
    p->user = NULL;
    actor_end_session(s->actor, p, "it answered after it was given up");
}

void executors_start_over(scheduler *s, executor_link *x, const char *why)
{
    peer *p = x->peer;
    executors_lost(s, x, why, true);
    actor_end_session(s->actor, p, why);
}

typedef struct {
    const scheduler *s;
    uint32_t         n;
} others;

/* Executors that are there and of use, and work for another scheduler. */
static void count_other(void *arg, peer *p)
{
    others *o = arg;
    o->n += p->user != &given_up && !is_resting(o->s, p);
}

/* Without an executor requests wait for one; but while another scheduler has those that are there, they are theirs who
 * own them to send again. A moment is left for executors to move over. */
void executors_hand_back(scheduler *s)
{
    others o = {.s = s};
    if (!s->executors && s->n_requests > 0)
        actor_each_peer(s->actor, ROLE_EXECUTOR, count_other, &o);
    if (o.n == 0) {
        s->idle_since_ns = 0;
        return;
    }
    if (s->idle_since_ns == 0)
        s->idle_since_ns = actor_now_ns(s->actor);
    if (actor_now_ns(s->actor) < executors_hand_back_due_ns(s))
        return;
    error err;
    error_set(&err, ERR_GONE, "another scheduler has the executors");
    for (request *r = s->requests, *next; r; r = next) {
        next = r->next;
        if (r->n_live == 0)
            continue;
        request_refuse(s, &r->envelope, r->reply_to, &err, (span){0});
        request_end_all(s, r, FINISH_REASON_CANCELLED, NULL);
    }
}

int64_t executors_hand_back_due_ns(const scheduler *s)
{
    return s->idle_since_ns == 0 ? INT64_MAX : s->idle_since_ns + HAND_BACK_MS * NS_PER_MS;
}

/* Everything that ran there goes back to the queue with the tokens it has: another executor continues at the next
 * position. `failed`: what ran there may be at fault. */
void executors_lost(scheduler *s, executor_link *x, const char *why, bool failed)
{
    if (failed && x->n_running > 0)
        log_warn("executor lost", "node=%s why=\"%s\" sequences=%u", x->peer->name, why, x->n_running);
    else
        log_info("executor left", "node=%s why=\"%s\"", x->peer->name, why);
    for (uint32_t i = 0; i < x->n_plans; i++) {
        for (uint32_t k = 0; k < x->plans[i].n_entries; k++) {
            sequence *q = x->plans[i].entries[k].sequence;
            q->n_in_flight--;
            if (q->state == SEQUENCE_ENDED)
                request_settle(s, q->request);
        }
    }
    x->n_plans = 0;
    while (x->running_first) {
        sequence *q = x->running_first;
        request_trace_event(s, q->request, "executor lost");
        if (failed && suspicion_of_loss(q))
            request_end_all(s, q->request, FINISH_REASON_ERROR,
                            "the request was running when three executors were lost");
        else
            sequence_preempt(s, q);
    }
    kv_moves_executor_lost(s, x);
    executor_link **link = &s->executors;
    while (*link != x)
        link = &(*link)->next;
    *link = x->next;
    free_link(x);
}
