/* Byte-pair encoding (Sennrich et al., 2016): a piece of text becomes tokens by merging neighbours.
 *
 * Every byte begins as a token of its own, or, where the vocabulary is one of characters, every character; one that is
 * no token is then spelled in tokens of its bytes. Then, again and again, the pair of neighbours whose merge was
 * learned first is merged, the leftmost one of those that are as good, until no pair has a merge. A piece falls apart
 * where no token holds the two bytes that meet; a short run does its merges by scanning, a long one with a heap, in
 * O(n log n). A piece that is a token of the vocabulary, as most words are, is looked up whole.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_BPE_H
#define TROUPE_TEXT_BPE_H

#include "base/arena.h"
#include "text/vocabulary.h"

typedef struct bpe bpe;

/* Scratch memory that encoding a piece may take, for a byte of it. */
enum { BPE_SCRATCH_BYTES_PER_BYTE = 28 };

typedef struct {
    span left, right; /* the bytes of two tokens of the vocabulary; their concatenation is one too */
} bpe_merge;

typedef struct {
    const vocabulary *vocabulary; /* borrowed; its TOKEN_NORMAL tokens are what merges speak of */
    uint32_t          n_merges;
    uint32_t          unknown;       /* stands for a byte (or character) without a token; VOCABULARY_NONE drops them */
    bool              fuse_unknown;  /* one `unknown` for a run of such bytes */
    bool              characters;    /* pieces are UTF-8; an invalid byte is a character */
    bool              byte_fallback; /* for characters: the TOKEN_BYTE tokens stand for what is no token */
    bool              ignore_merges; /* a piece that is a token is that token, whether or not merges lead there */
} bpe_options;

/* A BPE without merges, with room for n_merges. NULL with *err set: ERR_NO_MEMORY. */
bpe *bpe_new(const bpe_options *options, error *err);
void bpe_free(bpe **b);

/* The next merge in order of rank. One that a special token has a part in is left out: merges never make one of a text.
 * ERR_INVALID names a merge of what is not in the vocabulary. */
bool bpe_add_merge(bpe *b, bpe_merge merge, error *err);

/* A merge of the normal tokens `left` and `right` into `token`, of any rank: some may be equally good. */
void bpe_add_ranked_merge(bpe *b, uint32_t rank, uint32_t left, uint32_t right, uint32_t token);

/* Ends building: finds the tokens that can be looked up whole. Call once, before the first bpe_encode. */
void bpe_finish(bpe *b);

/* Encodes one piece, not empty, of any bytes. Writes at most n_max tokens; *n_tokens is how many. ERR_TOO_LARGE when
 * there are more, ERR_NO_MEMORY when scratch has fewer than BPE_SCRATCH_BYTES_PER_BYTE x piece.size + 1 KiB left. */
bool bpe_encode(const bpe *b, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                error *err) MUST_CHECK;

#endif
