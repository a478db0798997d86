/* From a prompt in any of its three kinds to token ids, within the model's length. No bus in here. */
#ifndef TROUPE_TOKENIZER_PROMPT_H
#define TROUPE_TOKENIZER_PROMPT_H

#include "text/tokenizer.h"
#include "tokenizer/conversation.h"
#include "tokenizer/tokenizer.h"

typedef struct prompt_maker prompt_maker;

/* Opens the model's tokenizer and template, and takes all memory that any request will need. */
prompt_maker *prompt_maker_new(const tokenizer_options *options, error *err);
void          prompt_maker_free(prompt_maker **p);

const tokenizer *prompt_tokenizer(const prompt_maker *p);
uint32_t         prompt_max_model_len(const prompt_maker *p);

/* Valid until the next call on this prompt_maker. */
typedef struct {
    const uint32_t *tokens;
    uint32_t        n_tokens;
} prompt;

/* The prompt of a request, at most max_model_len tokens. A chat is rendered by the template, where what users said
 * never becomes a control token; a text may hold control tokens when it is `trusted`. Fails with the field at fault:
 * ERR_INVALID, ERR_TOO_LARGE, ERR_UNSUPPORTED (a chat, and the model has no template). */
bool prompt_encode(prompt_maker *p, const text_request *r, bool trusted, int64_t now_unix_s, prompt *out,
                   request_field *field, error *err) MUST_CHECK;

/* The whole gen.request: a prompt of at least one token that leaves room for an answer, max_tokens resolved against the
 * length, stop tokens. A text prompt is the caller's own and trusted. The spans are those of `r`. For an embedding or a
 * score: the text, or query and document, with the tokens around them, none of it trusted. What the model is not made
 * for is refused. */
bool prompt_make_request(prompt_maker *p, const text_request *r, int64_t now_unix_s, gen_request *out,
                         request_field *field, error *err) MUST_CHECK;

/* The text of token ids, control tokens by name, U+FFFD for what is no UTF-8. */
bool prompt_decode(prompt_maker *p, const uint32_t *tokens, uint32_t n_tokens, span *text, request_field *field,
                   error *err) MUST_CHECK;

#endif
