/* The strings of a vocabulary as a tree of their bytes: which tokens does a text begin with?
 *
 * A double array (Aoe, 1989): the child of a node by a byte lies at the node's base ^ byte, where it names its parent,
 * so a step is two loads however many children a node has. Immutable and then shared by threads. */
#ifndef TROUPE_TEXT_TRIE_H
#define TROUPE_TEXT_TRIE_H

#include "text/vocabulary.h"

enum { TRIE_ROOT = 1, TRIE_NOWHERE = 0, TRIE_TEXT_BYTES_MAX = 512 };

typedef struct {
    uint32_t base;   /* a multiple of the block its children are in, ^ any byte */
    uint32_t parent; /* TRIE_NOWHERE where no node is */
    uint32_t value;  /* the token that ends here; VOCABULARY_NONE where none does */
} trie_node;

typedef struct {
    trie_node *nodes;
    uint32_t   n_nodes; /* whole blocks of 256 */
} trie;

/* The tokens of `v` of one of these kinds; the lowest id of two alike counts. NULL with *err set: ERR_NO_MEMORY,
 * ERR_UNSUPPORTED when a token is longer than TRIE_TEXT_BYTES_MAX or they are too many. */
trie *trie_new(const vocabulary *v, uint32_t kinds, error *err);
void  trie_free(trie **t);

/* The node that `byte` leads to from `node`, or TRIE_NOWHERE. */
static inline uint32_t trie_step(const trie *t, uint32_t node, uint8_t byte)
{
    uint32_t child = t->nodes[node].base ^ byte;
    return t->nodes[child].parent == node ? child : TRIE_NOWHERE;
}

/* The token that ends at `node`; VOCABULARY_NONE where none does. */
static inline uint32_t trie_value(const trie *t, uint32_t node)
{
    return t->nodes[node].value;
}

#endif
