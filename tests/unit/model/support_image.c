#include "support_image.h"

#include <assert.h>
#include <string.h>

void image_put(image *im, const void *data, size_t n_bytes)
{
    assert(n_bytes <= sizeof im->bytes - im->n);
    memcpy(im->bytes + im->n, data, n_bytes);
    im->n += n_bytes;
}

void image_u8(image *im, uint8_t value)
{
    image_put(im, &value, sizeof value);
}

void image_u32(image *im, uint32_t value)
{
    image_put(im, &value, sizeof value);
}

void image_u64(image *im, uint64_t value)
{
    image_put(im, &value, sizeof value);
}

void image_f32(image *im, float value)
{
    image_put(im, &value, sizeof value);
}

void image_align(image *im, size_t alignment)
{
    while (im->n % alignment != 0)
        image_u8(im, 0);
}

void image_string(image *im, const char *text)
{
    image_u64(im, strlen(text));
    image_put(im, text, strlen(text));
}

void image_gguf_header(image *im, uint64_t n_tensors, uint64_t n_keys)
{
    image_put(im, "GGUF", 4);
    image_u32(im, 3);
    image_u64(im, n_tensors);
    image_u64(im, n_keys);
}

void image_key(image *im, const char *key, uint32_t type)
{
    image_string(im, key);
    image_u32(im, type);
}

void image_key_u32(image *im, const char *key, uint32_t value)
{
    image_key(im, key, GGUF_U32);
    image_u32(im, value);
}

void image_key_f32(image *im, const char *key, float value)
{
    image_key(im, key, GGUF_F32);
    image_f32(im, value);
}

void image_key_string(image *im, const char *key, const char *value)
{
    image_key(im, key, GGUF_STRING);
    image_string(im, value);
}

void image_tensor(image *im, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t ggml_type,
                  uint64_t offset)
{
    image_string(im, name);
    image_u32(im, n_dims);
    for (uint32_t d = 0; d < n_dims && d < 8; d++)
        image_u64(im, dims[d]);
    image_u32(im, ggml_type);
    image_u64(im, offset);
}

void image_safetensors(image *im, const char *header, size_t n_data)
{
    image_string(im, header);
    for (size_t i = 0; i < n_data; i++)
        image_u8(im, (uint8_t)i);
}
