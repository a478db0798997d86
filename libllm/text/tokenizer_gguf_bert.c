/* The model "bert" of a GGUF file: WordPiece behind BERT's normalizer and pre-tokenizer. The file has a U+2581 before
 * what begins a word where BERT has "##" before what continues one; and it doesn't say whether the model knows upper
 * case and accents, so they are folded, as llama.cpp does. */
#include "text/tokenizer_gguf_models.h"

#include "text/trie.h"

enum { WORD_CHARACTERS_MAX = 100 };

#define CONTINUES SPAN("##")

static bool append_token(tokenizer *t, span spelling, uint32_t kinds, error *err)
{
    static const char blank[] = "\xE2\x96\x81";
    enum { BLANK_BYTES = sizeof blank - 1 };
    char bytes[2 + TRIE_TEXT_BYTES_MAX];
    if (kinds != TOKEN_NORMAL || spelling.size > TRIE_TEXT_BYTES_MAX)
        return vocabulary_append(t->vocabulary, spelling, kinds, err);
    if (spelling.size > BLANK_BYTES && memcmp(spelling.data, blank, BLANK_BYTES) == 0)
        return vocabulary_append(t->vocabulary, (span){spelling.data + BLANK_BYTES, spelling.size - BLANK_BYTES}, kinds,
                                 err);
    memcpy(bytes, CONTINUES.data, CONTINUES.size);
    memcpy(bytes + CONTINUES.size, spelling.data, spelling.size);
    return vocabulary_append(t->vocabulary, (span){bytes, spelling.size ? CONTINUES.size + spelling.size : 0}, kinds,
                             err);
}

bool tokenizer_gguf_bert(tokenizer *t, const gguf *file, error *err)
{
    bert_options      uncased = {.clean_text = true, .chinese_blanks = true, .strip_accents = true, .lowercase = true};
    token_printing    how     = {.start = START_WITHOUT_JOINT, .prefix = CONTINUES, .cleanup = true};
    wordpiece_options options = {
        .prefix = CONTINUES, .unknown = VOCABULARY_NONE, .n_characters_max = WORD_CHARACTERS_MAX};
    t->adds_bos = t->adds_eos = true;
    if (!tokenizer_gguf_vocabulary(t, file, append_token, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.unknown_token_id", &options.unknown, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.cls_token_id", &t->bos, err) ||
        !tokenizer_gguf_token(file, t, "tokenizer.ggml.seperator_token_id", &t->eos,
                              err) || /* the key's own spelling */
        !normalizer_add_bert(t->normalizer, &uncased, err) ||
        !pretokenizer_add(t->pretokenizer, PRETOKENIZE_BERT, err) ||
        !tokenizer_set_printing(t, t->vocabulary, &how, err))
        return false;
    options.vocabulary = t->vocabulary;
    t->wordpiece       = wordpiece_new(&options, err);
    return t->wordpiece != NULL;
}
