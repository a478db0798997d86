/* A vocabulary with tokens for all bytes gives any bytes back, within the promised scratch and in n log n time, and
 * cutting the text before its blanks changes no token. */
// links: llm_text
#include "text/pretokenize.h"
#include "text/spm_bpe.h"

#include <stdio.h>

enum { BYTES = 256, TOKENS = 1 << 20 };

#define BLANK "\xE2\x96\x81"

static const char *const pieces[]                      = {"a",    "b",        "ab",        BLANK,          "aa",
                                                          "ba",   BLANK "a",  BLANK BLANK, BLANK "ab",     "aba",
                                                          "aaaa", "\xC3\xA9", "a\xC3\xA9", "\xE6\x97\xA5", "a\xE6\x97\xA5"};
static const float       scores[BYTES + COUNT(pieces)] = {[BYTES] = -9, -9, -1, -9, -2, -2, -3, -4,
                                                          -2,           -5, -6, -9, -1, -9, -2};

/* Where a run's tokens go. */
typedef struct {
    const bpe *bpe;
    arena     *scratch;
    uint32_t  *tokens;
    size_t     n;
} encoded;

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

static bool encode_piece(void *context, span piece, error *err)
{
    encoded *e = context;
    size_t   n = 0;
    if (!bpe_encode(e->bpe, piece, e->scratch, e->tokens + e->n, TOKENS - e->n, &n, err))
        __builtin_trap();
    e->n += n;
    return true;
}

static void check_bytes(const vocabulary *v, const encoded *e, const uint8_t *data, size_t size)
{
    size_t n_bytes = 0;
    for (size_t i = 0; i < e->n; i++) {
        span bytes = vocabulary_bytes(v, e->tokens[i]);
        int  byte  = vocabulary_byte_of_name(bytes);
        char one   = (char)byte;
        if (byte >= 0)
            bytes = (span){&one, 1};
        if (n_bytes + bytes.size > size || memcmp(bytes.data, data + n_bytes, bytes.size) != 0)
            __builtin_trap();
        n_bytes += bytes.size;
    }
    if (n_bytes != size)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static vocabulary   *v;
    static bpe          *b;
    static pretokenizer *p;
    static arena        *scratch;
    static uint32_t      tokens[TOKENS], cut[TOKENS];
    if (!v) {
        v = make_vocabulary();
        b = spm_bpe_new(
            &(bpe_options){.vocabulary = v, .unknown = VOCABULARY_NONE, .characters = true, .byte_fallback = true},
            scores, NULL);
        p       = pretokenizer_new(NULL);
        scratch = arena_new((size_t)TOKENS * BPE_SCRATCH_BYTES_PER_BYTE + 1024, NULL);
        if (!b || !pretokenizer_add(p, PRETOKENIZE_BLANK_RUNS, NULL))
            __builtin_trap();
    }
    if (size == 0 || size > TOKENS)
        return 0;
    encoded whole = {b, scratch, tokens, 0}, pieced = {b, scratch, cut, 0};
    span    text = {(const char *)data, size};
    if (!encode_piece(&whole, text, NULL) || !pretokenizer_run(p, text, true, scratch, encode_piece, &pieced, NULL))
        __builtin_trap();
    check_bytes(v, &whole, data, size);
    if (pieced.n != whole.n || memcmp(tokens, cut, whole.n * sizeof *tokens) != 0)
        __builtin_trap();
    return 0;
}
