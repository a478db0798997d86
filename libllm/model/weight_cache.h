/* Packed weights in a file, to be mapped instead of packed again: the format, and the reader of it.
 *
 * The file is a header, a table of weights in the order in which a load asks for them, and their bytes as
 * kern_weight_packed gives them. It is trusted with nothing: every number is checked against the file's size and the
 * limits, and a seal over header and table must fit. The weights' own bytes can be no harm to kernels; some of each are
 * covered by a check (fingerprint_of_data), which shows a file that a crash left with holes. All is little-endian. */
#ifndef TROUPE_MODEL_WEIGHT_CACHE_H
#define TROUPE_MODEL_WEIGHT_CACHE_H

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/mapped_file.h"

enum {
    WEIGHT_CACHE_VERSION      = 1,
    WEIGHT_CACHE_WEIGHTS_MAX  = 1 << 15,
    WEIGHT_CACHE_LAYOUT_BYTES = 16,
};

/* What a file must be of, or it is another's. */
typedef struct {
    char          layout[WEIGHT_CACHE_LAYOUT_BYTES]; /* kern_weight_layout; the rest is zeros */
    uint32_t      layout_version;
    uint32_t      quantization; /* model_quantization */
    uint64_t      fingerprint;  /* model_fingerprint, after quantisation */
    file_identity source;
} weight_cache_key;

typedef struct {
    uint32_t dtype, n_rows, n_cols, zero;
    uint64_t offset, bytes; /* in the file, a multiple of KERN_WEIGHT_ALIGNMENT; kern_weight_bytes */
    uint64_t check;         /* fingerprint_of_data */
} weight_cache_entry;

typedef struct {
    char             magic[8];
    uint32_t         version, n_weights;
    uint64_t         file_bytes;
    weight_cache_key key;
    uint64_t         data_offset; /* of the first weight */
    uint64_t         seal;        /* of this header without its seal, and of the table */
} weight_cache_header;

/* Points into the bytes that were read. */
typedef struct {
    const uint8_t            *data;
    const weight_cache_entry *entries;
    uint32_t                  n_weights;
} weight_cache;

typedef enum {
    WEIGHT_CACHE_GOOD,
    WEIGHT_CACHE_OLD, /* of another version of program or model: to be replaced */
    WEIGHT_CACHE_BAD, /* no cache, cut or damaged: to be replaced, and worth a warning */
} weight_cache_state;

/* `data` is aligned to 8 bytes. When it is not good, *why says what was found. */
weight_cache_state weight_cache_read(const void *data, size_t n_bytes, const weight_cache_key *key, weight_cache *cache,
                                     error *why) MUST_CHECK;

/* Weight i, which must be of this shape and dtype, as kern_weight_borrow takes it: fills matrix->host_data and *bytes.
 * False when it is another, or not what its check says. */
bool weight_cache_take(const weight_cache *cache, uint32_t i, kern_matrix *matrix, size_t *bytes,
                       error *why) MUST_CHECK;

void weight_cache_fill_header(weight_cache_header *header, const weight_cache_key *key,
                              const weight_cache_entry *entries, uint32_t n_weights);

uint64_t weight_cache_seal(const weight_cache_header *header, const weight_cache_entry *entries);

#endif
