/* The pool of KV blocks of one executor, and the index of what they hold.
 *
 * A block holds the keys and values of KV_BLOCK_TOKENS consecutive positions for every layer. Blocks are
 * reference-counted: sequences that share a prefix share its blocks. A full block can be published under the hash of
 * everything up to its end; a published block without references keeps its content until the pool needs it, least
 * recently used first, so a later request with the same prefix finds it warm. Every operation is O(1) per block; all
 * memory is taken in kv_pool_new. */
#ifndef TROUPE_KV_BLOCK_POOL_H
#define TROUPE_KV_BLOCK_POOL_H

#include "base/error.h"
#include "base/hash.h"
#include "base/span.h"

enum { KV_BLOCK_TOKENS = 16, KV_BLOCKS_MAX = 1 << 24 }; /* a pool's own memory is some 40 bytes a block */

#define KV_NO_BLOCK UINT32_MAX

/* Hash of a whole prefix: chained, so equal hashes mean equal tokens from the first on. Keyed, so nobody can construct
 * a collision, and salted by tenant, so nobody can probe what others have asked. */
typedef hash128 kv_hash;

typedef struct kv_pool kv_pool;

kv_pool *kv_pool_new(uint32_t n_blocks, error *err);
void     kv_pool_free(kv_pool **pool);

/* Takes `n` blocks with one reference each into blocks[0..n), or none: false when fewer are free or evictable. Free
 * blocks go first, then published ones without references, least recently used first. */
bool kv_pool_take(kv_pool *pool, uint32_t n, uint32_t *blocks) MUST_CHECK;

/* One more reference to a block that has one, or that kv_pool_find returned. */
void kv_pool_share(kv_pool *pool, uint32_t block);

/* One reference less; the last one frees the block, or leaves it to the cache when it is published. What is released
 * first is forgotten first: a prefix is given back from its end. */
void kv_pool_release(kv_pool *pool, uint32_t block);

/* Makes a full block findable. Does nothing when another block holds the same hash already. The caller holds a
 * reference. */
void kv_pool_publish(kv_pool *pool, uint32_t block, kv_hash hash);

/* The block published under `hash`, or KV_NO_BLOCK. Takes no reference: share it before anything is taken. */
uint32_t kv_pool_find(const kv_pool *pool, kv_hash hash);

/* Makes a published block with a reference not findable any more. */
void kv_pool_unpublish(kv_pool *pool, uint32_t block);

/* Whom to tell of a published block whose content kv_pool_take is about to give up: `block` is in the hands of whoever
 * takes it when kv_pool_take returns. `evicted` must not call the pool. NULL: nobody. */
typedef void kv_pool_evicted(void *arg, uint32_t block, kv_hash hash);
void         kv_pool_on_evict(kv_pool *pool, kv_pool_evicted *evicted, void *arg);

/* Forgets everything that is published (the executor lost its memory). Blocks with references stay taken. */
void kv_pool_forget(kv_pool *pool);

uint32_t kv_pool_n_blocks(const kv_pool *pool);
uint32_t kv_pool_n_available(const kv_pool *pool); /* free + evictable */
uint32_t kv_pool_n_cached(const kv_pool *pool);    /* published without references */

void kv_pool_check(const kv_pool *pool); /* asserts every invariant: O(n_blocks) */

/* Hash of the prefix that ends with these KV_BLOCK_TOKENS tokens, `parent` being the hash of the prefix before
 * (kv_hash_root for the first block). `key` is the process's own random key. */
kv_hash kv_hash_root(hash_key key, span salt);
kv_hash kv_hash_block(hash_key key, kv_hash parent, const uint32_t *tokens);

#endif
