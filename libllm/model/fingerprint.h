/* Tells models apart, so that a scheduler does not let two of them answer one request.
 *
 * A fingerprint covers every tensor's name, type and shape, and of its data the first page, the last one, and some
 * spread between: training changes all of a tensor, so a sample shows it, and the work at a load stays bounded - under
 * a megabyte for ten tensors, however large they are. */
#ifndef TROUPE_MODEL_FINGERPRINT_H
#define TROUPE_MODEL_FINGERPRINT_H

#include "base/span.h"
#include "kernels/kernels.h"

typedef struct {
    span            name;
    kern_dtype      dtype;
    uint32_t        n_dims;
    const uint64_t *dims;
    const void     *data;
    size_t          n_bytes;
} fingerprint_tensor;

/* The same in every process. Those of a model's tensors may be added up: their names tell them apart. */
uint64_t fingerprint_of_tensor(const fingerprint_tensor *tensor);

uint64_t fingerprint_of_data(const void *data, size_t n_bytes);

#endif
