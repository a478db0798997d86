/* Every operator of the CUDA backend against the reference backend, and the promises that are about bits.
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

static kern_device *cuda, *ref;
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

static kern_device *device_of(uint32_t which)
{
    return which == 0 ? ref : cuda;
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

/* Mean squared error over mean square. */
static double error_of(const float *expected, const float *got, size_t n)
{
    double error = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = (double)got[i] - (double)expected[i];
        error += difference * difference;
        square += (double)expected[i] * (double)expected[i];
    }
    return error / (square > 0 ? square : 1);
}

static void assert_close(const char *what, const float *expected, const float *got, size_t n, double limit)
{
    double error = error_of(expected, got, n);
    if (!(error <= limit)) {
        fail_msg("%s: error %g over %g", what, error, limit);
    }
}

/* ---- gemm and embed ---------------------------------------------------------------------------------------------- */

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

static void gemm_of_every_type_and_shape_matches_the_reference(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_rows, n_cols, n_tokens;
        bool     bias, accumulate;
    } shapes[] = {{16, 32, 1, false, false}, {40, 96, 3, true, false},   {33, 576, 9, false, true},
                  {70, 320, 33, true, true}, {48, 2048, 2, true, false}, {65, 64, 70, false, false}};
    for (kern_dtype dtype = KERN_F32; dtype < refused_from; dtype++) {
        for (size_t i = 0; i < COUNT(shapes); i++) {
            uint32_t n_rows = shapes[i].n_rows, n_cols = shapes[i].n_cols, n_tokens = shapes[i].n_tokens;
            void    *data = random_matrix(dtype, n_rows, n_cols);
            float   *x = random_floats((size_t)n_tokens * n_cols), *bias = random_floats(n_rows), *y[2];
            for (uint32_t d = 0; d < 2; d++) {
                kern_weight *weight = weight_on(device_of(d), dtype, n_rows, n_cols, data);
                y[d] = multiply(device_of(d), weight, n_rows, n_cols, x, n_tokens, shapes[i].bias ? bias : NULL,
                                shapes[i].accumulate);
                kern_weight_free(device_of(d), &weight);
            }
            assert_close(kern_dtype_name(dtype), y[0], y[1], (size_t)n_tokens * n_rows, 1e-8);
            free(data), free(x), free(bias), free(y[0]), free(y[1]);
        }
    }
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

static void outputs_of_different_types_share_one_gemm(void **state)
{
    (void)state;
    enum { COLUMNS = 96, TOKENS = 5 };
    static const kern_dtype dtypes[] = {KERN_Q4_1, KERN_F16, KERN_Q8_0};
    static const uint32_t   rows[]   = {48, 20, 33};
    void                   *data[3];
    float                  *x = random_floats(TOKENS * COLUMNS), *y[2][3];
    for (int o = 0; o < 3; o++) {
        data[o] = random_matrix(dtypes[o], rows[o], COLUMNS);
    }
    for (uint32_t d = 0; d < 2; d++) {
        kern_device   *device   = device_of(d);
        float         *x_device = push(device, x, TOKENS * COLUMNS * sizeof(float));
        kern_weight   *weights[3];
        kern_gemm_args args = {.x = x_device, .n_tokens = TOKENS, .n_outputs = 3};
        for (int o = 0; o < 3; o++) {
            weights[o]             = weight_on(device, dtypes[o], rows[o], COLUMNS, data[o]);
            args.outputs[o].weight = weights[o];
            args.outputs[o].y      = kern_alloc(device, TOKENS * rows[o] * sizeof(float));
        }
        kern_gemm(device, &args);
        for (int o = 0; o < 3; o++) {
            y[d][o] = pull(device, args.outputs[o].y, TOKENS * rows[o] * sizeof(float));
            kern_weight_free(device, &weights[o]);
        }
        kern_free(device, x_device);
    }
    for (int o = 0; o < 3; o++) {
        assert_close("one of three outputs", y[0][o], y[1][o], TOKENS * rows[o], 1e-8);
        free(data[o]), free(y[0][o]), free(y[1][o]);
    }
    free(x);
}

static void a_row_with_a_nan_spoils_itself_alone(void **state)
{
    (void)state;
    enum { ROWS = 16, COLUMNS = 64 };
    void  *data         = random_matrix(KERN_Q4_0, ROWS, COLUMNS);
    float *x            = random_floats(2 * COLUMNS);
    x[COLUMNS + 7]      = NAN;
    kern_weight *weight = weight_on(cuda, KERN_Q4_0, ROWS, COLUMNS, data);
    float       *y      = multiply(cuda, weight, ROWS, COLUMNS, x, 2, NULL, false);
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_true(isfinite(y[r]));
        assert_true(isnan(y[ROWS + r]));
    }
    kern_weight_free(cuda, &weight);
    free(data), free(x), free(y);
}

static void embed_reads_every_type_exactly(void **state)
{
    (void)state;
    enum { ROWS = 37, COLUMNS = 96, TOKENS = 6 };
    static const uint32_t tokens[TOKENS] = {0, 36, 8, 17, 17, 31};
    for (kern_dtype dtype = KERN_F32; dtype < refused_from; dtype++) {
        void  *data = random_matrix(dtype, ROWS, COLUMNS);
        float *out[2];
        for (uint32_t d = 0; d < 2; d++) {
            kern_device    *device    = device_of(d);
            kern_weight    *weight    = weight_on(device, dtype, ROWS, COLUMNS, data);
            uint32_t       *on_device = push(device, tokens, sizeof tokens);
            kern_embed_args args      = {weight, on_device, kern_alloc(device, TOKENS * COLUMNS * sizeof(float)), 1.5f,
                                         TOKENS};
            kern_embed(device, &args);
            out[d] = pull(device, args.out, TOKENS * COLUMNS * sizeof(float));
            kern_free(device, on_device);
            kern_weight_free(device, &weight);
        }
        assert_memory_equal(out[0], out[1], TOKENS * COLUMNS * sizeof(float));
        free(data), free(out[0]), free(out[1]);
    }
}

/* ---- element by element ------------------------------------------------------------------------------------------ */

static void rmsnorm_matches_the_reference(void **state)
{
    (void)state;
    static const uint32_t columns[] = {1, 64, 576, 1000};
    for (size_t i = 0; i < COUNT(columns); i++) {
        uint32_t n = columns[i], stride = n + 3;
        float   *x = random_floats(4 * stride), *weight = random_floats(n), *out[2];
        for (uint32_t d = 0; d < 2; d++) {
            kern_device *device = device_of(d);
            float *x_device = push(device, x, 4 * stride * sizeof(float)), *w = push(device, weight, n * sizeof(float));
            kern_rmsnorm_args args = {x_device, w, x_device, 1e-5f, 4, n, stride, false};
            kern_rmsnorm(device, &args);
            out[d] = pull(device, x_device, 4 * stride * sizeof(float));
            kern_free(device, w);
        }
        assert_close("rmsnorm", out[0], out[1], 4 * stride, 1e-12);
        free(x), free(weight), free(out[0]), free(out[1]);
    }
}

static void rope_matches_the_reference(void **state)
{
    (void)state;
    enum { TOKENS = 3, HEADS = 5, HEAD_DIM = 40, ROPE_DIM = 32 };
    enum { N = TOKENS * HEADS * HEAD_DIM };
    for (int pairs = KERN_ROPE_ADJACENT; pairs <= KERN_ROPE_HALVES; pairs++) {
        float *x = random_floats(N), *angles = random_floats(TOKENS * ROPE_DIM), *out[2];
        for (uint32_t d = 0; d < 2; d++) {
            kern_device   *device = device_of(d);
            float         *a      = push(device, angles, TOKENS * ROPE_DIM * sizeof(float));
            kern_rope_args args   = {
                  push(device, x, N * sizeof(float)), a, TOKENS, HEADS, HEAD_DIM, ROPE_DIM, (kern_rope_pairs)pairs};
            kern_rope(device, &args);
            out[d] = pull(device, args.x, N * sizeof(float));
            kern_free(device, a);
        }
        assert_close("rope", out[0], out[1], N, 1e-12);
        free(x), free(angles), free(out[0]), free(out[1]);
    }
}

static void glu_softcap_and_gather_match_the_reference(void **state)
{
    (void)state;
    enum { TOKENS = 3, COLUMNS = 333 };
    enum { N = TOKENS * COLUMNS };
    static const uint32_t rows[] = {2, 0, 2, 1};
    for (int activation = KERN_ACT_SILU; activation <= KERN_ACT_GELU_TANH; activation++) {
        float *gate = random_floats(N), *up = random_floats(N), *out[2], *gathered[2];
        for (uint32_t d = 0; d < 2; d++) {
            kern_device     *device = device_of(d);
            float           *g = push(device, gate, N * sizeof(float)), *u = push(device, up, N * sizeof(float));
            uint32_t        *r      = push(device, rows, sizeof rows);
            kern_glu_args    args   = {g, u, g, TOKENS, COLUMNS, (kern_activation)activation};
            kern_gather_args gather = {u, r, kern_alloc(device, 4 * COLUMNS * sizeof(float)), 4, COLUMNS};
            kern_glu(device, &args);
            kern_gather(device, &gather);
            kern_softcap(device, &(kern_softcap_args){g, 2, TOKENS, COLUMNS});
            out[d]      = pull(device, g, N * sizeof(float));
            gathered[d] = pull(device, gather.out, 4 * COLUMNS * sizeof(float));
            kern_free(device, u);
            kern_free(device, r);
        }
        assert_close("glu, softcap", out[0], out[1], N, 1e-12);
        assert_memory_equal(gathered[0], gathered[1], 4 * COLUMNS * sizeof(float));
        free(gate), free(up), free(out[0]), free(out[1]), free(gathered[0]), free(gathered[1]);
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
                                    c->softcap,     c->window};
    kern_attention(device, &args);
    float *out = pull(device, args.out, n_tokens * n_row * sizeof(float));
    kern_free(device, q_device), kern_free(device, s_device), kern_free(device, t_device);
    kern_kv_cache_free(device, &cache);
    free(q);
    return out;
}

static void attention_matches_the_reference(void **state)
{
    (void)state;
    static const attention_case cases[] = {
        {KERN_F32, 4, 4, 64, 0, 0, 1, {1}, {0}},
        {KERN_F16, 9, 3, 64, 0, 0, 3, {1, 5, 1}, {200, 130, 15}},
        {KERN_BF16, 8, 2, 128, 0, 0, 2, {17, 20}, {300, 0}},
        {KERN_F16, 6, 1, 40, 50, 0, 2, {3, 1}, {127, 400}},
        {KERN_F32, 2, 1, 256, 0, 2.0f, 2, {1, 4}, {33, 128}},
        {KERN_F16, 20, 1, 8, 0, 0, 4, {1, 0, 2, 9}, {700, 0, 5, 31}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const attention_case *c = &cases[i];
        float                *out[2];
        uint32_t              n_tokens = 0;
        char                  name[32];
        for (uint32_t s = 0; s < c->n_sequences; s++) {
            n_tokens += c->n_q[s];
        }
        for (uint32_t d = 0; d < 2; d++) {
            out[d] = attend(device_of(d), c);
        }
        snprintf(name, sizeof name, "attention case %zu", i);
        assert_close(name, out[0], out[1], (size_t)n_tokens * c->n_heads * c->head_dim, 1e-10);
        free(out[0]), free(out[1]);
    }
}

/* A prefill is walked over by one block of threads, single rows are split between several: same bits. */
static void a_row_of_attention_is_the_same_bits_alone_and_in_a_prefill(void **state)
{
    (void)state;
    attention_case whole = {KERN_F16, 6, 2, 64, 0, 0, 2, {40, 40}, {250, 0}};
    for (uint32_t window = 0; window <= 150; window += 150) {
        whole.window  = window;
        float *expect = attend(cuda, &whole);
        size_t n_row  = (size_t)whole.n_heads * whole.head_dim;
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
        kern_attention_args args     = {cache, 2, q_device, kern_alloc(cuda, 16 * sizeof(float)), s, table, 1, 1, 2,
                                        1,     0, 0};
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

static void assert_same_result(const kern_sample_result *expected, const kern_sample_result *got, uint32_t row)
{
    if (expected->no_finite != got->no_finite) {
        fail_msg("row %u: no_finite is %d", row, got->no_finite);
    }
    if (expected->no_finite) {
        return;
    }
    if (expected->token != got->token || expected->rank != got->rank || expected->n_top != got->n_top ||
        expected->target_rank != got->target_rank) {
        fail_msg("row %u: token %u rank %u n_top %u target rank %u, expected %u %u %u %u", row, got->token, got->rank,
                 got->n_top, got->target_rank, expected->token, expected->rank, expected->n_top, expected->target_rank);
    }
    assert_float_equal(expected->logprob, got->logprob, 1e-4);
    if (isfinite(expected->target_logprob)) {
        assert_float_equal(expected->target_logprob, got->target_logprob, 1e-4);
    }
    for (uint32_t i = 0; i < expected->n_top; i++) {
        assert_int_equal(expected->top_tokens[i], got->top_tokens[i]);
        assert_float_equal(expected->top_logprobs[i], got->top_logprobs[i], 1e-4);
    }
}

static void sampling_matches_the_reference_for_every_filter(void **state)
{
    (void)state;
    enum { ROWS = 16 };
    static const uint32_t vocabularies[] = {5, VOCAB_MAX};
    for (size_t v = 0; v < COUNT(vocabularies); v++) {
        uint32_t        n      = vocabularies[v];
        float          *logits = random_floats((size_t)ROWS * n);
        kern_sample_row rows[ROWS];
        kern_logit_edit edits[4] = {
            {1, 3, 0.5f, true, false}, {2, 0, -1, true, false}, {0, 0, 0, false, true}, {3, 1, 9, false, false}};
        kern_sample_result *results[2];
        for (uint32_t r = 0; r < ROWS; r++) {
            rows[r]          = neutral;
            rows[r].position = r;
        }
        rows[1].temperature = 0, rows[1].n_top = KERN_TOP_MAX, rows[1].target = n - 1;
        rows[2].top_k = 3, rows[2].n_top = 4;
        rows[3].top_p = 0.5f, rows[3].temperature = 0.6f;
        rows[4].min_p     = 0.1f;
        rows[5].typical_p = 0.4f;
        rows[6].top_k = 40, rows[6].typical_p = 0.9f, rows[6].top_p = 0.8f, rows[6].min_p = 0.05f,
        rows[6].temperature = 1.3f;
        rows[7].n_edits = 4, rows[7].repetition_penalty = 1.3f, rows[7].frequency_penalty = 0.2f,
        rows[7].presence_penalty = 0.7f;
        rows[8] = rows[7], rows[8].temperature = 0;
        rows[9].top_p = 1e-6f, rows[10].min_p = 1, rows[11].typical_p = 1e-6f, rows[12].temperature = 1e-4f;
        rows[13].top_k = 2; /* among equals: */
        for (uint32_t i = 0; i < n; i++) {
            logits[13 * n + i] = 1;
            logits[14 * n + i] = i % 2 ? -INFINITY : NAN;
            logits[15 * n + i] = i % 3 ? logits[15 * n + i] : -INFINITY;
        }
        rows[13].n_top = 3, rows[14].n_top = 3, rows[15].n_top = 8;
        for (uint32_t d = 0; d < 2; d++) {
            results[d] = sample(device_of(d), logits, n, rows, ROWS, edits, COUNT(edits));
        }
        for (uint32_t r = 0; r < ROWS; r++) {
            assert_same_result(&results[0][r], &results[1][r], r);
        }
        free(logits), free(results[0]), free(results[1]);
    }
}

static void draws_follow_the_seed_and_the_position_alone(void **state)
{
    (void)state;
    enum { ROWS = 8, VOCAB = 300 };
    kern_sample_row rows[ROWS];
    float          *logits = random_floats(VOCAB), *all = malloc((size_t)ROWS * VOCAB * sizeof(float));
    for (uint32_t r = 0; r < ROWS; r++) {
        rows[r]          = neutral;
        rows[r].seed     = 0x123456789abcdefu + r / 2;
        rows[r].position = r / 2;
        memcpy(all + (size_t)r * VOCAB, logits, VOCAB * sizeof(float));
    }
    kern_sample_result *expected = sample(ref, all, VOCAB, rows, ROWS, NULL, 0),
                       *got      = sample(cuda, all, VOCAB, rows, ROWS, NULL, 0);
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_int_equal(expected[r].token, got[r].token);
        assert_int_equal(got[r - r % 2].token, got[r].token);
    }
    free(logits), free(all), free(expected), free(got);
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
    kern_kv_shape odd = {1, 4, 1, 30, KERN_F16}, quantized = {1, 4, 1, 32, KERN_Q8_0},
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
        cmocka_unit_test(gemm_of_every_type_and_shape_matches_the_reference),
        cmocka_unit_test(a_row_of_gemm_is_the_same_bits_in_any_batch),
        cmocka_unit_test(outputs_of_different_types_share_one_gemm),
        cmocka_unit_test(a_row_with_a_nan_spoils_itself_alone),
        cmocka_unit_test(embed_reads_every_type_exactly),
        cmocka_unit_test(rmsnorm_matches_the_reference),
        cmocka_unit_test(rope_matches_the_reference),
        cmocka_unit_test(glu_softcap_and_gather_match_the_reference),
        cmocka_unit_test(attention_matches_the_reference),
        cmocka_unit_test(a_row_of_attention_is_the_same_bits_alone_and_in_a_prefill),
        cmocka_unit_test(copied_blocks_hold_all_layers),
        cmocka_unit_test(sampling_matches_the_reference_for_every_filter),
        cmocka_unit_test(draws_follow_the_seed_and_the_position_alone),
        cmocka_unit_test(results_are_the_same_bits_in_any_order_of_warps),
        cmocka_unit_test(what_cannot_work_is_refused_with_a_sentence),
    };
    static char         path[4096];
    char                why[KERN_WHY_BYTES] = "";
    kern_limits         limits              = {TOKENS_MAX, COLUMNS_MAX, 4, 20, 256, VOCAB_MAX, 40};
    kern_device_options on_ref = {.backend = "ref"}, on_cuda = {.backend = "cuda"};
    beside_program(path, sizeof path, name);
    library         = getenv(variable) ? getenv(variable) : path;
    on_cuda.library = library;
    ref             = kern_device_open(&on_ref, why);
    cuda            = ref ? kern_device_open(&on_cuda, why) : NULL;
    if (!ref || !cuda) {
        printf("%s: %s: %s\n", required ? "cannot test" : "not tested here", name, why);
        kern_device_close(&ref);
        return required;
    }
    if (!kern_reserve(ref, &limits, why) || !kern_reserve(cuda, &limits, why)) {
        printf("cannot test: %s\n", why);
        return 1;
    }
    printf("testing %s\n", kern_device_name(cuda));
    int n_failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);
    kern_device_close(&cuda);
    kern_device_close(&ref);
    return n_failed;
}

int main(void)
{
    int failed = run_on("TROUPE_CUDA_HOST_LIBRARY", "libtroupe_cuda_host.so", true);
    return failed | run_on("TROUPE_CUDA_LIBRARY", "libtroupe_cuda.so", false);
}
