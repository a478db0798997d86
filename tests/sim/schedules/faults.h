/* What goes wrong in a schedule: drawn from its seed before it begins. */
#ifndef TROUPE_TESTS_SIM_FAULTS_H
#define TROUPE_TESTS_SIM_FAULTS_H

#include "sim/schedules/world.h"

typedef enum {
    FAULT_KILL,      /* a node dies without a word, and starts again after `length_ns` */
    FAULT_STOP,      /* a node is told to leave, and starts again */
    FAULT_FREEZE,    /* a node stands still, and goes on with what it knew */
    FAULT_HANG,      /* an executor's pass takes so long, while its heartbeats go on */
    FAULT_CUT,       /* two nodes do not hear each other */
    FAULT_SLOW,      /* all messages take up to so long more */
    FAULT_DUPLICATE, /* some messages come twice */
    FAULT_LOSE,      /* some messages are lost */
    N_FAULT_KINDS
} fault_kind;

typedef struct {
    fault_kind kind;
    int64_t    at_ns, length_ns;
    uint32_t   node, other;
    bool       begun, over;
} fault;

enum { FAULTS_MAX = 8 };

typedef struct {
    uint32_t n;
    fault    all[FAULTS_MAX];
    int64_t  over_ns; /* when the last one is over */
} fault_plan;

void    faults_draw(fault_plan *plan, const world *w, random_seeded *rng, uint32_t n_max, int64_t until_ns);
void    faults_turn(fault_plan *plan, world *w); /* begins and ends what is due */
int64_t faults_due_ns(const fault_plan *plan);
void    faults_print(const fault_plan *plan, const world *w);

#endif
