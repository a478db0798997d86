/* Text to token ids and back, exactly as the model's own tokenizer does it.
 *
 * One immutable object, shared by threads. Made from a GGUF file's tokenizer.ggml.* keys or from a Hugging Face
 * tokenizer.json. An unknown kind (tokenizer.ggml.model, .pre, or a component of tokenizer.json) is an error that names
 * it and what is supported: a guess would give other tokens.
 *
 * Control tokens never come out of a user's text: tokenizer_encode takes parts with their origin, and only parts that
 * the chat template wrote may become special tokens. */
#ifndef TROUPE_TEXT_TOKENIZER_H
#define TROUPE_TEXT_TOKENIZER_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"
#include "model/gguf.h"

typedef struct tokenizer tokenizer;

/* A piece of a prompt. `trusted` text (a template's own words, or an API caller who asks for it) may contain special
 * tokens. */
typedef struct {
    span text;
    bool trusted;
} text_part;

/* What it needs of `file` it copies. */
tokenizer *tokenizer_from_gguf(const gguf *file, error *err);

/* Reads tokenizer.json (and tokenizer_config.json beside it when present: special token names, chat template). */
tokenizer *tokenizer_from_json(const char *tokenizer_json_path, error *err);

/* A GGUF file, or a folder with tokenizer.json. */
tokenizer *tokenizer_open(const char *model_path, error *err);
void       tokenizer_free(tokenizer **t);

uint32_t tokenizer_n_vocab(const tokenizer *t);

/* UINT32_MAX when the model has none. */
uint32_t tokenizer_bos(const tokenizer *t);
uint32_t tokenizer_eos(const tokenizer *t);
bool     tokenizer_adds_bos(const tokenizer *t);
bool     tokenizer_adds_eos(const tokenizer *t); /* behind a text that is encoded whole; chat templates say it all */

/* Tokens that end a generation: eos, and the end-of-turn tokens of the model's family found in its vocabulary
 * (<|im_end|>, <|eot_id|>, <end_of_turn>, ...). Returns how many; at most `n_max` are stored. */
uint32_t tokenizer_stop_tokens(const tokenizer *t, uint32_t *tokens, uint32_t n_max);

/* The model's Jinja chat template; empty when it has none. */
span tokenizer_chat_template(const tokenizer *t);

/* Scratch memory that is enough for any text of `text_bytes`. Ordinary text takes little more than text_bytes of it;
 * one word as long as the text takes it all. */
size_t tokenizer_scratch_bytes(const tokenizer *t, size_t text_bytes);

/* Encodes the concatenation of the parts: the pre-tokenizer and the merges see one text, so that the tokens are those
 * of the model's own tokenizer wherever parts begin. A special token (of kind "control" in GGUF, "special" in
 * tokenizer.json) is matched only where all its bytes are trusted; the other added tokens are matched everywhere.
 * Invalid UTF-8 encodes byte by byte (BERT's vocabularies have no bytes and drop it). A byte, character or word for
 * which the vocabulary has no token becomes the unknown token where the
 * model names one for that and is dropped where it does not, as the reference does (SmolLM2 has none for some control
 * characters).
 *
 * `tokens` holds n_tokens_max; on success *n_tokens is how many were written. ERR_TOO_LARGE when there are more;
 * ERR_NO_MEMORY when the scratch arena is too small; what is taken from it is given back. Time is O(n log n) for any
 * input. The beginning-of-sequence and end-of-sequence tokens are the caller's to add. */
bool tokenizer_encode(const tokenizer *t, const text_part *parts, uint32_t n_parts, arena *scratch, uint32_t *tokens,
                      uint32_t n_tokens_max, uint32_t *n_tokens, error *err) MUST_CHECK;

/* The bytes that one token prints: may end inside a UTF-8 character. Special tokens give their name ("<|im_end|>").
 * An id out of range gives an empty span. Lives as long as the tokenizer. */
span   tokenizer_token_bytes(const tokenizer *t, uint32_t token);
span   tokenizer_first_bytes(const tokenizer *t, uint32_t token); /* what it prints as the first of a text */
size_t tokenizer_longest_token(const tokenizer *t);               /* in bytes */
bool   tokenizer_is_special(const tokenizer *t, uint32_t token);

/* How the model's files spell a token, but for a byte-level one, which is its bytes: "▁the", "##ing", "<0x0A>". */
span tokenizer_spelling(const tokenizer *t, uint32_t token);

/* The id of a token by its exact spelling (special or not); UINT32_MAX when there is none. */
uint32_t tokenizer_find(const tokenizer *t, span bytes);

#endif
