/* See delta.h. */
#include "postprocessor/delta.h"

#include <assert.h>

enum { TOKEN_BYTES_MAX = 1024 }; /* the schema's */

size_t delta_bytes(void)
{
    return DELTA_TEXT_BYTES + DELTA_TOKENS_MAX * (sizeof(uint32_t) + sizeof(text_logprob)) +
           DELTA_TOKENS_MAX * LOGPROB_TOP_MAX * sizeof(text_top) + 4 * 16;
}

bool delta_init(delta *d, arena *memory, error *err)
{
    d->tokens        = arena_take_array(memory, DELTA_TOKENS_MAX, sizeof *d->tokens);
    d->logprobs      = arena_take_array(memory, DELTA_TOKENS_MAX, sizeof *d->logprobs);
    d->top           = arena_take_array(memory, DELTA_TOKENS_MAX * LOGPROB_TOP_MAX, sizeof *d->top);
    d->text.data     = arena_take(memory, DELTA_TEXT_BYTES);
    d->text.capacity = DELTA_TEXT_BYTES;
    return (d->tokens && d->logprobs && d->top && d->text.data) ||
           error_set(err, ERR_NO_MEMORY, "no memory for a message to send");
}

void delta_begin(delta *d, uint32_t index, bool prompt)
{
    d->index     = index;
    d->prompt    = prompt;
    d->n_tokens  = 0;
    d->n_top     = 0;
    d->text.size = d->n_logprobs = 0;
}

bool delta_is_full(const delta *d)
{
    return d->n_tokens == DELTA_TOKENS_MAX || d->n_logprobs == DELTA_TOKENS_MAX || d->text.size >= DELTA_TEXT_SENT;
}

static span bytes_of(const tokenizer *t, uint32_t token)
{
    span bytes = tokenizer_token_bytes(t, token);
    return (span){bytes.data, bytes.size < TOKEN_BYTES_MAX ? bytes.size : TOKEN_BYTES_MAX};
}

void delta_add_logprob(delta *d, const tokenizer *t, uint32_t token, const token_logprob *scored, uint32_t text_offset)
{
    assert(d->n_logprobs < DELTA_TOKENS_MAX);
    text_logprob *out = &d->logprobs[d->n_logprobs++];
    uint32_t      n   = 0;
    if (scored)
        n = scored->n_top_tokens < scored->n_top_logprobs ? scored->n_top_tokens : scored->n_top_logprobs;
    n    = n < LOGPROB_TOP_MAX ? n : LOGPROB_TOP_MAX;
    *out = (text_logprob){.token       = token,
                          .logprob     = scored ? scored->logprob : 0,
                          .bytes       = bytes_of(t, token),
                          .top         = d->top + d->n_top,
                          .n_top       = n,
                          .text_offset = text_offset,
                          .no_logprob  = !scored};
    for (uint32_t i = 0; i < n; i++)
        d->top[d->n_top++] =
            (text_top){scored->top_tokens[i], scored->top_logprobs[i], bytes_of(t, scored->top_tokens[i])};
}
