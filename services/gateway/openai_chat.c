/* Chat answers, and what they share with completions: the envelope of a chunk, usage, errors. */
#include "services/gateway/openai_response.h"

#include <math.h>

float openai_logprob(float logprob)
{
    return logprob >= -9999.0f ? logprob : -9999.0f; /* NaN too */
}

const char *openai_finish_name(finish_reason finish)
{
    switch (finish) {
    case FINISH_REASON_NONE:
        return NULL;
    case FINISH_REASON_LENGTH:
        return "length";
    case FINISH_REASON_CONTENT_FILTER:
        return "content_filter";
    default: /* a tail that repeats itself is a stop too; stop_reason tells */
        return "stop";
    }
}

/* ---- errors ---- */

static const char *error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    default:
        return status < 500 ? "invalid_request_error" : "server_error";
    }
}

static const char *error_code_name(error_code code)
{
    switch (code) {
    case ERR_INVALID:
        return "invalid_value";
    case ERR_UNAUTHORIZED:
        return "invalid_api_key";
    case ERR_NOT_FOUND:
        return "not_found";
    case ERR_METHOD:
        return "method_not_allowed";
    case ERR_MEDIA_TYPE:
        return "unsupported_media_type";
    case ERR_RATE_LIMITED:
        return "rate_limit_exceeded";
    case ERR_MISMATCH:
        return "idempotency_mismatch";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_TOO_LARGE:
        return "too_large";
    case ERR_UNSUPPORTED:
        return "unsupported_value";
    case ERR_OVERLOADED:
        return "overloaded";
    case ERR_GONE:
    case ERR_NOT_READY:
    case ERR_NO_MEMORY:
        return "unavailable";
    default:
        return "internal_error";
    }
}

void openai_error(json_out *j, int status, error_code code, span text, span field)
{
    bool no_model = code == ERR_NOT_FOUND && span_is(field, "model");
    json_out_object(j);
    json_out_key(j, SPAN("error"));
    json_out_object(j);
    json_out_member_string(j, "message", text.size ? text : span_of(error_sentence(code)));
    json_out_member_string(j, "type", span_of(error_type(status)));
    if (field.size)
        json_out_member_string(j, "param", field);
    else
        json_out_member_null(j, "param");
    json_out_member_string(j, "code", span_of(no_model ? "model_not_found" : error_code_name(code)));
    json_out_end(j);
    json_out_end(j);
}

/* ---- log probabilities of a chat ---- */

static void write_token(json_out *j, span bytes, float logprob)
{
    json_out_member_string(j, "token", bytes);
    json_out_key(j, SPAN("logprob"));
    json_out_float(j, openai_logprob(logprob));
    json_out_key(j, SPAN("bytes"));
    json_out_array(j);
    for (size_t i = 0; i < bytes.size; i++)
        json_out_u64(j, (uint8_t)bytes.data[i]);
    json_out_end(j);
}

void openai_chat_logprobs(json_out *j, const openai_answer *answer, const openai_choice *choice)
{
    json_out_object(j);
    json_out_key(j, SPAN("content"));
    json_out_array(j);
    for (uint32_t i = 0; i < choice->n_logprobs; i++) {
        const text_logprob *l = &choice->logprobs[i];
        json_out_object(j);
        write_token(j, l->bytes, l->logprob);
        json_out_key(j, SPAN("top_logprobs"));
        json_out_array(j);
        for (uint32_t t = 0; t < l->n_top && t < answer->n_top_logprobs; t++) {
            json_out_object(j);
            write_token(j, l->top[t].bytes, l->top[t].logprob);
            json_out_end(j);
        }
        json_out_end(j);
        json_out_end(j);
    }
    json_out_end(j);
    json_out_member_null(j, "refusal");
    json_out_end(j);
}

/* ---- chunks and bodies ---- */

static void begin(json_out *j, const openai_answer *answer, bool chunk)
{
    const char *object = answer->api == OPENAI_COMPLETION ? "text_completion"
                         : chunk                          ? "chat.completion.chunk"
                                                          : "chat.completion";
    json_out_object(j);
    json_out_member_string(j, "id", answer->id);
    json_out_member_string(j, "object", span_of(object));
    json_out_member_i64(j, "created", answer->created_s);
    json_out_member_string(j, "model", answer->model);
    json_out_key(j, SPAN("choices"));
    json_out_array(j);
}

static void write_usage(json_out *j, const usage *cost)
{
    json_out_key(j, SPAN("usage"));
    json_out_object(j);
    json_out_member_u64(j, "prompt_tokens", cost->prompt_tokens);
    json_out_member_u64(j, "completion_tokens", cost->completion_tokens);
    json_out_member_u64(j, "total_tokens", (uint64_t)cost->prompt_tokens + cost->completion_tokens);
    json_out_key(j, SPAN("prompt_tokens_details"));
    json_out_object(j);
    json_out_member_u64(j, "cached_tokens", cost->cached_tokens);
    json_out_end(j);
    if (cost->drafted_tokens > 0) {
        json_out_key(j, SPAN("completion_tokens_details"));
        json_out_object(j);
        json_out_member_u64(j, "accepted_prediction_tokens", cost->accepted_tokens);
        json_out_member_u64(j, "rejected_prediction_tokens",
                            cost->drafted_tokens - (cost->accepted_tokens < cost->drafted_tokens
                                                        ? cost->accepted_tokens
                                                        : cost->drafted_tokens));
        json_out_end(j);
    }
    json_out_end(j);
}

/* What stands beside the text: log probabilities and the end. */
static void end_choice(json_out *j, const openai_answer *answer, const openai_choice *choice)
{
    const char *finish = openai_finish_name(choice->finish);
    bool        chat   = answer->api == OPENAI_CHAT;
    json_out_key(j, SPAN("logprobs"));
    if (!answer->has_logprobs || choice->n_logprobs == 0)
        json_out_null(j);
    else if (chat)
        openai_chat_logprobs(j, answer, choice);
    else
        openai_completion_logprobs(j, answer, choice);
    if (finish)
        json_out_member_string(j, "finish_reason", span_of(finish));
    else
        json_out_member_null(j, "finish_reason");
    if (choice->finish == FINISH_REASON_REPETITION)
        json_out_member_string(j, "stop_reason", SPAN("repetition"));
    else if (choice->stop_reason.size)
        json_out_member_string(j, "stop_reason", choice->stop_reason);
    else
        json_out_member_null(j, "stop_reason");
    json_out_end(j);
}

void openai_chunk(json_out *j, const openai_answer *answer, const openai_choice *choice, bool first)
{
    begin(j, answer, true);
    json_out_object(j);
    json_out_member_u64(j, "index", choice->index);
    if (answer->api == OPENAI_CHAT) {
        json_out_key(j, SPAN("delta"));
        json_out_object(j);
        if (first)
            json_out_member_string(j, "role", SPAN("assistant"));
        if (first || choice->text.size)
            json_out_member_string(j, "content", choice->text);
        json_out_end(j);
    } else {
        json_out_member_string(j, "text", choice->text);
    }
    end_choice(j, answer, choice);
    json_out_end(j);
    if (answer->include_usage)
        json_out_member_null(j, "usage");
    json_out_end(j);
}

void openai_usage_chunk(json_out *j, const openai_answer *answer, const usage *cost)
{
    begin(j, answer, true);
    json_out_end(j);
    write_usage(j, cost);
    json_out_end(j);
}

void openai_body(json_out *j, const openai_answer *answer, const openai_choice *choices, uint32_t n_choices,
                 const usage *cost)
{
    begin(j, answer, false);
    for (uint32_t i = 0; i < n_choices; i++) {
        json_out_object(j);
        json_out_member_u64(j, "index", choices[i].index);
        if (answer->api == OPENAI_CHAT) {
            json_out_key(j, SPAN("message"));
            json_out_object(j);
            json_out_member_string(j, "role", SPAN("assistant"));
            json_out_member_string(j, "content", choices[i].text);
            json_out_member_null(j, "refusal");
            json_out_end(j);
        } else {
            json_out_member_string(j, "text", choices[i].text);
        }
        end_choice(j, answer, &choices[i]);
    }
    json_out_end(j);
    write_usage(j, cost);
    json_out_end(j);
}
