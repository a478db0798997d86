/* From the JSON body of OpenAI's chat and completion requests to text.request.
 *
 * Strict: a field of the wrong type, out of range, given twice or asking for something this server does not do is
 * refused, and the refusal names the field as OpenAI's `param`. Fields nobody here knows are ignored, as OpenAI does,
 * and listed for the debug log. Besides OpenAI's fields it takes vLLM's (top_k, min_p, ignore_eos, use_beam_search,
 * ...); the README has the whole list. */
#ifndef TROUPE_GATEWAY_OPENAI_REQUEST_H
#define TROUPE_GATEWAY_OPENAI_REQUEST_H

#include "base/arena.h"
#include "bus/messages.h"

#include <jansson.h>

typedef enum { OPENAI_CHAT = 1, OPENAI_COMPLETION = 2 } openai_api;

enum {
    OPENAI_PROMPTS_MAX        = 256, /* prompts of one completion request */
    OPENAI_CHOICES_MAX        = 1024,
    OPENAI_TOKENS_MAX         = 1048576,
    OPENAI_COMPLETION_DEFAULT = 16, /* max_tokens of a completion that doesn't say, as OpenAI has it */
};

/* One prompt of a completion request. */
typedef struct {
    bool            is_tokens;
    span            text;
    uint32_t        n_tokens;
    const uint32_t *tokens;
} openai_prompt;

typedef struct {
    openai_api           api;
    text_request         request; /* all but the prompt of a completion; seed, reply_to and tenant are the caller's */
    uint32_t             n_prompts;
    const openai_prompt *prompts; /* completions */
    span                 model;   /* as the client says it; empty when it does not */
    span                 user;
    double               timeout_s; /* 0: the server's */
    bool                 stream, include_usage;
    bool                 has_seed;
    bool                 has_session;
    bool                 has_logprobs;   /* completions: logprobs is a number */
    bool                 score_only;     /* max_tokens is 0: only the prompt's log probabilities are wanted */
    span                 unknown_fields; /* names, for the debug log */
} openai_request;

/* What was wrong with a request. */
typedef struct {
    error error;
    char  field[96]; /* "messages[2].content"; "" when no field is at fault */
} openai_fault;

/* Fills *out from `body`; all memory is taken from `memory`. False with *fault set. */
bool openai_request_parse(openai_api api, span body, arena *memory, openai_request *out,
                          openai_fault *fault) MUST_CHECK;

/* The name of field i that a chat or a completion may have, those that are refused too; NULL: no more. */
const char *openai_field_name(size_t i);

/* The bodies of /tokenize ({"prompt"} or {"messages"}, "add_generation_prompt", "parse_special", "model") and
 * /detokenize ({"tokens", "model"}). */
bool openai_tokenize_parse(span body, arena *memory, text_encode *out, span *model, openai_fault *fault) MUST_CHECK;
bool openai_detokenize_parse(span body, arena *memory, text_decode *out, span *model, openai_fault *fault) MUST_CHECK;

/* ---- for the parsers in openai_request.c, openai_prompt.c and openai_pooled.c ---- */

typedef struct {
    arena        *memory;
    openai_fault *fault;
} openai_parser;

/* Sets the fault and returns false. `field` is copied. */
bool openai_refuse(openai_parser *p, error_code code, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Parses a body into an object the caller gives back with json_decref; NULL with the fault set. */
json_t *openai_json(openai_parser *p, span body);

/* A field of an object. One that is null is absent: clients that fill a struct send it for what they don't use. */
const json_t *openai_get(const json_t *root, const char *name);

/* A string of at most `bytes_max`, copied. */
bool openai_string(openai_parser *p, const json_t *value, const char *field, size_t bytes_max, span *out);

/* A value as compact JSON text. */
bool openai_raw(openai_parser *p, const json_t *value, const char *field, size_t bytes_max, span *out);

/* Whether it is a whole number; 5.0 is one too, as JSON Schema has it, up to 2^53. */
bool openai_integer(const json_t *value, int64_t *out);

/* A list of token ids. */
bool openai_tokens(openai_parser *p, const json_t *list, const char *field, uint32_t *n, const uint32_t **tokens);

/* A switch, a whole number, `timeout` and `priority`; what is absent or null stays as it is. */
bool openai_bool(openai_parser *p, const json_t *root, const char *name, bool *out);
bool openai_whole(openai_parser *p, const json_t *root, const char *name, double min, double max, uint32_t *out);
bool openai_timeout(openai_parser *p, const json_t *root, double *seconds);
bool openai_priority(openai_parser *p, const json_t *root, int32_t *priority);

/* `messages`; and one text or list of token ids, or a list of at most n_max of them, that the client calls `name`. */
bool openai_messages(openai_parser *p, const json_t *value, uint32_t *n, const chat_message **messages);
bool openai_prompts(openai_parser *p, const json_t *value, const char *name, uint32_t n_max, uint32_t *n,
                    const openai_prompt **prompts);

#endif
