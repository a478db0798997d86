/* What fuzzers of services share: the service on a simulated network, and around it players, real actors that say what
 * the fuzzer wants. */
#ifndef TROUPE_TESTS_FUZZ_SUPPORT_PLAYERS_H
#define TROUPE_TESTS_FUZZ_SUPPORT_PLAYERS_H

#include "actor/simulation.h"
#include "base/log.h"
#include "tests/fuzz/support_message.h"

#include <assert.h>
#include <stdio.h>

enum { PLAYER_ROUTES_MAX = 24, PLAYER_CREDITS = 64 };

/* Borrowed by its actors. */
typedef struct {
    actor_class class;
    actor_route routes[PLAYER_ROUTES_MAX];
} player_class;

static inline void *player_create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return (void *)(uintptr_t)options; /* the player itself, or the stage */
}

static inline void player_destroy(void *self)
{
    (void)self;
}

/* A class that ignores whatever the schema addresses to its role. */
static inline const actor_class *player_class_fill(player_class *c, role r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_message_infos; i++)
        if (message_infos[i].to & 1u << r && message_infos[i].type >= MSG_TEXT_REQUEST) {
            assert(n < PLAYER_ROUTES_MAX);
            c->routes[n++] = (actor_route){message_infos[i].type, actor_ignore};
        }
    c->class = (actor_class){.name     = role_name(r),
                             .role     = r,
                             .routes   = c->routes,
                             .n_routes = n,
                             .create   = player_create,
                             .destroy  = player_destroy};
    return &c->class;
}

/* ... but for this message. */
static inline void player_class_take(player_class *c, uint16_t type, actor_handler *handle)
{
    for (uint32_t i = 0; i < c->class.n_routes; i++)
        if (c->routes[i].type == type)
            c->routes[i].handle = handle;
}

static inline void fuzz_open(simulation **sim, arena **memory, size_t memory_bytes)
{
    log_set_level(LOG_OFF);
    *sim    = simulation_new(1, NULL);
    *memory = arena_new(memory_bytes, NULL);
    if (!*sim || !*memory)
        abort();
    simulation_set_network(*sim, &(sim_network_options){.delay_max_ns = NS_PER_MS});
}

static inline actor *fuzz_join(simulation *sim, const actor_class *class, void *options, actor_options where)
{
    if (where.credits == 0)
        where.credits = PLAYER_CREDITS;
    error  err;
    actor *a = simulation_add(sim, class, options, &where, &err);
    if (!a) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return a;
}

/* To a peer that it does not know, or that has no credit, nothing is said. */
static inline void fuzz_say(actor *from, const actor *to, uint16_t type, const void *body, const envelope *about)
{
    peer *p = from ? actor_find_peer(from, span_of(actor_name(to))) : NULL;
    if (p)
        (void)!actor_send(from, p, type, body, about, NULL);
}

static inline void fuzz_run_ms(simulation *sim, int64_t ms)
{
    simulation_run_until(sim, NULL, NULL, ms * NS_PER_MS);
}

static inline bool fuzz_know_each_other(const actor *a, const actor *b)
{
    return actor_find_peer(a, span_of(actor_name(b))) && actor_find_peer(b, span_of(actor_name(a)));
}

static inline bool fuzz_all_know_each_other(actor *const *players, int n, const actor *service)
{
    for (int i = 0; i < n; i++)
        if (!fuzz_know_each_other(players[i], service))
            return false;
    return true;
}

/* Acts as long as there is input, `n_max` times at most, and lets `turn_ms` pass after each. */
static inline void fuzz_act(simulation *sim, arena *memory, const fuzz_input *in, int n_max, int64_t turn_ms,
                            void (*act)(void *stage), void *stage)
{
    for (int i = 0; i < n_max && in->size > 0; i++) {
        arena_reset(memory);
        act(stage);
        fuzz_run_ms(sim, turn_ms);
    }
}

static inline void fuzz_close(simulation **sim, arena **memory)
{
    simulation_free(sim);
    arena_free(memory);
}

/* One of a few ids, 0: no request at all; and one of a few attempts. */
static inline envelope fuzz_about(fuzz_input *in, uint32_t n_ids, uint32_t n_attempts)
{
    uint8_t  which     = take(in);
    envelope e         = {.attempt = which / n_ids % n_attempts};
    e.request.bytes[0] = (uint8_t)(which % n_ids);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
