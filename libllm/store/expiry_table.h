/* A hash table of fixed size whose entries die of age: the memory behind the in-process store.
 *
 * Keys are bytes up to a limit, values are structs of one size. When the table is full the entry that was touched
 * longest ago makes room. Hashing is keyed at random, as keys come from outside. */
#ifndef TROUPE_STORE_EXPIRY_TABLE_H
#define TROUPE_STORE_EXPIRY_TABLE_H

#include "base/error.h"
#include "base/span.h"

typedef struct expiry_table expiry_table;

/* Room for `capacity` entries of up to key_bytes and exactly value_bytes, allocated here and nowhere else. */
expiry_table *expiry_table_new(uint32_t capacity, size_t key_bytes, size_t value_bytes, error *err);
void          expiry_table_free(expiry_table **t);

/* The value of a key that has not expired at now_ns, or NULL. */
void *expiry_table_find(expiry_table *t, span key, int64_t now_ns);

/* The value of the key, new and zeroed when it was not there or had expired. Its life is not changed: a new one has
 * none until expiry_table_touch. */
void *expiry_table_put(expiry_table *t, span key, int64_t now_ns);

/* Lets an entry live until expires_ns and makes it the last to be evicted. */
void expiry_table_touch(expiry_table *t, void *value, int64_t expires_ns);

void expiry_table_remove(expiry_table *t, void *value);

/* Walks all entries that live at now_ns: start with NULL, ends with NULL. Nothing may be put or removed meanwhile. */
void *expiry_table_next(expiry_table *t, const void *value, int64_t now_ns);
span  expiry_table_key(const expiry_table *t, const void *value);

uint32_t expiry_table_count(const expiry_table *t); /* expired entries that nobody looked for are still counted */

#endif
