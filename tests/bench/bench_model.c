/* Tokens a second of the bare forward pass of the demo model: prefill, and decoding of one and of 32 sequences; with
 * --sweep how they grow with batch, context and threads, as lines of JSON.
 *
 *     bench_model [--sweep] [model [backend [variant [threads [KV dtype, as Q8_0]]]]]
 *
 * Also says what opening the model costs. Sampling is not included; every row of a decode step computes its logits. */
// links: llm_model
#include "base/clock.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_TOKENS_MAX = 512, N_SEQUENCES_MAX = 64, N_BLOCKS = 64 * 80, CONTEXT_MAX = 8192 };

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
    static uint32_t      tables[N_BLOCKS];
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

/* Seconds of a step: the median of as many as `least_ms` allow. */
static double measure(bench *b, uint32_t n_sequences, uint32_t n_done, uint32_t n_each, int least_ms)
{
    enum { STEPS_MAX = 4096 };
    static double seconds[STEPS_MAX];
    uint32_t      n_steps = 0;
    step(b, n_sequences, n_done, n_each); /* warm */
    for (double start = now_s(), before = start; n_steps < STEPS_MAX && (before - start) * 1000 < least_ms;) {
        step(b, n_sequences, n_done, n_each);
        double now         = now_s();
        seconds[n_steps++] = now - before;
        before             = now;
    }
    for (uint32_t i = 1; i < n_steps; i++) { /* sorted by insertion: a few thousand at most */
        double   each = seconds[i];
        uint32_t at   = i;
        for (; at > 0 && seconds[at - 1] > each; at--)
            seconds[at] = seconds[at - 1];
        seconds[at] = each;
    }
    return seconds[n_steps / 2];
}

static void report(bench *b, const char *name, uint32_t n_sequences, uint32_t n_done, uint32_t n_each)
{
    double seconds = measure(b, n_sequences, n_done, n_each, 2000);
    printf("%-40s %9.1f tokens/s  %8.2f ms a step\n", name, n_sequences * (double)n_each / seconds, 1000 * seconds);
}

/* What the server's benchmark asks of it, without the server: every prompt, then every token of the answers. */
static void report_streams(bench *b, uint32_t n_streams, uint32_t n_prompt, uint32_t n_answer)
{
    double   start      = now_s();
    uint32_t n_together = N_TOKENS_MAX / n_prompt;
    for (uint32_t i = 0; i < n_streams; i += n_together)
        step(b, n_together, 0, n_prompt);
    for (uint32_t i = 0; i < n_answer; i++)
        step(b, n_streams, n_prompt + i, 1);
    double seconds = now_s() - start;
    printf("%u sequences, %u in, %-20u %9.1f tokens/s  %8.2f ms in all\n", n_streams, n_prompt, n_answer,
           n_streams * (double)n_answer / seconds, 1000 * seconds);
}

static void report_all(bench *b)
{
    report(b, "prefill 512", 1, 0, 512);
    report(b, "decode, 1 sequence, context 16", 1, 15, 1);
    report(b, "decode, 1 sequence, context 1024", 1, 1023, 1);
    report(b, "decode, 1 sequence, context 4096", 1, 4095, 1);
    report(b, "decode, 32 sequences, context 16", 32, 15, 1);
    report(b, "decode, 32 sequences, context 1024", 32, 1023, 1);
    report_streams(b, 32, 128, 64);
}

static void sweep_point(bench *b, const char *axis, uint32_t n_threads, uint32_t n_sequences, uint32_t context)
{
    double seconds = measure(b, n_sequences, context - 1, 1, 500);
    printf("{\"axis\": \"%s\", \"threads\": %u, \"batch\": %u, \"context\": %u, \"tokens_s\": %.1f}\n", axis, n_threads,
           n_sequences, context, n_sequences / seconds);
}

static void sweep(bench *b, uint32_t n_threads)
{
    for (uint32_t n = 1; n <= N_SEQUENCES_MAX; n *= 2)
        sweep_point(b, "batch", n_threads, n, 128);
    for (uint32_t context = 128; context <= CONTEXT_MAX; context *= 2)
        sweep_point(b, "context", n_threads, 1, context);
    for (uint32_t n = 16; n <= N_TOKENS_MAX; n *= 2) {
        double seconds = measure(b, 1, 0, n, 500);
        printf("{\"axis\": \"prefill\", \"threads\": %u, \"batch\": 1, \"context\": %u, \"tokens_s\": %.1f}\n",
               n_threads, n, n / seconds);
    }
}

static kern_dtype dtype_of(const char *name)
{
    for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++)
        if (strcmp(kern_dtype_name(dtype), name) == 0)
            return dtype;
    die("no such number format");
    return KERN_F16;
}

static void open_model(bench *b, const char *path, const kern_device_options *options, kern_dtype kv_dtype)
{
    char   why[KERN_WHY_BYTES] = "";
    error  err                 = {0};
    double start               = now_s();
    if (!(b->device = kern_device_open(options, why)))
        die(why);
    if (!(b->m = model_open(path, b->device, &err)))
        die(err.text);
    double              opened_s = now_s() - start;
    const model_config *c        = model_get_config(b->m);
    kern_kv_shape       shape    = model_kv_shape(b->m, N_BLOCKS, kv_dtype);
    forward_limits      limits   = {.n_tokens_max        = N_TOKENS_MAX,
                                    .n_sequences_max     = N_SEQUENCES_MAX,
                                    .n_logit_rows_max    = N_SEQUENCES_MAX,
                                    .n_table_entries_max = N_BLOCKS};
    if (!(b->cache = kern_kv_cache_new(b->device, &shape, why)))
        die(why);
    if (!(b->f = forward_new(b->m, &limits, &err)))
        die(err.text);
    fprintf(stderr,
            "%s on %s: %.1f M parameters, %.1f M of them embedding, %.1f MB packed, %zu bytes of keys and values a "
            "token, opened in %.3f s\n",
            c->name, kern_device_name(b->device), (double)c->n_parameters / 1e6,
            (double)c->n_vocab * (double)c->n_embd / 1e6, (double)c->weight_bytes / 1e6,
            kern_kv_block_bytes(&shape) / KERN_KV_BLOCK_TOKENS, opened_s);
}

int main(int argc, char **argv)
{
    bool sweeps = argc > 1 && strcmp(argv[1], "--sweep") == 0;
    argv += sweeps, argc -= sweeps;
    const char         *path    = argc > 1 ? argv[1] : MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf";
    kern_device_options options = {.backend   = argc > 2 ? argv[2] : "cpu",
                                   .variant   = argc > 3 && argv[3][0] ? argv[3] : NULL,
                                   .n_threads = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 0};
    bench               b       = {0};
    open_model(&b, path, &options, argc > 5 ? dtype_of(argv[5]) : KERN_F16);
    if (sweeps)
        sweep(&b, options.n_threads);
    else
        report_all(&b);
    forward_free(&b.f);
    kern_kv_cache_free(b.device, &b.cache);
    model_free(&b.m);
    kern_device_close(&b.device);
    return 0;
}
