/* The second tier of the KV cache: blocks that the scheduler evicts are kept in the host's memory and on disk.
 *
 * Slots hold the bytes of one block each. Without a disk every slot has its place in memory. With one every slot has
 * its place in a file, and memory holds those used last: what is saved is in memory at once and a thread writes it out;
 * what is loaded from there the same thread reads. So nobody but this thread waits for the disk. A slot keeps the stamp
 * that its block was saved under and, for what lies in the file, a checksum in memory: what is lost, damaged or another
 * block's by now is not loaded. The file has no name and goes with the process.
 *
 * All functions are for one thread, that which uses the device. */
#ifndef TROUPE_EXECUTOR_KV_OFFLOAD_H
#define TROUPE_EXECUTOR_KV_OFFLOAD_H

#include "base/arena.h"
#include "base/error.h"
#include "bus/messages.h"
#include "kernels/kernels.h"

enum { KV_OFFLOAD_LOADS_MAX = 1024 }; /* that are under way */

typedef struct {
    uint64_t    memory_bytes;   /* 0: none, or with a disk the little that it needs */
    uint64_t    disk_bytes;     /* 0: no disk */
    const char *folder;         /* of the file; NULL: no disk */
    bool        without_thread; /* the caller reads and writes the file itself (simulations) */
} kv_offload_options;

/* What became of loads. */
typedef struct {
    uint32_t loaded[KV_OFFLOAD_LOADS_MAX], not_loaded[KV_OFFLOAD_LOADS_MAX]; /* slots */
    uint32_t n_loaded, n_not_loaded;
    uint32_t elapsed_us; /* reading from disk and copying */
} kv_offload_report;

typedef struct kv_offload kv_offload;

/* Device and cache must outlive it; blocks are of `block_bytes`. NULL with the error: no memory, no room on the disk.
 */
kv_offload *kv_offload_new(const kv_offload_options *options, kern_device *device, kern_kv_cache *cache,
                           size_t block_bytes, error *err);
void        kv_offload_free(kv_offload **offload);

uint32_t kv_offload_n_slots(const kv_offload *offload);

/* Forgets all slots and loads. */
void kv_offload_forget(kv_offload *offload);

/* Keeps a block of the cache. When the disk is so slow that no memory is free, it is not kept, and a load will say so.
 */
void kv_offload_save(kv_offload *offload, const kv_offload_move *what);

/* Begins to bring a block back. False, and nothing is begun, when KV_OFFLOAD_LOADS_MAX are under way. */
bool kv_offload_load(kv_offload *offload, const kv_offload_move *what) MUST_CHECK;

/* Writes what has come into the cache, and says what became of loads since the last call; `wait`: of all of them. */
void kv_offload_collect(kv_offload *offload, bool wait, kv_offload_report *report);

/* Follows a plan of an executor with `n_blocks` KV blocks: its saves, then its loads begin. To be called before
 * anything else of the plan, since what it saves is overwritten by it. False, and nothing more is done, when it asks
 * for what there is not; offload is NULL when there are no slots. */
bool kv_offload_follow(kv_offload *offload, const step_plan *plan, uint32_t n_blocks, error *err) MUST_CHECK;

/* Says in its result what became of loads. A plan without entries has nothing to do but to wait for all of them. False
 * when `memory` is too small. */
bool kv_offload_answer(kv_offload *offload, const step_plan *plan, arena *memory, step_result *result) MUST_CHECK;

/* For tests: waits until a slot that was saved is in the file; turns over one of its bytes there. */
void kv_offload_wait_written(kv_offload *offload, uint32_t slot);
void kv_offload_damage(kv_offload *offload, uint32_t slot);

#endif
