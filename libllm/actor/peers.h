/* Who is connected to an actor: found by address for each message that arrives, by name for each answer. */
#ifndef TROUPE_ACTOR_PEERS_H
#define TROUPE_ACTOR_PEERS_H

#include "actor/actor.h"
#include "bus/transport.h"

/* The runtime's side of a peer. */
typedef struct peer_entry {
    peer public; /* first, so that a service's pointer is ours */
    char     name[BUS_NAME_BYTES + 1];
    char     version[33];
    uint32_t link;
    bool     is_server; /* at the other end of a connected link */
    uint32_t protocol;  /* that hello and welcome agreed on: of every message of the session */
    uint32_t identity_bytes;
    char     identity[TRANSPORT_IDENTITY_BYTES_MAX];
    char     key[TRANSPORT_KEY_BYTES + 1]; /* "" without CURVE */
    uint64_t sequence_in, sequence_out;    /* of the last message */
    uint32_t spendable;                    /* credits that it may still spend on us */
    uint32_t owed;                         /* credits to give back when the turn ends */
    uint32_t credits_first;                /* public.credits when nothing was sent yet */
    int64_t  heard_ns;
    bool     gone; /* says nothing any more; on_peer_down follows */

    struct peer_entry *next_of_address, *next_of_name, *next_gone;
} peer_entry;

enum { PEER_BUCKETS = 1024 };

/* Zero-initialised is empty. `all` is in order of arrival, which makes iteration the same in every run of a simulation.
 */
typedef struct {
    uint32_t    n;
    peer_entry *all[ACTOR_PEERS_MAX];
    peer_entry *by_address[PEER_BUCKETS], *by_name[PEER_BUCKETS];
} peer_table;

/* A new entry; the name must be new too. NULL when the table is full or there is no memory. */
peer_entry *peer_table_add(peer_table *table, uint32_t link, span identity, span name);
void        peer_table_remove(peer_table *table, peer_entry *entry); /* frees it */
peer_entry *peer_table_at(const peer_table *table, uint32_t link, span identity);
peer_entry *peer_table_named(const peer_table *table, span name);
void        peer_table_check(const peer_table *table); /* asserts that the three views agree */

#endif
