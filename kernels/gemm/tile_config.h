/* The shapes of a thread's tiles, as LDTILECFG reads them (Intel SDM vol. 2). */
#ifndef TROUPE_KERNELS_GEMM_TILE_CONFIG_H
#define TROUPE_KERNELS_GEMM_TILE_CONFIG_H

#include <stdint.h>

typedef struct {
    uint8_t  palette, start_row, reserved[14]; /* palette 1: eight tiles of 16 rows of 64 bytes; the others 0 */
    uint16_t row_bytes[16];
    uint8_t  n_rows[16];
} tile_config;

#endif
