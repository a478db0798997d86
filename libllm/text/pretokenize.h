/* Cuts a text into the pieces that a model works on: no token crosses from one piece into the next.
 *
 * A pre-tokenizer is a list of steps, each of which cuts the pieces of the step before. The rules that most models
 * share are hand-written scanners: one pass, no backtracking, linear on any input. Any other regular expression of a
 * tokenizer.json runs in PCRE2's JIT under a match limit.
 *
 * Immutable once built and then shared by threads. */
#ifndef TROUPE_TEXT_PRETOKENIZE_H
#define TROUPE_TEXT_PRETOKENIZE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"

typedef struct pretokenizer pretokenizer;

enum { PRETOKENIZER_STEPS_MAX = 16, PRETOKENIZER_PATTERN_BYTES_MAX = 16 << 10 };

/* What one step does. The expressions are Oniguruma's, over Unicode:
 * CONTRACTION is 's|'t|'re|'ve|'m|'ll|'d
 * GPT2        CONTRACTION| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * LLAMA3      (?i:CONTRACTION)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * QWEN2       the same with \p{N} */
typedef enum {
    PRETOKENIZE_GPT2,
    PRETOKENIZE_LLAMA3,
    PRETOKENIZE_QWEN2,
    PRETOKENIZE_DIGITS,       /* each \p{N} is a piece of its own */
    PRETOKENIZE_DIGIT_RUNS,   /* each \p{N}+ is */
    PRETOKENIZE_WHITESPACE,   /* whitespace vanishes; what lies between is a piece */
    PRETOKENIZE_BERT,         /* the same, and each punctuation character is a piece of its own */
    PRETOKENIZE_WORDS,        /* \w+|[^\w\s]+, and whitespace vanishes */
    PRETOKENIZE_PUNCTUATION,  /* each punctuation character is a piece of its own */
    PRETOKENIZE_BLANK_WORDS,  /* a piece begins at each U+2581 */
    PRETOKENIZE_BLANK_RUNS,   /* a piece begins at each U+2581 that follows another character */
    PRETOKENIZE_PREFIX_SPACE, /* a piece that begins with no space gets one */
} pretokenize_rule;

/* Where Metaspace, which turns blanks into U+2581, puts one before a piece that begins with none. */
typedef enum {
    METASPACE_NEVER,
    METASPACE_FIRST, /* only before the text's first piece */
    METASPACE_ALWAYS,
} metaspace_prefix;

/* What becomes of the matches of a regular expression and of what lies between them. */
typedef enum {
    PRETOKENIZE_ISOLATED,     /* matches and gaps are pieces */
    PRETOKENIZE_KEEP_GAPS,    /* matches vanish */
    PRETOKENIZE_KEEP_MATCHES, /* gaps vanish */
    PRETOKENIZE_JOIN_TO_GAPS, /* a match belongs to the gap before it, if there is one */
} pretokenize_behavior;

/* A pre-tokenizer without steps: the whole text is one piece. NULL with *err set: ERR_NO_MEMORY. */
pretokenizer *pretokenizer_new(error *err);
void          pretokenizer_free(pretokenizer **p);

/* Adds a step. ERR_UNSUPPORTED past PRETOKENIZER_STEPS_MAX. */
bool pretokenizer_add(pretokenizer *p, pretokenize_rule rule, error *err);

/* Adds a regular expression, as a step above where it is one of those. ERR_UNSUPPORTED names what in `pattern` PCRE2
 * would read otherwise than Oniguruma does; ERR_INVALID is a syntax error. */
bool pretokenizer_add_regex(pretokenizer *p, span pattern, pretokenize_behavior behavior, error *err);

/* Adds Metaspace; PRETOKENIZE_BLANK_WORDS is a step of its own. ERR_UNSUPPORTED when there is one already. */
bool pretokenizer_add_metaspace(pretokenizer *p, metaspace_prefix prefix, error *err);

/* The most bytes that a byte of text becomes in a copy that `scratch` holds; 1 where only a prefix space is added. */
size_t pretokenizer_growth(const pretokenizer *p);

/* Takes one piece; it dies after the call. False, with *err set, ends the run. */
typedef bool (*pretokenize_sink)(void *context, span piece, error *err);

/* Gives the pieces of `text` to `sink` in order; none is empty. `at_start` says whether the whole text begins with it.
 * Fails as the sink does, with ERR_NO_MEMORY when
 * `scratch` is too small (a prefix copies its piece), and with ERR_TOO_LARGE where an expression meets its match
 * limit. */
bool pretokenizer_run(const pretokenizer *p, span text, bool at_start, arena *scratch, pretokenize_sink sink,
                      void *context, error *err) MUST_CHECK;

#endif
