/* UTF-8, strictly: the well-formed byte sequences of Unicode 15, table 3-7, and nothing else.
 *
 * Overlong forms, surrogates (U+D800..U+DFFF) and everything past U+10FFFF are invalid. */
#ifndef TROUPE_BASE_UTF8_H
#define TROUPE_BASE_UTF8_H

#include "base/span.h"

enum { UTF8_BYTES_MAX = 4 };

#define UTF8_REPLACEMENT UINT32_C(0xFFFD)

/* Reads the code point at the start of `text` into *code_point and returns its length, 1 to 4. Returns 0 when the text
 * is empty or does not begin with a whole, well-formed sequence; *code_point is then U+FFFD. */
size_t utf8_decode(span text, uint32_t *code_point);

/* Writes `code_point` to out[0..3] and returns its length; 0 for a surrogate or a number past U+10FFFF. */
size_t utf8_encode(uint32_t code_point, char out[UTF8_BYTES_MAX]);

bool utf8_is_valid(span text);

/* The bytes of the longest valid prefix. */
size_t utf8_valid_prefix(span text);

/* The bytes at the start of `text` that one U+FFFD stands for when utf8_decode returned 0: the "maximal subpart" of
 * Unicode 15 section 3.9, at least 1 and at most 3. `text` is not empty. When that is the whole of `text` and
 * *may_continue is set, more bytes could still complete the sequence. `may_continue` may be NULL. */
size_t utf8_invalid_length(span text, bool *may_continue);

#endif
