/* The components of a tokenizer.json around its model: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Each function takes the component's JSON (NULL or null where the file has none) and sets what it asks for in the
 * tokenizer; a component that is not supported is ERR_UNSUPPORTED and named. */
#ifndef TROUPE_TEXT_TOKENIZER_JSON_STEPS_H
#define TROUPE_TEXT_TOKENIZER_JSON_STEPS_H

#include "text/tokenizer_parts.h"
#include <jansson.h>

/* What the components say of how the model's vocabulary is spelled. */
typedef struct {
    bool           byte_level; /* in GPT-2's alphabet of bytes; tokens print their bytes */
    token_printing printing;   /* where it is not */
} tokenizer_json_shape;

bool tokenizer_json_normalizer(tokenizer *t, const json_t *step, error *err);
bool tokenizer_json_pre_tokenizer(tokenizer *t, const json_t *pre_tokenizer, tokenizer_json_shape *shape, error *err);
bool tokenizer_json_decoder(const json_t *decoder, tokenizer_json_shape *shape, error *err);

/* The vocabulary, the model and the added tokens of the whole file, after the components before it. */
bool tokenizer_json_model(tokenizer *t, const json_t *root, const tokenizer_json_shape *shape, error *err);

/* After the vocabulary: a template's one token before the text is the beginning-of-sequence token, one behind
 * it the end-of-sequence token. */
bool tokenizer_json_post_processor(tokenizer *t, const json_t *post_processor, error *err);

/* The members of a Sequence under `key`; an error when it is deeper than any that makes sense. */
bool tokenizer_json_members(const json_t *sequence, const char *key, uint32_t depth, const json_t **members,
                            error *err);

/* ERR_UNSUPPORTED: `component` is a `what` of a type that is not one of `supported`. */
bool tokenizer_json_refuse(const char *what, const json_t *component, const char *supported, error *err);

/* A component's "type". */
span tokenizer_json_type(const json_t *component);

/* A boolean member; `missing` where there is none. */
bool tokenizer_json_flag(const json_t *object, const char *key, bool missing);

/* A string as a span; empty where it is none. */
span tokenizer_json_span(const json_t *string);

#endif
