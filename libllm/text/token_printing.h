/* How tokens become text: the `decoder` of a tokenizer.json. What a token prints depends on nothing but whether it is
 * the first of its text, so both are made once, for every token. */
#ifndef TROUPE_TEXT_TOKEN_PRINTING_H
#define TROUPE_TEXT_TOKEN_PRINTING_H

#include "text/vocabulary.h"

/* What a text's first token leaves out. */
typedef enum {
    START_AS_ELSEWHERE,
    START_WITHOUT_ONE_BLANK, /* a blank at its beginning */
    START_WITHOUT_BLANKS,    /* every blank that stands for a U+2581 */
    START_WITHOUT_JOINT,     /* nothing, and a continuing token keeps its prefix */
} text_start;

typedef struct {
    bool       blanks; /* U+2581 prints as a blank */
    bool       bytes;  /* "<0x0A>" prints as its byte */
    text_start start;
    span       prefix;  /* START_WITHOUT_JOINT: a token prints behind a blank, or, beginning with this, without it */
    bool       cleanup; /* no blank before . , ? ! n't 'm 's 've 're, and the like */
} token_printing;

/* What each token of `spelled` prints, inside a text or as its first; the ids are the same. NULL with *err set:
 * ERR_NO_MEMORY, ERR_UNSUPPORTED when a token becomes too long. */
vocabulary *printed_tokens(const vocabulary *spelled, const token_printing *how, bool first, error *err);

#endif
