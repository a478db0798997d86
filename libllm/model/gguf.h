/* Reads a GGUF v3 file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) by mapping it.
 *
 * The file is hostile input: every count, length, type, dimension and offset is checked against the file's size and
 * against limits before it is used, and an error names the file, the key or tensor, and what was expected. Nothing is
 * copied: strings, arrays and tensor data point into the mapping and live until gguf_close. Thread-safe once open. */
#ifndef TROUPE_MODEL_GGUF_H
#define TROUPE_MODEL_GGUF_H

#include "base/error.h"
#include "base/span.h"
#include "kernels/kernels.h"
#include "model/mapped_file.h"

typedef struct gguf gguf;

typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_type;

enum { GGUF_DIMS_MAX = 4, GGUF_KEYS_MAX = 65536, GGUF_TENSORS_MAX = 1 << 20 };

/* A tensor as the file lists it: dims[0] is the innermost (contiguous) dimension. A type that no kernel reads leaves
 * the file usable: such a tensor has dtype KERN_N_DTYPES and is an error where it is needed (gguf_require_tensor); its
 * n_bytes is 0 when even ggml has no such type. */
typedef struct {
    span        name;
    kern_dtype  dtype;
    uint32_t    ggml_type; /* as the file numbers it */
    uint32_t    n_dims;
    uint64_t    dims[GGUF_DIMS_MAX]; /* unused ones are 1 */
    const void *data;                /* n_bytes in the mapping; aligned to general.alignment only */
    size_t      n_bytes;
} gguf_tensor;

gguf *gguf_open(const char *path, error *err);
void  gguf_close(gguf **file);

/* For fuzzing and tests: reads an image that the caller keeps alive. `name` stands in messages. */
gguf *gguf_open_memory(const void *data, size_t n_bytes, const char *name, error *err);

const char   *gguf_path(const gguf *file);
file_identity gguf_identity(const gguf *file);

/* Scalars. False when the key is absent (err untouched, *value untouched) or has another type (err set, code
 * ERR_INVALID); integer keys of any width and sign convert when the value fits. */
bool gguf_get_u32(const gguf *file, const char *key, uint32_t *value, error *err);
bool gguf_get_f32(const gguf *file, const char *key, float *value, error *err);
bool gguf_get_bool(const gguf *file, const char *key, bool *value, error *err);
bool gguf_get_string(const gguf *file, const char *key, span *value, error *err);
bool gguf_has(const gguf *file, const char *key);

/* All keys, in order of name. */
uint64_t gguf_n_keys(const gguf *file);
span     gguf_key_at(const gguf *file, uint64_t i);

/* An array's element type and length; false as above. */
bool gguf_get_array(const gguf *file, const char *key, gguf_type *type, uint64_t *n, error *err);

/* Element i of an array of strings, or the elements of an array of numbers. Asserts the type and the range, which
 * gguf_get_array told. Strings are found through an index made at open, so one costs a look-up of the key alone. */
span        gguf_array_string(const gguf *file, const char *key, uint64_t i);
const void *gguf_array_data(const gguf *file,
                            const char *key); /* packed little-endian elements of a non-string array; unaligned */

uint64_t           gguf_n_tensors(const gguf *file);
const gguf_tensor *gguf_tensor_at(const gguf *file, uint64_t i);         /* in order of name */
const gguf_tensor *gguf_find_tensor(const gguf *file, const char *name); /* NULL when absent; O(log n) */

/* The tensor, or NULL with a sentence when it is absent or of a type that no kernel reads. */
const gguf_tensor *gguf_require_tensor(const gguf *file, const char *name, error *err);

#endif
