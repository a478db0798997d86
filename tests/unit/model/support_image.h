/* Builds small GGUF and safetensors files in memory, so that tests can break them one field at a time. */
#ifndef TROUPE_TESTS_MODEL_SUPPORT_IMAGE_H
#define TROUPE_TESTS_MODEL_SUPPORT_IMAGE_H

#include "model/gguf.h"

#include <stddef.h>
#include <stdint.h>

enum { IMAGE_BYTES_MAX = 1 << 16 };

typedef struct {
    uint8_t bytes[IMAGE_BYTES_MAX];
    size_t  n;
} image;

void image_put(image *im, const void *data, size_t n_bytes);
void image_u8(image *im, uint8_t value);
void image_u32(image *im, uint32_t value);
void image_u64(image *im, uint64_t value);
void image_f32(image *im, float value);
void image_align(image *im, size_t alignment);

/* GGUF: a string with its length; the header; keys; a tensor's entry. */
void image_string(image *im, const char *text);
void image_gguf_header(image *im, uint64_t n_tensors, uint64_t n_keys);
void image_key(image *im, const char *key, uint32_t type); /* the value comes next */
void image_key_u32(image *im, const char *key, uint32_t value);
void image_key_f32(image *im, const char *key, float value);
void image_key_string(image *im, const char *key, const char *value);
void image_tensor(image *im, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t ggml_type,
                  uint64_t offset);

/* safetensors: the length, then `header`, then n_data bytes 0, 1, 2, ... */
void image_safetensors(image *im, const char *header, size_t n_data);

#endif
