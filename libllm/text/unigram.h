/* SentencePiece's unigram model (Kudo, 2018): of all ways to cut a piece of text into tokens, the one whose log
 * probabilities add up to most.
 *
 * Viterbi's algorithm over the bytes of the piece, in the order and in the double precision of `tokenizers`, so that
 * ties fall alike. A character that is no token costs more than any token; a run of such characters becomes the tokens
 * of its bytes, where the vocabulary has them all, or one unknown token.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_UNIGRAM_H
#define TROUPE_TEXT_UNIGRAM_H

#include "base/arena.h"
#include "text/vocabulary.h"

typedef struct unigram unigram;

/* Scratch memory that encoding a piece may take, for a byte of it; time is bound by the longest token. */
enum { UNIGRAM_SCRATCH_BYTES_PER_BYTE = 16 };

typedef struct {
    const vocabulary *vocabulary; /* borrowed; its TOKEN_NORMAL tokens are what texts are cut into */
    const double     *scores;     /* [n_tokens], borrowed: log probabilities */
    uint32_t          unknown;    /* VOCABULARY_NONE drops what is unknown */
    bool              byte_fallback;
    double            lowest_score;
} unigram_options;

/* NULL with *err set: ERR_NO_MEMORY, ERR_UNSUPPORTED past the limit. */
unigram *unigram_new(const unigram_options *options, error *err);
void     unigram_free(unigram **u);

/* As bpe_encode: one piece, not empty, of any bytes; a byte that is not UTF-8 is a character. ERR_TOO_LARGE when there
 * are more than n_max tokens, ERR_NO_MEMORY when a long piece needs scratch and it has fewer than
 * UNIGRAM_SCRATCH_BYTES_PER_BYTE x piece.size + 1 KiB left. */
bool unigram_encode(const unigram *u, span piece, arena *scratch, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                    error *err) MUST_CHECK;

#endif
