/* The first byte is options, and how long the stop string is that follows it; the rest are tokens, one a byte. */
// links: llm_text
#include "base/utf8.h"
#include "text/detokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *kinds[2];
    static arena     *memory;
    error             err;
    uint32_t          index;
    if (!memory &&
        !((kinds[0] = tokenizer_open(TESTS_DIR "/data/tokenizer/gpt2", &err)) &&
          (kinds[1] = tokenizer_open(TESTS_DIR "/data/tokenizer/llama2", &err)) && (memory = arena_new(1 << 16, &err))))
        __builtin_trap();
    arena_reset(memory);
    size_t       stop_size = size ? data[0] % 8 : 0;
    span         text, stop = {(const char *)data + 1, stop_size};
    detokenizer *d = size > stop_size + 1 ? detokenizer_new(memory,
                                                            &(detokenizer_options){.tokenizer = kinds[data[0] >> 5 & 1],
                                                                                   .stops     = &stop,
                                                                                   .n_stops   = 1,
                                                                                   .specials  = data[0] & 8,
                                                                                   .continues = data[0] & 16},
                                                            &err)
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
