/* The components of a tokenizer.json around its model: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Each function takes the component's JSON (NULL or null where the file has none) and sets what it asks for in the
 * tokenizer; a component that is not supported is ERR_UNSUPPORTED and named. */
#ifndef TROUPE_TEXT_TOKENIZER_JSON_STEPS_H
#define TROUPE_TEXT_TOKENIZER_JSON_STEPS_H

#include "text/tokenizer_parts.h"
#include <jansson.h>

bool tokenizer_json_normalizer(tokenizer *t, const json_t *normalizer, error *err);
bool tokenizer_json_pre_tokenizer(tokenizer *t, const json_t *pre_tokenizer, error *err);
bool tokenizer_json_decoder(const json_t *decoder, error *err);

/* After the vocabulary: a template's one token before the text is the beginning-of-sequence token. */
bool tokenizer_json_post_processor(tokenizer *t, const json_t *post_processor, error *err);

/* A boolean member; `missing` where there is none. */
bool tokenizer_json_flag(const json_t *object, const char *key, bool missing);

/* A string as a span; empty where it is none. */
span tokenizer_json_span(const json_t *string);

#endif
