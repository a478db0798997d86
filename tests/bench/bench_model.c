/* Tokens a second of the bare forward pass of the demo model: prefill, and decoding of one and of 32 sequences.
 *
 *     bench_model [model [backend [variant [threads]]]]
 *
 * Also says what opening the model costs. Sampling is not included; every row of a decode step computes its logits. */
// links: llm_model
#include "base/clock.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_TOKENS_MAX = 512, N_SEQUENCES_MAX = 32, N_TABLE_MAX = 32 * 80, N_BLOCKS = 32 * 80, LEAST_MS = 700 };

typedef struct {
    kern_device   *device;
    model         *m;
    kern_kv_cache *cache;
    forward       *f;
} bench;

static void die(const char *why)
{
    fprintf(stderr, "bench_model: %s\n", why);
    exit(1);
}

static double now_s(void)
{
    return (double)clock_now_ns(clock_system()) / NS_PER_S;
}

/* n_sequences sequences, each with n_done tokens behind it, take n_each more. */
static void step(bench *b, uint32_t n_sequences, uint32_t n_done, uint32_t n_each)
{
    static uint32_t      tokens[N_TOKENS_MAX], positions[N_TOKENS_MAX], slots[N_TOKENS_MAX], rows[N_SEQUENCES_MAX];
    static uint32_t      tables[N_TABLE_MAX];
    static kern_sequence sequences[N_SEQUENCES_MAX];
    uint32_t             n = 0, n_blocks = (n_done + n_each + KERN_KV_BLOCK_TOKENS - 1) / KERN_KV_BLOCK_TOKENS;
    for (uint32_t s = 0; s < n_sequences; s++) {
        sequences[s] = (kern_sequence){n, n_each, n_done, s * n_blocks};
        for (uint32_t i = 0; i < n_blocks; i++)
            tables[s * n_blocks + i] = s * n_blocks + i;
        for (uint32_t i = n_done; i < n_done + n_each; i++, n++) {
            tokens[n]    = (n * 7919 + n_done) % model_get_config(b->m)->n_vocab;
            positions[n] = i;
            slots[n]     = s * n_blocks * KERN_KV_BLOCK_TOKENS + i;
        }
        rows[s] = n - 1;
    }
    forward_batch batch = {.tokens          = tokens,
                           .positions       = positions,
                           .slots           = slots,
                           .sequences       = sequences,
                           .block_tables    = tables,
                           .logit_rows      = rows,
                           .n_tokens        = n,
                           .n_sequences     = n_sequences,
                           .n_table_entries = n_sequences * n_blocks,
                           .n_logit_rows    = n_sequences};
    forward_run(b->f, b->cache, &batch);
    kern_synchronize(b->device);
}

static void measure(bench *b, const char *name, uint32_t n_sequences, uint32_t n_done, uint32_t n_each)
{
    step(b, n_sequences, n_done, n_each); /* warm */
    uint32_t n_steps = 0;
    double   start   = now_s(), elapsed;
    do {
        step(b, n_sequences, n_done, n_each);
        n_steps++;
        elapsed = now_s() - start;
    } while (elapsed * 1000 < LEAST_MS);
    printf("%-40s %9.1f tokens/s  %8.2f ms a step\n", name, n_steps * (double)(n_sequences * n_each) / elapsed,
           1000 * elapsed / n_steps);
}

int main(int argc, char **argv)
{
    const char         *path                = argc > 1 ? argv[1] : MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf";
    kern_device_options options             = {.backend   = argc > 2 ? argv[2] : "cpu",
                                               .variant   = argc > 3 && argv[3][0] ? argv[3] : NULL,
                                               .n_threads = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 0};
    char                why[KERN_WHY_BYTES] = "";
    error               err                 = {0};
    bench               b                   = {0};
    if (!(b.device = kern_device_open(&options, why)))
        die(why);
    double start = now_s();
    if (!(b.m = model_open(path, b.device, &err)))
        die(err.text);
    const model_config *c = model_get_config(b.m);
    printf("%s on %s: %.1f M parameters, %.1f MB packed, opened in %.3f s\n", c->name, kern_device_name(b.device),
           (double)c->n_parameters / 1e6, (double)c->weight_bytes / 1e6, now_s() - start);
    kern_kv_shape  shape  = model_kv_shape(b.m, N_BLOCKS, KERN_F16);
    forward_limits limits = {N_TOKENS_MAX, N_SEQUENCES_MAX, N_SEQUENCES_MAX, N_TABLE_MAX, 0};
    if (!(b.cache = kern_kv_cache_new(b.device, &shape, why)))
        die(why);
    if (!(b.f = forward_new(b.m, &limits, &err)))
        die(err.text);
    printf("activations %.1f MB, key-value cache %.1f MB\n", (double)forward_bytes(b.f) / 1e6,
           (double)kern_kv_block_bytes(&shape) * N_BLOCKS / 1e6);
    measure(&b, "prefill 512", 1, 0, 512);
    measure(&b, "decode, 1 sequence, context 16", 1, 15, 1);
    measure(&b, "decode, 1 sequence, context 1024", 1, 1023, 1);
    measure(&b, "decode, 32 sequences, context 16", 32, 15, 1);
    measure(&b, "decode, 32 sequences, context 1024", 32, 1023, 1);
    forward_free(&b.f);
    kern_kv_cache_free(b.device, &b.cache);
    model_free(&b.m);
    kern_device_close(&b.device);
    return 0;
}
