/* Float weights made smaller while they are loaded.
 *
 * int8 is Q8_0: groups of 32 columns with a scale each, 8.5 bits a weight. int4 is Q4_1: groups of 32 with a scale and
 * a min that are searched for the least squared error, 5 bits a weight; embedding and output head, on which all of the
 * model's errors meet, stay at Q8_0. Matrices that are quantised in the file, or whose rows are no multiple of 32, stay
 * as they are; norms and biases are float32 always. */
#ifndef TROUPE_MODEL_QUANTIZATION_H
#define TROUPE_MODEL_QUANTIZATION_H

#include "kernels/kernels.h"
#include "kernels/thread_pool.h"

typedef enum { MODEL_AS_IT_IS, MODEL_INT8, MODEL_INT4 } model_quantization;

/* What the weight is to become; the matrix's own dtype when it stays. */
kern_dtype quantization_dtype(model_quantization quantization, const kern_matrix *matrix, bool is_embedding_or_head);

/* Fills `blocks`, kern_dtype_bytes(dtype, n_rows * n_cols) of them, on the pool's threads; the same bytes for any
 * number of them. False when the matrix holds what `dtype` can't: infinities, NaNs, numbers beyond float16's. */
bool quantize_matrix(thread_pool *pool, const kern_matrix *matrix, kern_dtype dtype, void *blocks);

/* Of the model after quantisation: `fingerprint` itself for MODEL_AS_IT_IS. */
uint64_t quantization_fingerprint(model_quantization quantization, uint64_t fingerprint);

#endif
