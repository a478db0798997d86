/* See fingerprint.h. A hash of several parts takes what was hashed so far as the key of the next. */
#include "model/fingerprint.h"

#include "base/hash.h"

enum { SAMPLES = 16, SAMPLE_BYTES = 4096 };

uint64_t fingerprint_of_data(const void *data, size_t n_bytes)
{
    uint64_t hash = n_bytes;
    if (n_bytes <= SAMPLES * SAMPLE_BYTES)
        return hash_64((hash_key){hash, 0}, data, n_bytes);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        size_t offset = (n_bytes - SAMPLE_BYTES) * i / (SAMPLES - 1);
        hash          = hash_64((hash_key){hash, i}, (const uint8_t *)data + offset, SAMPLE_BYTES);
    }
    return hash;
}

uint64_t fingerprint_of_tensor(const fingerprint_tensor *t)
{
    uint64_t hash = hash_64((hash_key){t->dtype, t->n_dims}, t->name.data, t->name.size);
    hash          = hash_64((hash_key){hash, 1}, t->dims, t->n_dims * sizeof *t->dims);
    return hash_64((hash_key){hash, 2}, &(uint64_t){fingerprint_of_data(t->data, t->n_bytes)}, sizeof(uint64_t));
}
