/* A set of strings that are found by walking along a text: which of them does it begin with?
 *
 * An edge is one slot of a hash table, so a step costs one look-up however many children a node has. Immutable once
 * built and then shared by threads. */
#ifndef TROUPE_TEXT_TRIE_H
#define TROUPE_TEXT_TRIE_H

#include "base/error.h"
#include "base/span.h"

typedef struct trie trie;

enum { TRIE_ROOT = 1, TRIE_NOWHERE = 0 };

/* Room for strings of n_bytes in all. NULL with *err set: ERR_NO_MEMORY, ERR_UNSUPPORTED when they are too many. */
trie *trie_new(size_t n_bytes, error *err);
void  trie_free(trie **t);

/* Adds `text`, not empty, for `value`, which is below UINT32_MAX; the first of two alike stays. */
void trie_add(trie *t, span text, uint32_t value);

/* The node that `byte` leads to from `node`, or TRIE_NOWHERE. */
uint32_t trie_step(const trie *t, uint32_t node, uint8_t byte);

/* The value of the string that ends at `node`; UINT32_MAX where none does. */
uint32_t trie_value(const trie *t, uint32_t node);

#endif
