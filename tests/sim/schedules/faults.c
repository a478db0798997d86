/* See faults.h. */
#include "sim/schedules/faults.h"

#include <stdio.h>

static const char *const names[N_FAULT_KINDS] = {"kill", "stop", "freeze", "hang", "cut", "slow", "duplicate", "lose"};

/* The longest of each kind: a frozen or cut-off node is given up by its peers after three seconds. */
static const int64_t longest_ms[N_FAULT_KINDS] = {2000, 1000, 6000, 5000, 6000, 2000, 3000, 1000};

void faults_draw(fault_plan *plan, const world *w, random_seeded *rng, uint32_t n_max, int64_t until_ns)
{
    int64_t now_ns = world_now_ns(w);
    *plan          = (fault_plan){.n = (uint32_t)random_below(rng, n_max + 1)};
    for (uint32_t i = 0; i < plan->n; i++) {
        fault *f     = &plan->all[i];
        f->kind      = (fault_kind)random_below(rng, N_FAULT_KINDS);
        f->at_ns     = now_ns + (int64_t)random_below(rng, (uint64_t)(until_ns - now_ns));
        f->length_ns = (int64_t)random_below(rng, (uint64_t)longest_ms[f->kind] * NS_PER_MS);
        f->node      = (uint32_t)random_below(rng, w->n_nodes);
        f->other     = (uint32_t)random_below(rng, w->n_nodes);
        if (f->at_ns + f->length_ns > plan->over_ns)
            plan->over_ns = f->at_ns + f->length_ns;
    }
}

static void set_network(world *w, int64_t more_ns, double duplicate, double lose)
{
    simulation_set_network(
        w->sim, &(sim_network_options){w->shape.delay_min_ns, w->shape.delay_max_ns + more_ns, duplicate, lose});
}

static void begin(fault *f, world *w)
{
    node *n = &w->nodes[f->node], *other = &w->nodes[f->other];
    switch (f->kind) {
    case FAULT_KILL:
        world_kill(w, n, f->length_ns);
        break;
    case FAULT_STOP:
        world_stop(w, n, f->length_ns);
        break;
    case FAULT_FREEZE:
        if (n->actor)
            simulation_freeze(w->sim, n->actor, f->length_ns);
        break;
    case FAULT_HANG:
        n->executor.hang_us = (uint32_t)(f->length_ns / 1000);
        break;
    case FAULT_CUT:
        if (n->actor && other->actor)
            simulation_cut(w->sim, n->actor, other->actor, true);
        break;
    case FAULT_SLOW:
        set_network(w, f->length_ns / 4, 0, 0);
        break;
    case FAULT_DUPLICATE:
        set_network(w, 0, 0.3, 0);
        break;
    case FAULT_LOSE:
        set_network(w, 0, 0, 0.01);
        break;
    case N_FAULT_KINDS:
        break;
    }
}

/* Cuts end one and all: a node may have started anew under another name since. */
static void end(fault *f, world *w)
{
    if (f->kind == FAULT_CUT)
        simulation_heal(w->sim);
    if (f->kind >= FAULT_SLOW)
        set_network(w, 0, 0, 0);
}

void faults_turn(fault_plan *plan, world *w)
{
    int64_t now_ns = world_now_ns(w);
    for (uint32_t i = 0; i < plan->n; i++) {
        fault *f = &plan->all[i];
        if (!f->begun && now_ns >= f->at_ns) {
            f->begun = true;
            begin(f, w);
        }
        if (f->begun && !f->over && now_ns >= f->at_ns + f->length_ns) {
            f->over = true;
            end(f, w);
        }
    }
}

int64_t faults_due_ns(const fault_plan *plan)
{
    int64_t due_ns = INT64_MAX;
    for (uint32_t i = 0; i < plan->n; i++) {
        const fault *f    = &plan->all[i];
        int64_t      next = f->begun ? f->at_ns + f->length_ns : f->at_ns;
        if (!f->over && next < due_ns)
            due_ns = next;
    }
    return due_ns;
}

void faults_print(const fault_plan *plan, const world *w)
{
    for (uint32_t i = 0; i < plan->n; i++) {
        const fault *f = &plan->all[i];
        fprintf(stderr, "  at %8.3f s for %6.3f s: %s", (double)f->at_ns / 1e9, (double)f->length_ns / 1e9,
                names[f->kind]);
        if (f->kind <= FAULT_CUT)
            fprintf(stderr, " %s", w->nodes[f->node].bind + 9);
        if (f->kind == FAULT_CUT)
            fprintf(stderr, " from %s", w->nodes[f->other].bind + 9);
        fprintf(stderr, "\n");
    }
}
