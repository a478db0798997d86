/* What only the CUDA backend promises: the same bits however its threads are scheduled, and refusals with a sentence.
 * test_operators compares its operators with the reference.
 *
 * The same test runs on the host build of the kernels (libtroupe_cuda_host.so, or TROUPE_CUDA_HOST_LIBRARY) and, where
 * libtroupe_cuda.so (or TROUPE_CUDA_LIBRARY) finds a GPU, on the GPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/dtype.h"
#include "kernels/kernels.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { TOKENS_MAX = 80, COLUMNS_MAX = 2048, VOCAB_MAX = 3000 };

static const kern_dtype refused_from = KERN_Q2_K; /* cuda has the number formats before, and refuses those behind */

static kern_device *cuda;
static const char  *library; /* of the backend under test */

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static uint64_t random_state;

static uint32_t random_word(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* Roughly normal. */
static float random_float(void)
{
    float sum = -6;
    for (int i = 0; i < 12; i++) {
        sum += (float)random_word() * 0x1p-31f;
    }
    return sum;
}

static float *random_floats(size_t n)
{
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = random_float();
    }
    return values;
}

/* A matrix in a file's format. The caller frees it. */
static void *random_matrix(kern_dtype dtype, uint32_t n_rows, uint32_t n_cols)
{
    size_t n = (size_t)n_rows * n_cols, bytes = kern_dtype_bytes(dtype, n), block_bytes = kern_dtype_block_bytes(dtype);
    unsigned char *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (unsigned char)random_word();
    }
    for (size_t i = 0; i < bytes; i += block_bytes) {
        float    value = random_float() * 0.02f;
        uint16_t half  = dtype == KERN_BF16 ? kern_bf16_of_float(value) : kern_f16_of_float(value),
                 min   = kern_f16_of_float(-6 * value);
        memcpy(data + i, dtype == KERN_F32 ? (void *)&value : (void *)&half, dtype == KERN_F32 ? 4 : 2);
        if (dtype == KERN_Q4_1 || dtype == KERN_Q5_1) {
            memcpy(data + i + 2, &min, 2);
        }
    }
    return data;
}

static void *push(kern_device *device, const void *host, size_t bytes)
{
    void *memory = kern_alloc(device, bytes);
    assert_non_null(memory);
    kern_upload(device, memory, host, bytes);
    return memory;
}

/* Downloads and frees. The caller frees what comes back. */
static void *pull(kern_device *device, void *memory, size_t bytes)
{
    void *host = malloc(bytes);
    kern_download(device, host, memory, bytes);
    kern_free(device, memory);
    return host;
}

/* ---- gemm ---------------------------------------------------------------------------------------------- */

static kern_weight *weight_on(kern_device *device, kern_dtype dtype, uint32_t n_rows, uint32_t n_cols, const void *data)
{
    char         why[KERN_WHY_BYTES] = "";
    kern_matrix  matrix              = {dtype, n_rows, n_cols, data};
    kern_weight *weight              = kern_weight_new(device, &matrix, why);
    if (!weight) {
        fail_msg("%s", why);
    }
    return weight;
}

/* y [n_tokens][n_rows] of one weight; the caller frees it. y starts as all ones when it accumulates. */
static float *multiply(kern_device *device, const kern_weight *weight, uint32_t n_rows, uint32_t n_cols, const float *x,
                       uint32_t n_tokens, const float *bias, bool accumulate)
{
    size_t         y_bytes = (size_t)n_tokens * n_rows * sizeof(float);
    float         *y       = malloc(y_bytes);
    kern_gemm_args args    = {.n_tokens = n_tokens, .n_outputs = 1, .accumulate = accumulate};
    for (size_t i = 0; i < (size_t)n_tokens * n_rows; i++) {
        y[i] = 1;
    }
    float *x_device        = push(device, x, (size_t)n_tokens * n_cols * sizeof(float));
    float *b_device        = bias ? push(device, bias, n_rows * sizeof(float)) : NULL;
    args.x                 = x_device;
    args.outputs[0].weight = weight, args.outputs[0].bias = b_device, args.outputs[0].y = push(device, y, y_bytes);
    kern_gemm(device, &args);
    free(y);
    y = pull(device, args.outputs[0].y, y_bytes);
    kern_free(device, x_device);
    kern_free(device, b_device);
    return y;
}

static void a_row_of_gemm_is_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    enum { ROWS = 36, COLUMNS = 352, BATCH = 75 };
    static const uint32_t batches[] = {1, 8, 9, 33};
    for (kern_dtype dtype = KERN_F32; dtype < refused_from; dtype++) {
        void        *data   = random_matrix(dtype, ROWS, COLUMNS);
        float       *x      = random_floats((size_t)BATCH * COLUMNS);
        kern_weight *weight = weight_on(cuda, dtype, ROWS, COLUMNS, data);
        float       *whole  = multiply(cuda, weight, ROWS, COLUMNS, x, BATCH, NULL, false);
        for (size_t i = 0; i < COUNT(batches); i++) {
            uint32_t first = i % 2 ? 0 : BATCH - batches[i]; /* other places for the same rows */
            float   *part = multiply(cuda, weight, ROWS, COLUMNS, x + (size_t)first * COLUMNS, batches[i], NULL, false);
            if (memcmp(whole + (size_t)first * ROWS, part, batches[i] * ROWS * sizeof(float)) != 0) {
                fail_msg("%s: rows differ in a batch of %u", kern_dtype_name(dtype), batches[i]);
            }
            free(part);
        }
        kern_weight_free(cuda, &weight);
        free(data), free(x), free(whole);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef struct {
    kern_dtype dtype;
    uint32_t   n_heads, n_kv_heads, head_dim, window;
    float      softcap;
    uint32_t   n_sequences, n_q[4], position[4];
} attention_case;

enum { LAYERS = 2, SEQUENCE_BLOCKS = 48, KEYS_MAX = SEQUENCE_BLOCKS * KERN_KV_BLOCK_TOKENS };

/* Keys and values of each sequence are the same whatever the batch: a function of (sequence, position). */
static void write_keys(kern_device *device, kern_kv_cache *cache, const attention_case *c, const uint32_t *tables)
{
    size_t n_row = (size_t)c->n_kv_heads * c->head_dim;
    for (uint32_t s = 0; s < c->n_sequences; s++) {
        uint32_t n   = c->position[s] + c->n_q[s], slots[KEYS_MAX];
        random_state = 100 + s;
        float *k     = random_floats(n * n_row);
        random_state = 200 + s;
        float *v     = random_floats(n * n_row);
        for (uint32_t i = 0; i < n; i++) {
            slots[i] = tables[s * SEQUENCE_BLOCKS + i / KERN_KV_BLOCK_TOKENS] * KERN_KV_BLOCK_TOKENS +
                       i % KERN_KV_BLOCK_TOKENS;
        }
        float *k_device                 = push(device, k, n * n_row * sizeof(float)),
              *v_device                 = push(device, v, n * n_row * sizeof(float));
        uint32_t          *slots_device = push(device, slots, n * sizeof(uint32_t));
        kern_kv_write_args args         = {cache, 1, k_device, v_device, slots_device, n};
        kern_kv_write(device, &args);
        kern_free(device, k_device), kern_free(device, v_device), kern_free(device, slots_device);
        free(k), free(v);
    }
}

/* Attention of the case's batch; out [n_tokens][n_heads][head_dim], which the caller frees. */
static float *attend(kern_device *device, const attention_case *c)
{
    char          why[KERN_WHY_BYTES] = "";
    kern_kv_shape shape               = {LAYERS, SEQUENCE_BLOCKS * 4 + 1, c->n_kv_heads, c->head_dim, c->dtype};
    uint32_t      tables[4 * SEQUENCE_BLOCKS], n_tokens = 0;
    kern_sequence sequences[4];
    for (uint32_t i = 0; i < COUNT(tables); i++) {
        tables[i] = i * 5 % 193; /* scattered; 193 is prime */
    }
    for (uint32_t s = 0; s < c->n_sequences; s++) {
        sequences[s] = (kern_sequence){n_tokens, c->n_q[s], c->position[s], s * SEQUENCE_BLOCKS};
        n_tokens += c->n_q[s];
    }
    kern_kv_cache *cache = kern_kv_cache_new(device, &shape, why);
    if (!cache) {
        fail_msg("%s", why);
    }
    write_keys(device, cache, c, tables);
    size_t n_row = (size_t)c->n_heads * c->head_dim;
    float *q     = malloc(n_tokens * n_row * sizeof(float));
    for (uint32_t s = 0; s < c->n_sequences; s++) { /* a query, too, is a function of (sequence, position) */
        for (uint32_t i = 0; i < c->n_q[s] * n_row; i++) {
            random_state = ((uint64_t)(c->position[s] * n_row + i) * 4 + s) * 0x9e3779b97f4a7c15u;
            random_word();
            q[sequences[s].q_start * n_row + i] = random_float();
        }
    }
    float              *q_device = push(device, q, n_tokens * n_row * sizeof(float));
    kern_sequence      *s_device = push(device, sequences, c->n_sequences * sizeof *sequences);
    uint32_t           *t_device = push(device, tables, sizeof tables);
    kern_attention_args args     = {cache,          1,
                                    q_device,       kern_alloc(device, n_tokens * n_row * sizeof(float)),
                                    s_device,       t_device,
                                    c->n_sequences, n_tokens,
                                    c->n_heads,     0.3f / sqrtf((float)c->head_dim),
                                    c->softcap,     c->window,
                                    false};
    kern_attention(device, &args);
    float *out = pull(device, args.out, n_tokens * n_row * sizeof(float));
    kern_free(device, q_device), kern_free(device, s_device), kern_free(device, t_device);
    kern_kv_cache_free(device, &cache);
    free(q);
    return out;
}

/* A prefill is walked over by one block of threads, single rows are split between several: same bits. */
static void a_row_of_attention_is_the_same_bits_alone_and_in_a_prefill(void **state)
{
    (void)state;
    static const struct {
        kern_dtype dtype;
        uint32_t   window;
    } rows[] = {{KERN_F16, 0}, {KERN_F16, 150}, {KERN_Q8_0, 0}, {KERN_Q4_1, 150}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        attention_case whole  = {rows[i].dtype, 6, 2, 64, rows[i].window, 0, 2, {40, 40}, {250, 0}};
        float         *expect = attend(cuda, &whole);
        size_t         n_row  = (size_t)whole.n_heads * whole.head_dim;
        for (uint32_t row = 0; row < 40; row += 13) {
            attention_case one = whole;
            one.n_sequences = 1, one.n_q[0] = 1, one.position[0] = 250 + row;
            float *got = attend(cuda, &one);
            assert_memory_equal(expect + row * n_row, got, n_row * sizeof(float));
            free(got);
        }
        free(expect);
    }
}

static void copied_blocks_hold_all_layers(void **state)
{
    (void)state;
    kern_kv_shape         shape = {3, 8, 2, 8, KERN_F16};
    char                  why[KERN_WHY_BYTES];
    kern_kv_cache        *cache = kern_kv_cache_new(cuda, &shape, why);
    float                *k = random_floats(16), *q = random_floats(16), *out[2];
    static const uint32_t slots[] = {1 * KERN_KV_BLOCK_TOKENS}, from[] = {1}, to[] = {6}, tables[] = {1, 6};
    float                *k_device = push(cuda, k, 16 * sizeof(float)), *q_device = push(cuda, q, 16 * sizeof(float));
    uint32_t             *slot = push(cuda, slots, sizeof slots), *table = push(cuda, tables, sizeof tables);
    kern_kv_write_args    write = {cache, 2, k_device, k_device, slot, 1};
    kern_kv_copy_args     copy  = {cache, from, to, 1};
    kern_kv_write(cuda, &write);
    kern_kv_copy(cuda, &copy);
    for (uint32_t i = 0; i < 2; i++) {
        kern_sequence       sequence = {0, 1, 0, i};
        kern_sequence      *s        = push(cuda, &sequence, sizeof sequence);
        kern_attention_args args     = {cache, 2, q_device, kern_alloc(cuda, 16 * sizeof(float)), s, table, 1, 1, 2, 1,
                                        0,     0, false};
        kern_attention(cuda, &args);
        out[i] = pull(cuda, args.out, 16 * sizeof(float));
        kern_free(cuda, s);
    }
    assert_memory_equal(out[0], out[1], 16 * sizeof(float));
    assert_true(fabsf(out[0][0] - k[0]) < 1e-2f); /* one key: its value comes back */
    kern_free(cuda, k_device), kern_free(cuda, q_device), kern_free(cuda, slot), kern_free(cuda, table);
    kern_kv_cache_free(cuda, &cache);
    free(k), free(q), free(out[0]), free(out[1]);
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

static const kern_sample_row neutral = {.temperature        = 1,
                                        .top_p              = 1,
                                        .typical_p          = 1,
                                        .repetition_penalty = 1,
                                        .seed               = 7,
                                        .position           = 3,
                                        .target             = UINT32_MAX};

/* Samples `rows`; results [n_rows], which the caller frees. */
static kern_sample_result *sample(kern_device *device, const float *logits, uint32_t n_vocab,
                                  const kern_sample_row *rows, uint32_t n_rows, const kern_logit_edit *edits,
                                  uint32_t n_edits)
{
    kern_sample_row *r    = push(device, rows, n_rows * sizeof *rows);
    kern_logit_edit *e    = n_edits ? push(device, edits, n_edits * sizeof *edits) : NULL;
    kern_sample_args args = {push(device, logits, (size_t)n_rows * n_vocab * sizeof(float)), r,      e,
                             kern_alloc(device, n_rows * sizeof(kern_sample_result)),        n_rows, n_vocab};
    kern_sample(device, &args);
    kern_sample_result *results = pull(device, args.results, n_rows * sizeof *results);
    kern_free(device, args.logits), kern_free(device, r), kern_free(device, e);
    return results;
}

/* ---- bits -------------------------------------------------------------------------------------------------------- */

/* On the host, seeds shuffle the order of warps: a missing barrier shows as other bits. On a GPU, chance does. */
static void results_are_the_same_bits_in_any_order_of_warps(void **state)
{
    (void)state;
    static const char *const seeds[] = {"0", "1", "77"};
    attention_case           c       = {KERN_F16, 6, 2, 64, 0, 0, 2, {1, 3}, {250, 20}};
    void                    *data    = random_matrix(KERN_Q4_1, 48, 2048);
    float              *x = random_floats(3 * 2048), *logits = random_floats(1000), *first_out = NULL, *first_y = NULL;
    kern_weight        *weight = weight_on(cuda, KERN_Q4_1, 48, 2048, data);
    kern_sample_row     row    = neutral;
    kern_sample_result *first  = NULL;
    row.top_p = 0.9f, row.typical_p = 0.95f, row.n_top = 5;
    for (size_t i = 0; i < COUNT(seeds); i++) {
        setenv("TROUPE_CUDA_HOST_SEED", seeds[i], 1);
        float              *out = attend(cuda, &c), *y = multiply(cuda, weight, 48, 2048, x, 3, NULL, false);
        kern_sample_result *result = sample(cuda, logits, 1000, &row, 1, NULL, 0);
        if (i == 0) {
            first_out = out, first_y = y, first = result;
            continue;
        }
        assert_memory_equal(first_out, out, 4 * 6 * 64 * sizeof(float));
        assert_memory_equal(first_y, y, 3 * 48 * sizeof(float));
        assert_int_equal(first->token, result->token);
        assert_memory_equal(first->top_logprobs, result->top_logprobs, 5 * sizeof(float));
        free(out), free(y), free(result);
    }
    unsetenv("TROUPE_CUDA_HOST_SEED");
    kern_weight_free(cuda, &weight);
    free(data), free(x), free(logits), free(first_out), free(first_y), free(first);
}

static void what_cannot_work_is_refused_with_a_sentence(void **state)
{
    (void)state;
    char          why[KERN_WHY_BYTES] = "";
    kern_kv_shape odd = {1, 4, 1, 30, KERN_F16}, quantized = {1, 4, 1, 32, KERN_Q5_1},
                  huge = {1, UINT32_MAX, 1000, 256, KERN_F32};
    assert_null(kern_kv_cache_new(cuda, &odd, why));
    assert_non_null(strstr(why, "30"));
    assert_null(kern_kv_cache_new(cuda, &quantized, why));
    assert_null(kern_kv_cache_new(cuda, &huge, why));
    assert_non_null(strstr(why, "memory"));
    kern_device_options options = {.backend = "cuda", .library = library, .device_index = 99};
    assert_null(kern_device_open(&options, why));
    assert_non_null(strstr(why, "99"));
    for (kern_dtype dtype = refused_from; dtype < KERN_N_DTYPES; dtype++) {
        static const unsigned char block[256];
        kern_matrix                matrix = {dtype, 1, 256, block};
        assert_null(kern_weight_new(cuda, &matrix, why));
        assert_non_null(strstr(why, kern_dtype_name(dtype)));
        print_message("SKIPPED: gemm and embed of %s, which cuda refuses\n", kern_dtype_name(dtype));
    }
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static void beside_program(char *path, size_t bytes, const char *name)
{
    ssize_t n           = readlink("/proc/self/exe", path, bytes - strlen(name) - 1);
    path[n > 0 ? n : 0] = 0;
    char *slash         = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, name);
}

static int run_on(const char *variable, const char *name, bool required)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_of_gemm_is_the_same_bits_in_any_batch),
        cmocka_unit_test(a_row_of_attention_is_the_same_bits_alone_and_in_a_prefill),
        cmocka_unit_test(copied_blocks_hold_all_layers),
        cmocka_unit_test(results_are_the_same_bits_in_any_order_of_warps),
        cmocka_unit_test(what_cannot_work_is_refused_with_a_sentence),
    };
    static char         path[4096];
    char                why[KERN_WHY_BYTES] = "";
    kern_limits         limits              = {TOKENS_MAX, COLUMNS_MAX, 4, 20, 256, VOCAB_MAX, 40};
    kern_device_options options             = {.backend = "cuda"};
    beside_program(path, sizeof path, name);
    library         = getenv(variable) ? getenv(variable) : path;
    options.library = library;
    cuda            = kern_device_open(&options, why);
    if (!cuda) {
        printf("%s: %s: %s\n", required ? "cannot test" : "not tested here", name, why);
        return required;
    }
    if (!kern_reserve(cuda, &limits, why)) {
        printf("cannot test: %s\n", why);
        return 1;
    }
    printf("testing %s\n", kern_device_name(cuda));
    int n_failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);
    kern_device_close(&cuda);
    return n_failed;
}

int main(void)
{
    int failed = run_on("TROUPE_CUDA_HOST_LIBRARY", "libtroupe_cuda_host.so", true);
    return failed | run_on("TROUPE_CUDA_LIBRARY", "libtroupe_cuda.so", false);
}
