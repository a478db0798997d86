/* The simulation's loop: while anybody has something to do, a random one takes a turn; then time jumps. */
#include "actor/simulation.h"
#include "actor/runtime.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

struct simulation {
    clock_source  clock;
    random_seeded random;
    sim_network  *network;
    bus          *bus;
    uint64_t      n_turns;
    uint32_t      n_actors;
    actor        *actors[SIMULATION_ACTORS_MAX];
    int64_t       frozen_until_ns[SIMULATION_ACTORS_MAX];
    const actor  *charged; /* NULL: none */
    int64_t       charged_ns;
};

simulation *simulation_new(uint64_t seed, error *err)
{
    simulation *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, ERR_NO_MEMORY, "no memory for a simulation");
        return NULL;
    }
    s->clock   = clock_virtual(NS_PER_S);
    s->random  = random_from_seed(seed);
    s->network = sim_network_new(random_u64(&s->random), &s->clock, err);
    s->bus     = s->network ? bus_new(NULL, err) : NULL;
    if (s->bus)
        sim_network_attach(s->network, s->bus);
    else
        simulation_free(&s);
    return s;
}

void simulation_free(simulation **s)
{
    if (!*s)
        return;
    for (uint32_t i = 0; i < (*s)->n_actors; i++)
        actor_free(&(*s)->actors[i]);
    if ((*s)->bus)
        bus_free(&(*s)->bus);
    sim_network_free(&(*s)->network);
    free(*s);
    *s = NULL;
}

actor *simulation_add(simulation *s, const actor_class *class, const void *service_options,
                      const actor_options *options, error *err)
{
    assert(s->n_actors < SIMULATION_ACTORS_MAX);
    actor_options mine = *options;
    mine.bus           = s->bus;
    mine.clock         = &s->clock;
    while (mine.incarnation == 0)
        mine.incarnation = random_u64(&s->random);
    actor *a = actor_new(class, service_options, &mine, err);
    if (a) {
        s->frozen_until_ns[s->n_actors] = 0;
        s->actors[s->n_actors++]        = a;
    }
    return a;
}

static uint32_t index_of(const simulation *s, const actor *a)
{
    uint32_t i = 0;
    while (i < s->n_actors && s->actors[i] != a)
        i++;
    assert(i < s->n_actors);
    return i;
}

static void take_out(simulation *s, const actor *a)
{
    uint32_t i = index_of(s, a), n_behind = --s->n_actors - i;
    memmove(&s->actors[i], &s->actors[i + 1], n_behind * sizeof s->actors[0]);
    memmove(&s->frozen_until_ns[i], &s->frozen_until_ns[i + 1], n_behind * sizeof s->frozen_until_ns[0]);
}

void simulation_kill(simulation *s, actor *a)
{
    take_out(s, a);
    if (actor_mailbox(a, TRANSPORT_SIM))
        sim_network_crash(s->network, actor_mailbox(a, TRANSPORT_SIM));
    actor_crash(&a);
}

void simulation_remove(simulation *s, actor *a)
{
    assert(actor_has_left(a));
    take_out(s, a);
    actor_free(&a);
}

void simulation_freeze(simulation *s, const actor *a, int64_t ns)
{
    s->frozen_until_ns[index_of(s, a)] = s->clock.virtual_ns + ns;
}

static bool is_frozen(const simulation *s, uint32_t i)
{
    return s->frozen_until_ns[i] > s->clock.virtual_ns;
}

void simulation_charge(simulation *s, const actor *a)
{
    s->charged = a;
}

int64_t simulation_charged_ns(const simulation *s)
{
    return s->charged_ns;
}

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void take_turn(simulation *s, actor *a)
{
    if (a != s->charged) {
        actor_turn(a);
        actor_check(a);
        return;
    }
    int64_t begin_ns = cpu_ns();
    actor_turn(a);
    int64_t spent_ns = cpu_ns() - begin_ns;
    s->charged_ns += spent_ns;
    simulation_freeze(s, a, spent_ns);
}

/* One of the actors that have something to do, each as likely; NULL when all are idle. */
static actor *pick(simulation *s)
{
    actor   *picked = NULL;
    uint64_t n_due  = 0;
    for (uint32_t i = 0; i < s->n_actors; i++)
        if (!is_frozen(s, i) && actor_is_due(s->actors[i]) && random_below(&s->random, ++n_due) == 0)
            picked = s->actors[i];
    return picked;
}

static int64_t next_event_ns(const simulation *s)
{
    int64_t due_ns = sim_network_next_due_ns(s->network);
    for (uint32_t i = 0; i < s->n_actors; i++) {
        int64_t actor_ns = is_frozen(s, i) ? s->frozen_until_ns[i] : actor_next_due_ns(s->actors[i]);
        if (!actor_has_left(s->actors[i]) && actor_ns < due_ns)
            due_ns = actor_ns;
    }
    return due_ns;
}

bool simulation_run_until(simulation *s, bool (*done)(void *arg), void *arg, int64_t max_ns)
{
    int64_t end_ns = s->clock.virtual_ns + max_ns;
    while (!done || !done(arg)) {
        actor *a = pick(s);
        if (a) {
            take_turn(s, a);
            s->n_turns++;
            continue;
        }
        int64_t next_ns = next_event_ns(s);
        if (next_ns > end_ns) {
            clock_advance(&s->clock, end_ns - s->clock.virtual_ns);
            return false;
        }
        clock_advance(&s->clock, next_ns - s->clock.virtual_ns);
    }
    return true;
}

void simulation_set_network(simulation *s, const sim_network_options *options)
{
    sim_network_set(s->network, options);
}

void simulation_cut(simulation *s, const actor *a, const actor *b, bool cut)
{
    sim_network_cut(s->network, actor_name(a), actor_name(b), cut);
}

void simulation_heal(simulation *s)
{
    sim_network_heal(s->network);
}

random_seeded *simulation_random(simulation *s)
{
    return &s->random;
}

const clock_source *simulation_clock(const simulation *s)
{
    return &s->clock;
}

bus *simulation_bus(simulation *s)
{
    return s->bus;
}

uint64_t simulation_turns(const simulation *s)
{
    return s->n_turns;
}
