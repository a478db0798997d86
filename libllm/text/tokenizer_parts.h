/* What a tokenizer is made of, for the files that make one. */
#ifndef TROUPE_TEXT_TOKENIZER_PARTS_H
#define TROUPE_TEXT_TOKENIZER_PARTS_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

enum { TOKENIZER_STOPS_MAX = 16 };

struct tokenizer {
    vocabulary   *vocabulary;
    bpe          *bpe;
    pretokenizer *pretokenizer;
    added_tokens *added;            /* matched in the text as it came */
    added_tokens *added_normalized; /* matched in the normalized text */
    bool          nfc;
    bool          adds_bos;
    uint32_t      bos, eos; /* VOCABULARY_NONE when there is none */
    uint32_t      stops[TOKENIZER_STOPS_MAX];
    uint32_t      n_stops;
    char         *chat_template; /* NULL when there is none */
    size_t        chat_template_bytes;
};

/* A tokenizer without parts; tokenizer_free takes it in any state. */
tokenizer *tokenizer_empty(error *err);

bool tokenizer_set_chat_template(tokenizer *t, span source, error *err);

/* Adds `token` to the tokens that end a generation, once. VOCABULARY_NONE is no token. */
void tokenizer_add_stop(tokenizer *t, uint32_t token);

/* Adds the end-of-turn tokens that model families use, where the vocabulary has them as special tokens. */
void tokenizer_add_known_stops(tokenizer *t);

/* tokenizer_from_json without the files beside it. `name` stands in messages. */
tokenizer *tokenizer_from_json_text(span text, const char *name, error *err);

/* The bytes behind a token spelled in GPT-2's printable alphabet, where "G with dot above" is a space. Writes at most
 * text.size bytes to `out` and returns how many; SIZE_MAX when a character is not of that alphabet. */
size_t tokenizer_bytes_of_spelling(span text, char *out);

#endif
