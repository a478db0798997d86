/* y = W x for a batch of rows of x.
 *
 * Reads 2 n_tokens operations for each weight: at 4 bits and one token that is 4 operations a byte, so decode is bound
 * by memory; a group of 16 rows stays in the first-level cache while every token of the batch passes it in tiles of
 * LANES_TILE_TOKENS, so a prefill is bound by integer multiply-adds (2 columns of 16 rows an instruction).
 *
 * The sums of one (row, token): per part of 16 or 32 columns (kernels/format.h) an exact 32-bit integer dot product,
 * made a float once, then
 *     acc = fma(dot - offset * sum, scale * x_scale, acc);  acc = fma(min, x_scale * sum, acc)
 * in column order. The products scale * part_scale and min * part_min, of 11 by 8 bits, are exact. Tiles never change
 * any of that. */
#include "kernels/gemm/gemm_block.h"
#include "kernels/gemm/gemm_panel.h"

LANES void store_quants_of_block(const gemm_job *job, uint32_t token, uint32_t block, i32x16 first, i32x16 second)
{
    store_quants(job->x.quants + (size_t)token * job->n_cols + block * KERN_BLOCK, first, second);
}

static void gemm_prepare_slice(void *job, uint32_t token, uint32_t worker)
{
    (void)worker;
    prepare_token(job, token, store_quants_of_block);
}

/* dot[t] = the columns of n_quads quads, from `first` on, of 16 rows times those of token t, exactly. */
LANES void quads_dot(kern_dtype dtype, const unsigned char *block, int first, int n_quads, const int16_t *quants,
                     size_t stride, uint32_t n_tokens, i32x16 *dot)
{
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        dot[t] = i32x16_set(0);
    }
    UNROLL
    for (int m = first; m < first + n_quads; m++) {
        i16x32 quad = block_quad(dtype, block, m), even = i16x32_and(quad, 0x00ff), odd = i16x32_shift_right(quad, 8);
        UNROLL
        for (uint32_t t = 0; t < n_tokens; t++) {
            const int16_t *four = quants + t * stride + 4 * m;
            dot[t] = i16x32_dot(i16x32_dot(dot[t], even, i16x32_set_pair(four)), odd, i16x32_set_pair(four + 2));
        }
    }
}

/* acc[t] += 16 rows of one block of 32 columns, times block x_at of the first token and those n_blocks apart. */
LANES void add_block(kern_dtype dtype, const gemm_job *job, const unsigned char *super, const unsigned char *block,
                     size_t x_at, uint32_t n_tokens, f32x16 *acc)
{
    const kern_format *format   = &kern_formats[dtype];
    const uint32_t     n_blocks = job->n_cols / KERN_BLOCK, n_parts = format->n_parts;
    const int32_t     *isums = n_parts == 2 ? job->x.half_isums : job->x.isums;
    const float       *sums  = n_parts == 2 ? job->x.half_sums : job->x.sums;
    UNROLL
    for (uint32_t part = 0; part < n_parts; part++) {
        i32x16    dot[LANES_TILE_TOKENS];
        f32x16    min;
        const int n_quads = QUADS_MAX / (int)n_parts;
        quads_dot(dtype, block, (int)part * n_quads, n_quads, job->x.quants + x_at * KERN_BLOCK, job->n_cols, n_tokens,
                  dot);
        f32x16 scale = part_scale(dtype, super, block + weight_part_at(dtype, part), &min);
        UNROLL
        for (uint32_t t = 0; t < n_tokens; t++) {
            size_t at = x_at + (size_t)t * n_blocks, part_at = at * n_parts + part;
            if (format->offset) {
                dot[t] = i32x16_sub(dot[t], i32x16_set(format->offset * isums[part_at]));
            }
            acc[t] = f32x16_fma(f32x16_of_i32x16(dot[t]), f32x16_mul(scale, f32x16_set(job->x.scales[at])), acc[t]);
            if (format->has_min) {
                acc[t] = f32x16_fma(min, f32x16_set(sums[part_at]), acc[t]);
            }
        }
    }
}

/* 16 rows by n_tokens, all columns. */
LANES void quantized_tile(kern_dtype dtype, const gemm_job *job, const unsigned char *super, uint32_t token,
                          uint32_t n_tokens, f32x16 *out)
{
    const uint32_t n_blocks = job->n_cols / KERN_BLOCK, n_in_super = weight_blocks_a_super(dtype);
    size_t         at = (size_t)token * n_blocks;
    f32x16         acc[LANES_TILE_TOKENS];
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        acc[t] = f32x16_set(0);
    }
    for (uint32_t b = 0; b < n_blocks; b += n_in_super, super += weight_super_bytes(dtype)) {
        const unsigned char *block = super + weight_blocks_at(dtype);
        for (uint32_t i = 0; i < n_in_super; i++, at++, block += weight_block_bytes(dtype)) {
            add_block(dtype, job, super, block, at, n_tokens, acc);
        }
    }
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        out[t] = acc[t];
    }
}

/* One instance for each dtype and tile height, so that the sums live in registers. */
#define QUANTIZED_TILE(dtype, n)                                                                                       \
    case n:                                                                                                            \
        quantized_tile(dtype, job, super, token, n, out);                                                              \
        break;

#if defined(LANES_PORTABLE)
#define QUANTIZED_TILES(dtype)                                                                                         \
    default:                                                                                                           \
        quantized_tile(dtype, job, super, token, n_tokens, out);
#elif defined(LANES_WIDE_TILES)
#define QUANTIZED_TILES(dtype)                                                                                         \
    QUANTIZED_TILE(dtype, 1) QUANTIZED_TILE(dtype, 2) QUANTIZED_TILE(dtype, 4) QUANTIZED_TILE(dtype, 8)
#else
#define QUANTIZED_TILES(dtype) QUANTIZED_TILE(dtype, 1) QUANTIZED_TILE(dtype, 2) QUANTIZED_TILE(dtype, 4)
#endif

/* The largest power of two that is not above n: the heights of tiles. */
LANES uint32_t tile_height(uint32_t n)
{
    uint32_t height = LANES_TILE_TOKENS;
    while (height > n) {
        height /= 2;
    }
    return height;
}

#define QUANTIZED_TILES_OF(dtype)                                                                                      \
    static __attribute__((noinline)) void tiles_##dtype(const gemm_job *job, const unsigned char *super,               \
                                                        uint32_t token, uint32_t n_tokens, f32x16 *out)                \
    {                                                                                                                  \
        switch (n_tokens) {                                                                                            \
            QUANTIZED_TILES(dtype)                                                                                     \
        }                                                                                                              \
    }

#define QUANTIZED_TILES_ENTRY(dtype) [dtype] = tiles_##dtype,

EACH_QUANTIZED(QUANTIZED_TILES_OF)

typedef void quantized_tiles(const gemm_job *job, const unsigned char *super, uint32_t token, uint32_t n_tokens,
                             f32x16 *out);

/* A group of 16 rows by the tokens [first, end). */
static void quantized_group(const gemm_job *job, uint32_t output, uint32_t group, uint32_t first, uint32_t end)
{
    static quantized_tiles *const tiles[KERN_N_DTYPES] = {EACH_QUANTIZED(QUANTIZED_TILES_ENTRY)};

    const cpu_weight    *weight = (const cpu_weight *)job->args->outputs[output].weight;
    const unsigned char *data   = weight->data + weight->group_bytes * group;
    uint32_t             row = group * WEIGHT_GROUP, n_rows = weight->n_rows - row;
    if (panel_pays(weight->dtype, end - first)) {
        panel_group(job, output, group, first, end);
        return;
    }
    for (uint32_t token = first, n; token < end; token += n) {
        n = tile_height(end - token);
        f32x16 out[LANES_TILE_TOKENS];
        tiles[weight->dtype](job, data, token, n, out);
        for (uint32_t t = 0; t < n; t++) {
            store_rows(job, output, token + t, row, n_rows < WEIGHT_GROUP ? n_rows : WEIGHT_GROUP, out[t]);
        }
    }
}

static void gemm_slice(void *argument, uint32_t slice, uint32_t worker)
{
    (void)worker;
    const gemm_job *job  = argument;
    gemm_part       part = gemm_part_of(job, slice);
    for (; part.group < part.end_group; part.group++) {
        uint32_t   group = part.group, output = gemm_output_of(job, &group);
        kern_dtype dtype = ((const cpu_weight *)job->args->outputs[output].weight)->dtype;
        (kern_dtype_is_quantized(dtype) ? quantized_group : float_group)(job, output, group, part.token,
                                                                         part.end_token);
    }
}

static void cpu_gemm(kern_device *device, const kern_gemm_args *args)
{
    gemm_job job = gemm_job_of((cpu_device *)device, args);
    gemm_run((cpu_device *)device, &job, gemm_prepare_slice, gemm_slice);
}
