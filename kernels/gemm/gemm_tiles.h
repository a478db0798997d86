/* gemm over tiles (AMX), for batches of enough tokens; smaller ones take the vectors of gemm_lanes.h, to the same bits.
 *
 * A 16-bit activation is two signed bytes, high * 256 + low. A tile of activations has eight tokens as sixteen rows,
 * high and low by turns, and a tile of weights is a block of gemm/weight.h with its quads unpacked to bytes, the offset
 * taken off. Their product holds, for each token, 16 rows' sums of the high and of the low bytes: integers of at most
 * 2^20, so that sum(high) * 256 + sum(low) is exactly the dot product of gemm_lanes.h, and what follows is the same.
 *
 * A scale belongs to 32 columns (or 16), so a product is as deep as that and not 64 bytes as tiles can be, and it
 * leaves the tiles at once. Of eight tiles four are sums: two products (sixteen tokens, whose float sums fill half of
 * the vector registers) by two sides, so that the next product runs while the last one is scaled. What bounds it is in
 * SPEED.md. */
#ifndef TROUPE_KERNELS_GEMM_GEMM_TILES_H
#define TROUPE_KERNELS_GEMM_GEMM_TILES_H

#include "kernels/gemm/gemm_block.h"
#include LANES_TILES

enum {
    TILES_FROM_TOKENS = 8,                 /* below, most of a tile would be idle */
    TILE_TOKENS       = CPU_TOKENS_PADDED, /* of a tile, two rows each */
    TILE_ROWS         = 16,
    TILE_ROW_BYTES    = 64,
    PAIR_TOKENS       = 2 * TILE_TOKENS,

    PLANES_BYTES = 2 * KERN_BLOCK, /* of one token's block: 32 high bytes, 32 low bytes */
    PRODUCT_INTS = TILE_ROWS * WEIGHT_GROUP,
    PANEL_BLOCKS = 16, /* unpacked at a time: half of a first-level cache, beside the activations that pass */
    PANEL_BYTES  = PANEL_BLOCKS * (KERN_BLOCK * WEIGHT_GROUP + 2 * PANEL_SCALES_BYTES),
};

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* The bytes of a block of a token. Those of eight tokens lie together: a tile. They stand where gemm_lanes.h has 16-bit
 * integers, in as many bytes. */
LANES int8_t *planes_of(const gemm_job *job, uint32_t token, uint32_t block)
{
    size_t n_blocks = job->n_cols / KERN_BLOCK, tile = token / TILE_TOKENS * n_blocks + block;
    return (int8_t *)job->x.quants + (tile * TILE_TOKENS + token % TILE_TOKENS) * PLANES_BYTES;
}

LANES void store_planes(const gemm_job *job, uint32_t token, uint32_t block, i32x16 first, i32x16 second)
{
    int8_t      *to   = planes_of(job, token, block);
    const i32x16 half = i32x16_set(128);
    i32x16_store_bytes(to, i32x16_shift_right(i32x16_add(first, half), 8));
    i32x16_store_bytes(to + 16, i32x16_shift_right(i32x16_add(second, half), 8));
    i32x16_store_bytes(to + 32, first);
    i32x16_store_bytes(to + 48, second);
}

static void tiled_prepare_slice(void *job, uint32_t token, uint32_t worker)
{
    (void)worker;
    prepare_token(job, token, store_planes);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

LANES void store_bytes(unsigned char *to, i16x32 quad, int32_t offset)
{
    i16x32_store(to, bytes_sub(quad, (uint8_t)offset));
}

#define UNPACK_PANEL_OF(dtype)                                                                                         \
    static __attribute__((noinline)) void unpack_##dtype(const unsigned char *super, uint32_t n_blocks,                \
                                                         unsigned char *to)                                            \
    {                                                                                                                  \
        unpack_panel(dtype, super, n_blocks, PANEL_BLOCKS, store_bytes, TILE_ROW_BYTES, to);                           \
    }

#define UNPACK_PANEL_ENTRY(dtype) [dtype] = unpack_##dtype,

EACH_QUANTIZED(UNPACK_PANEL_OF)

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Sums are tiles 0 to 3, activations 4 and 5, weights 6 and 7. */
static void shape_tiles(uint32_t n_parts)
{
    tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.n_rows[tile]    = (uint8_t)(tile < 6 ? TILE_ROWS : QUADS_MAX / n_parts);
        config.row_bytes[tile] = (uint16_t)(tile == 4 || tile == 5 ? KERN_BLOCK / n_parts : TILE_ROW_BYTES);
    }
    tile_configure(&config);
}

/* A panel with the tokens of one or two tiles. */
typedef struct {
    const unsigned char *panel;
    const int8_t        *planes;            /* of the first token, in the panel's first block */
    size_t               planes_stride;     /* bytes to those of the second tile */
    const float         *x_scales, *x_sums; /* of the first token, from the panel's first block on */
    size_t               n_blocks;          /* from a token to the next, in x_scales */
    size_t               part_bytes;        /* of the panel */
    uint32_t             n_steps, n_parts;  /* parts of the panel; of a block: 1 or 2 */
    int32_t (*products)[2][PRODUCT_INTS];   /* of two steps, by tile */
    float *sums;                            /* [tokens][16 rows]: added to */
} tiled_product;

#define MULTIPLY(first, second, weights)                                                                               \
    do {                                                                                                               \
        tile_zero(first);                                                                                              \
        tile_load(weights, quads, TILE_ROW_BYTES);                                                                     \
        tile_load(4, planes, KERN_BLOCK);                                                                              \
        tile_dot_i8(first, 4, weights);                                                                                \
        if (n_tiles == 2) {                                                                                            \
            tile_zero(second);                                                                                         \
            tile_load(5, planes + p->planes_stride, KERN_BLOCK);                                                       \
            tile_dot_i8(second, 5, weights);                                                                           \
            tile_store(second, to[1], TILE_ROW_BYTES);                                                                 \
        }                                                                                                              \
        tile_store(first, to[0], TILE_ROW_BYTES);                                                                      \
    } while (0)

/* Leaves the products of a step in the memory of its side. */
LANES void multiply_step(const tiled_product *p, uint32_t step, uint32_t n_tiles)
{
    const uint32_t       block = p->n_parts == 2 ? step / 2 : step, part = p->n_parts == 2 ? step % 2 : 0;
    const unsigned char *quads  = p->panel + step * p->part_bytes;
    const int8_t        *planes = p->planes + (size_t)block * TILE_TOKENS * PLANES_BYTES + part * KERN_BLOCK / 2;
    int32_t(*to)[PRODUCT_INTS]  = p->products[step % 2];
    if (step % 2) {
        MULTIPLY(2, 3, 7);
    } else {
        MULTIPLY(0, 1, 6);
    }
}

/* sums += the products of a step, scaled as gemm_lanes.h scales them. */
LANES void scale_step(const tiled_product *p, uint32_t step, bool has_min, uint32_t n_tiles, f32x16 *sums)
{
    const float *scales = (const float *)(p->panel + (step + 1) * p->part_bytes - PANEL_SCALES_BYTES);
    f32x16       scale = f32x16_load(scales), min = f32x16_load(scales + WEIGHT_GROUP);
    const float *x_scales = p->x_scales + (p->n_parts == 2 ? step / 2 : step), *x_sums = p->x_sums + step;
    UNROLL
    for (uint32_t t = 0; t < n_tiles * TILE_TOKENS; t++) {
        const int32_t *high = p->products[step % 2][t / TILE_TOKENS] + t % TILE_TOKENS * 2 * WEIGHT_GROUP;
        i32x16         dot  = i32x16_add(i32x16_shift_left(i32x16_load(high), 8), i32x16_load(high + WEIGHT_GROUP));
        f32x16         by   = f32x16_mul(scale, f32x16_set(x_scales[t * p->n_blocks]));
        sums[t]             = f32x16_fma(f32x16_of_i32x16(dot), by, sums[t]);
        if (has_min) {
            sums[t] = f32x16_fma(min, f32x16_set(x_sums[t * p->n_blocks * p->n_parts]), sums[t]);
        }
    }
}

LANES void multiply_panel(const tiled_product *p, bool has_min, uint32_t n_tiles)
{
    f32x16 sums[PAIR_TOKENS];
    UNROLL
    for (uint32_t t = 0; t < n_tiles * TILE_TOKENS; t++) {
        sums[t] = f32x16_load(p->sums + t * WEIGHT_GROUP);
    }
    multiply_step(p, 0, n_tiles);
    for (uint32_t step = 0; step < p->n_steps; step++) {
        if (step + 1 < p->n_steps) {
            multiply_step(p, step + 1, n_tiles);
        }
        scale_step(p, step, has_min, n_tiles, sums);
    }
    UNROLL
    for (uint32_t t = 0; t < n_tiles * TILE_TOKENS; t++) {
        f32x16_store(p->sums + t * WEIGHT_GROUP, sums[t]);
    }
}

/* One instance for each kind, so that the sums live in registers. */
static __attribute__((noinline)) void multiply_panel_by(const tiled_product *p, bool has_min, uint32_t n_tiles)
{
    if (has_min) {
        n_tiles == 2 ? multiply_panel(p, true, 2) : multiply_panel(p, true, 1);
    } else {
        n_tiles == 2 ? multiply_panel(p, false, 2) : multiply_panel(p, false, 1);
    }
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

static void tiled_panel(const gemm_job *job, kern_dtype dtype, const unsigned char *panel, uint32_t block,
                        uint32_t n_blocks, uint32_t first, uint32_t end, float *sums)
{
    const kern_format   *format = &kern_formats[dtype];
    const float         *x_sums = format->n_parts == 2 ? job->x.half_sums : job->x.sums;
    _Alignas(64) int32_t products[2][2][PRODUCT_INTS];
    tiled_product        p = {.panel         = panel,
                              .planes_stride = (size_t)job->n_cols / KERN_BLOCK * TILE_TOKENS * PLANES_BYTES,
                              .n_blocks      = job->n_cols / KERN_BLOCK,
                              .part_bytes    = panel_part_bytes(format->n_parts, TILE_ROW_BYTES),
                              .n_steps       = n_blocks * format->n_parts,
                              .n_parts       = format->n_parts,
                              .products      = products};
    for (uint32_t token = first; token < end; token += PAIR_TOKENS) {
        size_t at  = token * p.n_blocks + block;
        p.planes   = planes_of(job, token, block);
        p.x_scales = job->x.scales + at;
        p.x_sums   = x_sums + at * format->n_parts;
        p.sums     = sums + (size_t)(token - first) * WEIGHT_GROUP;
        multiply_panel_by(&p, format->has_min, end - token > TILE_TOKENS ? 2 : 1);
    }
}

static void tiled_group(const gemm_job *job, uint32_t output, uint32_t group, uint32_t first, uint32_t end)
{
    static unpack_panel_function *const unpack[KERN_N_DTYPES] = {EACH_QUANTIZED(UNPACK_PANEL_ENTRY)};

    _Alignas(64) unsigned char panel[PANEL_BYTES];
    group_by_panels(job, output, group, first, end, unpack, tiled_panel, PANEL_BLOCKS, panel);
}

static void tiled_slice(void *argument, uint32_t slice, uint32_t worker)
{
    (void)worker;
    const gemm_job *job    = argument;
    gemm_part       part   = gemm_part_of(job, slice);
    uint32_t        shaped = 0;
    for (; part.group < part.end_group; part.group++) {
        uint32_t   group = part.group, output = gemm_output_of(job, &group);
        kern_dtype dtype = ((const cpu_weight *)job->args->outputs[output].weight)->dtype;
        if (!kern_dtype_is_quantized(dtype)) {
            float_group(job, output, group, part.token, part.end_token);
            continue;
        }
        if (shaped != kern_formats[dtype].n_parts) {
            shaped = kern_formats[dtype].n_parts;
            shape_tiles(shaped);
        }
        tiled_group(job, output, group, part.token, part.end_token);
    }
    if (shaped) {
        tile_release();
    }
}

/* False, and nothing done, where vectors do better: few tokens, or float weights alone. */
static bool gemm_over_tiles(kern_device *device, const kern_gemm_args *args)
{
    gemm_job job = gemm_job_of((cpu_device *)device, args);
    if (args->n_tokens < TILES_FROM_TOKENS || !job.quantizes) {
        return false;
    }
    gemm_run((cpu_device *)device, &job, tiled_prepare_slice, tiled_slice);
    return true;
}

#endif
