#include "support_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

static void *create(actor *a, const void *options, error *err)
{
    player *p = (player *)(uintptr_t)options;
    p->actor  = a;
    if (p->fails_to_create)
        return error_set(err, ERR_INVALID, "told to fail"), NULL;
    return p;
}

static void destroy(void *self)
{
    ((player *)self)->actor = NULL;
}

static void on_start(void *self)
{
    ((player *)self)->n_starts++;
}

static void on_turn(void *self)
{
    ((player *)self)->n_turns++;
}

static void count_up(void *self, peer *p)
{
    assert_null(p->user);
    p->user = self;
    ((player *)self)->n_up++;
}

static void on_peer_down(void *self, peer *p)
{
    assert_ptr_equal(p->user, self); /* exactly once, and after on_peer_up */
    p->user = NULL;
    ((player *)self)->n_down++;
}

static void on_refused(void *self, const message *m)
{
    player             *p       = self;
    const node_refused *refused = m->body;
    snprintf(p->last_refused_text, sizeof p->last_refused_text, "%.*s", SPAN_ARG(refused->text));
    p->last_refused_code = refused->code;
    p->n_refused++;
}

void player_send_requests(player *scheduler, peer *drafter)
{
    error err;
    while (drafter->credits > 0 && scheduler->n_sent < scheduler->requests_to_send) {
        draft_request request = draft_request_defaults;
        request.n             = 1;
        request.index         = ++scheduler->n_sent;
        assert_true(actor_send(scheduler->actor, drafter, MSG_DRAFT_REQUEST, &request, NULL, &err));
    }
}

static void scheduler_peer_up(void *self, peer *p)
{
    count_up(self, p);
    player_send_requests(self, p);
}

static void scheduler_credit(void *self, peer *p)
{
    ((player *)self)->n_credits++;
    player_send_requests(self, p);
}

static void note_order(player *p, uint32_t index)
{
    p->n_out_of_order += index != p->last_index + 1;
    p->last_index = index;
}

static void on_draft_reply(void *self, const message *m)
{
    note_order(self, ((const draft_reply *)m->body)->length);
    ((player *)self)->n_replies++;
}

static void on_draft_request(void *self, const message *m)
{
    player              *p       = self;
    const draft_request *request = m->body;
    error                err;
    note_order(p, request->index);
    p->n_requests++;
    if (!p->answers)
        return;
    draft_reply reply = draft_reply_defaults;
    reply.length      = request->index;
    if (actor_send(p->actor, m->from, MSG_DRAFT_REPLY, &reply, m->envelope, &err))
        actor_grant(p->actor, m->from, 1);
    else
        assert_int_equal(err.code, ERR_GONE);
}

static void on_draft_forget(void *self, const message *m)
{
    (void)m;
    player *p = self;
    p->n_forgets++;
    if (actor_is_draining(p->actor))
        actor_finish(p->actor);
}

static void drafter_drain(void *self)
{
    player *p = self;
    p->n_drains++;
    if (!p->keeps_requests)
        actor_finish(p->actor);
}

static uint32_t load(const void *self)
{
    return ((const player *)self)->n_requests;
}

static const actor_route scheduler_routes[] = {
    {MSG_GEN_REQUEST, actor_ignore},    {MSG_GEN_CANCEL, actor_ignore},     {MSG_GEN_FIND, actor_ignore},
    {MSG_EXECUTOR_READY, actor_ignore}, {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, actor_ignore},
    {MSG_KV_LOADED, actor_ignore},      {MSG_DRAFT_REPLY, on_draft_reply},  {MSG_STATUS_GET, actor_ignore},
};

static const actor_route drafter_routes[] = {
    {MSG_DRAFT_REQUEST, on_draft_request},
    {MSG_DRAFT_FORGET, on_draft_forget},
};

const actor_class scheduler_class = {
    .name         = "scheduler",
    .role         = ROLE_SCHEDULER,
    .routes       = scheduler_routes,
    .n_routes     = COUNT(scheduler_routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_start,
    .on_turn      = on_turn,
    .on_peer_up   = scheduler_peer_up,
    .on_peer_down = on_peer_down,
    .on_credit    = scheduler_credit,
    .on_refused   = on_refused,
};

const actor_class drafter_class = {
    .name         = "drafter",
    .role         = ROLE_DRAFTER,
    .routes       = drafter_routes,
    .n_routes     = COUNT(drafter_routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_start,
    .on_turn      = on_turn,
    .on_peer_up   = count_up,
    .on_peer_down = on_peer_down,
    .on_refused   = on_refused,
    .on_drain     = drafter_drain,
    .load         = load,
};

void wait_for_count(const atomic_uint *count, uint32_t n)
{
    for (int i = 0; i < 10000 && *count < n; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    assert_true(*count >= n);
}
