/* Rewrites a text before it is cut into pieces, as the `normalizer` of a tokenizer.json asks: a list of steps, each
 * over what the step before made. Every byte keeps its trust mark.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_NORMALIZE_H
#define TROUPE_TEXT_NORMALIZE_H

#include "text/added_tokens.h"
#include "text/bert_normalize.h"
#include "text/charsmap.h"
#include "text/nfc.h"

typedef struct normalizer normalizer;

enum { NORMALIZER_STEPS_MAX = 8, NORMALIZER_STRING_BYTES_MAX = 64, NORMALIZER_GROWTH_MAX = 4096 };

/* A normalizer without steps: texts stay as they are. NULL with *err set: ERR_NO_MEMORY. */
normalizer *normalizer_new(error *err);
void        normalizer_free(normalizer **n);

/* Each adds a step; strings are copied. ERR_UNSUPPORTED past the limits above. */
bool normalizer_add_form(normalizer *n, normal_form form, error *err);
bool normalizer_add_bert(normalizer *n, const bert_options *options, error *err);
bool normalizer_add_prepend(normalizer *n, span text, error *err); /* before a text that is not empty */
bool normalizer_add_replace(normalizer *n, span pattern, span content, error *err); /* pattern is not empty */
bool normalizer_add_strip_accents(normalizer *n, error *err);                       /* every mark vanishes */

/* The matches of a regular expression as pretokenizer_add_regex takes it, with its errors. */
bool normalizer_add_replace_regex(normalizer *n, span pattern, span content, error *err);

/* Whitespace vanishes at the chosen ends of a text. */
bool normalizer_add_strip(normalizer *n, bool left, bool right, error *err);

/* A precompiled_charsmap, as its bytes; with charsmap_new's errors. */
bool normalizer_add_charsmap(normalizer *n, span bytes, charsmap_matching matching, error *err);

/* Blanks vanish at both ends of a text, and all but the first of a run: SentencePiece's remove_extra_whitespaces. */
bool normalizer_add_trim(normalizer *n, error *err);

/* The most bytes that a text of `text_bytes` becomes, and the scratch memory that making them takes, them included.
 * SIZE_MAX past what a size_t holds. */
size_t normalizer_bytes_max(const normalizer *n, size_t text_bytes);
size_t normalizer_scratch_bytes(const normalizer *n, size_t text_bytes);

/* Replaces *text by its normalized form, in scratch, where there are steps. What a step can only judge over several
 * characters (a normal form, a charsmap) it does for each run of bytes of one origin: what a user wrote can't alter the
 * template's words. What is put in for some bytes is trusted where all of them are. ERR_NO_MEMORY, ERR_TOO_LARGE where
 * a regular expression needs too many steps. */
bool normalizer_run(const normalizer *n, marked_text *text, arena *scratch, error *err) MUST_CHECK;

#endif
