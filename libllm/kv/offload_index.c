/* See offload_index.h. It is a pool of blocks as block_pool.h has it: slots are blocks, those that are in use are
 * published, those that are pinned have a reference. */
#include "kv/offload_index.h"

#include <assert.h>
#include <stdlib.h>

typedef struct {
    uint64_t stamp; /* 0: not in use */
    kv_hash  hash;
    bool     pinned;
} offload_slot;

struct kv_offload_index {
    kv_pool      *pool;
    offload_slot *slots;
    uint32_t      n_used;
    uint64_t      n_stamps;
};

static void forget_slot(void *arg, uint32_t slot, kv_hash hash)
{
    kv_offload_index *index = arg;
    (void)hash;
    index->slots[slot].stamp = 0;
    index->n_used--;
}

kv_offload_index *kv_offload_index_new(uint32_t n_slots, error *err)
{
    kv_offload_index *index = calloc(1, sizeof *index);
    kv_pool          *pool  = kv_pool_new(n_slots, err);
    if (index && pool)
        index->slots = calloc(n_slots, sizeof *index->slots);
    if (!index || !pool || !index->slots) {
        if (pool)
            error_set(err, ERR_NO_MEMORY, "no memory for the index of %u offload slots", n_slots);
        kv_pool_free(&pool);
        free(index);
        return NULL;
    }
    index->pool = pool;
    kv_pool_on_evict(pool, forget_slot, index);
    return index;
}

void kv_offload_index_free(kv_offload_index **index)
{
    if (*index) {
        kv_pool_free(&(*index)->pool);
        free((*index)->slots);
        free(*index);
        *index = NULL;
    }
}

uint32_t kv_offload_index_find(const kv_offload_index *index, kv_hash hash)
{
    uint32_t slot = kv_pool_find(index->pool, hash);
    return slot == KV_NO_BLOCK || index->slots[slot].pinned ? KV_NO_SLOT : slot;
}

uint32_t kv_offload_index_put(kv_offload_index *index, kv_hash hash, bool *is_new)
{
    uint32_t slot = kv_pool_find(index->pool, hash);
    *is_new       = slot == KV_NO_BLOCK;
    if (!*is_new) {
        kv_pool_share(index->pool, slot); /* a use: it becomes the newest */
        kv_pool_release(index->pool, slot);
        return slot;
    }
    if (!kv_pool_take(index->pool, 1, &slot))
        return KV_NO_SLOT;
    index->slots[slot] = (offload_slot){.stamp = ++index->n_stamps, .hash = hash};
    index->n_used++;
    kv_pool_publish(index->pool, slot, hash);
    kv_pool_release(index->pool, slot);
    return slot;
}

uint64_t kv_offload_index_stamp(const kv_offload_index *index, uint32_t slot)
{
    return index->slots[slot].stamp;
}

void kv_offload_index_pin(kv_offload_index *index, uint32_t slot)
{
    assert(index->slots[slot].stamp > 0 && !index->slots[slot].pinned);
    kv_pool_share(index->pool, slot);
    index->slots[slot].pinned = true;
}

void kv_offload_index_unpin(kv_offload_index *index, uint32_t slot)
{
    assert(index->slots[slot].pinned);
    index->slots[slot].pinned = false;
    kv_pool_release(index->pool, slot);
}

void kv_offload_index_drop(kv_offload_index *index, uint32_t slot)
{
    offload_slot *s = &index->slots[slot];
    assert(s->stamp > 0);
    if (!s->pinned)
        kv_pool_share(index->pool, slot);
    kv_pool_unpublish(index->pool, slot);
    kv_pool_release(index->pool, slot);
    *s = (offload_slot){0};
    index->n_used--;
}

uint32_t kv_offload_index_n_used(const kv_offload_index *index)
{
    return index->n_used;
}

void kv_offload_index_check(const kv_offload_index *index)
{
    uint32_t n_used = 0, n_pinned = 0, n_slots = kv_pool_n_blocks(index->pool);
    kv_pool_check(index->pool);
    for (uint32_t i = 0; i < n_slots; i++) {
        const offload_slot *s = &index->slots[i];
        n_used += s->stamp > 0;
        n_pinned += s->pinned;
        assert(s->stamp == 0 || kv_pool_find(index->pool, s->hash) == i);
        assert(s->stamp > 0 || !s->pinned);
    }
    assert(n_used == index->n_used);
    assert(kv_pool_n_available(index->pool) == n_slots - n_pinned);
    (void)n_used, (void)n_pinned;
}
