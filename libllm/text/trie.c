/* A slot is (node << 8 | byte) << CHILD_BITS | child; 0 is an empty one. */
#include "text/trie.h"

#include "base/random.h"
#include "text/vocabulary.h"
#include <assert.h>
#include <stdlib.h>

enum { CHILD_BITS = 28 };
#define CHILD_MASK ((UINT64_C(1) << CHILD_BITS) - 1)

struct trie {
    uint64_t *slots;
    uint32_t *values; /* [node]: value + 1, or 0 */
    size_t    mask;
    uint32_t  n_nodes, n_nodes_max;
    uint64_t  seed;
};

trie *trie_new(size_t n_bytes, error *err)
{
    if (n_bytes + TRIE_ROOT >= CHILD_MASK) {
        error_set(err, ERR_UNSUPPORTED, "a vocabulary of %zu bytes", n_bytes);
        return NULL;
    }
    trie *t = calloc(1, sizeof *t);
    if (t) {
        size_t n_slots = 256;
        while (n_slots < 2 * n_bytes)
            n_slots *= 2;
        t->mask        = n_slots - 1;
        t->n_nodes     = TRIE_ROOT + 1;
        t->n_nodes_max = (uint32_t)n_bytes + TRIE_ROOT + 1;
        t->slots       = calloc(n_slots, sizeof *t->slots);
        t->values      = calloc(t->n_nodes_max, sizeof *t->values);
    }
    if (!t || !t->slots || !t->values || !random_bytes(&t->seed, sizeof t->seed, NULL)) {
        error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary of %zu bytes", n_bytes);
        trie_free(&t);
    }
    return t;
}

void trie_free(trie **t)
{
    if (!*t)
        return;
    free((*t)->slots);
    free((*t)->values);
    free(*t);
    *t = NULL;
}

/* The slot of an edge, or the empty one where it belongs. */
static uint64_t *slot_of_edge(const trie *t, uint64_t edge)
{
    size_t at = vocabulary_mix(edge, t->seed) & t->mask;
    while (t->slots[at] && t->slots[at] >> CHILD_BITS != edge)
        at = (at + 1) & t->mask;
    return &t->slots[at];
}

uint32_t trie_step(const trie *t, uint32_t node, uint8_t byte)
{
    return (uint32_t)(*slot_of_edge(t, (uint64_t)node << 8 | byte) & CHILD_MASK);
}

uint32_t trie_value(const trie *t, uint32_t node)
{
    return t->values[node] - 1;
}

void trie_add(trie *t, span text, uint32_t value)
{
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < text.size; i++) {
        uint64_t  edge = (uint64_t)node << 8 | (uint8_t)text.data[i];
        uint64_t *slot = slot_of_edge(t, edge);
        if (!*slot) {
            assert(t->n_nodes < t->n_nodes_max);
            *slot = edge << CHILD_BITS | t->n_nodes++;
        }
        node = (uint32_t)(*slot & CHILD_MASK);
    }
    if (text.size > 0 && !t->values[node])
        t->values[node] = value + 1;
}
