/* What lies in the second tier of one executor's KV cache (host memory, disk): which prefix in which of its slots.
 *
 * A slot holds the bytes of one KV block. Each time a slot is given to a block it gets a new stamp, which the executor
 * keeps with the bytes: who asks for a slot says the stamp too, so what was never written, or was overwritten since,
 * is a miss and not another's keys. The least recently used slot that is not pinned is given away first. Every
 * operation is O(1); all memory is taken in kv_offload_index_new. */
#ifndef TROUPE_KV_OFFLOAD_INDEX_H
#define TROUPE_KV_OFFLOAD_INDEX_H

#include "kv/block_pool.h"

#define KV_NO_SLOT UINT32_MAX

typedef struct kv_offload_index kv_offload_index;

kv_offload_index *kv_offload_index_new(uint32_t n_slots, error *err); /* 1 to KV_BLOCKS_MAX */
void              kv_offload_index_free(kv_offload_index **index);

/* The slot that holds the prefix of this hash and is not pinned, or KV_NO_SLOT. */
uint32_t kv_offload_index_find(const kv_offload_index *index, kv_hash hash);

/* A slot for the block of this hash, which becomes the most recently used. `*is_new`: its bytes have to be written;
 * else it holds them already. KV_NO_SLOT when all slots are pinned. */
uint32_t kv_offload_index_put(kv_offload_index *index, kv_hash hash, bool *is_new);

uint64_t kv_offload_index_stamp(const kv_offload_index *index, uint32_t slot); /* of a slot in use; never 0 */

/* A slot in use that is being read: it is not given away and not found until it is let go. */
void kv_offload_index_pin(kv_offload_index *index, uint32_t slot);
void kv_offload_index_unpin(kv_offload_index *index, uint32_t slot);

/* Its bytes are lost. It may be pinned: then it is no more. */
void kv_offload_index_drop(kv_offload_index *index, uint32_t slot);

uint32_t kv_offload_index_n_used(const kv_offload_index *index);

void kv_offload_index_check(const kv_offload_index *index); /* asserts every invariant: O(n_slots) */

#endif
