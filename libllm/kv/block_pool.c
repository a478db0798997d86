/* See block_pool.h. Free blocks are a stack; published blocks without references are a doubly linked list in order of
 * last use; the index from hash to block is an open-addressing table with backward-shift deletion. */
#include "kv/block_pool.h"

#include <assert.h>
#include <stdlib.h>

typedef struct {
    uint32_t n_references;
    uint32_t older, newer; /* neighbours in the list of evictable blocks */
    bool     published;
    kv_hash  hash;
} block;

struct kv_pool {
    uint32_t  n_blocks;
    uint32_t  n_free, n_evictable;
    uint32_t  oldest, newest;
    uint32_t  table_mask;
    block    *blocks;
    uint32_t *free_stack;
    uint32_t *table; /* hash -> block, or KV_NO_BLOCK */

    kv_pool_evicted *evicted; /* NULL: nobody wants to know */
    void            *evicted_arg;
};

kv_pool *kv_pool_new(uint32_t n_blocks, error *err)
{
    if (n_blocks == 0 || n_blocks > KV_BLOCKS_MAX) {
        error_set(err, ERR_INVALID, "a KV pool of %u blocks: must be between 1 and %d", n_blocks, KV_BLOCKS_MAX);
        return NULL;
    }
    uint32_t table_size = 4;
    while (table_size < 2 * n_blocks)
        table_size *= 2;
    kv_pool *pool = calloc(1, sizeof *pool);
    if (pool) {
        pool->blocks     = calloc(n_blocks, sizeof *pool->blocks);
        pool->free_stack = calloc(n_blocks, sizeof *pool->free_stack);
        pool->table      = malloc(table_size * sizeof *pool->table);
    }
    if (!pool || !pool->blocks || !pool->free_stack || !pool->table) {
        kv_pool_free(&pool);
        error_set(err, ERR_NO_MEMORY, "no memory for the index of %u KV blocks", n_blocks);
        return NULL;
    }
    pool->n_blocks = pool->n_free = n_blocks;
    pool->oldest = pool->newest = KV_NO_BLOCK;
    pool->table_mask            = table_size - 1;
    for (uint32_t i = 0; i < n_blocks; i++)
        pool->free_stack[i] = n_blocks - 1 - i; /* the lowest block is taken first */
    memset(pool->table, 0xff, table_size * sizeof *pool->table);
    return pool;
}

void kv_pool_free(kv_pool **pool)
{
    if (*pool) {
        free((*pool)->blocks);
        free((*pool)->free_stack);
        free((*pool)->table);
        free(*pool);
        *pool = NULL;
    }
}

/* Where `hash` stands in the table, or the empty place where it would. */
static uint32_t find_place(const kv_pool *pool, kv_hash hash)
{
    uint32_t place = (uint32_t)hash.low & pool->table_mask;
    for (;; place = (place + 1) & pool->table_mask) {
        uint32_t found = pool->table[place];
        if (found == KV_NO_BLOCK)
            return place;
        const block *b = &pool->blocks[found];
        if (b->hash.low == hash.low && b->hash.high == hash.high)
            return place;
    }
}

/* Removes a block from the table and moves followers back so that no probe chain is cut. */
static void unpublish(kv_pool *pool, uint32_t index)
{
    uint32_t hole = find_place(pool, pool->blocks[index].hash);
    assert(pool->table[hole] == index);
    for (uint32_t next = (hole + 1) & pool->table_mask; pool->table[next] != KV_NO_BLOCK;
         next          = (next + 1) & pool->table_mask) {
        uint32_t home = (uint32_t)pool->blocks[pool->table[next]].hash.low & pool->table_mask;
        if (((next - home) & pool->table_mask) >= ((next - hole) & pool->table_mask)) {
            pool->table[hole] = pool->table[next];
            hole              = next;
        }
    }
    pool->table[hole]             = KV_NO_BLOCK;
    pool->blocks[index].published = false;
}

static void list_remove(kv_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    if (b->older != KV_NO_BLOCK)
        pool->blocks[b->older].newer = b->newer;
    else
        pool->oldest = b->newer;
    if (b->newer != KV_NO_BLOCK)
        pool->blocks[b->newer].older = b->older;
    else
        pool->newest = b->older;
    pool->n_evictable--;
}

static void list_append(kv_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    b->older = pool->newest;
    b->newer = KV_NO_BLOCK;
    if (pool->newest != KV_NO_BLOCK)
        pool->blocks[pool->newest].newer = index;
    else
        pool->oldest = index;
    pool->newest = index;
    pool->n_evictable++;
}

bool kv_pool_take(kv_pool *pool, uint32_t n, uint32_t *blocks)
{
    if (n > kv_pool_n_available(pool))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (pool->n_free == 0) {
            uint32_t victim = pool->oldest;
            list_remove(pool, victim);
            unpublish(pool, victim);
            if (pool->evicted)
                pool->evicted(pool->evicted_arg, victim, pool->blocks[victim].hash);
            pool->free_stack[pool->n_free++] = victim;
        }
        blocks[i]                            = pool->free_stack[--pool->n_free];
        pool->blocks[blocks[i]].n_references = 1;
    }
    return true;
}

void kv_pool_share(kv_pool *pool, uint32_t index)
{
    assert(index < pool->n_blocks);
    block *b = &pool->blocks[index];
    assert(b->n_references > 0 || b->published);
    if (b->n_references == 0)
        list_remove(pool, index);
    b->n_references++;
}

void kv_pool_release(kv_pool *pool, uint32_t index)
{
    assert(index < pool->n_blocks);
    block *b = &pool->blocks[index];
    assert(b->n_references > 0);
    if (--b->n_references > 0)
        return;
    if (b->published)
        list_append(pool, index);
    else
        pool->free_stack[pool->n_free++] = index;
}

void kv_pool_publish(kv_pool *pool, uint32_t index, kv_hash hash)
{
    assert(index < pool->n_blocks);
    block *b = &pool->blocks[index];
    assert(b->n_references > 0);
    uint32_t place = find_place(pool, hash);
    if (b->published || pool->table[place] != KV_NO_BLOCK)
        return;
    b->hash            = hash;
    b->published       = true;
    pool->table[place] = index;
}

void kv_pool_unpublish(kv_pool *pool, uint32_t index)
{
    assert(index < pool->n_blocks && pool->blocks[index].n_references > 0 && pool->blocks[index].published);
    unpublish(pool, index);
}

void kv_pool_on_evict(kv_pool *pool, kv_pool_evicted *evicted, void *arg)
{
    pool->evicted     = evicted;
    pool->evicted_arg = arg;
}

uint32_t kv_pool_find(const kv_pool *pool, kv_hash hash)
{
    return pool->table[find_place(pool, hash)];
}

void kv_pool_forget(kv_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_blocks; i++) {
        block *b = &pool->blocks[i];
        if (!b->published)
            continue;
        b->published = false;
        if (b->n_references == 0) {
            list_remove(pool, i);
            pool->free_stack[pool->n_free++] = i;
        }
    }
    memset(pool->table, 0xff, ((size_t)pool->table_mask + 1) * sizeof *pool->table);
}

uint32_t kv_pool_n_blocks(const kv_pool *pool)
{
    return pool->n_blocks;
}

uint32_t kv_pool_n_available(const kv_pool *pool)
{
    return pool->n_free + pool->n_evictable;
}

uint32_t kv_pool_n_cached(const kv_pool *pool)
{
    return pool->n_evictable;
}

void kv_pool_check(const kv_pool *pool)
{
    uint32_t n_referenced = 0, n_published = 0, n_idle = 0, n_listed = 0, n_indexed = 0;
    for (uint32_t i = 0; i < pool->n_blocks; i++) {
        const block *b = &pool->blocks[i];
        n_referenced += b->n_references > 0;
        n_published += b->published;
        n_idle += b->published && b->n_references == 0;
        assert(!b->published || kv_pool_find(pool, b->hash) == i);
    }
    for (uint32_t i = pool->oldest, before = KV_NO_BLOCK; i != KV_NO_BLOCK; before = i, i = pool->blocks[i].newer) {
        assert(pool->blocks[i].older == before);
        assert(pool->blocks[i].published && pool->blocks[i].n_references == 0);
        n_listed++;
    }
    for (uint32_t place = 0; place <= pool->table_mask; place++)
        n_indexed += pool->table[place] != KV_NO_BLOCK;
    for (uint32_t i = 0; i < pool->n_free; i++)
        assert(pool->blocks[pool->free_stack[i]].n_references == 0 && !pool->blocks[pool->free_stack[i]].published);
    assert(n_listed == n_idle && n_listed == pool->n_evictable);
    assert(n_indexed == n_published);
    assert(n_referenced + pool->n_free + pool->n_evictable == pool->n_blocks);
    (void)n_referenced, (void)n_published, (void)n_idle, (void)n_listed, (void)n_indexed;
}

/* The hash before the first block: of the tenant alone. */
kv_hash kv_hash_root(hash_key key, span salt)
{
    return hash_128(key, salt.data, salt.size);
}

kv_hash kv_hash_block(hash_key key, kv_hash parent, const uint32_t *tokens)
{
    struct {
        kv_hash  parent;
        uint32_t tokens[KV_BLOCK_TOKENS];
    } input = {.parent = parent};
    memcpy(input.tokens, tokens, sizeof input.tokens);
    return hash_128(key, &input, sizeof input);
}
