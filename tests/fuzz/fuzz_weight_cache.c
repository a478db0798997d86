/* Any bytes as a file of packed weights, as they are and under a good seal: read, and every weight taken and summed. */
// links: llm_model
#include "model/weight_cache.h"

#include <stdlib.h>
#include <string.h>

static void read_all(const void *data, size_t n_bytes)
{
    static const weight_cache_key key = {
        .layout = "quads", .layout_version = 1, .fingerprint = 77, .source = {1000, 2000}};
    weight_cache      cache;
    error             err;
    volatile unsigned sum = 0;
    if (weight_cache_read(data, n_bytes, &key, &cache, &err) != WEIGHT_CACHE_GOOD)
        return;
    for (uint32_t i = 0; i < cache.n_weights; i++) {
        const weight_cache_entry *e      = &cache.entries[i];
        kern_matrix               matrix = {(kern_dtype)e->dtype, e->n_rows, e->n_cols, NULL};
        size_t                    bytes;
        if (weight_cache_take(&cache, i, &matrix, &bytes, &err))
            for (size_t b = 0; b < bytes; b++)
                sum += ((const uint8_t *)matrix.host_data)[b];
    }
    (void)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    void *copy = malloc(n_bytes + 1);
    memcpy(copy, data, n_bytes);
    read_all(copy, n_bytes);
    weight_cache_header *header = copy;
    if (n_bytes >= sizeof *header && header->n_weights <= (n_bytes - sizeof *header) / sizeof(weight_cache_entry)) {
        header->seal = weight_cache_seal(header, (const weight_cache_entry *)(header + 1));
        read_all(copy, n_bytes);
    }
    free(copy);
    return 0;
}
