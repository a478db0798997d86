/* Weights quantised while loading: the bytes that a script makes of the same floats, and a model that runs the same. */
#include "model/quantization.h"

#include "model/gguf.h"
#include "support_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA TESTS_DIR "/data/models/"

enum { N_TOKENS = 24, N_VOCAB = 128 };

static const struct {
    model_quantization quantization;
    const char        *by_script;
} kinds[] = {{MODEL_INT8, DATA "gqa_tied_int8.gguf"}, {MODEL_INT4, DATA "gqa_tied_int4.gguf"}};

static gguf *open_gguf(const char *path)
{
    error err  = {0};
    gguf *file = gguf_open(path, &err);
    if (!file)
        fail_msg("%s", err.text);
    return file;
}

/* make_quantized.py writes Q4_1 a second time in Python, and takes Q8_0 from the gguf package. */
static void every_byte_is_that_of_the_script(void **state)
{
    (void)state;
    gguf *floats = open_gguf(DATA "gqa_tied.gguf");
    for (size_t k = 0; k < COUNT(kinds); k++) {
        gguf    *expected = open_gguf(kinds[k].by_script);
        uint32_t n_seen   = 0;
        for (uint64_t i = 0; i < gguf_n_tensors(floats); i++) {
            const gguf_tensor *from = gguf_tensor_at(floats, i), *to = gguf_tensor_at(expected, i);
            assert_true(span_equal(from->name, to->name));
            if (from->n_dims < 2)
                continue;
            bool        is_embedding = span_is(from->name, "token_embd.weight");
            kern_matrix matrix       = {from->dtype, (uint32_t)from->dims[1], (uint32_t)from->dims[0], from->data};
            kern_dtype  dtype        = quantization_dtype(kinds[k].quantization, &matrix, is_embedding);
            assert_int_equal(to->dtype, dtype);
            for (uint32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
                thread_pool *pool   = thread_pool_new(n_threads);
                void        *blocks = malloc(to->n_bytes);
                assert_true(pool && blocks && quantize_matrix(pool, &matrix, dtype, blocks));
                assert_memory_equal(to->data, blocks, to->n_bytes);
                free(blocks);
                thread_pool_free(&pool);
            }
            n_seen++;
        }
        assert_int_equal(1 + 2 * 7, n_seen);
        gguf_close(&expected);
    }
    gguf_close(&floats);
}

static void run(const char *path, model_quantization quantization, float *logits, uint64_t *weight_bytes)
{
    uint32_t tokens[N_TOKENS];
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 37 % N_VOCAB;
    runner r = runner_open_with("cpu", NULL, path, KERN_F32, 0, &(model_options){.quantization = quantization});
    runner_sequence(&r, tokens, N_TOKENS, N_TOKENS, logits);
    *weight_bytes = model_get_config(r.m)->weight_bytes;
    runner_close(&r);
}

static void a_model_quantised_while_loading_runs_as_one_that_was_before(void **state)
{
    (void)state;
    static float plain[N_TOKENS * N_VOCAB], loaded[N_TOKENS * N_VOCAB], before[N_TOKENS * N_VOCAB];
    uint64_t     plain_bytes, loaded_bytes, before_bytes;
    run(DATA "gqa_tied.gguf", MODEL_AS_IT_IS, plain, &plain_bytes);
    for (size_t k = 0; k < COUNT(kinds); k++) {
        run(DATA "gqa_tied.gguf", kinds[k].quantization, loaded, &loaded_bytes);
        run(kinds[k].by_script, MODEL_AS_IT_IS, before, &before_bytes);
        assert_memory_equal(before, loaded, sizeof loaded);
        assert_memory_not_equal(plain, loaded, sizeof loaded);
        assert_true(loaded_bytes == before_bytes && loaded_bytes < plain_bytes);
    }
}

static void a_weight_that_the_file_has_quantised_stays(void **state)
{
    (void)state;
    static float plain[N_TOKENS * N_VOCAB], loaded[N_TOKENS * N_VOCAB];
    uint64_t     plain_bytes, loaded_bytes;
    run(DATA "quantized.gguf", MODEL_AS_IT_IS, plain, &plain_bytes);
    run(DATA "quantized.gguf", MODEL_INT4, loaded, &loaded_bytes);
    assert_memory_equal(plain, loaded, sizeof loaded);
    assert_int_equal(plain_bytes, loaded_bytes);
}

/* Of both kinds of float file, F16, BF16 and F32. */
static void takes_every_kind_of_float(void **state)
{
    (void)state;
    static const char *const paths[] = {DATA "gqa_tied", DATA "mha_untied", DATA "mha_untied.gguf", DATA "biases"};
    static float             logits[N_TOKENS * N_VOCAB];
    for (size_t i = 0; i < COUNT(paths); i++) {
        uint64_t bytes[3];
        for (uint32_t q = MODEL_AS_IT_IS; q <= MODEL_INT4; q++)
            run(paths[i], q, logits, &bytes[q]);
        assert_true(bytes[MODEL_INT8] < bytes[MODEL_AS_IT_IS] && bytes[MODEL_INT4] < bytes[MODEL_INT8]);
    }
}

static void the_fingerprint_is_another(void **state)
{
    (void)state;
    static const uint64_t of_file = 12345;
    assert_int_equal(of_file, quantization_fingerprint(MODEL_AS_IT_IS, of_file));
    assert_int_not_equal(of_file, quantization_fingerprint(MODEL_INT8, of_file));
    assert_int_not_equal(quantization_fingerprint(MODEL_INT4, of_file), quantization_fingerprint(MODEL_INT8, of_file));
    uint64_t of[2];
    for (int i = 0; i < 2; i++) {
        model_options how = {.quantization = i ? MODEL_INT8 : MODEL_AS_IT_IS};
        runner        r   = runner_open_with("ref", NULL, DATA "gqa_tied.gguf", KERN_F32, 0, &how);
        of[i]             = model_fingerprint(r.m);
        runner_close(&r);
    }
    assert_int_equal(of[1], quantization_fingerprint(MODEL_INT8, of[0]));
}

static void rows_that_are_no_multiple_of_a_block_stay(void **state)
{
    (void)state;
    kern_matrix m = {.dtype = KERN_F16, .n_rows = 4, .n_cols = 48};
    assert_int_equal(KERN_F16, quantization_dtype(MODEL_INT4, &m, false));
    m.n_cols = 64;
    assert_int_equal(KERN_Q4_1, quantization_dtype(MODEL_INT4, &m, false));
    assert_int_equal(KERN_Q8_0, quantization_dtype(MODEL_INT4, &m, true));
    assert_int_equal(KERN_F16, quantization_dtype(MODEL_AS_IT_IS, &m, false));
}

/* A copy of a model with one weight that is infinite. */
static void refuses_a_weight_that_is_not_finite_by_the_name_of_its_tensor(void **state)
{
    (void)state;
    gguf              *floats = open_gguf(DATA "gqa_tied.gguf");
    const gguf_tensor *bad    = gguf_find_tensor(floats, "blk.1.ffn_up.weight");
    assert_true(bad && bad->dtype == KERN_F16);
    FILE *from   = fopen(DATA "gqa_tied.gguf", "rb");
    char  path[] = "/tmp/troupe-quantization-XXXXXX", bytes[1 << 18];
    int   fd     = mkstemp(path);
    assert_true(from && fd >= 0);
    size_t n  = fread(bytes, 1, sizeof bytes, from);
    char  *at = memmem(bytes, n, bad->data, bad->n_bytes);
    assert_non_null(at);
    memcpy(at + 100, &(uint16_t){0x7c00}, 2);
    assert_int_equal(n, write(fd, bytes, n));
    close(fd);
    fclose(from);
    gguf_close(&floats);
    error        err    = {0};
    kern_device *device = kern_device_open(&(kern_device_options){.backend = "ref"}, NULL);
    assert_null(model_open_with(path, device, &(model_options){.quantization = MODEL_INT4}, &err));
    assert_non_null(strstr(err.text, "tensor blk.1.ffn_up.weight (F16): it holds an infinity"));
    unlink(path);
    kern_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_that_of_the_script),
        cmocka_unit_test(a_model_quantised_while_loading_runs_as_one_that_was_before),
        cmocka_unit_test(a_weight_that_the_file_has_quantised_stays),
        cmocka_unit_test(takes_every_kind_of_float),
        cmocka_unit_test(the_fingerprint_is_another),
        cmocka_unit_test(rows_that_are_no_multiple_of_a_block_stay),
        cmocka_unit_test(refuses_a_weight_that_is_not_finite_by_the_name_of_its_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
