/* What gemm over vectors (gemm_lanes.h) and gemm over tiles (gemm_tiles.h) share: rounded activations, the quads and
 * scales of a packed block, products with float weights, and how sums become outputs. */
#ifndef TROUPE_KERNELS_GEMM_GEMM_BLOCK_H
#define TROUPE_KERNELS_GEMM_GEMM_BLOCK_H

#include "kernels/cpu_device.h"
#include "kernels/gemm/gemm_cpu.h"
#include "kernels/gemm/weight.h"
#include "kernels/lanes_partial.h"

/* ---- activations ------------------------------------------------------------------------------------------------- */

enum { QUANT_MAX = 32639 }; /* 127 * 256 + 127: the top of what two int8 planes hold */

/* Where a block of rounded activations goes. */
typedef void store_block(const gemm_job *job, uint32_t token, uint32_t block, i32x16 first, i32x16 second);

/* Rounds a block of 32 activations, with the sums of its halves where they are wanted. A NaN or an infinity makes the
 * scale NaN, which reaches every output of the row. */
LANES void quantize_block(const gemm_job *job, const float *x, uint32_t token, uint32_t block, store_block *store)
{
    const struct cpu_activations to = job->x;

    size_t  at  = (size_t)token * (job->n_cols / KERN_BLOCK) + block;
    f32x16  low = f32x16_load(x), high = f32x16_load(x + 16);
    int32_t bits    = i32x16_largest(i32x16_max(i32x16_magnitude_bits(low), i32x16_magnitude_bits(high)));
    float   largest = kern_float_of_bits((uint32_t)bits), scale = largest / QUANT_MAX, inverse = 0;
    if (bits >= 0x7f800000) {
        scale = NAN;
        low = high = f32x16_set(0);
    } else if (largest > 1e-30f) { /* below, the inverse would overflow: 0 */
        inverse = QUANT_MAX / largest;
    }
    i32x16 first  = i32x16_of_f32x16(f32x16_mul(low, f32x16_set(inverse)));
    i32x16 second = i32x16_of_f32x16(f32x16_mul(high, f32x16_set(inverse)));
    store(job, token, block, first, second);
    int32_t half = i32x16_sum(first), whole = i32x16_sum(i32x16_add(first, second));
    to.scales[at] = scale;
    to.isums[at]  = whole;
    to.sums[at]   = scale * (float)whole;
    if (job->halves) {
        to.half_isums[2 * at]     = half;
        to.half_isums[2 * at + 1] = whole - half;
        to.half_sums[2 * at]      = scale * (float)half;
        to.half_sums[2 * at + 1]  = scale * (float)(whole - half);
    }
}

/* What is made of a token of x before the products. */
LANES void prepare_token(const gemm_job *job, uint32_t token, store_block *store)
{
    uint32_t     n_cols = job->n_cols, n_blocks = n_cols / KERN_BLOCK;
    const float *x = job->args->x + (size_t)token * n_cols;
    if (job->pads) {
        float *padded = job->x.padded + (size_t)token * job->float_stride;
        memcpy(padded, x, n_cols * sizeof(float));
        memset(padded + n_cols, 0, (job->float_stride - n_cols) * sizeof(float));
    }
    for (uint32_t b = 0; job->quantizes && b < n_blocks; b++) {
        quantize_block(job, x + b * KERN_BLOCK, token, b, store);
    }
}

/* ---- quantised weights ------------------------------------------------------------------------------------------- */

#define EACH_QUANTIZED(DO)                                                                                             \
    DO(KERN_Q4_0)                                                                                                      \
    DO(KERN_Q4_1)                                                                                                      \
    DO(KERN_Q5_0)                                                                                                      \
    DO(KERN_Q5_1)                                                                                                      \
    DO(KERN_Q8_0)                                                                                                      \
    DO(KERN_Q2_K)                                                                                                      \
    DO(KERN_Q3_K)                                                                                                      \
    DO(KERN_Q4_K)                                                                                                      \
    DO(KERN_Q5_K)                                                                                                      \
    DO(KERN_Q6_K)                                                                                                      \
    DO(KERN_IQ4_NL)                                                                                                    \
    DO(KERN_IQ4_XS)

/* The bits of quad m in words of so many bits each, as bytes with them at bit `to`. */
LANES i16x32 quad_bits(const unsigned char *words, int bits, int m, int to)
{
    const int quads = 8 / bits, from = m % quads * bits;
    i16x32    word = i16x32_load(words + m / quads * WEIGHT_WORD_BYTES);
    if (bits == 8) {
        return word;
    }
    word = from > to ? i16x32_shift_right(word, from - to) : from < to ? i16x32_shift_left(word, to - from) : word;
    return i16x32_and(word, (int16_t)(0x0101 * (((1 << bits) - 1) << to)));
}

/* Quad m of a block: columns 4 m .. 4 m + 3 of 16 rows, as unsigned bytes. */
LANES i16x32 block_quad(kern_dtype dtype, const unsigned char *block, int m)
{
    const kern_format *format = &kern_formats[dtype];
    i16x32             quad   = quad_bits(block, (int)format->low_bits, m, 0);
    if (format->high_bits) {
        const unsigned char *high = block + weight_high_at(dtype);
        quad                      = i16x32_or(quad, quad_bits(high, (int)format->high_bits, m, (int)format->low_bits));
    }
    return format->has_values ? bytes_lookup(kern_iq4_values, quad) : quad;
}

enum { QUADS_MAX = KERN_BLOCK / 4 };

/* What a part of a block is multiplied with, and its min where the format has them. */
LANES f32x16 part_scale(kern_dtype dtype, const unsigned char *super, const unsigned char *part, f32x16 *min)
{
    const kern_format *format = &kern_formats[dtype];
    f32x16             scale  = f32x16_load_f16((const uint16_t *)(super + weight_scales_at(dtype)));
    *min = format->has_min ? f32x16_load_f16((const uint16_t *)(super + weight_mins_at(dtype))) : scale;
    if (format->part_bytes) {
        i32x16 scales = i32x16_load_i8((const int8_t *)part), mins = scales;
        if (format->part_bytes == 2) {
            mins = i32x16_load_i8((const int8_t *)part + WEIGHT_GROUP);
        } else if (format->has_min) {
            mins   = i32x16_and(i32x16_shift_right(scales, 4), 15);
            scales = i32x16_and(scales, 15);
        }
        scale = f32x16_mul(scale, f32x16_of_i32x16(scales));
        *min  = f32x16_mul(*min, f32x16_of_i32x16(mins));
    }
    return scale;
}

/* ---- panels ------------------------------------------------------------------------------------------------------ */

/* A panel is some blocks of a group, unpacked once for many tokens: for each part its quads, as `store` leaves them,
 * then 16 scales and 16 mins, by row. */
enum { PANEL_SCALES_BYTES = 2 * WEIGHT_GROUP * (int)sizeof(float) };

typedef void store_quad(unsigned char *to, i16x32 quad, int32_t offset);
typedef void unpack_panel_function(const unsigned char *super, uint32_t n_blocks, unsigned char *to);

LANES size_t panel_part_bytes(uint32_t n_parts, size_t quad_bytes)
{
    return QUADS_MAX / n_parts * quad_bytes + PANEL_SCALES_BYTES;
}

LANES void unpack_part(kern_dtype dtype, const unsigned char *super, const unsigned char *block, uint32_t part,
                       store_quad *store, size_t quad_bytes, unsigned char *to)
{
    const kern_format *format  = &kern_formats[dtype];
    const int          n_quads = QUADS_MAX / (int)format->n_parts;
    f32x16             min, scale = part_scale(dtype, super, block + weight_part_at(dtype, part), &min);
    UNROLL
    for (int m = 0; m < n_quads; m++, to += quad_bytes) {
        store(to, block_quad(dtype, block, (int)part * n_quads + m), format->offset);
    }
    f32x16_store((float *)to, scale);
    f32x16_store((float *)to + WEIGHT_GROUP, min);
}

/* n_blocks of a group, from a whole superblock on. As many as n_ahead behind them are fetched for the next time. */
LANES void unpack_panel(kern_dtype dtype, const unsigned char *super, uint32_t n_blocks, uint32_t n_ahead,
                        store_quad *store, size_t quad_bytes, unsigned char *to)
{
    const uint32_t n_parts = kern_formats[dtype].n_parts, n_in_super = weight_blocks_a_super(dtype);
    const size_t   ahead = (size_t)n_ahead / n_in_super * weight_super_bytes(dtype);
    for (uint32_t b = 0; b < n_blocks; b += n_in_super, super += weight_super_bytes(dtype)) {
        const unsigned char *block = super + weight_blocks_at(dtype);
        for (uint32_t at = 0; at < weight_super_bytes(dtype); at += 64) {
            __builtin_prefetch(super + ahead + at, 0, 2);
        }
        for (uint32_t i = 0; i < n_in_super; i++, block += weight_block_bytes(dtype)) {
            for (uint32_t part = 0; part < n_parts; part++, to += panel_part_bytes(n_parts, quad_bytes)) {
                unpack_part(dtype, super, block, part, store, quad_bytes, to);
            }
        }
    }
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

/* Adds bias and residual to the sums of `n` <= 16 rows of one token. */
LANES void store_rows(const gemm_job *job, uint32_t output, uint32_t token, uint32_t row, uint32_t n, f32x16 sum)
{
    const cpu_weight *weight = (const cpu_weight *)job->args->outputs[output].weight;
    const float      *bias   = job->args->outputs[output].bias;
    float            *y      = job->args->outputs[output].y + (size_t)token * weight->n_rows + row;
    if (bias) {
        sum = f32x16_add(sum, n == 16 ? f32x16_load(bias + row) : f32x16_load_first(bias + row, n));
    }
    if (job->args->accumulate) {
        sum = f32x16_add(n == 16 ? f32x16_load(y) : f32x16_load_first(y, n), sum);
    }
    if (n == 16) {
        f32x16_store(y, sum);
    } else {
        f32x16_store_first(y, sum, n);
    }
}

/* ---- groups by panels -------------------------------------------------------------------------------------------- */

/* Blocks [block, block + n_blocks) of a group, unpacked in `panel`, by the tokens [first, end): added to `sums`. */
typedef void multiply_panel_function(const gemm_job *job, kern_dtype dtype, const unsigned char *panel, uint32_t block,
                                     uint32_t n_blocks, uint32_t first, uint32_t end, float *sums);

/* A group of 16 rows by the tokens [first, end), at most GEMM_SLICE_TOKENS; `panel` has room for panel_blocks. */
LANES void group_by_panels(const gemm_job *job, uint32_t output, uint32_t group, uint32_t first, uint32_t end,
                           unpack_panel_function *const *unpack, multiply_panel_function *multiply,
                           uint32_t panel_blocks, unsigned char *panel)
{
    const cpu_weight    *weight = (const cpu_weight *)job->args->outputs[output].weight;
    const unsigned char *super  = weight->data + weight->group_bytes * group;
    uint32_t             row = group * WEIGHT_GROUP, n_rows = weight->n_rows - row, n_blocks = job->n_cols / KERN_BLOCK;
    _Alignas(64) float   sums[GEMM_SLICE_TOKENS * WEIGHT_GROUP];
    memset(sums, 0, sizeof sums);
    for (uint32_t block = 0; block < n_blocks; block += panel_blocks) {
        uint32_t n = n_blocks - block < panel_blocks ? n_blocks - block : panel_blocks;
        unpack[weight->dtype](super, n, panel);
        super += (size_t)n / weight_blocks_a_super(weight->dtype) * weight_super_bytes(weight->dtype);
        multiply(job, weight->dtype, panel, block, n, first, end, sums);
    }
    for (uint32_t token = first; token < end; token++) {
        store_rows(job, output, token, row, n_rows < WEIGHT_GROUP ? n_rows : WEIGHT_GROUP,
                   f32x16_load(sums + (size_t)(token - first) * WEIGHT_GROUP));
    }
}

/* ---- float weights ----------------------------------------------------------------------------------------------- */

LANES f32x16 load_weights(kern_dtype dtype, const unsigned char *row, uint32_t c)
{
    return dtype == KERN_F32   ? f32x16_load((const float *)row + c)
           : dtype == KERN_F16 ? f32x16_load_f16((const uint16_t *)row + c)
                               : f32x16_load_bf16((const uint16_t *)row + c);
}

/* n_rows by n_tokens dot products; column c goes to partial sum c % 16. */
LANES void float_tile(kern_dtype dtype, const gemm_job *job, const unsigned char *rows, size_t row_bytes,
                      uint32_t token, uint32_t n_rows, uint32_t n_tokens, float (*out)[WEIGHT_GROUP])
{
    f32x16 acc[LANES_FLOAT_TOKENS][LANES_FLOAT_ROWS];
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            acc[t][r] = f32x16_set(0);
        }
    }
    const float *x = job->float_x + (size_t)token * job->float_stride;
    for (uint32_t c = 0; c < job->float_stride; c += 16) {
        f32x16 weights[LANES_FLOAT_ROWS];
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            weights[r] = load_weights(dtype, rows + r * row_bytes, c);
        }
        UNROLL
        for (uint32_t t = 0; t < n_tokens; t++) {
            f32x16 column = f32x16_load(x + (size_t)t * job->float_stride + c);
            UNROLL
            for (uint32_t r = 0; r < n_rows; r++) {
                acc[t][r] = f32x16_fma(weights[r], column, acc[t][r]);
            }
        }
    }
    for (uint32_t t = 0; t < n_tokens; t++) {
        for (uint32_t r = 0; r < n_rows; r++) {
            out[t][r] = f32x16_sum(acc[t][r]);
        }
    }
}

/* Full tiles keep their sums in registers; what is left over goes one by one. */
LANES void float_tiles(kern_dtype dtype, const gemm_job *job, const unsigned char *rows, size_t row_bytes,
                       uint32_t token, uint32_t n_rows, uint32_t n_tokens, float (*out)[WEIGHT_GROUP])
{
    if (n_rows == LANES_FLOAT_ROWS && n_tokens == LANES_FLOAT_TOKENS) {
        float_tile(dtype, job, rows, row_bytes, token, LANES_FLOAT_ROWS, LANES_FLOAT_TOKENS, out);
        return;
    }
    for (uint32_t t = 0; t < n_tokens; t++) {
        if (n_rows == LANES_FLOAT_ROWS) {
            float_tile(dtype, job, rows, row_bytes, token + t, LANES_FLOAT_ROWS, 1, out + t);
            continue;
        }
        for (uint32_t r = 0; r < n_rows; r++) {
            float one[1][WEIGHT_GROUP];
            float_tile(dtype, job, rows + r * row_bytes, row_bytes, token + t, 1, 1, one);
            out[t][r] = one[0][0];
        }
    }
}

/* A group of 16 rows by the tokens [first, end). */
LANES void float_group_of(kern_dtype dtype, const gemm_job *job, uint32_t output, uint32_t group, uint32_t first,
                          uint32_t end)
{
    const cpu_weight    *weight = (const cpu_weight *)job->args->outputs[output].weight;
    uint32_t             row = group * WEIGHT_GROUP, n_rows = weight->n_rows - row;
    const unsigned char *data = weight->data + weight->group_bytes * row;
    n_rows                    = n_rows < WEIGHT_GROUP ? n_rows : WEIGHT_GROUP;
    for (uint32_t token = first; token < end; token += LANES_FLOAT_TOKENS) {
        uint32_t n = end - token < LANES_FLOAT_TOKENS ? end - token : LANES_FLOAT_TOKENS;
        float    out[LANES_FLOAT_TOKENS][WEIGHT_GROUP];
        for (uint32_t r = 0; r < n_rows; r += LANES_FLOAT_ROWS) {
            uint32_t n_tile_rows = n_rows - r < LANES_FLOAT_ROWS ? n_rows - r : LANES_FLOAT_ROWS;
            float    tile[LANES_FLOAT_TOKENS][WEIGHT_GROUP];
            float_tiles(dtype, job, data + weight->group_bytes * r, weight->group_bytes, token, n_tile_rows, n, tile);
            for (uint32_t t = 0; t < n; t++) {
                memcpy(&out[t][r], tile[t], n_tile_rows * sizeof(float));
            }
        }
        for (uint32_t t = 0; t < n; t++) {
            store_rows(job, output, token + t, row, n_rows, f32x16_load_first(out[t], n_rows));
        }
    }
}

static void float_group(const gemm_job *job, uint32_t output, uint32_t group, uint32_t first, uint32_t end)
{
    switch (((const cpu_weight *)job->args->outputs[output].weight)->dtype) {
    case KERN_F32:
        float_group_of(KERN_F32, job, output, group, first, end);
        break;
    case KERN_F16:
        float_group_of(KERN_F16, job, output, group, first, end);
        break;
    default:
        float_group_of(KERN_BF16, job, output, group, first, end);
    }
}

#endif
