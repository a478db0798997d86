/* Any bytes as a GGUF file: opened, and everything that it claims to hold read. */
// links: llm_model
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    error             err;
    volatile unsigned sum  = 0;
    gguf             *file = gguf_open_memory(data, n_bytes, "fuzz", &err);
    for (uint64_t i = 0; file && i < gguf_n_tensors(file); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file, i);
        for (size_t b = 0; b < tensor->n_bytes; b++)
            sum += ((const uint8_t *)tensor->data)[b];
    }
    gguf_type type;
    uint64_t  n;
    if (file && gguf_get_array(file, "words", &type, &n, &err) && type == GGUF_STRING)
        for (uint64_t i = 0; i < n; i++)
            sum += (unsigned)gguf_array_string(file, "words", i).size;
    gguf_close(&file);
    (void)sum;
    return 0;
}
