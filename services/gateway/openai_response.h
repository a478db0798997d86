/* From text.delta to the JSON of OpenAI's answers: whole bodies, and the chunks of a stream.
 *
 * Everything is written into a json_out; nothing here knows of HTTP or of the bus. */
#ifndef TROUPE_GATEWAY_OPENAI_RESPONSE_H
#define TROUPE_GATEWAY_OPENAI_RESPONSE_H

#include "base/json_out.h"
#include "bus/messages.h"
#include "services/gateway/openai_request.h"

/* What is the same in every chunk of an answer. */
typedef struct {
    openai_api api;
    span       id; /* "chatcmpl-..." or "cmpl-..." */
    span       model;
    int64_t    created_s;
    bool       include_usage; /* chunks say "usage": null until the last one */
    bool       has_logprobs;  /* "logprobs" is an object, else null */
    uint32_t   n_top_logprobs;
} openai_answer;

/* A piece of one choice, or all of it. */
typedef struct {
    uint32_t            index;
    span                text;
    uint32_t            n_logprobs;
    const text_logprob *logprobs;
    finish_reason       finish;
    span                stop_reason;
} openai_choice;

/* One chunk with a piece of one choice. `first`: of this choice, it carries the role. */
void openai_chunk(json_out *j, const openai_answer *answer, const openai_choice *choice, bool first);

/* The chunk after the last: no choices, only usage. */
void openai_usage_chunk(json_out *j, const openai_answer *answer, const usage *cost);

/* A whole answer. */
void openai_body(json_out *j, const openai_answer *answer, const openai_choice *choices, uint32_t n_choices,
                 const usage *cost);

/* {"error": {"message", "type", "param", "code"}}; `field` empty: null. `status` chooses the type. */
void openai_error(json_out *j, int status, error_code code, span text, span field);

/* "stop", "length" or "content_filter"; NULL while the choice goes on. */
const char *openai_finish_name(finish_reason finish);

/* ---- shared by openai_chat.c and openai_completions.c ---- */

void  openai_chat_logprobs(json_out *j, const openai_answer *answer, const openai_choice *choice);
void  openai_completion_logprobs(json_out *j, const openai_answer *answer, const openai_choice *choice);
float openai_logprob(float logprob); /* JSON has no -inf: -9999 stands for it, as in vLLM */

#endif
