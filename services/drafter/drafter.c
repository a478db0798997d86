/* The drafter actor: one n-gram index a sequence, kept between requests for drafts so that only new tokens travel. All
 * of it may be lost at any time: draft.reply says how much is known, and the scheduler sends the rest. */
#include "drafter/drafter.h"

#include "base/log.h"
#include "base/metric.h"
#include "drafter/ngram.h"

#include <stdlib.h>

enum { DRAFTS_MAX = 16 };

typedef struct {
    request_id   request;
    uint32_t     choice;
    uint64_t     last_used; /* 0: free */
    ngram_index *index;     /* made at the first use of the place, then kept */
} sequence;

typedef struct {
    actor                 *actor;
    const drafter_options *options;
    sequence              *sequences;
    uint32_t               n_sequences;
    uint64_t               n_uses;
    metric                *proposed, *asked;
} drafter;

const option_row drafter_option_rows[] = {
    OPTION_UINT(drafter_options, max_num_seqs, "--drafter-max-num-seqs", "N", 128, 1, 65536,
                "Sequences the drafter remembers."),
    OPTION_UINT(drafter_options, max_model_len, "--drafter-max-model-len", "N", 32768, 16, 1 << 20,
                "Tokens of one sequence; longer ones get no drafts."),
};
const size_t n_drafter_option_rows = COUNT(drafter_option_rows);

static void destroy(void *self)
{
    drafter *d = self;
    for (uint32_t i = 0; d->sequences && i < d->n_sequences; i++)
        ngram_free(&d->sequences[i].index);
    free(d->sequences);
    free(d);
}

static void *create(actor *a, const void *options, error *err)
{
    drafter *d = calloc(1, sizeof *d);
    if (d) {
        d->actor       = a;
        d->options     = options;
        d->n_sequences = (uint32_t)d->options->max_num_seqs;
        d->sequences   = calloc(d->n_sequences, sizeof *d->sequences);
    }
    if (!d || !d->sequences) {
        free(d);
        error_set(err, ERR_NO_MEMORY, "no memory for the drafter");
        return NULL;
    }
    d->asked    = metric_counter("troupe_drafter_requests_total", "", "Requests for drafts.");
    d->proposed = metric_counter("troupe_drafter_tokens_total", "", "Tokens proposed.");
    return d;
}

/* The sequence's place, or the least recently used one, emptied. */
static sequence *find_place(drafter *d, const request_id *id, uint32_t choice)
{
    sequence *oldest = &d->sequences[0];
    for (uint32_t i = 0; i < d->n_sequences; i++) {
        sequence *q = &d->sequences[i];
        if (q->last_used > 0 && q->choice == choice && request_id_equal(&q->request, id))
            return q;
        if (q->last_used < oldest->last_used)
            oldest = q;
    }
    oldest->request   = *id;
    oldest->choice    = choice;
    oldest->last_used = 0;
    return oldest;
}

/* An emptied index of the place, with room for every sequence there may be. */
static bool prepare(drafter *d, sequence *q)
{
    error err;
    if (q->last_used > 0)
        return true;
    if (q->index)
        return ngram_extend(q->index, 0, NULL, 0);
    q->index = ngram_new((uint32_t)d->options->max_model_len, &err);
    if (!q->index)
        log_warn("a sequence gets no drafts", "why=\"%s\"", err.text);
    return q->index != NULL;
}

static void on_draft_request(void *self, const message *m)
{
    drafter             *d    = self;
    const draft_request *body = m->body;
    sequence            *q    = find_place(d, &m->envelope->request, body->choice);
    uint32_t             drafts[DRAFTS_MAX];
    draft_reply          reply = {.choice = body->choice, .length = body->index + body->n_tokens, .tokens = drafts};
    if (prepare(d, q)) {
        q->last_used   = ++d->n_uses;
        uint32_t known = ngram_n_tokens(q->index);
        if (body->index <= known && ngram_extend(q->index, body->index, body->tokens, body->n_tokens))
            reply.n_tokens = ngram_propose(q->index, drafts, body->n < DRAFTS_MAX ? body->n : DRAFTS_MAX);
        reply.known = ngram_n_tokens(q->index);
    }
    metric_add(d->asked, 1);
    metric_add(d->proposed, reply.n_tokens);
    error err;
    if (!actor_send(d->actor, m->from, MSG_DRAFT_REPLY, &reply, m->envelope, &err))
        log_warn("drafts not sent", "node=%s why=\"%s\"", m->from->name, err.text);
    actor_grant(d->actor, m->from, 1);
}

static void on_draft_forget(void *self, const message *m)
{
    drafter            *d    = self;
    const draft_forget *body = m->body;
    for (uint32_t i = 0; i < d->n_sequences; i++) {
        sequence *q = &d->sequences[i];
        if (request_id_equal(&q->request, &m->envelope->request) && (body->all || q->choice == body->choice))
            q->last_used = 0;
    }
}

static void on_drain(void *self)
{
    actor_finish(((drafter *)self)->actor);
}

static const actor_route routes[] = {
    {MSG_DRAFT_REQUEST, on_draft_request}, /* a sequence to guess for */
    {MSG_DRAFT_FORGET, on_draft_forget},   /* it ended */
};

const actor_class drafter_class = {
    .name     = "drafter",
    .role     = ROLE_DRAFTER,
    .routes   = routes,
    .n_routes = COUNT(routes),
    .create   = create,
    .destroy  = destroy,
    .on_drain = on_drain,
};
