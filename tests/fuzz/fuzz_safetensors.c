/* Any bytes as a safetensors file: opened, and all data read. */
// links: llm_model
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    error             err;
    volatile unsigned sum   = 0;
    safetensors      *files = safetensors_open_memory(data, n_bytes, "fuzz", &err);
    for (uint64_t i = 0; files && i < safetensors_n_tensors(files); i++) {
        const safetensors_tensor *tensor = safetensors_tensor_at(files, i);
        for (size_t b = 0; b < tensor->n_bytes; b++)
            sum += ((const uint8_t *)tensor->data)[b];
    }
    safetensors_close(&files);
    (void)sum;
    return 0;
}
