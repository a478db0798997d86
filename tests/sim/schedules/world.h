/* A whole deployment in a simulation: gateways, tokenizers, schedulers, executors, postprocessors, drafters as they
 * are, on a simulated network; with the engine's stand-in, and with a client on the bus that asks and checks every
 * answer.
 *
 * What a request is and what it says undisturbed stands in the catalogue (requests.h). Nodes are killed, frozen, cut
 * off and started again (faults.h). Failures end the process, after the seed was printed (main.c). */
#ifndef TROUPE_TESTS_SIM_WORLD_H
#define TROUPE_TESTS_SIM_WORLD_H

#include "actor/simulation.h"
#include "sim/schedules/engine_double.h"
#include "sim/schedules/requests.h"
#include "troupe/services.h"

enum { WORLD_NODES_MAX = 160, WORLD_ASKS_MAX = 8192, WORLD_CREDITS = 64 };

typedef struct {
    role           role;
    actor         *actor;    /* NULL: it is down */
    bool           is_down;  /* for good */
    int64_t        up_at_ns; /* when it starts again */
    char           bind[32];
    double_options executor; /* of an executor */
} node;

typedef struct world world;

/* One request of the client, and what came of it so far. */
typedef struct {
    const kind *kind;
    int64_t     at_ns;        /* when it is asked first */
    int64_t     cancel_at_ns; /* 0: never */
    int64_t     next_ns;      /* when it is asked (again); 0: it is under way, or over */
    uint32_t    gateway, n_asked;
    const char *asked_of; /* name of the gateway's actor */
    outcome     got;
    bool        ended, cancelled;
    int64_t     heard_ns, ended_ns, longest_gap_ns;
} ask;

typedef struct {
    uint32_t n_gateways, n_schedulers, n_tokenizers, n_postprocessors, n_drafters, n_executors;
    uint32_t n_kv_blocks_min, n_kv_blocks_max, step_us, token_us;
    int64_t  delay_min_ns, delay_max_ns;
    uint32_t credits;         /* of every node but executors; 0: WORLD_CREDITS */
    bool     moves_kv_blocks; /* executors exchange KV blocks */
    bool     has_roles;       /* and each has a role that is drawn */
} world_shape;

struct world {
    simulation *sim;
    all_options options;
    world_shape shape;
    uint32_t    n_nodes;
    node        nodes[WORLD_NODES_MAX];
    actor      *client;
    uint32_t    n_asks;
    ask        *asks;
    bool        verify; /* answers are compared with the catalogue */
    actor_timer due;
    const char *trouble; /* what a check found */
};

/* Fills the options with defaults that suit small sizes; to be changed before world_start. */
void world_init(world *w, uint64_t seed);
void world_start(world *w, const world_shape *shape);
void world_free(world *w);

int64_t world_now_ns(const world *w);

ask *world_ask(world *w, const kind *k, int64_t at_ns);

/* Nodes by fault. */
void world_kill(world *w, node *n, int64_t down_ns);
void world_stop(world *w, node *n, int64_t down_ns); /* as SIGTERM: it drains, leaves, and starts again */

/* Starts nodes whose time has come, takes away those that left. */
void    world_restore(world *w);
int64_t world_restore_due_ns(const world *w);

bool world_all_ended(void *arg); /* for simulation_run_until */

/* After all has ended: every block, slot and credit is back, every executor works for somebody, and schedulers hold
 * equally many. */
bool world_is_idle(void *arg);
void world_check_idle(world *w);

/* What every node knows, to stderr. */
void world_dump(const world *w);

#endif
