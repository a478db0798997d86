// links: llm_text
/* Any bytes as a GGUF file that holds a tokenizer: a tokenizer, or refused with a reason. What it makes of a text are
 * tokens it has, and back they are valid text; its chat template is parsed. */
#include "base/utf8.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"

enum { TOKENS = 256, MEMORY_BYTES = 1 << 20, STOPS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const tokenizer *t, const uint32_t *tokens, uint32_t n, arena *memory)
{
    error        err;
    uint32_t     stop;
    span         text;
    detokenizer *d = detokenizer_new(memory, &(detokenizer_options){.tokenizer = t, .specials = true}, &err);
    for (uint32_t i = 0; d && i < n; i++) {
        detokenizer_push(d, tokens[i], &text, &stop);
        if (!utf8_is_valid(text))
            __builtin_trap();
    }
    if (d && !utf8_is_valid(detokenizer_finish(d)))
        __builtin_trap();
}

static void encode_and_decode(const tokenizer *t, arena *memory)
{
    static const text_part parts[] = {{SPAN("<s>it's 12 caf\xC3\xA9 e\xCC\x81  \n"), true}, {SPAN("<s>w\xFF"), false}};
    uint32_t               tokens[TOKENS], n;
    error                  err;
    arena                 *scratch = arena_new(tokenizer_scratch_bytes(t, 64), &err);
    bool                   encoded = tokenizer_encode(t, parts, COUNT(parts), scratch, tokens, TOKENS, &n, &err);
    if (!encoded || n > TOKENS) /* 64 bytes are no more tokens than that, and the scratch is what was asked for */
        __builtin_trap();
    for (uint32_t i = 0; i < n; i++)
        if (tokens[i] >= tokenizer_n_vocab(t) || tokenizer_token_bytes(t, tokens[i]).size == 0)
            __builtin_trap();
    arena_free(&scratch);
    decode(t, tokens, n, memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    error      err  = {0};
    gguf      *file = gguf_open_memory(data, size, "fuzz", &err);
    tokenizer *t    = file ? tokenizer_from_gguf(file, &err) : NULL;
    gguf_close(&file); /* before the tokenizer is used: it copies what it needs */
    if (!t && !err.text[0])
        __builtin_trap();
    if (!t)
        return 0;
    arena   *memory = arena_new(MEMORY_BYTES, &err);
    uint32_t stops[STOPS], n_stops = tokenizer_stop_tokens(t, stops, STOPS);
    for (uint32_t i = 0; i < n_stops && i < STOPS; i++)
        if (stops[i] >= tokenizer_n_vocab(t))
            __builtin_trap();
    encode_and_decode(t, memory);
    chat_template *template = chat_template_new(tokenizer_chat_template(t), &err);
    chat_template_free(&template);
    arena_free(&memory);
    tokenizer_free(&t);
    return 0;
}
