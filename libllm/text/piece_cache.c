/* A slot is a cache line. */
#include "text/piece_cache.h"

#include "text/vocabulary.h"

enum { SLOTS_MAX = 8192, TEXT_BYTES_PER_SLOT = 16 };

_Static_assert(sizeof(piece_slot) == 64, "a cache line");

static size_t slots_for(size_t text_bytes)
{
    size_t n = 1;
    while (n < SLOTS_MAX && 2 * n <= text_bytes / TEXT_BYTES_PER_SLOT)
        n *= 2;
    return n;
}

size_t piece_cache_bytes(size_t text_bytes)
{
    return slots_for(text_bytes) * sizeof(piece_slot);
}

piece_cache piece_cache_new(size_t text_bytes, arena *scratch)
{
    size_t n = slots_for(text_bytes);
    return (piece_cache){arena_take_array(scratch, n, sizeof(piece_slot)), n - 1};
}

static void key_of(span piece, uint64_t key[4])
{
    memset(key, 0, 4 * sizeof *key);
    memcpy(key, piece.data, piece.size);
    key[3] |= (uint64_t)piece.size << 56;
}

piece_slot *piece_cache_find(const piece_cache *cache, span piece, bool *found)
{
    uint64_t key[4];
    *found = false;
    if (!cache->slots || piece.size > PIECE_CACHE_PIECE_BYTES_MAX)
        return NULL;
    key_of(piece, key);
    uint64_t    hash = vocabulary_mix(key[0], key[1]) ^ vocabulary_mix(key[2], key[3]);
    piece_slot *slot = &cache->slots[hash & cache->mask];
    *found           = memcmp(slot->key, key, sizeof key) == 0;
    return slot;
}

void piece_cache_keep(piece_slot *slot, span piece, const uint32_t *tokens, size_t n_tokens)
{
    if (!slot || n_tokens > PIECE_CACHE_TOKENS_MAX)
        return;
    key_of(piece, slot->key);
    memcpy(slot->tokens, tokens, n_tokens * sizeof *tokens);
    slot->n_tokens = (uint32_t)n_tokens;
}
