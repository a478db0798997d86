/* How many characters of text the tokens so far made: where in the text a token begins. */
#ifndef TROUPE_POSTPROCESSOR_TEXT_POSITION_H
#define TROUPE_POSTPROCESSOR_TEXT_POSITION_H

#include "base/utf8.h"

/* Zero-initialised it is the beginning. */
typedef struct {
    uint32_t n_characters; /* whole ones; each ill-formed sequence counts as one U+FFFD */
    uint32_t n_partial;
    char     partial[UTF8_BYTES_MAX];
} text_position;

void text_position_advance(text_position *p, span token);

#endif
