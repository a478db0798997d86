/* What a tokenizer is made of, for the files that make one. */
#ifndef TROUPE_TEXT_TOKENIZER_PARTS_H
#define TROUPE_TEXT_TOKENIZER_PARTS_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/token_printing.h"
#include "text/tokenizer.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

enum { TOKENIZER_STOPS_MAX = 16 };

struct tokenizer {
    vocabulary   *vocabulary; /* as texts are looked up in it */
    vocabulary   *printed;    /* what each token prints; NULL where it is that */
    vocabulary   *first;      /* and as the first of a text; NULL where it prints the same there */
    bpe          *bpe;        /* one of these three */
    unigram      *unigram;
    wordpiece    *wordpiece;
    normalizer   *normalizer;
    pretokenizer *pretokenizer;
    added_tokens *added;            /* matched in the text as it came */
    added_tokens *added_normalized; /* matched in the normalized text */
    bool          byte_fallback;    /* tokens of single bytes stand for whole characters */
    bool          adds_bos, adds_eos;
    uint32_t      bos, eos; /* VOCABULARY_NONE when there is none */
    uint32_t      stops[TOKENIZER_STOPS_MAX];
    uint32_t      n_stops;
    char         *chat_template; /* NULL when there is none */
    size_t        chat_template_bytes;
};

/* A tokenizer without a model, its normalizer and pre-tokenizer without steps; tokenizer_free takes it in any state. */
tokenizer *tokenizer_empty(error *err);

/* Makes .printed and .first. `spelled` has what the decoder sees of each token: the vocabulary, or nearly. */
bool tokenizer_set_printing(tokenizer *t, const vocabulary *spelled, const token_printing *how, error *err);

/* Lets the pre-tokenizer cut the text before each blank, where that can change no token: no token of the vocabulary
 * has a U+2581 behind another character. After the vocabulary; for byte-pair encoding of characters. */
bool tokenizer_cut_at_blanks(tokenizer *t, error *err);

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
