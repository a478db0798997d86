/* A chained hash table over a fixed pool of entries, one for each peer that has a connection. */
#include "services/gateway/http_peers.h"

#include "base/hash.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { KEY_BYTES = 9, NONE = UINT32_MAX };

typedef struct {
    uint8_t  key[KEY_BYTES]; /* address family's kind, then the address or its first half */
    uint32_t n_connections;
    uint32_t chain; /* the chain it is in */
    uint32_t next;  /* in its chain, or among the unused */
} entry;

struct http_peers {
    hash_key  key; /* addresses are chosen by strangers */
    uint32_t  n_max;
    uint32_t  unused;
    uint32_t *chains; /* n_max of them */
    entry    *entries;
};

http_peers *http_peers_new(uint32_t n_max, error *err)
{
    uint8_t     secret[16];
    http_peers *peers = calloc(1, sizeof *peers);
    if (peers) {
        peers->chains  = malloc(n_max * sizeof *peers->chains);
        peers->entries = calloc(n_max, sizeof *peers->entries);
    }
    if (!peers || !peers->chains || !peers->entries || getrandom(secret, sizeof secret, 0) != sizeof secret) {
        http_peers_free(&peers);
        error_set(err, ERR_NO_MEMORY, "no memory to count the connections of %u peers", n_max);
        return NULL;
    }
    peers->key   = hash_key_from_bytes(secret);
    peers->n_max = n_max;
    for (uint32_t i = 0; i < n_max; i++) {
        peers->chains[i]       = NONE;
        peers->entries[i].next = i + 1 < n_max ? i + 1 : NONE;
    }
    return peers;
}

void http_peers_free(http_peers **peers)
{
    if (*peers) {
        free((*peers)->chains);
        free((*peers)->entries);
        free(*peers);
        *peers = NULL;
    }
}

static void key_of(const struct sockaddr *address, uint8_t key[KEY_BYTES])
{
    memset(key, 0, KEY_BYTES);
    if (address->sa_family == AF_INET6) {
        const struct in6_addr *a  = &((const struct sockaddr_in6 *)address)->sin6_addr;
        bool                   v4 = IN6_IS_ADDR_V4MAPPED(a);
        key[0]                    = v4 ? 4 : 6;
        memcpy(key + 1, a->s6_addr + (v4 ? 12 : 0), v4 ? 4 : 8);
    } else {
        key[0] = 4;
        memcpy(key + 1, &((const struct sockaddr_in *)address)->sin_addr, 4);
    }
}

uint32_t http_peers_add(http_peers *peers, const struct sockaddr *address, uint32_t limit)
{
    uint8_t key[KEY_BYTES];
    key_of(address, key);
    uint32_t chain = (uint32_t)(hash_64(peers->key, key, KEY_BYTES) % peers->n_max);
    uint32_t at    = peers->chains[chain];
    while (at != NONE && memcmp(peers->entries[at].key, key, KEY_BYTES) != 0)
        at = peers->entries[at].next;
    if (at == NONE) {
        at = peers->unused;
        assert(at != NONE);
        entry *e      = &peers->entries[at];
        peers->unused = e->next;
        memcpy(e->key, key, KEY_BYTES);
        e->chain             = chain;
        e->next              = peers->chains[chain];
        peers->chains[chain] = at;
    } else if (limit > 0 && peers->entries[at].n_connections >= limit) {
        return HTTP_NO_PEER;
    }
    peers->entries[at].n_connections++;
    return at;
}

void http_peers_drop(http_peers *peers, uint32_t peer)
{
    assert(peer < peers->n_max && peers->entries[peer].n_connections > 0);
    entry *e = &peers->entries[peer];
    if (--e->n_connections > 0)
        return;
    uint32_t *link = &peers->chains[e->chain];
    while (*link != peer)
        link = &peers->entries[*link].next;
    *link         = e->next;
    e->next       = peers->unused;
    peers->unused = peer;
}
