/* Reads safetensors files (https://github.com/huggingface/safetensors#format) by mapping them: one file, or the shards
 * that a model.safetensors.index.json lists.
 *
 * The files are hostile input, as in gguf.h: every offset, size and shape is checked. Nothing is copied; tensors point
 * into the mappings and live until safetensors_close. Thread-safe once open. */
#ifndef TROUPE_MODEL_SAFETENSORS_H
#define TROUPE_MODEL_SAFETENSORS_H

#include "base/error.h"
#include "base/span.h"
#include "kernels/kernels.h"
#include "model/mapped_file.h"

typedef struct safetensors safetensors;

enum { SAFETENSORS_DIMS_MAX = 8, SAFETENSORS_SHARDS_MAX = 256, SAFETENSORS_TENSORS_MAX = 1 << 20 };

/* dims[0] is the outermost dimension, as Python writes shapes. A type that no kernel reads leaves the file usable: such
 * a tensor has dtype KERN_N_DTYPES and is an error where it is needed (safetensors_require). */
typedef struct {
    span        name;
    kern_dtype  dtype;
    const char *type_name; /* as the file writes it */
    uint32_t    n_dims;
    uint32_t    shard;
    uint64_t    dims[SAFETENSORS_DIMS_MAX]; /* unused ones are 1 */
    const void *data;                       /* n_bytes in the mapping, unaligned */
    size_t      n_bytes;
} safetensors_tensor;

/* The folder's model.safetensors, or the shards of its model.safetensors.index.json. */
safetensors *safetensors_open_folder(const char *folder, error *err);
void         safetensors_close(safetensors **files);

/* For fuzzing and tests: reads an image that the caller keeps alive. `name` stands in messages. */
safetensors *safetensors_open_memory(const void *data, size_t n_bytes, const char *name, error *err);

file_identity safetensors_identity(const safetensors *files);

uint64_t                  safetensors_n_tensors(const safetensors *files);
const safetensors_tensor *safetensors_tensor_at(const safetensors *files, uint64_t i); /* in order of name */
const safetensors_tensor *safetensors_find(const safetensors *files, const char *name);

/* The tensor, or NULL with a sentence when it is absent or of a type that no kernel reads. */
const safetensors_tensor *safetensors_require(const safetensors *files, const char *name, error *err);

#endif
