/* The log probabilities of completions: parallel lists, as harnesses for evaluation read them. */
#include "services/gateway/openai_response.h"

#include "base/utf8.h"

#include <stdio.h>

enum { TOKEN_BYTES_MAX = 1024, NAME_BYTES = sizeof("bytes:") + 4 * TOKEN_BYTES_MAX };

/* A token as text. Half a character has no text: OpenAI writes it as bytes:\xe2\x80, which keeps names apart. */
static span name_of(span bytes, char name[NAME_BYTES])
{
    if (bytes.size > TOKEN_BYTES_MAX || utf8_is_valid(bytes))
        return bytes;
    size_t used = (size_t)snprintf(name, NAME_BYTES, "bytes:");
    for (size_t i = 0; i < bytes.size; i++)
        used += (size_t)snprintf(name + used, NAME_BYTES - used, "\\x%02x", (uint8_t)bytes.data[i]);
    return (span){name, used};
}

static void member(json_out *j, span bytes, float logprob)
{
    char name[NAME_BYTES];
    json_out_key(j, name_of(bytes, name));
    json_out_float(j, openai_logprob(logprob));
}

/* The likeliest tokens and, when it isn't among them, the chosen one. A name that two tokens share stands for the
 * likelier. */
static void write_top(json_out *j, const openai_answer *answer, const text_logprob *l)
{
    uint32_t n     = l->n_top < answer->n_top_logprobs ? l->n_top : answer->n_top_logprobs;
    bool     found = false;
    json_out_object(j);
    for (uint32_t t = 0; t < n; t++) {
        bool known = false;
        for (uint32_t i = 0; i < t; i++)
            known = known || span_equal(l->top[i].bytes, l->top[t].bytes);
        found = found || span_equal(l->top[t].bytes, l->bytes);
        if (!known)
            member(j, l->top[t].bytes, l->top[t].logprob);
    }
    if (!found)
        member(j, l->bytes, l->logprob);
    json_out_end(j);
}

void openai_completion_logprobs(json_out *j, const openai_answer *answer, const openai_choice *choice)
{
    char name[NAME_BYTES];
    json_out_object(j);
    json_out_key(j, SPAN("text_offset"));
    json_out_array(j);
    for (uint32_t i = 0; i < choice->n_logprobs; i++)
        json_out_u64(j, choice->logprobs[i].text_offset);
    json_out_end(j);
    json_out_key(j, SPAN("token_logprobs"));
    json_out_array(j);
    for (uint32_t i = 0; i < choice->n_logprobs; i++)
        if (choice->logprobs[i].no_logprob)
            json_out_null(j);
        else
            json_out_float(j, openai_logprob(choice->logprobs[i].logprob));
    json_out_end(j);
    json_out_key(j, SPAN("tokens"));
    json_out_array(j);
    for (uint32_t i = 0; i < choice->n_logprobs; i++)
        json_out_string(j, name_of(choice->logprobs[i].bytes, name));
    json_out_end(j);
    json_out_key(j, SPAN("top_logprobs"));
    json_out_array(j);
    for (uint32_t i = 0; i < choice->n_logprobs; i++)
        if (choice->logprobs[i].no_logprob || answer->n_top_logprobs == 0)
            json_out_null(j);
        else
            write_top(j, answer, &choice->logprobs[i]);
    json_out_end(j);
    json_out_end(j);
}
