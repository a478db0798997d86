/* A vocabulary with tokens for all bytes gives any bytes back, within the promised scratch. */
// links: llm_text
#include "text/unigram.h"

#include <stdio.h>

enum { BYTES = 256, TOKENS = 1 << 20 };

static const char *const pieces[] = {"a", "b", "ab", "aba", "bab", "aaaa", "\xC3\xA9", "\xE6\x97\xA5", "a\xE6\x97\xA5"};
static const double      scores[BYTES + COUNT(pieces)] = {[BYTES] = -3, -3.5, -4, -5, -5.25, -6, -7, -8, -8.5};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vocabulary *make_vocabulary(void)
{
    vocabulary *v = vocabulary_new(BYTES + COUNT(pieces), NULL);
    for (int i = 0; i < BYTES; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        (void)vocabulary_append(v, span_of(name), TOKEN_BYTE, NULL);
    }
    for (size_t i = 0; i < COUNT(pieces); i++)
        (void)vocabulary_append(v, span_of(pieces[i]), TOKEN_NORMAL, NULL);
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vocabulary *v;
    static unigram    *u;
    static arena      *scratch;
    static uint32_t    tokens[TOKENS];
    size_t             n, n_bytes = 0;
    if (!v) {
        v       = make_vocabulary();
        u       = unigram_new(&(unigram_options){v, scores, VOCABULARY_NONE, true, -8.5}, NULL);
        scratch = arena_new((size_t)TOKENS * UNIGRAM_SCRATCH_BYTES_PER_BYTE + 1024, NULL);
    }
    if (size == 0 || size > TOKENS)
        return 0;
    if (!unigram_encode(u, (span){(const char *)data, size}, scratch, tokens, TOKENS, &n, NULL))
        __builtin_trap();
    for (size_t i = 0; i < n; i++) {
        span bytes = vocabulary_bytes(v, tokens[i]);
        int  byte  = vocabulary_byte_of_name(bytes);
        char one   = (char)byte;
        if (byte >= 0)
            bytes = (span){&one, 1};
        if (n_bytes + bytes.size > size || memcmp(bytes.data, data + n_bytes, bytes.size) != 0)
            __builtin_trap();
        n_bytes += bytes.size;
    }
    if (n_bytes != size || arena_used(scratch) != 0)
        __builtin_trap();
    return 0;
}
