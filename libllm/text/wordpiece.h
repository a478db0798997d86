/* WordPiece (Schuster and Nakajima, 2012), as BERT uses it: a word is cut into the longest token it begins with, the
 * longest continuing token ("##ing") that follows, and so on; a word that can't be cut to its end is unknown.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_WORDPIECE_H
#define TROUPE_TEXT_WORDPIECE_H

#include "base/arena.h"
#include "text/vocabulary.h"

typedef struct wordpiece wordpiece;

typedef struct {
    const vocabulary *vocabulary;       /* borrowed; its TOKEN_NORMAL tokens are what words are cut into */
    span              prefix;           /* of continuing tokens; copied */
    uint32_t          unknown;          /* VOCABULARY_NONE drops words that are unknown */
    size_t            n_characters_max; /* a longer word is unknown */
} wordpiece_options;

/* NULL with *err set: ERR_NO_MEMORY, ERR_UNSUPPORTED past the limit. */
wordpiece *wordpiece_new(const wordpiece_options *options, error *err);
void       wordpiece_free(wordpiece **w);

/* Encodes one word, not empty, of any bytes; takes no scratch memory. ERR_TOO_LARGE when there are more than n_max
 * tokens. Time is bound by the longest token. */
bool wordpiece_encode(const wordpiece *w, span word, uint32_t *tokens, size_t n_max, size_t *n_tokens,
                      error *err) MUST_CHECK;

#endif
