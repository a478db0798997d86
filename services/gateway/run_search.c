/* Runs of which nothing is heard.
 *
 * Who loses a request mostly says so, and whoever dies is noticed. But the last word of one may be lost with the link,
 * or with the node, that carried it: then nobody knows of the request any more, and its owner does not know whose death
 * to mourn. So the gateway asks everybody for those that are silent. One that all of them answered not to have, twice,
 * is sent again; once could be while it is on its way between two of them. */
#include "services/gateway/state.h"

#include "base/log.h"
#include "bus/request_list.h"

enum { SILENT_MS = 1000, ROUND_MS = 500, MISSED_MAX = 2 };

static void look_silent(gateway *g, run *r, void *arg)
{
    run_search *s = &g->search;
    (void)arg;
    if (r->state != RUN_SENT || r->type != MSG_TEXT_REQUEST || s->n_words == COUNT(s->words) ||
        gateway_now_ns(g) - r->heard_ns < SILENT_MS * NS_PER_MS)
        return;
    r->asked_in_round = s->round;
    r->was_found      = false;
    request_list_put(s->words + s->n_words, &r->id, r->attempt);
    s->n_words += REQUEST_LIST_WORDS;
}

static void ask(void *arg, peer *p)
{
    gateway    *g = arg;
    run_search *s = &g->search;
    error       err;
    gen_find    body = {.round = s->round, .requests = s->words, .n_requests = s->n_words};
    if (p->role != ROLE_TOKENIZER && p->role != ROLE_SCHEDULER && p->role != ROLE_POSTPROCESSOR)
        return;
    if (!actor_send(g->actor, p, MSG_GEN_FIND, &body, NULL, &err))
        log_debug("not asked", "peer=%s why=\"%s\"", p->name, err.text);
    s->n_unanswered++;
}

static void on_round(void *self, actor_timer *timer)
{
    gateway    *g = self;
    run_search *s = &g->search;
    actor_timer_set(g->actor, timer, ROUND_MS * NS_PER_MS, on_round);
    if (s->n_unanswered > 0)
        return; /* one is slow, or dead and not yet mourned */
    s->round++;
    s->n_words = 0;
    runs_each(g, look_silent, NULL);
    if (s->n_words > 0)
        actor_each_peer(g->actor, ROLE_UNKNOWN, ask, g);
}

void run_search_start(gateway *g)
{
    actor_timer_set(g->actor, &g->search.timer, ROUND_MS * NS_PER_MS, on_round);
}

static void conclude(gateway *g, run *r, void *arg)
{
    const run_search *s = &g->search;
    error             why;
    (void)arg;
    if (r->asked_in_round != s->round || r->state != RUN_SENT)
        return;
    r->asked_in_round = 0;
    r->n_missed       = r->was_found ? 0 : r->n_missed + 1;
    if (r->n_missed < MISSED_MAX)
        return;
    error_set(&why, ERR_GONE, "nobody has this request any more");
    run_lost(g, r, &why);
}

void run_search_found(gateway *g, const gen_found *body)
{
    run_search *s = &g->search;
    if (body->round != s->round || s->n_unanswered == 0)
        return;
    for (uint32_t i = 0; i + REQUEST_LIST_WORDS <= body->n_requests; i += REQUEST_LIST_WORDS) {
        request_id id;
        uint32_t   attempt;
        request_list_get(body->requests + i, &id, &attempt);
        run *r = run_find(g, &id);
        if (r && r->attempt == attempt)
            r->was_found = true;
    }
    if (--s->n_unanswered == 0)
        runs_each(g, conclude, NULL);
}

/* An answer may be missing for ever: the round counts for nothing. */
void run_search_peer_down(gateway *g)
{
    g->search.round++;
    g->search.n_unanswered = 0;
}
