/* Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192): drafters guess, the executor verifies. A guess is
 * accepted exactly when it is the token that the executor samples at that position, so the output is the same with and
 * without; a late or wrong guess costs time alone.
 *
 * A sequence that speculates is planned one step at a time: what comes next depends on how many drafts were right. */
#include "scheduler/state.h"

#include "base/log.h"

bool speculate_is_on(const scheduler *s, const sequence *q)
{
    uint32_t n_ready;
    if (q->request->n_draft_tokens == 0 || q->request->beam)
        return false;
    (void)actor_pick_peer(s->actor, ROLE_DRAFTER, &n_ready);
    return n_ready > 0;
}

void speculate_after_result(scheduler *s, sequence *q)
{
    if (q->state == SEQUENCE_RUNNING && q->n_tokens_max - q->n_tokens > 1 && speculate_is_on(s, q))
        q->draft = DRAFT_WANTED;
}

static void ask(scheduler *s, sequence *q)
{
    peer         *drafter = actor_pick_peer(s->actor, ROLE_DRAFTER, NULL);
    draft_request wanted  = {
         .choice   = q->choice,
         .index    = q->n_drafter_knows,
         .tokens   = q->tokens + q->n_drafter_knows,
         .n_tokens = q->n_tokens - q->n_drafter_knows,
         .n        = q->request->n_draft_tokens,
    };
    error err;
    if (!drafter || !actor_send(s->actor, drafter, MSG_DRAFT_REQUEST, &wanted, &q->request->envelope, &err)) {
        q->draft = DRAFT_OFF; /* none is free: this step goes on without */
        return;
    }
    q->draft           = DRAFT_WAITING;
    q->n_drafter_knows = q->n_tokens;
    q->draft_asked_ns  = actor_now_ns(s->actor);
}

static int64_t late_ns(const scheduler *s, const sequence *q)
{
    return q->draft_asked_ns + (int64_t)s->options->draft_wait_ms * NS_PER_MS;
}

int64_t speculate_due_ns(const scheduler *s, const executor_link *x)
{
    int64_t due_ns = INT64_MAX;
    if (s->n_speculating == 0)
        return due_ns;
    for (const sequence *q = x->running_first; q; q = q->next)
        if (q->draft == DRAFT_WAITING && late_ns(s, q) < due_ns)
            due_ns = late_ns(s, q);
    return due_ns;
}

void speculate_turn(scheduler *s)
{
    int64_t now_ns = actor_now_ns(s->actor);
    if (s->n_speculating == 0)
        return;
    for (executor_link *x = s->executors; x; x = x->next) {
        for (sequence *q = x->running_first; q; q = q->next) {
            if (q->draft == DRAFT_WANTED)
                ask(s, q);
            else if (q->draft == DRAFT_WAITING && now_ns >= late_ns(s, q))
                q->draft = DRAFT_OFF;
        }
    }
}

void speculate_reply(scheduler *s, const envelope *e, const draft_reply *reply)
{
    request *r = request_find(s, &e->request);
    if (!r || e->attempt != r->envelope.attempt || reply->choice >= r->n_sequences)
        return;
    sequence *q = &r->sequences[reply->choice];
    if (reply->known < q->n_drafter_knows)
        q->n_drafter_knows = reply->known; /* another drafter, or one that started again: tell it more next time */
    if (q->draft != DRAFT_WAITING || reply->length != q->n_tokens)
        return;
    q->n_drafts = 0;
    for (uint32_t i = 0; i < reply->n_tokens && reply->tokens[i] < q->executor->about.n_vocab; i++)
        q->drafts[q->n_drafts++] = reply->tokens[i];
    q->draft = q->n_drafts > 0 ? DRAFT_READY : DRAFT_OFF;
}

typedef struct {
    scheduler     *s;
    const request *request;
} forget_target;

static void forget_at(void *arg, peer *drafter)
{
    forget_target *target = arg;
    draft_forget   forget = {.all = true};
    error          err;
    if (!actor_send(target->s->actor, drafter, MSG_DRAFT_FORGET, &forget, &target->request->envelope, &err))
        log_debug("drafter not told", "node=%s why=\"%s\"", drafter->name, err.text);
}

void speculate_forget(scheduler *s, const request *r)
{
    if (r->n_draft_tokens > 0)
        actor_each_peer(s->actor, ROLE_DRAFTER, forget_at, &(forget_target){s, r});
}
