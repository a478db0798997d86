/* What sets one number format apart from another: one table, of constants that compilers fold into the code of each.
 *
 * Every quantised format is read in blocks of 32 columns, as unsigned integers, a float16 scale and perhaps a float16
 * min; those that have a block of 256 share the two between eight, and give each half or whole of 32 columns ("part")
 * a small integer to multiply them with:
 *
 *     element = (scale * part_scale) * (quant - offset) + min * part_min
 *
 * where quant is kern_iq4_values[quant] in the formats that have values. */
#ifndef TROUPE_KERNELS_FORMAT_H
#define TROUPE_KERNELS_FORMAT_H

#include "kernels/kernels.h"

typedef struct {
    const char *name;
    uint32_t    block, block_bytes;  /* elements of a block of the file, and its size */
    uint32_t    low_bits, high_bits; /* how the CPU backend divides a quant between words: kernels/gemm/weight.h */
    int32_t     offset;
    uint32_t    n_parts;    /* of 32 columns */
    uint32_t    part_bytes; /* 0: no integers; 1: part_scale, or with a min both in one byte; 2: part_scale, part_min */
    bool        has_min, has_values;
} kern_format;

/* In the order of kern_dtype, and without designators, as C++ reads it too. */
static const kern_format kern_formats[KERN_N_DTYPES] = {
    {"F32", 1, 4, 0, 0, 0, 0, 0, false, false},         {"F16", 1, 2, 0, 0, 0, 0, 0, false, false},
    {"BF16", 1, 2, 0, 0, 0, 0, 0, false, false},        {"Q4_0", 32, 18, 4, 0, 8, 1, 0, false, false},
    {"Q4_1", 32, 20, 4, 0, 0, 1, 0, true, false},       {"Q5_0", 32, 22, 4, 1, 16, 1, 0, false, false},
    {"Q5_1", 32, 24, 4, 1, 0, 1, 0, true, false},       {"Q8_0", 32, 34, 8, 0, 128, 1, 0, false, false},
    {"Q2_K", 256, 84, 2, 0, 0, 2, 1, true, false},      {"Q3_K", 256, 110, 2, 1, 4, 2, 1, false, false},
    {"Q4_K", 256, 144, 4, 0, 0, 1, 2, true, false},     {"Q5_K", 256, 176, 4, 1, 0, 1, 2, true, false},
    {"Q6_K", 256, 210, 4, 2, 32, 2, 1, false, false},   {"IQ4_NL", 32, 18, 4, 0, 128, 1, 0, false, true},
    {"IQ4_XS", 256, 136, 4, 0, 128, 1, 1, false, true},
};

#endif
