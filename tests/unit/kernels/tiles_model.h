/* The names of kernels/gemm/tiles_amx.h in plain C: what the architecture says of palette 1 (Intel SDM vol. 1, ch. 18,
 * and vol. 2 of each instruction), so that gemm_tiles.h runs on any machine. What an instruction faults on ends the
 * program, with a sentence. */
#ifndef TROUPE_KERNELS_GEMM_TILES_H
#define TROUPE_KERNELS_GEMM_TILES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm/tile_config.h"

enum { MODEL_TILES = 8, MODEL_ROWS = 16, MODEL_ROW_BYTES = 64 };

typedef struct {
    bool   configured;
    size_t n_rows[MODEL_TILES], row_bytes[MODEL_TILES];
    int8_t data[MODEL_TILES][MODEL_ROWS][MODEL_ROW_BYTES];
} tiles_model;

static _Thread_local tiles_model model;

static inline void model_expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "tiles: %s\n", what);
        abort();
    }
}

static inline void model_expect_shape(int tile)
{
    model_expect(model.configured && model.n_rows[tile] > 0, "a tile without a shape is used");
}

static inline void tile_configure(const tile_config *config)
{
    static const uint8_t none[sizeof config->reserved];
    model_expect(config->palette == 1 && config->start_row == 0, "a palette other than 1, or a row to start from");
    model_expect(memcmp(config->reserved, none, sizeof none) == 0, "reserved bytes are set");
    model = (tiles_model){.configured = true};
    for (int tile = 0; tile < 16; tile++) {
        size_t rows = config->n_rows[tile], bytes = config->row_bytes[tile];
        model_expect(rows <= MODEL_ROWS && bytes <= MODEL_ROW_BYTES, "a shape larger than a tile");
        model_expect((rows == 0) == (bytes == 0), "a shape of rows without bytes");
        model_expect(tile < MODEL_TILES || rows == 0, "a shape for a tile beyond the eighth");
        if (tile < MODEL_TILES) {
            model.n_rows[tile]    = rows;
            model.row_bytes[tile] = bytes;
        }
    }
}

static inline void tile_release(void)
{
    model = (tiles_model){.configured = false};
}

static inline void tile_zero(int tile)
{
    model_expect_shape(tile);
    memset(model.data[tile], 0, sizeof model.data[tile]);
}

static inline void tile_load(int tile, const void *from, size_t stride)
{
    tile_zero(tile);
    for (size_t row = 0; row < model.n_rows[tile]; row++) {
        memcpy(model.data[tile][row], (const char *)from + row * stride, model.row_bytes[tile]);
    }
}

static inline void tile_store(int tile, void *to, size_t stride)
{
    model_expect_shape(tile);
    for (size_t row = 0; row < model.n_rows[tile]; row++) {
        memcpy((char *)to + row * stride, model.data[tile][row], model.row_bytes[tile]);
    }
}

/* TDPBSSD. Sums wrap at 32 bits. */
static inline void tile_dot_i8(int sum, int a, int b)
{
    model_expect_shape(sum), model_expect_shape(a), model_expect_shape(b);
    model_expect(sum != a && sum != b && a != b, "operands of a product that are one tile");
    model_expect(model.row_bytes[sum] % 4 == 0 && model.row_bytes[a] % 4 == 0 && model.row_bytes[b] % 4 == 0,
                 "rows of a product that are no multiple of 4 bytes");
    model_expect(model.n_rows[sum] == model.n_rows[a] && model.row_bytes[sum] == model.row_bytes[b] &&
                     model.row_bytes[a] / 4 == model.n_rows[b],
                 "shapes that have no product");
    for (size_t m = 0; m < model.n_rows[sum]; m++) {
        for (size_t n = 0; n < model.row_bytes[sum] / 4; n++) {
            uint32_t total;
            memcpy(&total, &model.data[sum][m][4 * n], 4);
            for (size_t k = 0; k < model.row_bytes[a]; k++) {
                total += (uint32_t)(model.data[a][m][k] * model.data[b][k / 4][4 * n + k % 4]);
            }
            memcpy(&model.data[sum][m][4 * n], &total, 4);
        }
    }
}

#endif
