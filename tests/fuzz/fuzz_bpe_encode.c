/* A vocabulary of all bytes and some merges gives any bytes back, within the promised scratch and in linear time. */
// links: llm_text
#include "text/bpe.h"

static const char *const merged[] = {"aa", "aaaa", "ab", "abab", "ba", "aab", "  ", "\n\n", "\xE6\x97", "\xE6\x97\xA5"};
static const size_t      n_left[] = {1, 2, 1, 2, 1, 2, 1, 1, 1, 2};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vocabulary *v;
    static bpe        *b;
    static arena      *scratch;
    static uint32_t    tokens[1 << 20];
    size_t             n, n_bytes = 0;
    if (!v) {
        v = vocabulary_new(256 + COUNT(merged), NULL);
        for (int i = 0; i < 256; i++)
            (void)vocabulary_append(v, (span){&(char){(char)i}, 1}, TOKEN_NORMAL, NULL);
        for (size_t i = 0; i < COUNT(merged); i++)
            (void)vocabulary_append(v, span_of(merged[i]), TOKEN_NORMAL, NULL);
        b = bpe_new(&(bpe_options){.vocabulary = v, .n_merges = COUNT(merged), .unknown = VOCABULARY_NONE}, NULL);
        for (size_t i = 0; i < COUNT(merged); i++)
            if (!bpe_add_merge(b, (bpe_merge){{merged[i], n_left[i]}, span_of(merged[i] + n_left[i])}, NULL))
                __builtin_trap();
        bpe_finish(b);
        scratch = arena_new(COUNT(tokens) * BPE_SCRATCH_BYTES_PER_BYTE + 1024, NULL);
    }
    if (size == 0 || size > COUNT(tokens))
        return 0;
    if (!bpe_encode(b, (span){(const char *)data, size}, scratch, tokens, COUNT(tokens), &n, NULL))
        __builtin_trap();
    for (size_t i = 0; i < n; i++) {
        span bytes = vocabulary_bytes(v, tokens[i]);
        if (n_bytes + bytes.size > size || memcmp(bytes.data, data + n_bytes, bytes.size) != 0)
            __builtin_trap();
        n_bytes += bytes.size;
    }
    if (n_bytes != size)
        __builtin_trap();
    return 0;
}
