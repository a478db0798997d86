/* Two small actors for the tests of the runtime: a scheduler that listens and a drafter that connects. Both write down
 * what happens to them. draft.request costs a credit; draft.reply answers it. */
#ifndef TROUPE_TESTS_UNIT_ACTOR_SUPPORT_SCENE_H
#define TROUPE_TESTS_UNIT_ACTOR_SUPPORT_SCENE_H

#include "actor/actor.h"

#include <stdatomic.h>

enum { PLAYER_PEERS_MAX = 8 };

/* What an actor saw. The counts are atomic because tests on real threads look at them from outside. */
typedef struct {
    atomic_uint n_up, n_down, n_requests, n_replies, n_forgets, n_credits, n_refused, n_starts, n_turns, n_drains;
    atomic_uint last_index, n_out_of_order;
    uint32_t    requests_to_send; /* scheduler: to each drafter when it comes, and again as credits come */
    bool        answers;          /* drafter: reply to a request and give its credit back */
    bool        keeps_requests;   /* drafter: holds draining up until it heard draft.forget */
    bool        fails_to_create;
    uint32_t    last_refused_code;
    char        last_refused_text[ERROR_TEXT_BYTES];
    actor      *actor; /* itself, once created */
    uint32_t    n_sent;
} player;

extern const actor_class scheduler_class, drafter_class;

/* Sends draft.requests numbered by player->n_sent while there is credit and any left to send. */
void player_send_requests(player *scheduler, peer *drafter);

/* Waits (real time) until *count is at least n; fails the test after ten seconds. */
void wait_for_count(const atomic_uint *count, uint32_t n);

/* Skips a test over libzmq under the thread sanitizer: libzmq is not instrumented, its locks are invisible. */
#ifdef __SANITIZE_THREAD__
#define NOT_UNDER_TSAN() skip()
#else
#define NOT_UNDER_TSAN() ((void)0)
#endif

#endif
