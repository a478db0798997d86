/* Any bytes go through BERT's normalizer, its pre-tokenizer and WordPiece within the promised memory; a word comes out
 * as its own bytes, or unknown. */
// links: llm_text
#include "text/bert_normalize.h"
#include "text/pretokenize.h"
#include "text/wordpiece.h"

enum { TEXT_MAX = 64 << 10 };

static const char *const pieces[] = {"[UNK]",          "a", "b", "ab", "##a", "##b", "##ab", "##aba", "\xC3\xA9",
                                     "##\xE6\x97\xA5", "."};

static vocabulary *v;
static wordpiece  *w;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool check_word(void *context, span word, error *err)
{
    static uint32_t tokens[TEXT_MAX];
    size_t          n, n_bytes = 0;
    (void)context;
    if (!wordpiece_encode(w, word, tokens, TEXT_MAX, &n, err) || n == 0)
        __builtin_trap();
    if (tokens[0] == 0)
        return n == 1 || (__builtin_trap(), false);
    for (size_t i = 0; i < n; i++) {
        span bytes = vocabulary_bytes(v, tokens[i]);
        if (i > 0)
            bytes = (span){bytes.data + 2, bytes.size - 2};
        if (n_bytes + bytes.size > word.size || memcmp(bytes.data, word.data + n_bytes, bytes.size) != 0)
            __builtin_trap();
        n_bytes += bytes.size;
    }
    return n_bytes == word.size || (__builtin_trap(), false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static pretokenizer *p;
    static arena        *scratch;
    static char          out[BERT_GROWTH * TEXT_MAX];
    size_t               n;
    if (!v) {
        v = vocabulary_new(COUNT(pieces), NULL);
        for (size_t i = 0; i < COUNT(pieces); i++)
            (void)vocabulary_append(v, span_of(pieces[i]), i ? TOKEN_NORMAL : TOKEN_SPECIAL, NULL);
        w       = wordpiece_new(&(wordpiece_options){v, SPAN("##"), 0, 100}, NULL);
        p       = pretokenizer_new(NULL);
        scratch = arena_new((size_t)BERT_SCRATCH_PER_BYTE * TEXT_MAX + 1024, NULL);
        if (!pretokenizer_add(p, PRETOKENIZE_BERT, NULL))
            __builtin_trap();
    }
    if (size == 0 || size > TEXT_MAX)
        return 0;
    bert_options options = {data[0] & 1, data[0] & 2, data[0] & 4, data[0] & 8};
    if (!bert_normalize(&options, (span){(const char *)data + 1, size - 1}, scratch, out, &n, NULL) ||
        n > BERT_GROWTH * size || !pretokenizer_run(p, (span){out, n}, true, scratch, check_word, NULL, NULL))
        __builtin_trap();
    return 0;
}
