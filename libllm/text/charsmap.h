/* SentencePiece's precompiled_charsmap: which characters, or short runs of them, a model's normalization replaces, and
 * by what. Models trained with nmt_nfkc (T5, XLM-R, ...) bring theirs along.
 *
 * The bytes are a 32-bit size; a double array of that size in the layout of Darts-clone, whose keys are UTF-8 and whose
 * values are places in what follows; and the replacements, each with a NUL behind it. All integers are little-endian.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_CHARSMAP_H
#define TROUPE_TEXT_CHARSMAP_H

#include "base/error.h"
#include "base/span.h"

typedef struct charsmap charsmap;

enum { CHARSMAP_BYTES_MAX = 4 << 20, CHARSMAP_REPLACEMENT_BYTES_MAX = 1024 };

typedef enum {
    /* SentencePiece: the longest key that the rest of the text begins with. */
    CHARSMAP_LONGEST,
    /* `tokenizers` (normalizers/precompiled.rs): a grapheme of fewer than 6 bytes becomes, as a whole, what the
     * shortest key stands for that it begins with; the characters of any other one become each what it stands for. */
    CHARSMAP_GRAPHEMES,
} charsmap_matching;

/* Copies `bytes` and checks all that a text can lead to. NULL with *err set: ERR_INVALID, ERR_UNSUPPORTED past the
 * limits, ERR_NO_MEMORY. */
charsmap *charsmap_new(span bytes, error *err);
void      charsmap_free(charsmap **map);

/* The most bytes that a byte of text becomes; at least 1. */
size_t charsmap_growth(const charsmap *map);

/* Writes `text` normalized to `out`, which has room for charsmap_growth times its bytes, and returns how many were
 * written. Bytes that are not UTF-8 stay. Linear time. */
size_t charsmap_normalize(const charsmap *map, span text, charsmap_matching matching, char *out);

#endif
