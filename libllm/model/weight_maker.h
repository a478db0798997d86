/* Makes a device's weights of a file's matrices: as they are, or quantised on the way.
 *
 * Besides the weights themselves it takes memory for one quantised matrix, the largest. */
#ifndef TROUPE_MODEL_WEIGHT_MAKER_H
#define TROUPE_MODEL_WEIGHT_MAKER_H

#include "model/model.h"

typedef struct weight_maker weight_maker;

/* `device` is borrowed. NULL with an error when there is no memory, or no threads for a quantisation. */
weight_maker *weight_maker_new(kern_device *device, const model_options *options, error *err);
void          weight_maker_free(weight_maker **maker);

/* The weight, or NULL with a sentence that does not name the tensor. */
kern_weight *weight_maker_make(weight_maker *maker, const kern_matrix *source, bool is_embedding_or_head, error *err);

#endif
