/* One trie for all tokens: continuing ones begin at the node behind their prefix. */
#include "text/wordpiece.h"

#include "base/utf8.h"
#include "text/trie.h"
#include <stdlib.h>

struct wordpiece {
    trie    *pieces;
    uint32_t continuing; /* where the walk of a continuing token begins: behind the prefix */
    uint32_t unknown;
    size_t   n_characters_max;
};

wordpiece *wordpiece_new(const wordpiece_options *options, error *err)
{
    wordpiece *w = calloc(1, sizeof *w);
    if (!w) {
        error_set(err, ERR_NO_MEMORY, "no memory for a WordPiece model");
        return NULL;
    }
    w->unknown          = options->unknown;
    w->n_characters_max = options->n_characters_max;
    w->pieces           = trie_new(options->vocabulary, TOKEN_NORMAL, err);
    if (!w->pieces) {
        wordpiece_free(&w);
        return NULL;
    }
    w->continuing = TRIE_ROOT;
    for (size_t i = 0; i < options->prefix.size && w->continuing != TRIE_NOWHERE; i++)
        w->continuing = trie_step(w->pieces, w->continuing, (uint8_t)options->prefix.data[i]);
    return w;
}

void wordpiece_free(wordpiece **w)
{
    if (!*w)
        return;
    trie_free(&(*w)->pieces);
    free(*w);
    *w = NULL;
}

static bool is_too_long(const wordpiece *w, span word)
{
    size_t n = 0;
    if (word.size <= w->n_characters_max)
        return false;
    for (size_t at = 0, size; at < word.size && n <= w->n_characters_max; at += size, n++) {
        uint32_t c;
        size = utf8_decode((span){word.data + at, word.size - at}, &c);
        size = size ? size : 1;
    }
    return n > w->n_characters_max;
}

/* The longest token at `at`: its end, or `at` with VOCABULARY_NONE where there is none. */
static size_t longest_at(const wordpiece *w, span word, size_t at, uint32_t *token)
{
    size_t end     = at;
    *token         = VOCABULARY_NONE;
    uint32_t place = at ? w->continuing : TRIE_ROOT;
    for (size_t i = at; i < word.size && place != TRIE_NOWHERE;) {
        place          = trie_step(w->pieces, place, (uint8_t)word.data[i++]);
        uint32_t found = trie_value(w->pieces, place);
        if (found != VOCABULARY_NONE) {
            *token = found;
            end    = i;
        }
    }
    return end;
}

bool wordpiece_encode(const wordpiece *w, span word, uint32_t *tokens, size_t n_max, size_t *n_tokens, error *err)
{
    size_t n = 0, at = is_too_long(w, word) ? word.size + 1 : 0;
    while (at < word.size) {
        uint32_t token;
        size_t   end = longest_at(w, word, at, &token);
        if (end > at && n < n_max)
            tokens[n] = token;
        n += end > at;
        at = end > at ? end : word.size + 1; /* past the end: the word is unknown */
    }
    if (at > word.size) {
        n = w->unknown != VOCABULARY_NONE;
        if (n <= n_max && n > 0)
            tokens[0] = w->unknown;
    }
    *n_tokens = n <= n_max ? n : 0;
    return n <= n_max || error_set(err, ERR_TOO_LARGE, "the text is more than %zu tokens long", n_max);
}
