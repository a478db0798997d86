/* The models of tokenizer.ggml.model, each in a file of its own, and what they share. */
#ifndef TROUPE_TEXT_TOKENIZER_GGUF_MODELS_H
#define TROUPE_TEXT_TOKENIZER_GGUF_MODELS_H

#include "text/tokenizer_parts.h"

/* Each sets a tokenizer's vocabulary, normalizer, pre-tokenizer, model and printing. */
bool tokenizer_gguf_gpt2(tokenizer *t, const gguf *file, error *err);
bool tokenizer_gguf_llama(tokenizer *t, const gguf *file, error *err);
bool tokenizer_gguf_t5(tokenizer *t, const gguf *file, error *err);
bool tokenizer_gguf_bert(tokenizer *t, const gguf *file, error *err);

/* Adds the next token to the vocabulary; `kinds` is what the file's token_type says. */
typedef bool tokenizer_gguf_append(tokenizer *t, span spelling, uint32_t kinds, error *err);

/* Makes the vocabulary of tokenizer.ggml.tokens and .token_type. */
bool tokenizer_gguf_vocabulary(tokenizer *t, const gguf *file, tokenizer_gguf_append *append, error *err);

/* A required array of `type`; *n is its length. */
bool tokenizer_gguf_array(const gguf *file, const char *key, gguf_type type, uint64_t *n, error *err);

/* Optional scalars: true when absent, with the value untouched. */
bool tokenizer_gguf_token(const gguf *file, const tokenizer *t, const char *key, uint32_t *token, error *err);
bool tokenizer_gguf_flag(const gguf *file, const char *key, bool *flag, error *err);

#endif
