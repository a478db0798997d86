/* Renders a model's chat template: a Jinja subset, evaluated in C over the request's messages.
 *
 * The template comes from a model file and is hostile: parsing and evaluation are bounded in steps, output bytes, depth
 * and memory, and reach nothing but the values given. The result is a list of parts with their origin: text that the
 * template itself wrote is trusted, text that came from a value (a user's words) is not, through every filter and
 * concatenation. So the tokenizer can refuse to make control tokens of what a user typed. */
#ifndef TROUPE_TEXT_CHAT_TEMPLATE_H
#define TROUPE_TEXT_CHAT_TEMPLATE_H

#include "text/tokenizer.h"
#include <jansson.h>

typedef struct chat_template chat_template;

enum {
    CHAT_TEMPLATE_BYTES_MAX = 256 << 10,
    CHAT_TEMPLATE_DEPTH_MAX = 64,
    CHAT_TEMPLATE_STEPS_MAX = 4 << 20,
};

/* Parses once. The error names line and column and what was expected. */
chat_template *chat_template_new(span source, error *err);
void           chat_template_free(chat_template **t);

/* `variables` is a JSON object: messages, add_generation_prompt, tools, bos_token, eos_token, and what the caller adds
 * (as transformers does, give tools and documents as null where there are none). Strings in it are untrusted, except
 * the values of the keys bos_token, eos_token, unk_token and pad_token. `now_unix_s` is what strftime_now sees, in UTC.
 * parts are in `memory`, one behind the other without a gap: adjacent ones differ in origin, none is empty. `memory`
 * needs some 4 x the output and 1 MiB. ERR_INVALID: raise_exception (with the template's own words), any other error in
 * the template, or its limits of steps and depth; ERR_TOO_LARGE: the output is over output_bytes_max; ERR_NO_MEMORY:
 * `memory` is too small. Thread-safe. */
bool chat_template_render(const chat_template *t, const json_t *variables, int64_t now_unix_s, size_t output_bytes_max,
                          arena *memory, text_part **parts, uint32_t *n_parts, error *err) MUST_CHECK;

#endif
