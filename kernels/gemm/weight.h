/* Weights as the CPU operators read them.
 *
 * Quantised: rows in groups of 16, so that a vector holds one column pair of 16 rows and no sum runs across lanes. A
 * group is a run of superblocks, of as many columns as a block of the file has: 32 or 256. A superblock is
 *
 *   scales   16 float16, by row
 *   mins     16 float16, by row, where the format has them
 *
 * and blocks of 32 columns: one before its scales, or eight behind them. What a format has, and in how many bits, is in
 * kernels/format.h; a block is, in this order:
 *
 *   low      words of 64 bytes, each 8 / low_bits quads. Quad m (0 .. 7) holds columns 4 m .. 4 m + 3 of row 0, of row
 *            1, ... as bytes; the first quad of a word is in the lowest low_bits of its bytes, the next one above it
 *   high     the bits above low_bits, in words of 8 / high_bits quads of the same kind
 *   parts    for each part 16 part_scales, by row, signed bytes; then 16 part_mins where part_bytes is 2. Where a byte
 *            holds both, the scale is its low nibble
 *
 * The bytes are those of the file, in another order, but integers of 6 bits take a byte. Rows past the end are zero.
 *
 * Float: row-major in the file's dtype, rows padded with zeros to a multiple of 16 columns. */
#ifndef TROUPE_KERNELS_GEMM_WEIGHT_H
#define TROUPE_KERNELS_GEMM_WEIGHT_H

#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/format.h"

/* What this file describes, for those who keep it on disk: another layout has another name, and the version rises with
 * every change of a byte. */
#define WEIGHT_LAYOUT "quads"
enum { WEIGHT_LAYOUT_VERSION = 1 };

enum { WEIGHT_GROUP = 16, WEIGHT_WORD_BYTES = 64 };

typedef struct {
    const kern_backend *backend;
    kern_dtype          dtype;
    uint32_t            n_rows, n_cols;
    size_t              group_bytes; /* quantised: of 16 rows; float: of one row */
    size_t              data_bytes;
    unsigned char      *data;
    bool                is_borrowed; /* `data` is somebody else's, and perhaps not to be written */
} cpu_weight;

/* Offsets inside a packed block. */
static inline uint32_t weight_high_at(kern_dtype dtype)
{
    return kern_formats[dtype].low_bits * WEIGHT_WORD_BYTES;
}

static inline uint32_t weight_part_at(kern_dtype dtype, uint32_t part)
{
    return weight_high_at(dtype) + kern_formats[dtype].high_bits * WEIGHT_WORD_BYTES +
           part * kern_formats[dtype].part_bytes * WEIGHT_GROUP;
}

static inline uint32_t weight_block_bytes(kern_dtype dtype)
{
    return weight_part_at(dtype, kern_formats[dtype].n_parts);
}

static inline uint32_t weight_blocks_a_super(kern_dtype dtype)
{
    return kern_formats[dtype].block / KERN_BLOCK;
}

/* Offsets inside a packed superblock. They are read in this order, which prefetching depends on. */
static inline uint32_t weight_scales_at(kern_dtype dtype)
{
    return weight_blocks_a_super(dtype) == 1 ? weight_block_bytes(dtype) : 0;
}

static inline uint32_t weight_mins_at(kern_dtype dtype)
{
    return weight_scales_at(dtype) + 2 * WEIGHT_GROUP;
}

static inline uint32_t weight_scales_bytes(kern_dtype dtype)
{
    return (kern_formats[dtype].has_min ? 4 : 2) * WEIGHT_GROUP;
}

static inline uint32_t weight_blocks_at(kern_dtype dtype)
{
    return weight_blocks_a_super(dtype) == 1 ? 0 : weight_scales_bytes(dtype);
}

static inline uint32_t weight_super_bytes(kern_dtype dtype)
{
    return weight_scales_bytes(dtype) + weight_blocks_a_super(dtype) * weight_block_bytes(dtype);
}

kern_weight *cpu_weight_new(kern_device *device, const kern_matrix *source, char *why);
kern_weight *ref_weight_new(kern_device *device, const kern_matrix *source, char *why);
void         cpu_weight_free(kern_device *device, kern_weight *weight);
size_t       cpu_weight_bytes(const kern_weight *weight);
const void  *cpu_weight_packed(const kern_weight *weight);
kern_weight *cpu_weight_borrow(kern_device *device, const kern_matrix *packed, size_t bytes, char *why);

/* Dequantises one row, exactly as kern_dequantize would have before packing. */
void cpu_weight_row(const cpu_weight *weight, uint32_t row, float *out);

#endif
