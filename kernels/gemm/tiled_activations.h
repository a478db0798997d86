/* Activations as gemm_tiles.h reads them: a 16-bit integer as two signed bytes, high * 256 + low. They stand where
 * gemm_lanes.h keeps 16-bit integers, in as many bytes. */
#ifndef TROUPE_KERNELS_GEMM_TILED_ACTIVATIONS_H
#define TROUPE_KERNELS_GEMM_TILED_ACTIVATIONS_H

#include "kernels/gemm/gemm_cpu.h"

enum {
    TILE_TOKENS  = CPU_TOKENS_PADDED, /* of a tile, two rows each */
    PLANES_BYTES = 2 * KERN_BLOCK,    /* of one token's block: 32 high bytes, 32 low bytes */
};

/* The bytes of a block of a token. Those of eight tokens lie together: a tile. */
LANES int8_t *planes_of(const gemm_job *job, uint32_t token, uint32_t block)
{
    size_t n_blocks = job->n_cols / KERN_BLOCK, tile = token / TILE_TOKENS * n_blocks + block;
    return (int8_t *)job->x.quants + (tile * TILE_TOKENS + token % TILE_TOKENS) * PLANES_BYTES;
}

LANES void store_planes(int8_t *to, i32x16 first, i32x16 second)
{
    const i32x16 half = i32x16_set(128);
    i32x16_store_bytes(to, i32x16_shift_right(i32x16_add(first, half), 8));
    i32x16_store_bytes(to + 16, i32x16_shift_right(i32x16_add(second, half), 8));
    i32x16_store_bytes(to + 32, first);
    i32x16_store_bytes(to + 48, second);
}

#endif
