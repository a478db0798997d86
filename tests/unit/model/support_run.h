/* Runs token sequences through a model with its own KV cache, in whatever pieces a test asks for. */
#ifndef TROUPE_TESTS_MODEL_SUPPORT_RUN_H
#define TROUPE_TESTS_MODEL_SUPPORT_RUN_H

#include "model/model.h"

enum { RUN_TOKENS_MAX = 256, RUN_SEQUENCES_MAX = 40, RUN_BLOCKS_MAX = 128 };

typedef struct {
    kern_device   *device;
    model         *m;
    kern_kv_cache *cache;
    forward       *f;
} runner;

/* One sequence of a step: the next n_tokens of `tokens`, of which n_done ran before. Its KV blocks are first_block,
 * first_block + stride, ...: physical places that are not in order. */
typedef struct {
    const uint32_t *tokens;
    uint32_t        n_done, n_tokens;
    uint32_t        first_block, stride;
} run_piece;

/* Fails the test with a message when a device or model cannot be had. backend "cpu" or "ref"; variant NULL: the best.
 */
runner runner_open(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype);
runner runner_open_for(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype,
                       uint32_t n_positions_max);

/* The same with a model that is loaded in another way. */
runner runner_open_with(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype,
                        uint32_t n_positions_max, const model_options *how);
void   runner_close(runner *r);

/* Runs one step; logits of every row in order go to `logits` [sum n_tokens][n_vocab]. */
void runner_step(runner *r, const run_piece *pieces, uint32_t n_pieces, float *logits);

/* The whole of `tokens` as a sequence alone, at most `chunk` tokens a step. */
void runner_sequence(runner *r, const uint32_t *tokens, uint32_t n_tokens, uint32_t chunk, float *logits);

/* Reads a file of 4-byte numbers; fails the test when it is missing or has another size. Free with free(). */
void *read_numbers(const char *path, size_t n);

#endif
