/* Chained hashing over one array of entries, with a doubly linked list from the longest untouched to the latest. */
#include "store/expiry_table.h"

#include "base/hash.h"
#include "base/random.h"

#include <assert.h>
#include <stdlib.h>

enum { NONE = UINT32_MAX };

typedef struct {
    int64_t  expires_ns;
    uint32_t next_in_chain; /* of its bucket, or of the free list */
    uint32_t older, newer;
    uint32_t key_size;
    bool     is_used;
} entry;

struct expiry_table {
    uint32_t  capacity, n_entries, n_buckets;
    uint32_t  n_touched; /* entries at and above this were never used: their pages are not even in memory */
    uint32_t  first_free;
    uint32_t  oldest, newest;
    size_t    key_bytes, value_offset, entry_bytes;
    hash_key  key;
    uint32_t *buckets;
    char     *entries; /* each: entry, key, value */
};

static entry *entry_at(const expiry_table *t, uint32_t index)
{
    return (entry *)(t->entries + index * t->entry_bytes);
}

static entry *entry_of(const expiry_table *t, const void *value)
{
    return (entry *)((char *)value - t->value_offset);
}

static uint32_t index_of(const expiry_table *t, const entry *e)
{
    return (uint32_t)((size_t)((const char *)e - t->entries) / t->entry_bytes);
}

static span key_of(const entry *e)
{
    return (span){(const char *)(e + 1), e->key_size};
}

static uint32_t *bucket_of(const expiry_table *t, span key)
{
    return &t->buckets[hash_64(t->key, key.data, key.size) & (t->n_buckets - 1)];
}

expiry_table *expiry_table_new(uint32_t capacity, size_t key_bytes, size_t value_bytes, error *err)
{
    assert(capacity > 0);
    expiry_table *t = calloc(1, sizeof *t);
    if (!t)
        goto no_memory;
    t->capacity = capacity;
    for (t->n_buckets = 1; t->n_buckets < capacity;)
        t->n_buckets *= 2;
    t->key_bytes    = key_bytes;
    t->value_offset = (sizeof(entry) + key_bytes + 15) & ~(size_t)15;
    t->entry_bytes  = (t->value_offset + value_bytes + 15) & ~(size_t)15;
    t->buckets      = malloc(t->n_buckets * sizeof *t->buckets);
    t->entries      = calloc(capacity, t->entry_bytes);
    t->oldest = t->newest = t->first_free = NONE;
    if (!t->buckets || !t->entries)
        goto no_memory;
    if (!random_bytes(&t->key, sizeof t->key, err)) {
        expiry_table_free(&t);
        return NULL;
    }
    memset(t->buckets, 0xFF, t->n_buckets * sizeof *t->buckets);
    return t;

no_memory:
    expiry_table_free(&t);
    error_set(err, ERR_NO_MEMORY, "no memory for a table of %u entries", capacity);
    return NULL;
}

void expiry_table_free(expiry_table **t)
{
    if (!*t)
        return;
    free((*t)->buckets);
    free((*t)->entries);
    free(*t);
    *t = NULL;
}

static void unlink_age(expiry_table *t, entry *e)
{
    *(e->older == NONE ? &t->oldest : &entry_at(t, e->older)->newer) = e->newer;
    *(e->newer == NONE ? &t->newest : &entry_at(t, e->newer)->older) = e->older;
}

static void link_newest(expiry_table *t, entry *e)
{
    uint32_t index                                                     = index_of(t, e);
    e->older                                                           = t->newest;
    e->newer                                                           = NONE;
    *(t->newest == NONE ? &t->oldest : &entry_at(t, t->newest)->newer) = index;
    t->newest                                                          = index;
}

void expiry_table_remove(expiry_table *t, void *value)
{
    entry    *e     = entry_of(t, value);
    uint32_t  index = index_of(t, e);
    uint32_t *link  = bucket_of(t, key_of(e));
    assert(e->is_used);
    while (*link != index)
        link = &entry_at(t, *link)->next_in_chain;
    *link = e->next_in_chain;
    unlink_age(t, e);
    e->is_used       = false;
    e->next_in_chain = t->first_free;
    t->first_free    = index;
    t->n_entries--;
}

void *expiry_table_find(expiry_table *t, span key, int64_t now_ns)
{
    for (uint32_t i = *bucket_of(t, key); i != NONE; i = entry_at(t, i)->next_in_chain) {
        entry *e     = entry_at(t, i);
        void  *value = (char *)e + t->value_offset;
        if (!span_equal(key_of(e), key))
            continue;
        if (e->expires_ns > now_ns)
            return value;
        expiry_table_remove(t, value);
        return NULL;
    }
    return NULL;
}

/* An unused entry; the longest untouched one makes room if it must. */
static entry *take_entry(expiry_table *t)
{
    if (t->first_free == NONE && t->n_touched < t->capacity)
        return entry_at(t, t->n_touched++);
    if (t->first_free == NONE)
        expiry_table_remove(t, (char *)entry_at(t, t->oldest) + t->value_offset);
    entry *e      = entry_at(t, t->first_free);
    t->first_free = e->next_in_chain;
    return e;
}

void *expiry_table_put(expiry_table *t, span key, int64_t now_ns)
{
    assert(key.size <= t->key_bytes);
    void *value = expiry_table_find(t, key, now_ns);
    if (value)
        return value;
    entry    *e      = take_entry(t);
    uint32_t *bucket = bucket_of(t, key);
    e->next_in_chain = *bucket;
    *bucket          = index_of(t, e);
    e->key_size      = (uint32_t)key.size;
    e->is_used       = true;
    e->expires_ns    = INT64_MIN;
    memcpy(e + 1, key.data, key.size);
    link_newest(t, e);
    t->n_entries++;
    value = (char *)e + t->value_offset;
    return memset(value, 0, t->entry_bytes - t->value_offset);
}

void expiry_table_touch(expiry_table *t, void *value, int64_t expires_ns)
{
    entry *e      = entry_of(t, value);
    e->expires_ns = expires_ns;
    unlink_age(t, e);
    link_newest(t, e);
}

void *expiry_table_next(expiry_table *t, const void *value, int64_t now_ns)
{
    for (uint32_t i = value ? index_of(t, entry_of(t, value)) + 1 : 0; i < t->n_touched; i++) {
        entry *e = entry_at(t, i);
        if (e->is_used && e->expires_ns > now_ns)
            return (char *)e + t->value_offset;
    }
    return NULL;
}

span expiry_table_key(const expiry_table *t, const void *value)
{
    return key_of(entry_of(t, value));
}

uint32_t expiry_table_count(const expiry_table *t)
{
    return t->n_entries;
}
