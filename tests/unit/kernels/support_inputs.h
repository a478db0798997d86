/* Random inputs of a case: functions of (seed, stream, index), so that a row's do not depend on which other rows are
 * drawn. */
#ifndef TROUPE_TESTS_KERNELS_SUPPORT_INPUTS_H
#define TROUPE_TESTS_KERNELS_SUPPORT_INPUTS_H

#include "support_cases.h"

uint64_t input_word(uint64_t seed, uint32_t stream, uint64_t index);
float    input_float(uint64_t seed, uint32_t stream, uint64_t index); /* roughly normal */

/* n numbers of the case's magnitude. The caller frees them. */
float *input_floats(const kernel_case *c, uint32_t stream, size_t n);

/* n elements: random bytes in blocks whose scales are small finite numbers. Uses three streams. The caller frees it. */
unsigned char *input_matrix(const kernel_case *c, uint32_t stream, kern_dtype dtype, size_t n);

#endif
