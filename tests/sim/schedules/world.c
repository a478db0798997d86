/* See world.h. */
#include "sim/schedules/world.h"

#include "actor/runtime.h"
#include "base/log.h"
#include "scheduler/state.h"
#include "sim/schedules/client.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define MODEL TESTS_DIR "/sim/schedules/model"

void world_init(world *w, uint64_t seed)
{
    error        err;
    option_group groups[N_SERVICES];
    *w = (world){.sim = simulation_new(seed, NULL), .asks = calloc(WORLD_ASKS_MAX, sizeof(ask))};
    assert(w->sim && w->asks);
    for (int i = 0; i < N_SERVICES; i++)
        groups[i] = (option_group){services[i].name, services[i].rows, *services[i].n_rows,
                                   (char *)&w->options + services[i].offset};
    if (!option_parse(groups, N_SERVICES, 0, NULL, NULL, &err))
        abort();
    w->options.scheduler.hash_seed             = 7;
    w->options.gateway.port                    = 0;
    w->options.gateway.max_connections         = 4;
    w->options.gateway.request_memory_bytes    = 1 << 20;
    w->options.tokenizer.model                 = MODEL;
    w->options.postprocessor.model             = MODEL;
    w->options.postprocessor.max_num_streams   = 256;
    w->options.drafter.max_num_seqs            = 64;
    w->options.drafter.max_model_len           = 256;
    w->options.executor.model                  = "double";
    w->options.executor.compute_inline         = true;
    w->options.executor.max_num_seqs           = 8;
    w->options.executor.max_num_batched_tokens = 64;
    w->options.executor.max_logit_rows         = 64;
}

int64_t world_now_ns(const world *w)
{
    return clock_now_ns(simulation_clock(w->sim));
}

/* ---- nodes ---- */

static const service *service_of(role r)
{
    int i = 0;
    while (services[i].class->role != r)
        i++;
    return &services[i];
}

/* The places of a role's nodes, which others call. */
static void call_all(const world *w, role r, actor_options *where, uint32_t *n)
{
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (w->nodes[i].role == r && *n < COUNT(where->connect))
            where->connect[(*n)++] = w->nodes[i].bind;
}

static uint32_t credits_of(const world *w)
{
    return w->shape.credits ? w->shape.credits : WORLD_CREDITS;
}

static void start(world *w, node *n)
{
    const service *what    = service_of(n->role);
    actor_options  where   = {.credits = n->role == ROLE_EXECUTOR ? 2 : credits_of(w)};
    const void    *options = n->role == ROLE_EXECUTOR ? (void *)&n->executor : (char *)&w->options + what->offset;
    uint32_t       n_calls = 0;
    error          err;
    if (what->bind || (n->role == ROLE_EXECUTOR && n->executor.executor.kv_bind))
        where.bind[0] = n->bind;
    if (what->calls_scheduler)
        call_all(w, ROLE_SCHEDULER, &where, &n_calls);
    if (what->calls_gateway)
        call_all(w, ROLE_GATEWAY, &where, &n_calls);
    n->actor    = simulation_add(w->sim, what->class, options, &where, &err);
    n->up_at_ns = 0;
    if (!n->actor) {
        fprintf(stderr, "%s: %s\n", what->name, err.text);
        abort();
    }
}

static void add_nodes(world *w, role r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert(w->n_nodes < WORLD_NODES_MAX);
        node *x = &w->nodes[w->n_nodes++];
        *x      = (node){.role = r};
        snprintf(x->bind, sizeof x->bind, "inproc://%s-%u", role_name(r), i);
    }
}

static void size_executor(world *w, node *n)
{
    const world_shape *s    = &w->shape;
    random_seeded     *rng  = simulation_random(w->sim);
    uint64_t           more = random_below(rng, s->n_kv_blocks_max - s->n_kv_blocks_min + 1);
    n->executor = (double_options){.executor = w->options.executor, .step_us = s->step_us, .token_us = s->token_us};
    n->executor.executor.kv_cache_memory = (s->n_kv_blocks_min + more) * DOUBLE_BLOCK_BYTES;
    n->executor.executor.kv_bind         = s->moves_kv_blocks ? n->bind : NULL;
    n->executor.executor.serves =
        s->moves_kv_blocks && s->has_roles ? (uint32_t)random_below(rng, EXECUTOR_ROLE_DECODE + 1) : EXECUTOR_ROLE_BOTH;
}

void world_start(world *w, const world_shape *shape)
{
    w->shape = *shape;
    simulation_set_network(w->sim, &(sim_network_options){shape->delay_min_ns, shape->delay_max_ns, 0, 0});
    add_nodes(w, ROLE_SCHEDULER, shape->n_schedulers);
    add_nodes(w, ROLE_GATEWAY, shape->n_gateways);
    add_nodes(w, ROLE_TOKENIZER, shape->n_tokenizers);
    add_nodes(w, ROLE_POSTPROCESSOR, shape->n_postprocessors);
    add_nodes(w, ROLE_EXECUTOR, shape->n_executors);
    add_nodes(w, ROLE_DRAFTER, shape->n_drafters);
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        if (w->nodes[i].role == ROLE_EXECUTOR)
            size_executor(w, &w->nodes[i]);
        start(w, &w->nodes[i]);
    }
    actor_options where   = {.credits = credits_of(w)};
    uint32_t      n_calls = 0;
    call_all(w, ROLE_GATEWAY, &where, &n_calls);
    w->client = simulation_add(w->sim, &client_class, w, &where, NULL);
    assert(w->client);
}

void world_free(world *w)
{
    simulation_free(&w->sim);
    free(w->asks);
    w->asks = NULL;
}

void world_kill(world *w, node *n, int64_t down_ns)
{
    if (!n->actor)
        return;
    simulation_kill(w->sim, n->actor);
    n->actor    = NULL;
    n->up_at_ns = world_now_ns(w) + down_ns;
}

void world_stop(world *w, node *n, int64_t down_ns)
{
    if (!n->actor)
        return;
    actor_drain(n->actor);
    n->up_at_ns = world_now_ns(w) + down_ns;
}

void world_restore(world *w)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        node *n = &w->nodes[i];
        if (n->actor && actor_has_left(n->actor)) {
            simulation_remove(w->sim, n->actor);
            n->actor = NULL;
        }
        if (!n->actor && world_now_ns(w) >= n->up_at_ns)
            start(w, n);
    }
}

int64_t world_restore_due_ns(const world *w)
{
    int64_t due_ns = INT64_MAX;
    for (uint32_t i = 0; i < w->n_nodes; i++)
        if (!w->nodes[i].actor && w->nodes[i].up_at_ns < due_ns)
            due_ns = w->nodes[i].up_at_ns;
    return due_ns;
}

/* ---- the end ---- */

typedef struct {
    const char *text;
} finding;

static bool is_whole(const node *n)
{
    return n->actor && !actor_has_left(n->actor) && !actor_is_draining(n->actor);
}

/* All that one side may send to another has come back, and nobody has any work in hand. */
static const char *find_owed(const actor *a)
{
    for (uint32_t i = 0; i < a->peers.n; i++) {
        const peer_entry *p = a->peers.all[i];
        if (p->public.credits != p->credits_first || p->spendable != a->options.credits || p->owed > 0)
            return "credits did not come back";
    }
    return a->class->load && a->class->load(a->self) > 0 ? "a node has work in hand" : NULL;
}

static const char *find_held(const scheduler *s)
{
    if (s->n_requests > 0 || s->n_waiting > 0 || s->n_waiting_tokens > 0)
        return "a scheduler holds requests";
    for (const executor_link *x = s->executors; x; x = x->next) {
        if (x->n_running > 0 || x->n_plans > 0)
            return "an executor has sequences or plans";
        if (kv_pool_n_blocks(x->pool) != kv_pool_n_available(x->pool))
            return "KV blocks did not come back";
        if (x->about.n_slots != x->n_free_slots + x->n_pending_closes)
            return "slots did not come back";
    }
    return NULL;
}

static const char *find_trouble(const world *w)
{
    uint32_t n_held = 0, n_executors = 0, fewest = UINT32_MAX, most = 0;
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const node *n = &w->nodes[i];
        if (!is_whole(n))
            return "a node is not there";
        const char *owed = find_owed(n->actor);
        if (owed)
            return owed;
        n_executors += n->role == ROLE_EXECUTOR;
        if (n->role != ROLE_SCHEDULER)
            continue;
        const scheduler *s      = actor_self(n->actor);
        const char      *held   = find_held(s);
        uint32_t         n_mine = 0;
        if (held)
            return held;
        for (const executor_link *x = s->executors; x; x = x->next)
            n_mine++;
        n_held += n_mine;
        fewest = n_mine < fewest ? n_mine : fewest;
        most   = n_mine > most ? n_mine : most;
    }
    if (n_held != n_executors)
        return "an executor works for nobody, or for two schedulers";
    if (most > fewest + 1)
        return "schedulers hold unequally many executors";
    return find_owed(w->client);
}

bool world_is_idle(void *arg)
{
    world *w   = arg;
    w->trouble = find_trouble(w);
    return !w->trouble;
}

void world_dump(const world *w)
{
    for (uint32_t i = 0; i < w->n_nodes; i++) {
        const actor *a = w->nodes[i].actor;
        fprintf(stderr, "%s: %s\n", w->nodes[i].bind + 9, a ? a->name : "down");
        if (a && a->class->dump)
            a->class->dump(a->self);
    }
}

bool world_all_ended(void *arg)
{
    const world *w = arg;
    for (uint32_t i = 0; i < w->n_asks; i++)
        if (!w->asks[i].ended)
            return false;
    return true;
}
