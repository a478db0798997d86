/* The tile instructions of Intel AMX that gemm_tiles.h is made of (Intel SDM vol. 1, ch. 18; vol. 2, LDTILECFG,
 * TILELOADD, TILESTORED, TDPBSSD): eight registers of up to 16 rows of 64 bytes, whose shapes a thread sets before it
 * uses them. Numbers of tiles are literals. What each operation does, and what it faults on, is written out in the
 * model of them that tests run on machines without AMX (tests/unit/kernels/tiles_model.h). */
#ifndef TROUPE_KERNELS_GEMM_TILES_H
#define TROUPE_KERNELS_GEMM_TILES_H

#include <immintrin.h>

#include "kernels/gemm/tile_config.h"

/* GCC's intrinsics do not say which memory they read: without this, what was written there last might come too late. */
#define TILE_READS(from) __asm__ volatile("" : : "r"(from) : "memory")

/* Sets the shapes and zeroes the tiles. */
#define tile_configure(config)                                                                                         \
    do {                                                                                                               \
        TILE_READS(config);                                                                                            \
        _tile_loadconfig(config);                                                                                      \
    } while (0)

/* Back to no shapes: nothing more for the operating system to save. */
#define tile_release() _tile_release()

#define tile_zero(tile) _tile_zero(tile)

/* Rows are `stride` bytes apart. */
#define tile_load(tile, from, stride)                                                                                  \
    do {                                                                                                               \
        TILE_READS(from);                                                                                              \
        _tile_loadd(tile, from, stride);                                                                               \
    } while (0)

#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)

/* sum[m][n] += for each k: a[m][4k .. 4k + 3] . b[k][4n .. 4n + 3], of signed bytes, in int32. */
#define tile_dot_i8(sum, a, b) _tile_dpbssd(sum, a, b)

#endif
