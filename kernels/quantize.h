/* Floats into block formats: the way back from kern_dequantize.
 *
 * Plain float32 in one order of sums and no library call, so that the same floats give the same bytes on every machine
 * and however the work is shared out. */
#ifndef TROUPE_KERNELS_QUANTIZE_H
#define TROUPE_KERNELS_QUANTIZE_H

#include "kernels/dtype.h"

/* Writes n elements (a multiple of 32) as blocks of Q8_0 or Q4_1; unaligned output. False when a value is not finite or
 * too large for the float16 numbers of a block; `out` is then undefined.
 *
 * Q8_0: scale = max |x| / 127, as ggml rounds it, to the byte.
 * Q4_1: of several ranges, each refined by least squares, the scale and min with the least squared error; never more
 * than that of the plain range from min to max. */
bool kern_quantize(kern_dtype dtype, const float *x, void *out, uint64_t n);

#endif
