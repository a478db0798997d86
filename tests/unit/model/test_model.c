/* Loading a model: what is taken from the files, and that a file which doesn't fit its config is refused by name. */
#include "model/model.h"

#include "model/fingerprint.h"
#include "support_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA TESTS_DIR "/data/models/"

static kern_device *device;

static void loads_the_same_model_from_both_kinds_of_file(void **state)
{
    (void)state;
    static const char *const names[] = {"gqa_tied", "mha_untied", "biases"};
    /* embedding, head, layers, norms, biases: as make_tiny.py builds them */
    static const uint64_t n_parameters[] = {
        128 * 64 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96),
        2 * 128 * 64 + 64 + 2 * (2 * 64 + 4 * 64 * 64 + 3 * 64 * 96),
        128 * 64 + 64 + 2 * (2 * 64 + 2 * 64 * 128 + 2 * 64 * 32 + 3 * 64 * 96 + 128 + 32 + 32 + 64),
    };
    for (size_t i = 0; i < COUNT(names); i++) {
        for (int is_gguf = 0; is_gguf < 2; is_gguf++) {
            char  path[512];
            error err = {0};
            snprintf(path, sizeof path, DATA "%s%s", names[i], is_gguf ? ".gguf" : "");
            model *m = model_open(path, device, &err);
            if (!m)
                fail_msg("%s", err.text);
            const model_config *c = model_get_config(m);
            assert_string_equal(names[i], c->name);
            assert_int_equal(n_parameters[i], c->n_parameters);
            assert_true(c->weight_bytes >= n_parameters[i]);
            assert_int_equal(is_gguf ? KERN_ROPE_ADJACENT : KERN_ROPE_HALVES, c->rope_pairs);
            kern_kv_shape shape = model_kv_shape(m, 7, KERN_F16);
            assert_true(shape.n_layers == 2 && shape.n_blocks == 7 && shape.n_kv_heads == c->n_kv_heads &&
                        shape.head_dim == c->head_dim && shape.dtype == KERN_F16);
            model_free(&m);
            assert_null(m);
            model_free(&m);
        }
    }
}

static void counts_the_same_parameters_of_every_architecture_in_both_kinds_of_file(void **state)
{
    (void)state;
    static const char *const names[] = {"mistral", "qwen2", "qwen3",   "gemma2",  "gemma3",
                                        "phi3",    "olmo2", "smollm3", "granite", "yarn"};
    for (size_t i = 0; i < COUNT(names); i++) {
        uint64_t n_parameters[2];
        for (int is_gguf = 0; is_gguf < 2; is_gguf++) {
            char  file[512];
            error err = {0};
            snprintf(file, sizeof file, DATA "%s%s", names[i], is_gguf ? ".gguf" : "");
            model *m = model_open(file, device, &err);
            if (!m)
                fail_msg("%s", err.text);
            n_parameters[is_gguf] = model_get_config(m)->n_parameters;
            model_free(&m);
        }
        assert_int_equal(n_parameters[0], n_parameters[1]);
    }
}

static void reads_a_config_without_touching_weights(void **state)
{
    (void)state;
    error        err = {0};
    model_config c;
    assert_true(model_read_config(DATA "mha_untied", &c, &err));
    assert_true(c.n_kv_heads == 4 && !c.tied_head && c.weight_bytes == 0);
    assert_false(model_read_config(DATA "no_such_model", &c, &err));
    assert_int_equal(ERR_NOT_FOUND, err.code);
    assert_false(model_read_config(TESTS_DIR, &c, &err));
    assert_non_null(strstr(err.text, "config.json: No such file"));
}

/* ---- a GGUF model of one layer, made here, with one thing wrong ------------------------------------------------- */

typedef struct {
    const char *name;
    uint64_t    n_cols, n_rows; /* n_rows 0: a vector */
} tensor;

static const tensor good_tensors[] = {
    {"token_embd.weight", 32, 8},     {"output_norm.weight", 32, 0},        {"blk.0.attn_norm.weight", 32, 0},
    {"blk.0.ffn_norm.weight", 32, 0}, {"blk.0.attn_q.weight", 32, 32},      {"blk.0.attn_k.weight", 32, 16},
    {"blk.0.attn_v.weight", 32, 16},  {"blk.0.attn_output.weight", 32, 32}, {"blk.0.ffn_gate.weight", 32, 64},
    {"blk.0.ffn_up.weight", 32, 64},  {"blk.0.ffn_down.weight", 64, 32},
};

enum { GGML_F32 = 0, GGML_F16 = 1, GGML_IQ2_S = 22 };

/* `change` replaces the good tensor of its name, with n_cols 0 removes it, and adds it when there is none. */
static void put_model(image *im, const tensor *change, uint32_t type)
{
    tensor   tensors[COUNT(good_tensors) + 1];
    uint64_t n = 0, offset = 0;
    bool     replaced = change == NULL;
    for (size_t i = 0; i < COUNT(good_tensors); i++) {
        bool is_changed = change && strcmp(change->name, good_tensors[i].name) == 0;
        replaced        = replaced || is_changed;
        if (!is_changed || change->n_cols > 0)
            tensors[n++] = is_changed ? *change : good_tensors[i];
    }
    if (!replaced)
        tensors[n++] = *change;
    im->n = 0;
    image_gguf_header(im, n, 10);
    image_key_string(im, "general.architecture", "llama");
    image_key_u32(im, "llama.block_count", 1);
    image_key_u32(im, "llama.context_length", 64);
    image_key_u32(im, "llama.embedding_length", 32);
    image_key_u32(im, "llama.feed_forward_length", 64);
    image_key_u32(im, "llama.attention.head_count", 4);
    image_key_u32(im, "llama.attention.head_count_kv", 2);
    image_key_f32(im, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    image_key_f32(im, "llama.rope.freq_base", 10000);
    image_key_u32(im, "llama.vocab_size", 8);
    for (uint64_t i = 0; i < n; i++) {
        bool     is_changed = change && strcmp(change->name, tensors[i].name) == 0;
        uint64_t dims[]     = {tensors[i].n_cols, tensors[i].n_rows ? tensors[i].n_rows : 1};
        image_tensor(im, tensors[i].name, tensors[i].n_rows ? 2 : 1, dims, is_changed ? type : GGML_F32, offset);
        offset += dims[0] * dims[1] * 4;
    }
    image_align(im, 32);
    for (uint64_t i = 0; i < offset; i += 4)
        image_f32(im, 0.01f);
}

static char path[64];

static model *open_model(const image *im, error *err)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(im->n, fwrite(im->bytes, 1, im->n, file));
    fclose(file);
    return model_open(path, device, err);
}

static void refuses_a_file_that_does_not_fit_its_config(void **state)
{
    (void)state;
    static const struct {
        tensor      change;
        uint32_t    type;
        const char *says;
    } cases[] = {
        {{"blk.0.attn_k.weight", 0, 0}, GGML_F32, "tensor blk.0.attn_k.weight is missing"},
        {{"output_norm.weight", 0, 0}, GGML_F32, "tensor output_norm.weight is missing"},
        {{"blk.0.attn_k.weight", 32, 32},
         GGML_F32,
         "tensor blk.0.attn_k.weight has 32 rows of 32; 16 rows of 32 were expected"},
        {{"blk.0.ffn_down.weight", 32, 64}, GGML_F32, "tensor blk.0.ffn_down.weight has 64 rows of 32; 32 rows of 64"},
        {{"token_embd.weight", 32, 9}, GGML_F32, "tensor token_embd.weight has 9 rows of 32; 8 rows of 32"},
        {{"blk.0.ffn_norm.weight", 64, 0}, GGML_F32, "tensor blk.0.ffn_norm.weight has 1 rows of 64; 1 rows of 32"},
        {{"output.weight", 32, 9}, GGML_F32, "tensor output.weight has 9 rows of 32; 8 rows of 32"},
        {{"blk.0.attn_q.bias", 16, 0}, GGML_F32, "tensor blk.0.attn_q.bias has 1 rows of 16; 1 rows of 32"},
        {{"blk.0.attn_q_norm.weight", 8, 0},
         GGML_F32,
         "tensor blk.0.attn_q_norm.weight is no part of the llama architecture"},
        {{"blk.1.attn_q.weight", 32, 32}, GGML_F32, "tensor blk.1.attn_q.weight is no part of the llama architecture"},
        {{"blk.0.attn_norm.weight", 256, 0},
         GGML_IQ2_S,
         "tensor blk.0.attn_norm.weight is of type IQ2_S, which is not supported"},
    };
    static image im;
    error        err = {0};
    put_model(&im, NULL, GGML_F32);
    model *m = open_model(&im, &err);
    if (!m)
        fail_msg("the good model: %s", err.text);
    model_free(&m);
    for (size_t i = 0; i < COUNT(cases); i++) {
        put_model(&im, &cases[i].change, cases[i].type);
        if (open_model(&im, &err) || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].says, err.text);
    }
}

/* Other architectures whose names are as long: the same keys and tensors, fewer than they need. */
static void refuses_a_file_that_lacks_what_its_architecture_has(void **state)
{
    (void)state;
    static const struct {
        const char *architecture, *says;
    } cases[] = {
        {"qwen3", "tensor blk.0.attn_q_norm.weight is missing"},
        {"olmo2", "tensor blk.0.post_attention_norm.weight is missing"},
    };
    static image im;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        put_model(&im, NULL, GGML_F32);
        for (uint8_t *at = im.bytes; (at = memmem(at, im.n - (size_t)(at - im.bytes), "llama", 5));)
            memcpy(at, cases[i].architecture, 5);
        if (open_model(&im, &err) || !strstr(err.text, cases[i].says))
            fail_msg("%s: expected \"%s\", got \"%s\"", cases[i].architecture, cases[i].says, err.text);
    }
}

static void takes_optional_tensors_when_they_are_there(void **state)
{
    (void)state;
    static const tensor cases[] = {
        {"output.weight", 32, 8}, {"blk.0.attn_q.bias", 32, 0}, {"blk.0.attn_output.bias", 32, 0}};
    static image im;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        put_model(&im, &cases[i], GGML_F32);
        model *m = open_model(&im, &err);
        if (!m)
            fail_msg("case %zu: %s", i, err.text);
        model_free(&m);
    }
}

static void refuses_a_config_that_claims_far_more_than_the_file_holds(void **state)
{
    (void)state;
    static image im;
    error        err = {0};
    put_model(&im, NULL, GGML_F32);
    static const char key[] = "llama.block_count";
    uint8_t          *at    = memmem(im.bytes, im.n, key, sizeof key - 1);
    memcpy(at + sizeof key - 1 + 4, &(uint32_t){1024}, 4);
    assert_null(open_model(&im, &err));
    assert_non_null(strstr(err.text, "its config describes"));
}

/* ---- what model_fingerprint tells apart ------------------------------------------------------------------------- */

static uint64_t fingerprint_of(const image *im)
{
    error  err = {0};
    model *m   = open_model(im, &err);
    if (!m)
        fail_msg("%s", err.text);
    uint64_t fingerprint = model_fingerprint(m);
    model_free(&m);
    return fingerprint;
}

static void a_fingerprint_is_of_weights_and_config_and_of_no_name(void **state)
{
    (void)state;
    static const tensor head = {"output.weight", 32, 8};
    static image        im;
    static const char   epsilon_key[] = "llama.attention.layer_norm_rms_epsilon";
    put_model(&im, NULL, GGML_F32);
    uint64_t good = fingerprint_of(&im);
    assert_int_equal(good, fingerprint_of(&im));
    char usual[sizeof path];
    memcpy(usual, path, sizeof path);
    snprintf(path, sizeof path, "%.40s.other", usual); /* a model without a name is called as its file */
    assert_int_equal(good, fingerprint_of(&im));
    unlink(path);
    memcpy(path, usual, sizeof path);
    im.bytes[im.n - 1] ^= 1; /* of the last weight, its exponent */
    assert_int_not_equal(good, fingerprint_of(&im));
    put_model(&im, &head, GGML_F32);
    assert_int_not_equal(good, fingerprint_of(&im));
    put_model(&im, NULL, GGML_F32);
    uint8_t *epsilon = memmem(im.bytes, im.n, epsilon_key, sizeof epsilon_key - 1);
    memcpy(epsilon + sizeof epsilon_key - 1 + 4, &(float){1e-6f}, 4);
    assert_int_not_equal(good, fingerprint_of(&im));
}

/* The same on every device: how weights are packed there has no part in it. */
static void a_fingerprint_is_the_same_on_every_device(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "ref"};
    uint64_t                 of[COUNT(backends)];
    for (size_t i = 0; i < COUNT(backends); i++) {
        char         why[KERN_WHY_BYTES];
        error        err   = {0};
        kern_device *other = kern_device_open(&(kern_device_options){.backend = backends[i], .n_threads = 1}, why);
        model       *m     = other ? model_open(DATA "gqa_tied.gguf", other, &err) : NULL;
        assert_non_null(m);
        of[i] = model_fingerprint(m);
        model_free(&m);
        kern_device_close(&other);
    }
    assert_int_equal(of[0], of[1]);
}

/* A tensor too large to be read whole: its first and last bytes count. */
static void a_fingerprint_covers_both_ends_of_a_large_tensor(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    uint8_t *data = calloc(1, N);
    assert_non_null(data);
    uint64_t zeros = fingerprint_of_data(data, N);
    for (size_t at = 0; at < N; at += N - 1) {
        data[at] = 1;
        assert_int_not_equal(zeros, fingerprint_of_data(data, N));
        data[at] = 0;
    }
    assert_int_equal(zeros, fingerprint_of_data(data, N));
    free(data);
}

static int open_device(void **state)
{
    (void)state;
    char why[KERN_WHY_BYTES];
    device = kern_device_open(&(kern_device_options){.backend = "cpu", .n_threads = 1}, why);
    snprintf(path, sizeof path, "/tmp/troupe-model-XXXXXX");
    int fd = mkstemp(path);
    if (fd >= 0)
        close(fd);
    return device && fd >= 0 ? 0 : -1;
}

static int close_device(void **state)
{
    (void)state;
    kern_device_close(&device);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_the_same_model_from_both_kinds_of_file),
        cmocka_unit_test(counts_the_same_parameters_of_every_architecture_in_both_kinds_of_file),
        cmocka_unit_test(reads_a_config_without_touching_weights),
        cmocka_unit_test(refuses_a_file_that_does_not_fit_its_config),
        cmocka_unit_test(refuses_a_file_that_lacks_what_its_architecture_has),
        cmocka_unit_test(takes_optional_tensors_when_they_are_there),
        cmocka_unit_test(a_fingerprint_is_of_weights_and_config_and_of_no_name),
        cmocka_unit_test(a_fingerprint_is_the_same_on_every_device),
        cmocka_unit_test(a_fingerprint_covers_both_ends_of_a_large_tensor),
        cmocka_unit_test(refuses_a_config_that_claims_far_more_than_the_file_holds),
    };
    return cmocka_run_group_tests_name("model", tests, open_device, close_device);
}
