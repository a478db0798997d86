/* Finds the tokens that are matched whole, before anything else looks at the text: control tokens and what a model's
 * authors added to its vocabulary.
 *
 * Follows `tokenizers`' AddedVocabulary: leftmost match first, the longest of those that begin there, then the token's
 * flags. Texts carry a trust mark for every byte: a special token is one only where all its bytes are trusted. */
#ifndef TROUPE_TEXT_ADDED_TOKENS_H
#define TROUPE_TEXT_ADDED_TOKENS_H

#include "base/error.h"
#include "base/span.h"

typedef struct added_tokens added_tokens;

enum {
    ADDED_SPECIAL     = 1, /* only in trusted text */
    ADDED_SINGLE_WORD = 2, /* not next to a word character */
    ADDED_LSTRIP      = 4, /* takes the whitespace before it */
    ADDED_RSTRIP      = 8, /* and after it */
};

typedef struct {
    span     text; /* copied; an empty one never matches */
    uint32_t token;
    uint32_t flags;
} added_token;

/* The last of two with the same text counts. NULL with *err set: ERR_NO_MEMORY. */
added_tokens *added_tokens_new(const added_token *list, uint32_t n, error *err);
void          added_tokens_free(added_tokens **a);

/* A text and where each byte comes from: trusted[i] is 1 where the template wrote it, 0 where a user did. */
typedef struct {
    const char    *data;
    const uint8_t *trusted;
    size_t         size;
} marked_text;

/* One search through one text. Begin with only .added and .text set. */
typedef struct {
    const added_tokens *added;
    marked_text         text;
    size_t              at;   /* where the search goes on */
    size_t              done; /* the end of the last token found; the text from here to *start is no token's */
} added_search;

/* The next token: true with its range in the text, stripped whitespace included. *start may lie before s->done where
 * the token before took the whitespace it would begin with. False at the end of the text. */
bool added_tokens_next(added_search *s, size_t *start, size_t *end, uint32_t *token);

#endif
