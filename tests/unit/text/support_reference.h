/* The reference data in tests/data/tokenizer, and what tests of the tokenizer share. */
#ifndef TROUPE_TESTS_TEXT_SUPPORT_REFERENCE_H
#define TROUPE_TESTS_TEXT_SUPPORT_REFERENCE_H

#include "text/tokenizer.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { REFERENCE_TOKENS_MAX = 4096 };

/* The JSON of tests/data/tokenizer/<name>; fails the test when it can't be read. The caller owns it. */
json_t *reference_json(const char *name);

/* A JSON string's bytes. */
span reference_text(const json_t *string);

/* The tokenizer in tests/data/tokenizer/<name> (of its GGUF file, where the name begins with "gguf-"), and the demo
 * model's; fail the test when they can't be read. */
tokenizer *reference_tokenizer(const char *name);
tokenizer *reference_smollm2(void);

/* Encodes into tokens[REFERENCE_TOKENS_MAX]; fails the test when it can't. Returns how many. */
uint32_t reference_encode(const tokenizer *t, const text_part *parts, uint32_t n_parts, uint32_t *tokens);

/* A fixed sequence of pseudo-random numbers below `bound`. */
uint32_t reference_random(uint64_t *state, uint32_t bound);

#endif
