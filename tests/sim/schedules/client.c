/* See client.h. */
#include "sim/schedules/client.h"

#include <assert.h>
#include <stdio.h>

enum { AGAIN_MS = 200 };

static void set_due(world *w);

static envelope envelope_of(const world *w, const ask *a)
{
    envelope e    = {0};
    uint32_t word = (uint32_t)(a - w->asks) + 1;
    memcpy(e.request.bytes, &word, sizeof word);
    memcpy(e.request.bytes + 4, &a->n_asked, sizeof a->n_asked);
    return e;
}

static ask *find_ask(world *w, const envelope *e)
{
    uint32_t word, n_asked;
    memcpy(&word, e->request.bytes, sizeof word);
    memcpy(&n_asked, e->request.bytes + 4, sizeof n_asked);
    assert(word >= 1 && word <= w->n_asks);
    ask *a = &w->asks[word - 1];
    return n_asked == a->n_asked ? a : NULL;
}

static void note_gap(world *w, ask *a)
{
    int64_t gap_ns    = world_now_ns(w) - a->heard_ns;
    a->longest_gap_ns = gap_ns > a->longest_gap_ns ? gap_ns : a->longest_gap_ns;
    a->heard_ns       = world_now_ns(w);
}

static void end(world *w, ask *a)
{
    a->ended    = true;
    a->ended_ns = world_now_ns(w);
    a->next_ns  = 0;
}

static void ask_again(world *w, ask *a, int64_t after_ns)
{
    a->got     = (outcome){0};
    a->next_ns = world_now_ns(w) + after_ns;
}

/* ---- asking ---- */

typedef struct {
    const world *world;
    uint32_t     wanted, n;
    peer        *found;
} gateway_search;

static void count_gateway(void *arg, peer *p)
{
    gateway_search *s = arg;
    if (s->n++ == s->wanted || !s->found)
        s->found = p;
}

static void send(world *w, ask *a)
{
    gateway_search search = {.world = w, .wanted = a->gateway};
    error          err;
    actor_each_peer(w->client, ROLE_GATEWAY, count_gateway, &search);
    if (a->n_asked == 0)
        a->heard_ns = world_now_ns(w);
    a->n_asked++;
    envelope e = envelope_of(w, a);
    if (!search.found || !actor_send(w->client, search.found, MSG_TEXT_REQUEST, &a->kind->body, &e, &err)) {
        a->next_ns = world_now_ns(w) + AGAIN_MS * NS_PER_MS;
        return;
    }
    a->asked_of = search.found->name;
    a->next_ns  = 0;
}

static void cancel(world *w, ask *a)
{
    envelope    e    = envelope_of(w, a);
    text_cancel body = {0};
    error       err;
    peer       *to = a->asked_of && a->next_ns == 0 ? actor_find_peer(w->client, span_of(a->asked_of)) : NULL;
    a->cancelled   = true;
    if (!to || !actor_send(w->client, to, MSG_TEXT_CANCEL, &body, &e, &err))
        a->asked_of = NULL; /* nobody to tell */
    end(w, a);
}

static void on_due(void *self, actor_timer *timer)
{
    world  *w      = self;
    int64_t now_ns = world_now_ns(w);
    (void)timer;
    for (uint32_t i = 0; i < w->n_asks; i++) {
        ask *a = &w->asks[i];
        if (a->ended)
            continue;
        if (a->next_ns > 0 && now_ns >= a->next_ns)
            send(w, a);
        if (a->cancel_at_ns > 0 && now_ns >= a->cancel_at_ns)
            cancel(w, a);
    }
    set_due(w);
}

static void set_due(world *w)
{
    int64_t due_ns = INT64_MAX;
    for (uint32_t i = 0; i < w->n_asks; i++) {
        const ask *a = &w->asks[i];
        if (a->ended)
            continue;
        if (a->next_ns > 0 && a->next_ns < due_ns)
            due_ns = a->next_ns;
        if (a->cancel_at_ns > 0 && a->cancel_at_ns < due_ns)
            due_ns = a->cancel_at_ns;
    }
    if (due_ns < INT64_MAX)
        actor_timer_set(w->client, &w->due, due_ns - world_now_ns(w), on_due);
}

ask *world_ask(world *w, const kind *k, int64_t at_ns)
{
    assert(w->n_asks < WORLD_ASKS_MAX);
    ask *a = &w->asks[w->n_asks++];
    *a     = (ask){.kind = k, .at_ns = at_ns, .next_ns = at_ns};
    set_due(w);
    return a;
}

/* ---- hearing ---- */

static void keep_prompt(world *w, ask *a, choice_outcome *c, const text_delta *d)
{
    for (uint32_t i = 0; i < d->n_logprobs; i++) {
        if (d->index + i != c->n_prompt_logprobs + 1 || c->n_prompt_logprobs == KIND_PROMPT_MAX)
            schedule_failed(w, a, "log probabilities of the prompt are not contiguous");
        c->prompt_logprobs[c->n_prompt_logprobs++] = d->logprobs[i].logprob;
    }
}

static void keep_tokens(world *w, ask *a, choice_outcome *c, const text_delta *d)
{
    if (d->index != c->n_tokens)
        schedule_failed(w, a, "an index that does not follow the one before");
    if (c->n_tokens + d->n_tokens > KIND_TOKENS_MAX || c->n_logprobs + d->n_logprobs > KIND_TOKENS_MAX ||
        c->text_bytes + d->text.size > KIND_TEXT_BYTES)
        schedule_failed(w, a, "more than was asked for");
    for (uint32_t i = 0; i < d->n_tokens; i++)
        c->tokens[c->n_tokens++] = d->tokens[i];
    for (uint32_t i = 0; i < d->n_logprobs; i++)
        c->logprobs[c->n_logprobs++] = d->logprobs[i].logprob;
    if (d->text.size)
        memcpy(c->text + c->text_bytes, d->text.data, d->text.size);
    c->text_bytes += (uint32_t)d->text.size;
}

static void check_end(world *w, ask *a)
{
    const char *wrong = requests_compare(a->kind, &a->got, false);
    if (wrong && w->verify)
        schedule_failed(w, a, wrong);
    end(w, a);
}

static void on_text_delta(void *self, const message *m)
{
    world            *w = self;
    ask              *a = find_ask(w, m->envelope);
    const text_delta *d = m->body;
    if (!a)
        schedule_failed(w, NULL, "a delta of a request that was asked again elsewhere");
    if (a->cancelled)
        return; /* they crossed each other */
    if (a->ended || a->next_ns > 0 || d->choice >= a->kind->body.n)
        schedule_failed(w, a, "a delta after the end, or of no choice");
    choice_outcome *c = &a->got.choices[d->choice];
    if (c->finish != FINISH_REASON_NONE)
        schedule_failed(w, a, "a delta after a choice's finish");
    note_gap(w, a);
    if (d->prompt)
        keep_prompt(w, a, c, d);
    else
        keep_tokens(w, a, c, d);
    if (d->finish == FINISH_REASON_NONE)
        return;
    c->finish            = d->finish;
    c->prompt_tokens     = d->usage.prompt_tokens;
    c->completion_tokens = d->usage.completion_tokens;
    if (++a->got.n_finished == a->kind->body.n)
        check_end(w, a);
}

static bool has_begun(const ask *a)
{
    for (uint32_t i = 0; i < a->kind->body.n; i++)
        if (a->got.choices[i].n_tokens > 0 || a->got.choices[i].finish != FINISH_REASON_NONE)
            return true;
    return false;
}

static void on_text_refused(void *self, const message *m)
{
    world              *w    = self;
    ask                *a    = find_ask(w, m->envelope);
    const text_refused *body = m->body;
    char                why[500];
    if (!a || a->cancelled)
        return;
    if (a->ended || a->next_ns > 0)
        schedule_failed(w, a, "a refusal after the end");
    snprintf(why, sizeof why, "refused: %.*s", SPAN_ARG(body->text));
    if ((body->code != ERR_NOT_READY && body->code != ERR_OVERLOADED) || has_begun(a))
        schedule_failed(w, a, why);
    ask_again(w, a, AGAIN_MS * NS_PER_MS);
    set_due(w);
}

static void on_peer_down(void *self, peer *gone)
{
    world *w = self;
    for (uint32_t i = 0; i < w->n_asks; i++) {
        ask *a = &w->asks[i];
        if (a->asked_of != gone->name)
            continue;
        a->asked_of = NULL;
        if (!a->ended && a->next_ns == 0)
            ask_again(w, a, 0);
    }
    set_due(w);
}

static void *create(actor *a, const void *options, error *err)
{
    world *w = (world *)(uintptr_t)options;
    (void)a, (void)err;
    return w;
}

static void destroy(void *self)
{
    (void)self;
}

static const actor_route routes[] = {{MSG_TEXT_DELTA, on_text_delta},
                                     {MSG_TEXT_REFUSED, on_text_refused},
                                     {MSG_TEXT_ENCODED, actor_ignore},
                                     {MSG_TEXT_DECODED, actor_ignore}};

const actor_class client_class = {.name         = "client",
                                  .role         = ROLE_CLIENT,
                                  .routes       = routes,
                                  .n_routes     = COUNT(routes),
                                  .create       = create,
                                  .destroy      = destroy,
                                  .on_peer_down = on_peer_down};
