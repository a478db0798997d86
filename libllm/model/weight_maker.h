/* Makes a device's weights of a file's matrices: as they are, or quantised on the way; or takes them from a cache of
 * packed weights, in the same order.
 *
 * Besides the weights themselves it takes memory for one quantised matrix, the largest. */
#ifndef TROUPE_MODEL_WEIGHT_MAKER_H
#define TROUPE_MODEL_WEIGHT_MAKER_H

#include "model/model.h"
#include "model/weight_cache_writer.h"

typedef struct weight_maker weight_maker;

/* `device` is borrowed. NULL with an error when there is no memory, or no threads for a quantisation. */
weight_maker *weight_maker_new(kern_device *device, const model_options *options, error *err);
void          weight_maker_free(weight_maker **maker);

/* From now on weights lie in `cache`, which must outlive them; NULL: they are made again. */
void weight_maker_read(weight_maker *maker, const weight_cache *cache);

/* From now on weights are also written; NULL: no more. */
void weight_maker_write(weight_maker *maker, weight_cache_writer *writer);

/* Whether it was writing that failed, and not the model's fault. */
bool weight_maker_could_not_write(const weight_maker *maker);

/* The weight, or NULL with a sentence that does not name the tensor. */
kern_weight *weight_maker_make(weight_maker *maker, const kern_matrix *source, bool is_embedding_or_head, error *err);

#endif
