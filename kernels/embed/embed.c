#include <assert.h>

#include "kernels/gemm/weight.h"
#include "kernels/ref_device.h"

enum { PIECE_COLUMNS = 16 * KERN_BLOCK };

/* Columns from `first` on of one token's row, at most a piece of them. */
static void embed_piece(const kern_embed_args *args, const cpu_weight *weight, uint32_t t, uint32_t first)
{
    float    piece[PIECE_COLUMNS], *out = args->out + (size_t)t * weight->n_cols + first;
    uint32_t n = weight->n_cols - first < PIECE_COLUMNS ? weight->n_cols - first : PIECE_COLUMNS;
    cpu_weight_columns(weight, args->tokens[t], first, n, piece);
    for (uint32_t c = 0; c < n; c++) {
        float value = piece[c] * args->scale;
        out[c]      = args->accumulate ? out[c] + value : value;
    }
}

void host_embed(kern_device *device, const kern_embed_args *args)
{
    (void)device;
    const cpu_weight *weight = (const cpu_weight *)args->weight;
    for (uint32_t t = 0; t < args->n_tokens; t++) {
        assert(args->tokens[t] < weight->n_rows);
        for (uint32_t first = 0; first < weight->n_cols; first += PIECE_COLUMNS) {
            embed_piece(args, weight, t, first);
        }
    }
}
