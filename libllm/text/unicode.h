/* What a tokenizer needs to know of a code point: the classes that pre-tokenizer rules and added tokens ask about.
 *
 * The tables are Unicode 16.0, the version that Hugging Face `tokenizers` matches its regular expressions with; they
 * are made by unicode_tables.py. Texts may be invalid UTF-8: a byte that is not part of a well-formed sequence is a
 * character of no class, so rules treat it as they treat a symbol. */
#ifndef TROUPE_TEXT_UNICODE_H
#define TROUPE_TEXT_UNICODE_H

#include "base/span.h"

/* General categories by their first letter, and two properties. A code point may have several; unassigned ones have
 * none. */
enum {
    UNICODE_LETTER      = 1 << 0, /* L */
    UNICODE_UPPER       = 1 << 1, /* Lu, Lt */
    UNICODE_LOWER       = 1 << 2, /* Ll */
    UNICODE_NUMBER      = 1 << 3, /* N: Nd, Nl, No */
    UNICODE_MARK        = 1 << 4, /* M */
    UNICODE_PUNCTUATION = 1 << 5, /* P */
    UNICODE_SYMBOL      = 1 << 6, /* S */
    UNICODE_SPACE       = 1 << 7, /* White_Space, what \s means */
    UNICODE_WORD        = 1 << 8, /* what \w means by UTS #18: Alphabetic, M, Nd, Pc, Join_Control */
};

enum { UNICODE_PAGE_BITS = 7, UNICODE_PAGES = 0x110000 >> UNICODE_PAGE_BITS };

extern const uint16_t unicode_ascii[128];
extern const uint8_t  unicode_page_of[UNICODE_PAGES];          /* code point >> UNICODE_PAGE_BITS -> page */
extern const uint8_t  unicode_pages[][1 << UNICODE_PAGE_BITS]; /* page -> class set */
extern const uint16_t unicode_class_sets[];                    /* class set -> UNICODE_ bits */

/* The classes of a code point; 0 past U+10FFFF. */
uint32_t unicode_classes(uint32_t code_point);

typedef struct {
    uint32_t classes;
    uint32_t n_bytes; /* 1 to 4; 1 for a byte that is not UTF-8 */
} unicode_character;

unicode_character unicode_multibyte_at(span text, size_t at);

/* The character that begins at byte `at`, which is less than text.size. */
static inline unicode_character unicode_at(span text, size_t at)
{
    uint8_t byte = (uint8_t)text.data[at];
    return byte < 0x80 ? (unicode_character){unicode_ascii[byte], 1} : unicode_multibyte_at(text, at);
}

/* The character that ends before byte `at`, which is more than 0. */
unicode_character unicode_before(span text, size_t at);

#endif
