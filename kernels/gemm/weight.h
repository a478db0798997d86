/* Weights as the CPU operators read them.
 *
 * Quantised: rows in groups of 16, so that a vector holds one column pair of 16 rows and no sum runs across lanes. A
 * group is a run of blocks of 32 columns; a block is, in this order:
 *
 *   quants   quads of 64 bytes: quad m (0 .. 7) holds columns 4 m .. 4 m + 3 of row 0, of row 1, ... as unsigned bytes.
 *            8 bits: 8 quads of quant + 128. 4 and 5 bits: 4 words, word k with quad 2 k in the low and quad 2 k + 1
 *            in the high halves of its bytes
 *   fifths   5 bits: one word whose bit m of each byte is bit 4 of that byte in quad m
 *   scales   16 float16, by row
 *   mins     16 float16, by row, where the format has them
 *
 * The bytes are those of the file, in another order. Rows past the end are zero.
 *
 * Float: row-major in the file's dtype, rows padded with zeros to a multiple of 16 columns. */
#ifndef TROUPE_KERNELS_GEMM_WEIGHT_H
#define TROUPE_KERNELS_GEMM_WEIGHT_H

#include "kernels/backend.h"

enum { WEIGHT_GROUP = 16, WEIGHT_WORD_BYTES = 64, WEIGHT_QUADS = 8 };

typedef struct {
    const kern_backend *backend;
    kern_dtype          dtype;
    uint32_t            n_rows, n_cols;
    size_t              group_bytes; /* quantised: of 16 rows; float: of one row */
    size_t              data_bytes;
    unsigned char      *data;
} cpu_weight;

/* Offsets inside a packed block of a quantised dtype. */
static inline uint32_t weight_quants_bytes(kern_dtype dtype)
{
    return (dtype == KERN_Q8_0 ? 8 : 4) * WEIGHT_WORD_BYTES;
}

static inline uint32_t weight_scales_at(kern_dtype dtype)
{
    return weight_quants_bytes(dtype) + (dtype == KERN_Q5_0 || dtype == KERN_Q5_1 ? WEIGHT_WORD_BYTES : 0);
}

static inline uint32_t weight_mins_at(kern_dtype dtype)
{
    return weight_scales_at(dtype) + 2 * WEIGHT_GROUP;
}

static inline uint32_t weight_block_bytes(kern_dtype dtype)
{
    return weight_mins_at(dtype) + (dtype == KERN_Q4_1 || dtype == KERN_Q5_1 ? 2 * WEIGHT_GROUP : 0);
}

/* What packed quants are above the weight's integers: 8 for Q4_0, 16 for Q5_0, 128 for Q8_0, else 0. */
static inline int32_t weight_offset(kern_dtype dtype)
{
    return dtype == KERN_Q4_0 ? 8 : dtype == KERN_Q5_0 ? 16 : dtype == KERN_Q8_0 ? 128 : 0;
}

kern_weight *cpu_weight_new(kern_device *device, const kern_matrix *source, char *why);
kern_weight *ref_weight_new(kern_device *device, const kern_matrix *source, char *why);
void         cpu_weight_free(kern_device *device, kern_weight *weight);
size_t       cpu_weight_bytes(const kern_weight *weight);

/* Dequantises one row, exactly as kern_dequantize would have before packing. */
void cpu_weight_row(const cpu_weight *weight, uint32_t row, float *out);

#endif
