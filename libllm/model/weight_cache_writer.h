/* Writes a file of packed weights, one weight after the other, in large pieces: the header comes last, so a file that
 * was not finished has none. The format is in weight_cache.h. */
#ifndef TROUPE_MODEL_WEIGHT_CACHE_WRITER_H
#define TROUPE_MODEL_WEIGHT_CACHE_WRITER_H

#include "model/weight_cache.h"

typedef struct weight_cache_writer weight_cache_writer;

/* Into `file`, empty and open for writing, which stays the caller's. */
weight_cache_writer *weight_cache_writer_new(int file, uint32_t n_weights_max, error *err);
void                 weight_cache_writer_free(weight_cache_writer **writer);

/* A weight more than n_weights_max is an error, as one that can't be written. */
bool weight_cache_append(weight_cache_writer *writer, const kern_matrix *shape, const void *packed, size_t bytes,
                         error *err) MUST_CHECK;

/* Writes what is left and the header; true when all of it is on the disk. At least one weight. */
bool weight_cache_finish(weight_cache_writer *writer, const weight_cache_key *key, error *err) MUST_CHECK;

#endif
