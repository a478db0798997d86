/* Which scheduler an executor works for: one at a time, and the executor decides.
 *
 * Executors are connected to every scheduler. Each offers itself to the one that holds the fewest executors, and when
 * that one is gone, to the next: nobody has to agree with anybody, so it works without a store, and whatever a
 * scheduler believes that was frozen or cut off, no executor hears it. When another scheduler holds two fewer, one of
 * the richer one's executors moves over, after a pause drawn at random so that it is mostly one alone that does. */
#ifndef TROUPE_EXECUTOR_EMPLOYER_H
#define TROUPE_EXECUTOR_EMPLOYER_H

#include "actor/actor.h"
#include "base/random.h"

#include <stdatomic.h>

typedef struct {
    actor        *actor;
    random_seeded random;
    peer         *scheduler; /* whom this executor offered itself to; NULL: nobody */
    atomic_uint_fast64_t
                term;  /* rises with each offer and at its end: nobody waits for what was done in an older one */
    bool        taken; /* it answered with executor.reset */
    actor_timer timer; /* the end of patience with an offer, or the pause before a move */
    bool        wants_to_move;
} employer;

/* `e` is zero. */
void employer_init(employer *e, actor *a);

/* Offers this executor when nobody has it; else sees whether another should. To be called at the end of each turn.
 * `is_free`: no plan is left of whoever had it before. */
void employer_turn(employer *e, bool is_free, const executor_ready *about);

/* `scheduler` takes the executor that was offered in `term`. False: that is over. */
bool employer_takes(employer *e, peer *scheduler, uint64_t term);

/* Tells the scheduler that it has this executor no more. */
void employer_leave(employer *e);

/* On every on_peer_down. */
void employer_peer_down(employer *e, const peer *gone);

#endif
