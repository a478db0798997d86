/* Building: the tokens in order of their bytes, so that what lies below a node is a range of them, and for each node
 * a base where all its children find a free place. */
#include "text/trie.h"

#include <stdlib.h>

/* Only the newest blocks are searched, which bounds the time; what older ones have free is lost, which costs memory. */
enum { BLOCK = 256, BLOCKS_SEARCHED = 8, NODES_PER_BYTE_MAX = 16, TEXTS_BYTES_MAX = 16 << 20 };

#define NO_PARENT UINT32_MAX /* the root's */

typedef struct {
    span     text;
    uint32_t token;
} entry;

/* The entries below a node that agree in their first `depth` bytes. */
typedef struct {
    uint32_t first, end, depth, node;
} range;

typedef struct {
    trie    *trie;
    entry   *entries;
    range   *ranges; /* to do, last first */
    uint32_t n_entries, n_ranges, n_nodes_max;
    uint32_t n_free[BLOCKS_SEARCHED]; /* places of the newest blocks, by block number */
} building;

static int by_bytes(const void *a, const void *b)
{
    const entry *first = a, *second = b;
    size_t       n     = first->text.size < second->text.size ? first->text.size : second->text.size;
    int          order = memcmp(first->text.data, second->text.data, n);
    if (order != 0)
        return order;
    if (first->text.size != second->text.size)
        return first->text.size < second->text.size ? -1 : 1;
    return first->token < second->token ? -1 : 1;
}

static bool list_entries(building *b, const vocabulary *v, uint32_t kinds, error *err)
{
    size_t n_bytes = 0;
    b->entries     = calloc((size_t)vocabulary_n_tokens(v) + 1, sizeof *b->entries);
    if (!b->entries)
        return error_set(err, ERR_NO_MEMORY, "no memory for %u tokens", vocabulary_n_tokens(v));
    for (uint32_t token = 0; token < vocabulary_n_tokens(v); token++) {
        span text = vocabulary_bytes(v, token);
        if (!(vocabulary_kinds(v, token) & kinds) || text.size == 0)
            continue;
        if (text.size > TRIE_TEXT_BYTES_MAX)
            return error_set(err, ERR_UNSUPPORTED, "token %u has %zu bytes; at most %d are supported", token, text.size,
                             TRIE_TEXT_BYTES_MAX);
        b->entries[b->n_entries++] = (entry){text, token};
        n_bytes += text.size;
    }
    if (n_bytes > TEXTS_BYTES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "tokens of %zu bytes in all; at most %d are supported", n_bytes,
                         TEXTS_BYTES_MAX);
    qsort(b->entries, b->n_entries, sizeof *b->entries, by_bytes);
    b->n_nodes_max = (uint32_t)n_bytes * NODES_PER_BYTE_MAX + 2 * BLOCK;
    b->ranges      = malloc((n_bytes + 1) * sizeof *b->ranges);
    return b->ranges || error_set(err, ERR_NO_MEMORY, "no memory for tokens of %zu bytes", n_bytes);
}

static bool add_block(building *b, error *err)
{
    trie *t = b->trie;
    if (t->n_nodes + BLOCK > b->n_nodes_max)
        return error_set(err, ERR_UNSUPPORTED, "the tokens' bytes are too irregular: a table of over %u places",
                         b->n_nodes_max);
    uint32_t n_blocks = t->n_nodes / BLOCK;
    if ((n_blocks & (n_blocks - 1)) == 0) { /* room for twice as many, each time that they are a power of two */
        size_t     n     = (n_blocks ? 2 * (size_t)n_blocks : 1) * BLOCK;
        trie_node *nodes = realloc(t->nodes, n * sizeof *nodes);
        if (!nodes)
            return error_set(err, ERR_NO_MEMORY, "no memory for a table of %zu places", n);
        t->nodes = nodes;
    }
    for (uint32_t i = 0; i < BLOCK; i++)
        t->nodes[t->n_nodes++] = (trie_node){0, TRIE_NOWHERE, VOCABULARY_NONE};
    b->n_free[n_blocks % BLOCKS_SEARCHED] = BLOCK - (n_blocks == 0 ? TRIE_ROOT + 1 : 0);
    return true;
}

static bool is_free(const trie *t, uint32_t at)
{
    return at != TRIE_NOWHERE && t->nodes[at].parent == TRIE_NOWHERE;
}

static bool fits(const trie *t, uint32_t base, const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!is_free(t, base ^ bytes[i]))
            return false;
    return true;
}

/* A base for children by these bytes; in a new block where none of the searched ones has room. */
static bool find_base(building *b, const uint8_t *bytes, uint32_t n, uint32_t *base, error *err)
{
    const trie *t        = b->trie;
    uint32_t    n_blocks = t->n_nodes / BLOCK;
    for (uint32_t i = n_blocks > BLOCKS_SEARCHED ? n_blocks - BLOCKS_SEARCHED : 0; i < n_blocks; i++)
        for (*base = i * BLOCK; b->n_free[i % BLOCKS_SEARCHED] >= n && *base < (i + 1) * BLOCK; ++*base)
            if (fits(t, *base, bytes, n))
                return true;
    *base = t->n_nodes;
    return add_block(b, err);
}

/* The bytes that follow the first r.depth ones; the entry that ends there, which comes first, is the node's. */
static uint32_t list_children(building *b, range r, uint8_t *bytes, uint32_t *firsts)
{
    uint32_t n = 0;
    for (uint32_t i = r.first; i < r.end; i++) {
        const entry *e = &b->entries[i];
        if (e->text.size == r.depth) {
            if (b->trie->nodes[r.node].value == VOCABULARY_NONE)
                b->trie->nodes[r.node].value = e->token;
        } else if (n == 0 || bytes[n - 1] != (uint8_t)e->text.data[r.depth]) {
            bytes[n]    = (uint8_t)e->text.data[r.depth];
            firsts[n++] = i;
        }
    }
    firsts[n] = r.end;
    return n;
}

static bool add_children(building *b, range r, error *err)
{
    uint8_t  bytes[BLOCK];
    uint32_t firsts[BLOCK + 1], base, n = list_children(b, r, bytes, firsts);
    if (n == 0)
        return true;
    if (!find_base(b, bytes, n, &base, err))
        return false;
    b->trie->nodes[r.node].base = base;
    b->n_free[base / BLOCK % BLOCKS_SEARCHED] -= n;
    for (uint32_t i = 0; i < n; i++) {
        b->trie->nodes[base ^ bytes[i]].parent = r.node;
        b->ranges[b->n_ranges++]               = (range){firsts[i], firsts[i + 1], r.depth + 1, base ^ bytes[i]};
    }
    return true;
}

trie *trie_new(const vocabulary *v, uint32_t kinds, error *err)
{
    building b    = {.trie = calloc(1, sizeof *b.trie)};
    bool     done = b.trie || error_set(err, ERR_NO_MEMORY, "no memory for a trie");
    done          = done && list_entries(&b, v, kinds, err) && add_block(&b, err);
    if (done) {
        b.trie->nodes[TRIE_ROOT].parent = NO_PARENT;
        b.ranges[b.n_ranges++]          = (range){0, b.n_entries, 0, TRIE_ROOT};
    }
    while (done && b.n_ranges > 0)
        done = add_children(&b, b.ranges[--b.n_ranges], err);
    free(b.entries);
    free(b.ranges);
    if (!done)
        trie_free(&b.trie);
    return b.trie;
}

void trie_free(trie **t)
{
    if (!*t)
        return;
    free((*t)->nodes);
    free(*t);
    *t = NULL;
}
