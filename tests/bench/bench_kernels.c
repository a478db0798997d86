// links: kernels
/* Speed of the kernels: GB/s of weights (or cache) read and GFLOP/s, for each operator and CPU variant, beside a plain
 * read of memory, which is the bound of decoding.
 *
 *     bench_kernels [n_threads [variant [attention]]]
 *
 * Weights, and what attention reads, stand in a ring of copies larger than the last-level cache, as the layers of a
 * model do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/dtype.h"
#include "kernels/thread_pool.h"

enum { RING_BYTES = 192 << 20, ROWS = 1536, COLUMNS = 1536, TOKENS_MAX = 512, VOCAB = 49152 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float *noise(size_t n)
{
    float *values = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
    for (size_t i = 0; values && i < n; i++) {
        values[i] = (float)(i * 2654435761u >> 8 & 0xffff) / 65536.0f - 0.5f;
    }
    if (!values) {
        perror("bench_kernels");
        exit(1);
    }
    return values;
}

/* ---- memory
 * ---------------------------------------------------------------------------------------------------------- */

enum { READ_SLICES = 64, READ_BYTES = 4 << 20 };

typedef struct {
    const uint64_t *words;
    uint64_t        sums[READ_SLICES];
} reading;

static void read_slice(void *job, uint32_t slice, uint32_t worker)
{
    (void)worker;
    enum { PART = READ_BYTES / READ_SLICES / 8 };
    reading        *r       = job;
    const uint64_t *words   = r->words + (size_t)PART * slice;
    uint64_t        sums[8] = {0};
    for (size_t i = 0; i < PART; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sums[j] += words[i + j];
        }
    }
    for (int j = 0; j < 8; j++) {
        r->sums[slice] += sums[j];
    }
}

/* The fastest piece of 4 MiB of a ring that no cache holds. */
static void bench_read(kern_device *device, uint32_t n_threads)
{
    thread_pool   *pool  = thread_pool_new(n_threads);
    unsigned char *bytes = kern_alloc(device, RING_BYTES);
    double         best  = 1e9;
    for (int round = 0; round < 5; round++) {
        for (size_t at = 0; at < RING_BYTES; at += READ_BYTES) {
            reading r     = {.words = (const uint64_t *)(bytes + at)};
            double  start = now();
            thread_pool_run(pool, read_slice, &r, READ_SLICES);
            double each = now() - start;
            best        = each < best ? each : best;
        }
    }
    printf("%-36s %8.2f GB/s\n", "plain read of memory", READ_BYTES / best / 1e9);
    kern_free(device, bytes);
    thread_pool_free(&pool);
}

/* ---- operators
 * ------------------------------------------------------------------------------------------------------- */

static void report(const char *what, double seconds, double bytes, double operations)
{
    printf("%-36s %8.2f GB/s %9.2f GFLOP/s %10.1f us\n", what, bytes / seconds / 1e9, operations / seconds / 1e9,
           seconds * 1e6);
}

/* Seconds of the fastest of 5 * calls calls: what the machine can do when nobody else wants it. */
#define TIME(best, calls, call)                                                                                        \
    for (int i = 0; i < 5 * (calls); i++) {                                                                            \
        double start = now();                                                                                          \
        call;                                                                                                          \
        double each = now() - start;                                                                                   \
        best        = each < best ? each : best;                                                                       \
    }

static void bench_gemm(kern_device *device, kern_dtype dtype)
{
    char          why[KERN_WHY_BYTES], name[64];
    size_t        bytes = kern_dtype_bytes(dtype, (uint64_t)ROWS * COLUMNS);
    int           ring  = (int)(RING_BYTES / bytes);
    float        *x = noise((size_t)TOKENS_MAX * COLUMNS), *y = noise((size_t)TOKENS_MAX * ROWS);
    kern_weight **weights = calloc((size_t)ring, sizeof *weights);
    void         *data    = calloc(1, bytes);
    for (int i = 0; i < ring; i++) {
        weights[i] = kern_weight_new(device, &(kern_matrix){dtype, ROWS, COLUMNS, data}, why);
    }
    static const uint32_t tokens[] = {1, 2, 4, 8, 16, 64, 512};
    for (uint32_t k = 0; k < sizeof tokens / sizeof tokens[0]; k++) {
        kern_gemm_args args  = {.x = x, .n_tokens = tokens[k], .n_outputs = 1};
        int            calls = tokens[k] <= 4 ? ring : tokens[k] <= 64 ? 8 : 1;
        double         best  = 1e9;
        TIME(best, calls, (args.outputs[0].weight = weights[i % ring], args.outputs[0].y = y, kern_gemm(device, &args)))
        snprintf(name, sizeof name, "gemm %s, %u tokens", kern_dtype_name(dtype), tokens[k]);
        report(name, best, (double)bytes, 2.0 * ROWS * COLUMNS * tokens[k]);
    }
    for (int i = 0; i < ring; i++) {
        kern_weight_free(device, &weights[i]);
    }
    free(weights), free(data), free(x), free(y);
}

static void bench_attention(kern_device *device, kern_dtype dtype, uint32_t position, uint32_t n_q)
{
    enum { HEADS = 9, KV_HEADS = 3, HEAD_DIM = 64 };
    char          why[KERN_WHY_BYTES], name[64];
    uint32_t      n_blocks = (position + n_q + 15) / 16, *table = malloc(n_blocks * sizeof *table);
    kern_kv_shape shape  = {1, n_blocks, KV_HEADS, HEAD_DIM, dtype};
    shape.n_layers       = (uint32_t)(RING_BYTES / (kern_kv_block_bytes(&shape) * n_blocks));
    kern_kv_cache *cache = kern_kv_cache_new(device, &shape, why);
    float         *q = noise((size_t)n_q * HEADS * HEAD_DIM), *out = noise((size_t)n_q * HEADS * HEAD_DIM);
    kern_sequence  sequence = {0, n_q, position, 0};
    for (uint32_t i = 0; i < n_blocks; i++) {
        table[i] = i;
    }
    kern_attention_args args = {.cache        = cache,
                                .q            = q,
                                .out          = out,
                                .sequences    = &sequence,
                                .block_tables = table,
                                .n_sequences  = 1,
                                .n_tokens     = n_q,
                                .n_heads      = HEADS,
                                .scale        = 0.125f};
    double              best = 1e9, keys = (double)n_q * (position + (n_q + 1) / 2.0);
    TIME(best, 4, (args.layer = (args.layer + 1) % shape.n_layers, kern_attention(device, &args)))
    snprintf(name, sizeof name, "attention %s, %u rows after %u", kern_dtype_name(dtype), n_q, position);
    report(name, best, (double)kern_kv_block_bytes(&shape) / shape.n_layers / 16 * (position + n_q),
           keys * HEADS * HEAD_DIM * 4);
    kern_kv_cache_free(device, &cache);
    free(q), free(out), free(table);
}

static void bench_rows(kern_device *device)
{
    enum { TOKENS = 256 };
    float *x = noise((size_t)TOKENS * COLUMNS), *weight = noise(COLUMNS), *out = noise((size_t)TOKENS * COLUMNS);
    double norm = 1e9, glu = 1e9, bytes = 4.0 * TOKENS * COLUMNS;
    kern_rmsnorm_args norm_args = {x, weight, out, 1e-5f, TOKENS, COLUMNS, COLUMNS, false};
    kern_glu_args     glu_args  = {x, x, out, TOKENS, COLUMNS, KERN_ACT_SILU};
    TIME(norm, 4, kern_rmsnorm(device, &norm_args))
    TIME(glu, 4, kern_glu(device, &glu_args))
    report("rmsnorm, 256 tokens", norm, 2 * bytes, bytes);
    report("glu silu, 256 tokens", glu, 3 * bytes, 5 * bytes);
    free(x), free(weight), free(out);
}

static void bench_sample(kern_device *device, const char *name, kern_sample_row row)
{
    float             *logits = noise(VOCAB);
    kern_sample_result result;
    kern_sample_args   args = {.logits = logits, .rows = &row, .results = &result, .n_rows = 1, .n_vocab = VOCAB};
    double             best = 1e9;
    for (uint32_t i = 0; i < VOCAB; i++) {
        logits[i] *= 16;
    }
    row.seed = 1, row.target = UINT32_MAX, row.repetition_penalty = 1;
    TIME(best, 20, (row.position++, kern_sample(device, &args)))
    report(name, best, 4.0 * VOCAB, 0);
    free(logits);
}

static void bench_attentions(kern_device *device)
{
    static const kern_dtype dtypes[] = {KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_1};
    for (uint32_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        bench_attention(device, dtypes[i], 4000, 1);
        bench_attention(device, dtypes[i], 0, 512);
    }
}

static void bench_variant(const char *variant, uint32_t n_threads, bool only_attention)
{
    char                why[KERN_WHY_BYTES];
    kern_device_options options = {.backend = "cpu", .variant = variant, .n_threads = n_threads};
    kern_limits         limits  = {TOKENS_MAX, COLUMNS, 8, 16, 64, VOCAB, 1};
    kern_device        *device  = kern_device_open(&options, why);
    if (!device || !kern_reserve(device, &limits, why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    printf("\n%s\n", kern_device_name(device));
    if (only_attention) {
        bench_attentions(device);
        kern_device_close(&device);
        return;
    }
    bench_read(device, n_threads);
    for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
        bench_gemm(device, dtype);
    }
    bench_attentions(device);
    bench_rows(device);
    kern_sample_row row = {.temperature = 0, .top_p = 1, .typical_p = 1};
    bench_sample(device, "sample greedy", row);
    row.temperature = 1;
    bench_sample(device, "sample plain", row);
    row.top_p = 0.9f;
    bench_sample(device, "sample top_p 0.9", row);
    kern_device_close(&device);
}

int main(int argc, char **argv)
{
    const char *names[8];
    uint32_t    n = kern_cpu_variants(names, 8), n_threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 1;
    for (uint32_t i = 0; i < n; i++) {
        if (argc <= 2 || strcmp(argv[2], names[i]) == 0) {
            bench_variant(names[i], n_threads ? n_threads : 1, argc > 3 && strcmp(argv[3], "attention") == 0);
        }
    }
    return 0;
}
