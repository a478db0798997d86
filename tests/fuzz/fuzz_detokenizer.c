/* The first byte is how long the stop string is that follows it; the rest are tokens, one a byte. */
// links: llm_text
#include "base/utf8.h"
#include "text/detokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *t;
    static arena     *memory;
    error             err;
    uint32_t          index;
    if (!t && !((t = tokenizer_open(TESTS_DIR "/data/tokenizer/gpt2", &err)) && (memory = arena_new(1 << 16, &err))))
        __builtin_trap();
    arena_reset(memory);
    size_t       stop_size = size ? data[0] % 8 : 0;
    span         text, stop = {(const char *)data + 1, stop_size};
    detokenizer *d = size > stop_size + 1
                         ? detokenizer_new(memory, &(detokenizer_options){t, &stop, 1, false, data[0] & 8}, &err)
                         : NULL;
    for (size_t i = stop_size + 1; d && i < size; i++) {
        bool stopped = detokenizer_push(d, data[i] * 3u, &text, &index);
        detokenizer_check(d);
        if (!utf8_is_valid(text) || memmem(text.data, text.size, stop.data, stop.size) || (stopped && index != 0))
            __builtin_trap();
    }
    if (d && !utf8_is_valid(detokenizer_finish(d)))
        __builtin_trap();
    return 0;
}
