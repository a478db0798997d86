/* gemm over vectors where a slice has many tokens, and unpacking for every few of them (gemm_lanes.h) would cost: the
 * quads of some blocks are unpacked once into pairs of 16-bit columns, the offset taken off, and multiplied with all
 * tokens from the first-level cache. The sums are the same. */
#ifndef TROUPE_KERNELS_GEMM_GEMM_PANEL_H
#define TROUPE_KERNELS_GEMM_GEMM_PANEL_H

#include "kernels/gemm/gemm_block.h"

enum {
    PANEL_FROM_TOKENS = 16,
    PANEL_BLOCKS      = 8,
    PAIRS_BYTES       = 128, /* of a quad: the even columns of 16 rows, then the odd ones */
    PANEL_BYTES       = PANEL_BLOCKS * (QUADS_MAX * PAIRS_BYTES + 2 * PANEL_SCALES_BYTES),
};

LANES void store_pairs(unsigned char *to, i16x32 quad, int32_t offset)
{
    i16x32_store(to, i16x32_sub(i16x32_and(quad, 0x00ff), (int16_t)offset));
    i16x32_store(to + PAIRS_BYTES / 2, i16x32_sub(i16x32_shift_right(quad, 8), (int16_t)offset));
}

/* Measured: of AVX2's instructions a fifth unpacked; with 32 registers, and tiles of more tokens, it pays where scales
 * are many (Q6_K: a quarter faster) and not elsewhere. */
LANES bool panel_pays(kern_dtype dtype, uint32_t n_tokens)
{
    return n_tokens >= PANEL_FROM_TOKENS && (!LANES_MANY_REGISTERS || kern_formats[dtype].n_parts == 2);
}

#define UNPACK_PANEL_OF(dtype)                                                                                         \
    static __attribute__((noinline)) void unpack_##dtype(const unsigned char *super, uint32_t n_blocks,                \
                                                         unsigned char *to)                                            \
    {                                                                                                                  \
        unpack_panel(dtype, super, n_blocks, PANEL_BLOCKS, store_pairs, PAIRS_BYTES, to);                              \
    }

#define UNPACK_PANEL_ENTRY(dtype) [dtype] = unpack_##dtype,

EACH_QUANTIZED(UNPACK_PANEL_OF)

/* A panel with some tokens. */
typedef struct {
    const unsigned char *panel;
    const int16_t       *quants;            /* of the first token, from the panel's first block on */
    const float         *x_scales, *x_sums; /* the same */
    size_t               n_blocks, n_cols;  /* from a token to the next, in x_scales and in quants */
    uint32_t             n_steps;           /* parts of the panel */
    float               *sums;              /* [tokens][16 rows]: added to */
} panel_product;

LANES void panel_tile(const panel_product *p, bool has_min, uint32_t n_parts, uint32_t n_tokens)
{
    const uint32_t       n_quads = QUADS_MAX / n_parts;
    const unsigned char *part    = p->panel;
    f32x16               sums[LANES_TILE_TOKENS];
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        sums[t] = f32x16_load(p->sums + t * WEIGHT_GROUP);
    }
    for (uint32_t step = 0; step < p->n_steps; step++) {
        const int16_t *quants = p->quants + step * (KERN_BLOCK / n_parts);
        i32x16         dot[LANES_TILE_TOKENS];
        UNROLL
        for (uint32_t t = 0; t < n_tokens; t++) {
            dot[t] = i32x16_set(0);
        }
        UNROLL
        for (uint32_t m = 0; m < n_quads; m++) {
            const unsigned char *pairs = part + m * PAIRS_BYTES;
            i16x32               even = i16x32_load(pairs), odd = i16x32_load(pairs + PAIRS_BYTES / 2);
            UNROLL
            for (uint32_t t = 0; t < n_tokens; t++) {
                const int16_t *four = quants + t * p->n_cols + 4 * m;
                dot[t] = i16x32_dot(i16x32_dot(dot[t], even, i16x32_set_pair(four)), odd, i16x32_set_pair(four + 2));
            }
        }
        const float *scales = (const float *)(part + n_quads * PAIRS_BYTES);
        f32x16       scale = f32x16_load(scales), min = f32x16_load(scales + WEIGHT_GROUP);
        part += panel_part_bytes(n_parts, PAIRS_BYTES);
        UNROLL
        for (uint32_t t = 0; t < n_tokens; t++) {
            f32x16 by = f32x16_mul(scale, f32x16_set(p->x_scales[t * p->n_blocks + step / n_parts]));
            sums[t]   = f32x16_fma(f32x16_of_i32x16(dot[t]), by, sums[t]);
            if (has_min) {
                sums[t] = f32x16_fma(min, f32x16_set(p->x_sums[t * p->n_blocks * n_parts + step]), sums[t]);
            }
        }
    }
    UNROLL
    for (uint32_t t = 0; t < n_tokens; t++) {
        f32x16_store(p->sums + t * WEIGHT_GROUP, sums[t]);
    }
}

/* One instance for each kind and height, so that the sums live in registers. */
#define PANEL_TILES_OF(name, has_min, n_parts)                                                                         \
    static __attribute__((noinline)) void panel_tiles_##name(const panel_product *p, uint32_t n_tokens)                \
    {                                                                                                                  \
        if (n_tokens == LANES_TILE_TOKENS) {                                                                           \
            panel_tile(p, has_min, n_parts, LANES_TILE_TOKENS);                                                        \
        } else if (n_tokens == LANES_TILE_TOKENS / 2) {                                                                \
            panel_tile(p, has_min, n_parts, LANES_TILE_TOKENS / 2);                                                    \
        } else {                                                                                                       \
            panel_tile(p, has_min, n_parts, 1);                                                                        \
        }                                                                                                              \
    }

PANEL_TILES_OF(plain, false, 1)
PANEL_TILES_OF(with_min, true, 1)
PANEL_TILES_OF(in_halves, false, 2)
PANEL_TILES_OF(with_min_in_halves, true, 2)

typedef void panel_tiles(const panel_product *p, uint32_t n_tokens);

static void multiply_panel(const gemm_job *job, kern_dtype dtype, const unsigned char *panel, uint32_t block,
                           uint32_t n_blocks, uint32_t first, uint32_t end, float *sums)
{
    static panel_tiles *const kinds[2][2] = {{panel_tiles_plain, panel_tiles_with_min},
                                             {panel_tiles_in_halves, panel_tiles_with_min_in_halves}};

    const kern_format *format  = &kern_formats[dtype];
    const uint32_t     n_parts = format->n_parts;
    panel_product      p       = {
                   .panel = panel, .n_blocks = job->n_cols / KERN_BLOCK, .n_cols = job->n_cols, .n_steps = n_blocks * n_parts};
    for (uint32_t token = first, n; token < end; token += n) {
        uint32_t left = end - token;
        size_t   at   = token * p.n_blocks + block;
        n = left >= LANES_TILE_TOKENS ? LANES_TILE_TOKENS : left >= LANES_TILE_TOKENS / 2 ? LANES_TILE_TOKENS / 2 : 1;
        p.quants   = job->x.quants + at * KERN_BLOCK;
        p.x_scales = job->x.scales + at;
        p.x_sums   = (n_parts == 2 ? job->x.half_sums : job->x.sums) + at * n_parts;
        p.sums     = sums + (size_t)(token - first) * WEIGHT_GROUP;
        kinds[n_parts - 1][format->has_min](&p, n);
    }
}

static void panel_group(const gemm_job *job, uint32_t output, uint32_t group, uint32_t first, uint32_t end)
{
    static unpack_panel_function *const unpack[KERN_N_DTYPES] = {EACH_QUANTIZED(UNPACK_PANEL_ENTRY)};

    _Alignas(64) unsigned char panel[PANEL_BYTES];
    group_by_panels(job, output, group, first, end, unpack, multiply_panel, PANEL_BLOCKS, panel);
}

#endif
