/* KV blocks from one executor to another, as the bytes of the paged cache.
 *
 * The scheduler says which (kv.load); the executor that is to have them asks the one that has them, a few blocks a
 * message and two messages ahead, and says how many came. Bytes are read and written between passes by the thread that
 * computes, in copies whose memory is taken at the start: it waits for nobody, and blocks are never touched while a
 * pass of another scheduler writes them.
 *
 * Whose blocks these are is a matter of terms (employer.h): in another term than the scheduler's the source holds
 * something else and refuses, and the target forgets its loads. What did not come is computed. */
#ifndef TROUPE_EXECUTOR_KV_TRANSFER_H
#define TROUPE_EXECUTOR_KV_TRANSFER_H

#include "executor/employer.h"
#include "executor/step.h"

typedef struct kv_transfer kv_transfer;

/* Takes part in transfers when the actor listens somewhere; else it refuses them all and takes no memory for them. The
 * arguments are borrowed. NULL with *err set on failure. */
kv_transfer *kv_transfer_new(actor *a, engine *e, const employer *whose, error *err);
void         kv_transfer_free(kv_transfer **t);

/* Adds to what executor.ready says: where others fetch blocks, and how large one is. The text lives as long as `t`. */
void kv_transfer_describe(const kv_transfer *t, executor_ready *about);

/* On these messages, and on every on_peer_down. `n_jobs` plans came before a load: they may still write into its
 * blocks, for sequences that have ended meanwhile. */
void kv_transfer_on_load(kv_transfer *t, const message *m, uint32_t n_jobs);
void kv_transfer_on_fetch(kv_transfer *t, const message *m);
void kv_transfer_on_blocks(kv_transfer *t, const message *m);
void kv_transfer_peer_down(kv_transfer *t, const peer *gone);

/* Hands on what was copied, asks for more and ends what is late: once a turn, when `n_jobs_done` of those plans have
 * run. True when there is something to copy since the last call. */
bool kv_transfer_turn(kv_transfer *t, uint32_t n_jobs_done);

/* Copies what waits, on the thread that computes, before its next job. False: nothing waits. */
bool kv_transfer_copy(kv_transfer *t);

#endif
