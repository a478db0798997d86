/* See weight_cache.h. */
#include "model/weight_cache.h"

#include "base/hash.h"
#include "model/fingerprint.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structs are the file");
static_assert(sizeof(weight_cache_key) == 48 && sizeof(weight_cache_entry) == 40 && sizeof(weight_cache_header) == 88,
              "no bytes between fields");

static const char magic[8] = "\x89troupe\n";

uint64_t weight_cache_seal(const weight_cache_header *header, const weight_cache_entry *entries)
{
    weight_cache_header plain = *header;
    plain.seal                = 0;
    uint64_t hash             = hash_64((hash_key){WEIGHT_CACHE_VERSION, 0}, &plain, sizeof plain);
    return hash_64((hash_key){hash, 1}, entries, header->n_weights * sizeof *entries);
}

void weight_cache_fill_header(weight_cache_header *header, const weight_cache_key *key,
                              const weight_cache_entry *entries, uint32_t n_weights)
{
    const weight_cache_entry *last = &entries[n_weights - 1];
    *header                        = (weight_cache_header){.version     = WEIGHT_CACHE_VERSION,
                                                           .n_weights   = n_weights,
                                                           .file_bytes  = last->offset + last->bytes,
                                                           .key         = *key,
                                                           .data_offset = entries[0].offset};
    memcpy(header->magic, magic, sizeof magic);
    header->seal = weight_cache_seal(header, entries);
}

static weight_cache_state old(error *why, const char *what)
{
    error_set(why, ERR_INVALID, "it is of another %s", what);
    return WEIGHT_CACHE_OLD;
}

static weight_cache_state check_key(const weight_cache_key *found, const weight_cache_key *wanted, error *why)
{
    if (memcmp(found->layout, wanted->layout, sizeof found->layout) != 0 ||
        found->layout_version != wanted->layout_version)
        return old(why, "layout of weights");
    if (found->quantization != wanted->quantization)
        return old(why, "quantization");
    if (found->source.bytes != wanted->source.bytes || found->source.modified_ns != wanted->source.modified_ns ||
        found->fingerprint != wanted->fingerprint)
        return old(why, "model file");
    return WEIGHT_CACHE_GOOD;
}

/* Weights lie one behind the other, inside the file, and have a shape. */
static bool check_entries(const weight_cache_header *header, const weight_cache_entry *entries, error *why)
{
    uint64_t next = header->data_offset;
    for (uint32_t i = 0; i < header->n_weights; i++) {
        const weight_cache_entry *e = &entries[i];
        if (e->dtype >= KERN_N_DTYPES || e->n_rows == 0 || e->n_cols == 0 || e->zero != 0)
            return error_set(why, ERR_INVALID, "weight %" PRIu32 " has no valid type and shape", i);
        if (e->offset % KERN_WEIGHT_ALIGNMENT != 0 || e->offset < next || e->offset > header->file_bytes ||
            e->bytes > header->file_bytes - e->offset)
            return error_set(why, ERR_INVALID, "weight %" PRIu32 " lies outside its place in the file", i);
        next = e->offset + e->bytes;
    }
    return true;
}

static bool check_sizes(const weight_cache_header *header, size_t n_bytes, error *why)
{
    if (header->file_bytes != n_bytes)
        return error_set(why, ERR_INVALID, "it has %zu bytes; %" PRIu64 " were written", n_bytes, header->file_bytes);
    if (header->n_weights == 0 || header->n_weights > WEIGHT_CACHE_WEIGHTS_MAX)
        return error_set(why, ERR_INVALID, "it claims %" PRIu32 " weights", header->n_weights);
    size_t table_end = sizeof *header + header->n_weights * sizeof(weight_cache_entry);
    if (table_end > n_bytes || header->data_offset < table_end)
        return error_set(why, ERR_INVALID, "its table of weights does not fit");
    return true;
}

weight_cache_state weight_cache_read(const void *data, size_t n_bytes, const weight_cache_key *key, weight_cache *cache,
                                     error *why)
{
    const weight_cache_header *header = data;
    *cache                            = (weight_cache){0};
    if (n_bytes < sizeof *header || memcmp(header->magic, magic, sizeof magic) != 0) {
        error_set(why, ERR_INVALID, "it does not begin as a file of packed weights does");
        return WEIGHT_CACHE_BAD;
    }
    if (header->version != WEIGHT_CACHE_VERSION)
        return old(why, "version");
    if (!check_sizes(header, n_bytes, why))
        return WEIGHT_CACHE_BAD;
    const weight_cache_entry *entries = (const weight_cache_entry *)(header + 1);
    if (header->seal != weight_cache_seal(header, entries)) {
        error_set(why, ERR_INVALID, "its header is damaged");
        return WEIGHT_CACHE_BAD;
    }
    weight_cache_state state = check_key(&header->key, key, why);
    if (state != WEIGHT_CACHE_GOOD)
        return state;
    if (!check_entries(header, entries, why))
        return WEIGHT_CACHE_BAD;
    *cache = (weight_cache){data, entries, header->n_weights};
    return WEIGHT_CACHE_GOOD;
}

bool weight_cache_take(const weight_cache *cache, uint32_t i, kern_matrix *matrix, size_t *bytes, error *why)
{
    const weight_cache_entry *e = &cache->entries[i];
    if (i >= cache->n_weights || e->dtype != (uint32_t)matrix->dtype || e->n_rows != matrix->n_rows ||
        e->n_cols != matrix->n_cols)
        return error_set(why, ERR_INVALID, "the cache's weight %" PRIu32 " is not %" PRIu32 " x %" PRIu32 " of %s", i,
                         matrix->n_rows, matrix->n_cols, kern_dtype_name(matrix->dtype));
    matrix->host_data = cache->data + e->offset;
    *bytes            = (size_t)e->bytes;
    return fingerprint_of_data(matrix->host_data, *bytes) == e->check ||
           error_set(why, ERR_INVALID, "the cache's weight %" PRIu32 " is damaged", i);
}
