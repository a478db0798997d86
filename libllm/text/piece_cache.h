/* The tokens of the pieces that came last: most words of a text come again, and finding them here takes less than
 * cutting them into tokens.
 *
 * A table of fixed size in the memory of one call, a slot for each hash of a piece: a piece that falls on another's
 * slot replaces it. Long pieces and those of many tokens are never kept. */
#ifndef TROUPE_TEXT_PIECE_CACHE_H
#define TROUPE_TEXT_PIECE_CACHE_H

#include "base/arena.h"

enum { PIECE_CACHE_TOKENS_MAX = 7, PIECE_CACHE_PIECE_BYTES_MAX = 31 };

typedef struct {
    uint64_t key[4]; /* the piece's bytes, zeros, and their number in the last byte; 0 in an empty slot */
    uint32_t tokens[PIECE_CACHE_TOKENS_MAX];
    uint32_t n_tokens;
} piece_slot;

typedef struct {
    piece_slot *slots; /* NULL where nothing is kept */
    size_t      mask;
} piece_cache;

/* The memory of a cache for a text of this size: it grows with the text, to half a megabyte. */
size_t piece_cache_bytes(size_t text_bytes);

/* An empty cache in `scratch`. */
piece_cache piece_cache_new(size_t text_bytes, arena *scratch);

/* The slot of `piece`: with its tokens, where *found; else where they can be kept with piece_cache_keep, or NULL. */
piece_slot *piece_cache_find(const piece_cache *cache, span piece, bool *found);

/* Puts the piece's tokens into the slot that was not found, if they fit. */
void piece_cache_keep(piece_slot *slot, span piece, const uint32_t *tokens, size_t n_tokens);

#endif
