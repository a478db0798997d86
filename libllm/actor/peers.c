/* The table of peers: an array for iteration, two chained hash tables for finding. Peers pick their identities, but
 * only one of each, and at most ACTOR_PEERS_MAX are in: long chains are no attack worth a keyed hash. */
#include "actor/peers.h"

#include <assert.h>
#include <stdlib.h>

/* FNV-1a (Fowler, Noll, Vo). */
static uint32_t bucket_of(uint32_t link, span text)
{
    uint64_t hash = 14695981039346656037u ^ link;
    for (size_t i = 0; i < text.size; i++)
        hash = (hash ^ (uint8_t)text.data[i]) * 1099511628211u;
    return (uint32_t)(hash >> 32 ^ hash) % PEER_BUCKETS;
}

static span identity_of(const peer_entry *entry)
{
    return (span){entry->identity, entry->identity_bytes};
}

peer_entry *peer_table_add(peer_table *table, uint32_t link, span identity, span name)
{
    assert(identity.size <= TRANSPORT_IDENTITY_BYTES_MAX && name.size <= BUS_NAME_BYTES);
    assert(!peer_table_at(table, link, identity) && !peer_table_named(table, name));
    peer_entry *entry = table->n < ACTOR_PEERS_MAX ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return NULL;
    memcpy(entry->name, name.data, name.size);
    if (identity.size)
        memcpy(entry->identity, identity.data, identity.size);
    entry->identity_bytes  = (uint32_t)identity.size;
    entry->link            = link;
    entry->public.name     = entry->name;
    table->all[table->n++] = entry;

    peer_entry **address   = &table->by_address[bucket_of(link, identity)];
    peer_entry **named     = &table->by_name[bucket_of(0, name)];
    entry->next_of_address = *address;
    entry->next_of_name    = *named;
    *address = *named = entry;
    return entry;
}

void peer_table_remove(peer_table *table, peer_entry *entry)
{
    peer_entry **address = &table->by_address[bucket_of(entry->link, identity_of(entry))];
    peer_entry **named   = &table->by_name[bucket_of(0, span_of(entry->name))];
    while (*address != entry)
        address = &(*address)->next_of_address;
    while (*named != entry)
        named = &(*named)->next_of_name;
    *address = entry->next_of_address;
    *named   = entry->next_of_name;

    uint32_t i = 0;
    while (table->all[i] != entry)
        i++;
    memmove(&table->all[i], &table->all[i + 1], (--table->n - i) * sizeof table->all[0]);
    free(entry);
}

peer_entry *peer_table_at(const peer_table *table, uint32_t link, span identity)
{
    peer_entry *entry = table->by_address[bucket_of(link, identity)];
    while (entry && !(entry->link == link && span_equal(identity_of(entry), identity)))
        entry = entry->next_of_address;
    return entry;
}

peer_entry *peer_table_named(const peer_table *table, span name)
{
    peer_entry *entry = table->by_name[bucket_of(0, name)];
    while (entry && !span_is(name, entry->name))
        entry = entry->next_of_name;
    return entry;
}

void peer_table_check(const peer_table *table)
{
    for (uint32_t i = 0; i < table->n; i++) {
        const peer_entry *entry = table->all[i];
        assert(peer_table_at(table, entry->link, identity_of(entry)) == entry);
        assert(peer_table_named(table, span_of(entry->name)) == entry);
    }
}
