/* Any bytes are a tokenizer.json, or refused; a tokenizer that comes of it encodes. */
// links: llm_text
#include "text/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t   tokens[256], n;
    error      err;
    text_part  parts[] = {{SPAN("<s>it's 12 caf\xC3\xA9 e\xCC\x81  \n"), true}, {SPAN("<s>word\xFF"), false}};
    tokenizer *t       = tokenizer_from_json_text((span){(const char *)data, size}, "fuzz", &err);
    if (!t)
        return 0;
    arena *scratch = arena_new(tokenizer_scratch_bytes(t, 64), &err);
    if (tokenizer_encode(t, parts, 2, scratch, tokens, COUNT(tokens), &n, &err) && n > COUNT(tokens))
        __builtin_trap();
    arena_free(&scratch);
    tokenizer_free(&t);
    return 0;
}
