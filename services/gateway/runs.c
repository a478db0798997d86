/* Runs: one message to a tokenizer each, sent again under the next attempt when something downstream dies.
 *
 * Delivery is at least once, effect exactly once: of what comes back only the current attempt is heard, and of that
 * only what begins where the client's tokens end. */
#include "services/gateway/reply_log.h"

#include "base/log.h"
#include "base/random.h"

#include <assert.h>

enum { REST_FIRST_MS = 50, REST_FACTOR = 4, REST_MAX_MS = 800, HOLD_MS = 250 };

/* ---- the table ---- */

static uint32_t table_place(const request_id *id)
{
    uint32_t word;
    memcpy(&word, id->bytes, sizeof word); /* ids of runs are our own, and random */
    return word % RUN_TABLE_SIZE;
}

run *run_find(gateway *g, const request_id *id)
{
    run *r = g->table[table_place(id)];
    while (r && !request_id_equal(&r->id, id))
        r = r->next_in_table;
    return r;
}

bool run_new_id(gateway *g, run *r, error *err)
{
    if (!random_bytes(r->id.bytes, sizeof r->id.bytes, err))
        return false;
    run **place      = &g->table[table_place(&r->id)];
    r->next_in_table = *place;
    *place           = r;
    return true;
}

/* ---- the queue ---- */

void run_wait(gateway *g, run *r)
{
    assert(r->state != RUN_WAITING || (!r->next && !r->previous));
    r->state    = RUN_WAITING;
    r->previous = g->waiting_last;
    r->next     = NULL;

    *(g->waiting_last ? &g->waiting_last->next : &g->waiting_first) = r;
    g->waiting_last                                                 = r;
    metric_set(g->metrics.waiting, ++g->n_waiting);
}

static void leave_queue(gateway *g, run *r)
{
    assert(r->state == RUN_WAITING && g->n_waiting > 0);
    r->state                                                = RUN_RESTING;
    *(r->previous ? &r->previous->next : &g->waiting_first) = r->next;
    *(r->next ? &r->next->previous : &g->waiting_last)      = r->previous;
    r->next = r->previous = NULL;
    metric_set(g->metrics.waiting, --g->n_waiting);
}

/* ---- sending ---- */

static envelope about(const run *r)
{
    envelope e = {.request = r->id, .attempt = r->attempt, .deadline_unix_ms = r->answer->deadline_unix_ms};
    memcpy(e.trace, r->answer->about.trace, sizeof e.trace);
    return e;
}

typedef struct {
    gateway          *gateway;
    const gen_cancel *body;
    const envelope   *about;
} cancel_call;

static void cancel_at(void *arg, peer *p)
{
    const cancel_call *call = arg;
    error              err;
    if (!actor_send(call->gateway->actor, p, MSG_GEN_CANCEL, call->body, call->about, &err))
        log_debug("could not cancel", "peer=%s why=\"%s\"", p->name, err.text);
}

static void cancel(gateway *g, const envelope *e, cancel_reason reason)
{
    gen_cancel  body = {.all = true, .reason = reason};
    cancel_call call = {g, &body, e};
    actor_each_peer(g->actor, ROLE_SCHEDULER, cancel_at, &call);
}

/* Says what the client has already. */
static bool fill_resume(run *r)
{
    text_request *body   = r->body;
    resume_point *points = arena_take_array(r->answer->memory, r->n_choices, sizeof *points);
    if (!points)
        return false;
    for (uint32_t i = 0; i < r->n_choices; i++)
        points[i] = (resume_point){.choice     = i,
                                   .n_tokens   = r->choices[i].n_tokens,
                                   .tokens     = r->choices[i].tokens,
                                   .finished   = r->choices[i].finished,
                                   .text_bytes = r->choices[i].text_bytes};
    body->n_resume = r->n_choices;
    body->resume   = points;
    return true;
}

/* Whether the client has something of it: from an earlier attempt, or from a log. */
static bool is_begun(const run *r)
{
    bool begun = r->attempt > 0;
    for (uint32_t i = 0; i < r->n_choices; i++)
        begun = begun || r->choices[i].n_tokens > 0 || r->choices[i].finished;
    return begun;
}

/* False when the run has to go on waiting. */
static bool send_run(gateway *g, run *r, peer *tokenizer)
{
    error    err;
    envelope e = about(r);
    leave_queue(g, r);
    if (r->type == MSG_TEXT_REQUEST && is_begun(r) && !fill_resume(r)) {
        error_set(&err, ERR_NO_MEMORY, "the request outgrew the memory of one request");
        answer_refuse(r->answer, &err, (span){0}, 0);
        return true;
    }
    if (actor_send(g->actor, tokenizer, r->type, r->body, &e, &err)) {
        r->state     = RUN_SENT;
        r->sent      = true;
        r->heard_ns  = gateway_now_ns(g);
        r->n_missed  = 0;
        r->tokenizer = tokenizer;
        return true;
    }
    if (err.code != ERR_GONE && err.code != ERR_OVERLOADED) {
        answer_refuse(r->answer, &err, (span){0}, 0);
        return true;
    }
    run_wait(g, r);
    return false;
}

void runs_pump(gateway *g)
{
    bool lacking = gateway_lacks_parts(g) != NULL;
    for (run *r = g->waiting_first, *next; r; r = next) {
        peer    *tokenizer = actor_pick_peer(g->actor, ROLE_TOKENIZER, NULL);
        uint32_t n_answers = g->n_answers;
        next               = r->next;
        if (!tokenizer)
            return;
        if (r->type == MSG_TEXT_REQUEST && lacking)
            continue; /* nobody could compute it; another attempt would be spent for nothing */
        if (!send_run(g, r, tokenizer))
            return;
        if (g->n_answers != n_answers)
            next = g->waiting_first; /* an answer ended, and took its runs out of the queue */
    }
}

/* ---- ending ---- */

void run_forget(gateway *g, run *r)
{
    if (r->state == RUN_WAITING)
        leave_queue(g, r);
    actor_timer_cancel(g->actor, &r->rest);
    if (r->type == MSG_TEXT_REQUEST && r->state != RUN_DONE && r->sent) {
        envelope e = about(r);
        cancel(g, &e, CANCEL_REASON_CLIENT_LEFT);
    }
    run **place = &g->table[table_place(&r->id)];
    while (*place && *place != r)
        place = &(*place)->next_in_table;
    if (*place)
        *place = r->next_in_table;
    r->state = RUN_DONE;
}

/* ---- trying again ---- */

static void on_rested(void *self, actor_timer *timer)
{
    run *r = (run *)((char *)timer - offsetof(run, rest));
    run_wait(self, r);
}

/* A request that is at fault takes down the same part again and again and never gets any further. */
static void try_again(gateway *g, run *r, role lost, const error *why)
{
    bool     is_shared = lost == ROLE_SCHEDULER || lost == ROLE_TOKENIZER;
    uint32_t n_losses  = r->n_losses[lost]++;
    if (n_losses >= (is_shared ? SHARED_LOSSES_MAX : LOSSES_MAX)) {
        metric_add(g->metrics.retry_exhausted, 1);
        answer_refuse(r->answer, why, (span){0}, 1000);
        return;
    }
    if (r->type == MSG_TEXT_REQUEST && lost != ROLE_TOKENIZER) {
        envelope old = about(r);
        cancel(g, &old, CANCEL_REASON_SUPERSEDED);
        r->attempt++;
    } /* a tokenizer may have passed it on before: then the scheduler drops the same attempt */
    metric_add(g->metrics.retries, 1);
    log_warn("sends a request again", "attempt=%u why=\"%s\"", r->attempt, why->text);
    int64_t rest_ms = REST_FIRST_MS;
    for (uint32_t i = 0; i < n_losses && rest_ms < REST_MAX_MS; i++)
        rest_ms *= REST_FACTOR;
    r->state         = RUN_RESTING;
    r->held_since_ns = 0; /* it was taken */
    r->tokenizer = r->postprocessor = NULL;
    gateway_timer_set(g, &r->rest, rest_ms * NS_PER_MS, on_rested);
}

void run_lost(gateway *g, run *r, const error *why)
{
    try_again(g, r, ROLE_SCHEDULER, why);
}

/* An answer may end meanwhile, alone of all. */
void runs_each(gateway *g, void (*visit)(gateway *g, run *r, void *arg), void *arg)
{
    for (answer *a = g->answers, *next; a; a = next) {
        next           = a->next;
        uint32_t n     = a->n_runs;
        uint32_t total = g->n_answers;
        for (uint32_t i = 0; i < n; i++) {
            visit(g, &a->runs[i], arg);
            if (g->n_answers < total)
                break; /* this answer is gone */
        }
    }
}

static void count_peer(void *arg, peer *p)
{
    (void)p;
    ++*(uint32_t *)arg;
}

/* One is leaving and not counted any more. */
static bool has_scheduler(const gateway *g)
{
    uint32_t n = 0;
    actor_each_peer(g->actor, ROLE_SCHEDULER, count_peer, &n);
    return n > 0;
}

static void lose_peer(gateway *g, run *r, void *arg)
{
    const peer *p = arg;
    error       why;
    if (r->state != RUN_SENT)
        return;
    /* A tokenizer's requests are lost unless an answer has begun. Of a scheduler's those tell us that worked with it,
     * the tokenizer or the postprocessor; when it was the only one, all are lost. */
    bool begun = r->postprocessor != NULL;
    if (r->postprocessor != p && !(r->tokenizer == p && !begun) &&
        !(p->role == ROLE_SCHEDULER && r->type == MSG_TEXT_REQUEST && !has_scheduler(g))) {
        if (r->tokenizer == p)
            r->tokenizer = NULL;
        return;
    }
    error_set(&why, ERR_GONE, "a %s left while it worked on this request", role_name(p->role));
    try_again(g, r, p->role, &why);
}

void runs_peer_down(gateway *g, peer *p)
{
    runs_each(g, lose_peer, p);
}

static void expire(gateway *g, run *r, void *arg)
{
    if (r->state == RUN_WAITING || r->state == RUN_RESTING)
        answer_refuse(r->answer, arg, (span){0}, 5000);
    (void)g;
}

void runs_expire_waiting(gateway *g)
{
    error       why;
    const char *lacks = gateway_lacks_parts(g);
    error_set(&why, ERR_NOT_READY, "%s", lacks ? lacks : "a part of the system is away");
    runs_each(g, expire, &why);
}

/* An attempt after the first is for a client that was promised an answer, and so is one of many texts whose others were
 * taken. */
static bool was_promised(const run *r)
{
    return r->attempt > 0 || (r->answer->pooled && r->answer->n_runs > 1);
}

/* The system may need a moment to come up again, or somebody who was ready when the request came leaves just now. */
static bool may_hold(gateway *g, run *r, error_code code)
{
    if (code != ERR_NOT_READY && (code != ERR_OVERLOADED || !was_promised(r)))
        return false;
    int64_t now = gateway_now_ns(g);
    if (r->held_since_ns == 0)
        r->held_since_ns = now;
    r->state = RUN_RESTING;
    return (double)(now - r->held_since_ns) / 1e9 < g->options->resume_wait_s;
}

void runs_on_refused(gateway *g, const message *m, const text_refused *refused)
{
    run       *r    = run_find(g, &m->envelope->request);
    error_code code = refused->code > ERR_NONE && refused->code < N_ERRORS ? (error_code)refused->code : ERR_INTERNAL;
    error      why;
    if (!r || r->attempt != m->envelope->attempt || r->state != RUN_SENT)
        return;
    error_set(&why, code, "%.*s", SPAN_ARG(refused->text));
    if (code == ERR_GONE)
        try_again(g, r, ROLE_SCHEDULER, &why); /* or another that was shared: what had it alone we see ourselves */
    else if (may_hold(g, r, code))
        gateway_timer_set(g, &r->rest, HOLD_MS * NS_PER_MS, on_rested); /* nobody took this attempt: it isn't spent */
    else
        answer_refuse(r->answer, &why, refused->field, refused->retry_after_ms);
}

/* ---- receiving ---- */

static bool keep_tokens(run *r, choice_state *c, const text_delta *d)
{
    if (c->n_tokens + d->n_tokens > c->tokens_capacity) {
        uint32_t capacity = c->tokens_capacity ? c->tokens_capacity : 32;
        while (capacity < c->n_tokens + d->n_tokens)
            capacity *= 2;
        uint32_t *tokens = arena_take_array(r->answer->memory, capacity, sizeof *tokens);
        if (!tokens)
            return false;
        if (c->n_tokens > 0)
            memcpy(tokens, c->tokens, c->n_tokens * sizeof *tokens);
        c->tokens          = tokens;
        c->tokens_capacity = capacity;
    }
    if (d->n_tokens > 0)
        memcpy(c->tokens + c->n_tokens, d->tokens, d->n_tokens * sizeof *d->tokens);
    c->n_tokens += d->n_tokens;
    if (d->n_tokens > 0)
        memset(r->n_losses, 0, sizeof r->n_losses);
    return true;
}

static bool deliver_or_end(run *r, const text_delta *d)
{
    error err;
    if (r->answer->sink->delta(r->answer, r, d, &err))
        return true;
    answer_refuse(r->answer, &err, (span){0}, 0);
    return false;
}

static void end_choice(run *r, choice_state *c, const text_delta *d)
{
    answer *a   = r->answer;
    c->finished = true;
    c->finish = a->finish = d->finish;
    c->usage              = d->usage;
    if (c->usage.completion_tokens < c->n_tokens)
        c->usage.completion_tokens = c->n_tokens;
    if (--r->n_open > 0)
        return;
    r->state = RUN_DONE;
    run_forget(a->gateway, r);
}

bool run_hand_out(run *r, const text_delta *d)
{
    answer *a = r->answer;
    if (!deliver_or_end(r, d))
        return false;
    if (d->finish == FINISH_REASON_NONE)
        return true;
    if (--a->n_open == 0) {
        answer_finish(a);
        return false;
    }
    error err;
    if (a->pooled && a->n_begun < a->n_runs && !answer_begin_run(a, &err))
        log_error("a run did not begin", "why=\"%s\"", err.text); /* no random numbers: its deadline ends it */
    return true;
}

/* Leaves of an echo what the client has not. False: nothing. */
static bool take_in_echo(choice_state *c, text_delta *d)
{
    uint32_t n     = d->n_tokens > d->n_logprobs ? d->n_tokens : d->n_logprobs;
    uint32_t n_end = d->index + n;
    bool     known = c->echoed && n_end <= c->n_prompt_seen;
    c->echoed      = true;
    if (known)
        return false;
    if (d->index < c->n_prompt_seen && d->n_logprobs > c->n_prompt_seen - d->index) {
        uint32_t n_seen = c->n_prompt_seen - d->index; /* another attempt cuts the prompt in other places */
        d->logprobs += n_seen;
        d->n_logprobs -= n_seen;
        d->text = (span){0};
    }
    c->n_prompt_seen = n_end;
    return true;
}

bool run_deliver(run *r, const text_delta *delta)
{
    choice_state *c = &r->choices[delta->choice];
    text_delta    d = *delta;
    error         err;
    if (d.prompt) {
        if (!take_in_echo(c, &d))
            return true;
    } else {
        if (!keep_tokens(r, c, &d)) {
            error_set(&err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
            answer_refuse(r->answer, &err, (span){0}, 0);
            return false;
        }
        c->text_bytes += (uint32_t)d.text.size;
        answer_saw_tokens(r->answer, d.n_tokens);
    }
    if (d.finish != FINISH_REASON_NONE) {
        if (d.stop_reason.size)
            c->stop_reason = arena_copy(r->answer->memory, d.stop_reason);
        end_choice(r, c, &d);
    }
    return r->answer->log ? reply_log_add(r, &d) : run_hand_out(r, &d);
}

/* Of a message that begins before the client's tokens end only the end is new. False: nothing of it is. */
static bool trim(const choice_state *c, text_delta *d)
{
    if (d->prompt || d->index == c->n_tokens)
        return true;
    if (d->finish == FINISH_REASON_NONE || d->index + d->n_tokens != c->n_tokens)
        return false;
    d->index      = c->n_tokens;
    d->n_tokens   = 0;
    d->n_logprobs = 0;
    d->text       = (span){0};
    return true;
}

static void ended_badly(gateway *g, run *r, const text_delta *d)
{
    error why;
    if (d->finish == FINISH_REASON_CANCELLED) {
        error_set(&why, ERR_GONE, "the request was cancelled downstream");
        try_again(g, r, ROLE_EXECUTOR, &why); /* a beam search's */
        return;
    }
    if (d->finish == FINISH_REASON_TIMEOUT)
        error_set(&why, ERR_TIMEOUT, "the deadline passed before the answer was complete");
    else
        error_set(&why, ERR_INTERNAL, "the generation failed%s%.*s", d->error.size ? ": " : "", SPAN_ARG(d->error));
    answer_refuse(r->answer, &why, (span){0}, 0);
}

static void log_delta(const run *r, const text_delta *d)
{
    char id[33];
    request_id_print(&r->id, id);
    log_debug("took a delta", "run=%s attempt=%u choice=%u index=%u tokens=%u prompt=%d finish=%s", id, r->attempt,
              d->choice, d->index, d->n_tokens, d->prompt, finish_reason_name(d->finish));
}

/* The tokenizer that was lost had passed it on. */
static void stop_resending(gateway *g, run *r)
{
    if (r->state == RUN_WAITING)
        leave_queue(g, r);
    actor_timer_cancel(g->actor, &r->rest);
    r->state = RUN_SENT;
}

void runs_on_delta(gateway *g, const message *m)
{
    text_delta d = *(const text_delta *)m->body;
    run       *r = run_find(g, &m->envelope->request);
    if (r && m->envelope->attempt == r->attempt && (r->state == RUN_RESTING || r->state == RUN_WAITING))
        stop_resending(g, r);
    if (!r || m->envelope->attempt != r->attempt || r->state != RUN_SENT || d.choice >= r->n_choices ||
        r->type != MSG_TEXT_REQUEST || (r->postprocessor && r->postprocessor != m->from)) {
        metric_add(g->metrics.deltas_dropped, 1);
        /* A cancel can overtake its request on the way to the scheduler; then it has to be said again. */
        if ((!r || m->envelope->attempt < r->attempt) && d.finish == FINISH_REASON_NONE)
            cancel(g, m->envelope, CANCEL_REASON_SUPERSEDED);
        return;
    }
    choice_state *c  = &r->choices[d.choice];
    r->postprocessor = m->from;
    r->heard_ns      = gateway_now_ns(g);
    r->held_since_ns = 0;
    if (c->finished || (!d.prompt && d.index < c->n_tokens && !trim(c, &d))) {
        metric_add(g->metrics.deltas_dropped, 1);
        return;
    }
    if (!d.prompt && d.index > c->n_tokens) {
        error why;
        error_set(&why, ERR_GONE, "text was lost on its way: choice %u goes on at token %u, %u are there", d.choice,
                  d.index, c->n_tokens);
        try_again(g, r, ROLE_POSTPROCESSOR, &why);
        return;
    }
    if (d.finish == FINISH_REASON_CANCELLED || d.finish == FINISH_REASON_TIMEOUT || d.finish == FINISH_REASON_ERROR)
        ended_badly(g, r, &d);
    else {
        log_delta(r, &d);
        run_deliver(r, &d);
    }
}
