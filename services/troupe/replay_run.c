/* See replay_run.h. The three actors share one struct under a lock; the caller waits for its end. */
#include "troupe/replay_run.h"

#include "troupe/services.h"

#include <pthread.h>
#include <stdlib.h>

enum { RETRY_MS = 20, ACTORS = 5 };

typedef struct {
    const gen_request *request;
    envelope           about;
    span               owner; /* node name of the actor in the gateway's place */
    pthread_mutex_t    lock;  /* of what follows */
    pthread_cond_t     ended;
    replayed          *out;
    uint32_t           n_open;              /* choices that have not ended */
    bool               owner_up, reader_up; /* connected to the scheduler */
    bool               failed, done;
    error              why;
} run;

typedef struct {
    actor      *actor;
    run        *run;
    actor_timer retry;
} part;

static void end(run *r, error_code failure, span why)
{
    pthread_mutex_lock(&r->lock);
    if (!r->done && failure != ERR_NONE) {
        r->failed = true;
        error_set(&r->why, failure, "%.*s", SPAN_ARG(why));
    }
    r->done = true;
    pthread_cond_signal(&r->ended);
    pthread_mutex_unlock(&r->lock);
}

static void *create(actor *a, const void *options, error *err)
{
    part *p = calloc(1, sizeof *p);
    if (!p) {
        error_set(err, ERR_NO_MEMORY, "no memory for the replay");
        return NULL;
    }
    p->actor = a;
    p->run   = *(run *const *)options;
    return p;
}

static void destroy(void *self)
{
    free(self);
}

static void on_peer_down(void *self, peer *scheduler)
{
    (void)scheduler;
    part *p = self;
    end(p->run, ERR_INTERNAL, SPAN("the scheduler left"));
}

/* ---- in the gateway's place: hears that the request is refused ---- */

static void on_owner_up(void *self, peer *scheduler)
{
    (void)scheduler;
    part *p = self;
    pthread_mutex_lock(&p->run->lock);
    p->run->owner_up = true;
    pthread_mutex_unlock(&p->run->lock);
}

static void on_refused(void *self, const message *m)
{
    part               *p    = self;
    const text_refused *body = m->body;
    end(p->run, body->code > ERR_NONE && body->code < N_ERRORS ? (error_code)body->code : ERR_INTERNAL, body->text);
}

static const actor_route owner_routes[] = {
    {MSG_TEXT_REQUEST, actor_ignore},  {MSG_TEXT_CANCEL, actor_ignore},  {MSG_TEXT_ENCODE, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},   {MSG_TEXT_DELTA, actor_ignore},   {MSG_TEXT_REFUSED, on_refused},
    {MSG_TEXT_ENCODED, actor_ignore},  {MSG_TEXT_DECODED, actor_ignore}, {MSG_GEN_FOUND, actor_ignore},
    {MSG_STATUS_REPORT, actor_ignore},
};

static const actor_class owner_class = {
    .name         = "owner",
    .role         = ROLE_GATEWAY,
    .routes       = owner_routes,
    .n_routes     = COUNT(owner_routes),
    .create       = create,
    .destroy      = destroy,
    .on_peer_up   = on_owner_up,
    .on_peer_down = on_peer_down,
};

/* ---- in the postprocessor's place: collects the tokens ---- */

static void on_reader_up(void *self, peer *scheduler)
{
    (void)scheduler;
    part *p = self;
    pthread_mutex_lock(&p->run->lock);
    p->run->reader_up = true;
    pthread_mutex_unlock(&p->run->lock);
}

static void on_open(void *self, const message *m)
{
    part *p = self;
    actor_grant(p->actor, m->from, 1);
}

/* Takes what continues the choice. Locked by the caller. */
static void append(const run *r, replayed_choice *choice, const gen_tokens *body)
{
    for (uint32_t i = 0; i < body->n_tokens; i++)
        if (body->index + i == choice->n_tokens && choice->n_tokens < r->request->max_tokens)
            choice->tokens[choice->n_tokens++] = body->tokens[i];
}

static void on_tokens(void *self, const message *m)
{
    part             *p    = self;
    run              *r    = p->run;
    const gen_tokens *body = m->body;
    if (body->finish == FINISH_REASON_ERROR || body->finish == FINISH_REASON_TIMEOUT) {
        end(r, ERR_INTERNAL, body->error.size ? body->error : SPAN("the choice did not end well"));
        return;
    }
    pthread_mutex_lock(&r->lock);
    bool last = false;
    if (body->choice < r->out->n_choices && !r->done) {
        replayed_choice *choice = &r->out->choices[body->choice];
        append(r, choice, body);
        if (body->finish != FINISH_REASON_NONE && choice->finish == FINISH_REASON_NONE) {
            choice->finish = body->finish;
            last           = --r->n_open == 0;
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (last)
        end(r, ERR_NONE, (span){0});
}

static const actor_route reader_routes[] = {
    {MSG_GEN_OPEN, on_open},        {MSG_GEN_TOKENS, on_tokens},  {MSG_GEN_PROMPT, actor_ignore},
    {MSG_GEN_CANCEL, actor_ignore}, {MSG_GEN_FIND, actor_ignore},
};

static const actor_class reader_class = {
    .name         = "reader",
    .role         = ROLE_POSTPROCESSOR,
    .routes       = reader_routes,
    .n_routes     = COUNT(reader_routes),
    .create       = create,
    .destroy      = destroy,
    .on_peer_up   = on_reader_up,
    .on_peer_down = on_peer_down,
};

/* ---- in the tokenizer's place: asks, when the others are there ---- */

static void ask(void *self, actor_timer *timer)
{
    part *p         = self;
    run  *r         = p->run;
    peer *scheduler = actor_pick_peer(p->actor, ROLE_SCHEDULER, NULL);
    pthread_mutex_lock(&r->lock);
    bool ready = r->owner_up && r->reader_up && scheduler;
    pthread_mutex_unlock(&r->lock);
    gen_request body = *r->request;
    error       err;
    body.reply_to = r->owner;
    if (!ready)
        actor_timer_set(p->actor, timer, RETRY_MS * NS_PER_MS, ask);
    else if (!actor_send(p->actor, scheduler, MSG_GEN_REQUEST, &body, &r->about, &err))
        end(r, err.code, span_of(err.text));
}

static void on_asker_start(void *self)
{
    part *p = self;
    actor_timer_set(p->actor, &p->retry, RETRY_MS * NS_PER_MS, ask);
}

static const actor_route asker_routes[] = {{MSG_TEXT_REQUEST, actor_ignore},
                                           {MSG_TEXT_ENCODE, actor_ignore},
                                           {MSG_TEXT_DECODE, actor_ignore},
                                           {MSG_GEN_FIND, actor_ignore}};

static const actor_class asker_class = {
    .name         = "asker",
    .role         = ROLE_TOKENIZER,
    .routes       = asker_routes,
    .n_routes     = COUNT(asker_routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_asker_start,
    .on_peer_down = on_peer_down,
};

/* ---- the run ---- */

static bool prepare(run *r, arena *memory, error *err)
{
    replayed *out = r->out;
    *out          = (replayed){.n_choices = r->request->n};
    r->n_open     = r->request->n;
    for (uint32_t i = 0; i < out->n_choices; i++) {
        out->choices[i].tokens = arena_take_uncleared(memory, ((size_t)r->request->max_tokens + 1) * sizeof(uint32_t));
        if (!out->choices[i].tokens)
            return error_set(err, ERR_NO_MEMORY, "no memory for %u tokens of %u choices", r->request->max_tokens,
                             out->n_choices);
    }
    for (uint32_t i = 0; i < r->request->n_resume; i++) {
        const resume_point *point = &r->request->resume[i];
        if (point->choice >= out->n_choices || point->n_tokens > r->request->max_tokens)
            return error_set(err, ERR_INVALID, "resume: choice %u has more tokens than max_tokens", point->choice);
        replayed_choice *choice = &out->choices[point->choice];
        if (point->n_tokens > 0)
            memcpy(choice->tokens, point->tokens, point->n_tokens * sizeof(uint32_t));
        choice->n_tokens = point->n_tokens;
        if (point->finished && choice->finish == FINISH_REASON_NONE) {
            choice->finish = FINISH_REASON_STOP;
            r->n_open--;
        }
    }
    return r->n_open > 0 || error_set(err, ERR_INVALID, "every choice had ended before this attempt");
}

static bool add(actor **actors, uint32_t *n, const actor_class *class, const void *options, bool listens, bus *b,
                error *err)
{
    actor_options where = {.bus = b, .credits = 16};
    if (listens)
        where.bind[0] = "queue://replay";
    else
        where.connect[0] = "queue://replay";
    actor *a = actor_new(class, options, &where, err);
    if (!a)
        return false;
    if (!actor_start(a, err)) {
        actor_free(&a);
        return false;
    }
    actors[(*n)++] = a;
    return true;
}

static bool start(run *r, const scheduler_options *scheduler, const executor_options *executor, bus *b, actor **actors,
                  uint32_t *n, error *err)
{
    if (!add(actors, n, &scheduler_class, scheduler, true, b, err) ||
        !add(actors, n, &executor_class, executor, false, b, err))
        return false;
    r->out->fingerprint = executor_fingerprint(actors[1]);
    if (!add(actors, n, &owner_class, &r, false, b, err))
        return false;
    r->owner = span_of(actor_name(actors[2]));
    return add(actors, n, &reader_class, &r, false, b, err) && add(actors, n, &asker_class, &r, false, b, err);
}

bool replay_run(const scheduler_options *scheduler, const executor_options *executor, const envelope *about,
                const gen_request *request, arena *memory, replayed *out, error *err)
{
    run      r              = {.request = request, .about = *about, .out = out};
    actor   *actors[ACTORS] = {0};
    uint32_t n              = 0;
    if (!prepare(&r, memory, err))
        return false;
    bus *b = bus_new(NULL, err);
    if (!b)
        return false;
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.ended, NULL);
    bool ok = start(&r, scheduler, executor, b, actors, &n, err);
    pthread_mutex_lock(&r.lock);
    while (ok && !r.done)
        pthread_cond_wait(&r.ended, &r.lock);
    pthread_mutex_unlock(&r.lock);
    while (n > 0) {
        actor_stop(actors[--n]);
        actor_join(actors[n]);
        actor_free(&actors[n]);
    }
    bus_free(&b);
    pthread_cond_destroy(&r.ended);
    pthread_mutex_destroy(&r.lock);
    if (ok && r.failed)
        return error_set(err, r.why.code, "%s", r.why.text);
    return ok;
}
