/* The executors this scheduler drives. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

executor_link *executors_find(scheduler *s, const peer *p)
{
    for (executor_link *x = s->executors; x; x = x->next)
        if (x->peer == p)
            return x;
    return NULL;
}

static void free_link(executor_link *x)
{
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
              x->copy_to;
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
    return x;
}

void executors_add(scheduler *s, peer *p, const executor_ready *about)
{
    executor_link *known = executors_find(s, p);
    if (known)
        executors_lost(s, known, "it started again");
    if (about->kv_block_tokens != KV_BLOCK_TOKENS || about->n_slots == 0 || about->n_tokens_max == 0 ||
        about->n_kv_blocks == 0 || about->n_kv_blocks > KV_BLOCKS_MAX || about->n_slots > 4096) {
        log_error("executor not used: its sizes do not fit", "node=%s kv_block_tokens=%u slots=%u kv_blocks=%u",
                  p->name, about->kv_block_tokens, about->n_slots, about->n_kv_blocks);
        return;
    }
    if (s->executors && s->executors->about.fingerprint != about->fingerprint) {
        log_error("executor not used: it holds another model", "node=%s model=%.*s", p->name, SPAN_ARG(about->model));
        return;
    }
    error          err;
    executor_link *x     = new_link(p, about, &err);
    executor_reset reset = {.epoch = actor_incarnation(s->actor)};
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
        executors_lost(s, x, "no result within --step-timeout-ms");
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
    executors_lost(s, x, why);
    actor_end_session(s->actor, p, why);
}

/* Everything that ran there goes back to the queue with the tokens it has: another executor continues at the next
 * position. */
void executors_lost(scheduler *s, executor_link *x, const char *why)
{
    if (x->n_running > 0)
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
        if (q->request->beam)
            request_end_all(s, q->request, FINISH_REASON_CANCELLED,
                            NULL); /* nothing was said yet: its owner asks again */
        else if (sequence_failed(q))
            request_end_all(s, q->request, FINISH_REASON_ERROR,
                            "the request was running when three executors were lost");
        else
            sequence_preempt(s, q);
    }
    executor_link **link = &s->executors;
    while (*link != x)
        link = &(*link)->next;
    *link = x->next;
    free_link(x);
}
