#include "support_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

runner runner_open(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype)
{
    return runner_open_for(backend, variant, model_path, kv_dtype, 0);
}

runner runner_open_for(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype,
                       uint32_t n_positions_max)
{
    return runner_open_with(backend, variant, model_path, kv_dtype, n_positions_max, &(model_options){0});
}

runner runner_open_with(const char *backend, const char *variant, const char *model_path, kern_dtype kv_dtype,
                        uint32_t n_positions_max, const model_options *how)
{
    runner              r                   = {0};
    error               err                 = {0};
    char                why[KERN_WHY_BYTES] = "";
    kern_device_options options             = {.backend = backend, .variant = variant, .n_threads = 2};
    forward_limits      limits              = {.n_tokens_max        = RUN_TOKENS_MAX,
                                               .n_sequences_max     = RUN_SEQUENCES_MAX,
                                               .n_logit_rows_max    = RUN_TOKENS_MAX,
                                               .n_table_entries_max = RUN_BLOCKS_MAX,
                                               .n_positions_max     = n_positions_max};
    if (!(r.device = kern_device_open(&options, why)))
        fail_msg("%s %s: %s", backend, variant ? variant : "", why);
    if (!(r.m = model_open_with(model_path, r.device, how, &err)))
        fail_msg("%s", err.text);
    kern_kv_shape shape = model_kv_shape(r.m, RUN_BLOCKS_MAX, kv_dtype);
    if (!(r.cache = kern_kv_cache_new(r.device, &shape, why)))
        fail_msg("%s", why);
    if (!(r.f = forward_new(r.m, &limits, &err)))
        fail_msg("%s", err.text);
    return r;
}

void runner_close(runner *r)
{
    forward_free(&r->f);
    kern_kv_cache_free(r->device, &r->cache);
    model_free(&r->m);
    kern_device_close(&r->device);
}

void runner_step(runner *r, const run_piece *pieces, uint32_t n_pieces, float *logits)
{
    uint32_t      tokens[RUN_TOKENS_MAX], positions[RUN_TOKENS_MAX], slots[RUN_TOKENS_MAX], rows[RUN_TOKENS_MAX];
    uint32_t      tables[RUN_BLOCKS_MAX];
    kern_sequence sequences[RUN_SEQUENCES_MAX];
    uint32_t      n = 0, n_entries = 0;
    for (uint32_t s = 0; s < n_pieces; s++) {
        const run_piece *p = &pieces[s];
        sequences[s]       = (kern_sequence){n, p->n_tokens, p->n_done, n_entries};
        uint32_t n_blocks  = (p->n_done + p->n_tokens + KERN_KV_BLOCK_TOKENS - 1) / KERN_KV_BLOCK_TOKENS;
        for (uint32_t b = 0; b < n_blocks; b++)
            tables[n_entries + b] = (p->first_block + b * p->stride) % RUN_BLOCKS_MAX;
        for (uint32_t i = 0; i < p->n_tokens; i++, n++) {
            tokens[n]    = p->tokens[p->n_done + i];
            positions[n] = p->n_done + i;
            slots[n]     = tables[n_entries + positions[n] / KERN_KV_BLOCK_TOKENS] * KERN_KV_BLOCK_TOKENS +
                       positions[n] % KERN_KV_BLOCK_TOKENS;
            rows[n] = n;
        }
        n_entries += n_blocks;
    }
    forward_batch batch     = {.tokens          = tokens,
                               .positions       = positions,
                               .slots           = slots,
                               .sequences       = sequences,
                               .block_tables    = tables,
                               .logit_rows      = rows,
                               .n_tokens        = n,
                               .n_sequences     = n_pieces,
                               .n_table_entries = n_entries,
                               .n_logit_rows    = n};
    const float  *on_device = forward_run(r->f, r->cache, &batch);
    kern_download(r->device, logits, on_device, (size_t)n * model_get_config(r->m)->n_vocab * sizeof(float));
}

void runner_sequence(runner *r, const uint32_t *tokens, uint32_t n_tokens, uint32_t chunk, float *logits)
{
    size_t n_vocab = model_get_config(r->m)->n_vocab;
    for (uint32_t done = 0; done < n_tokens; done += chunk) {
        uint32_t  n     = n_tokens - done < chunk ? n_tokens - done : chunk;
        run_piece piece = {tokens, done, n, 3, 5};
        runner_step(r, &piece, 1, logits + done * n_vocab);
    }
}

void *read_numbers(const char *path, size_t n)
{
    FILE *file = fopen(path, "rb");
    void *data = malloc(n * 4 + 1);
    if (!file || !data)
        fail_msg("%s: missing; tests/data/models/make_tiny.py makes it", path);
    if (fread(data, 1, n * 4 + 1, file) != n * 4)
        fail_msg("%s: %zu numbers of 4 bytes were expected", path, n);
    fclose(file);
    return data;
}
