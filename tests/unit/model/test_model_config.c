/* What the two kinds of config say, and what is refused by name. */
#include "model/model_config.h"

#include "support_image.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- GGUF ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *key;
    uint32_t    type; /* GGUF_U32, GGUF_F32 or GGUF_STRING */
    double      number;
    const char *text;
} gguf_value;

static const gguf_value good_keys[] = {
    {"general.architecture", GGUF_STRING, 0, "llama"},
    {"general.name", GGUF_STRING, 0, "Tiny"},
    {"llama.block_count", GGUF_U32, 2, NULL},
    {"llama.context_length", GGUF_U32, 8192, NULL},
    {"llama.embedding_length", GGUF_U32, 576, NULL},
    {"llama.feed_forward_length", GGUF_U32, 1536, NULL},
    {"llama.attention.head_count", GGUF_U32, 9, NULL},
    {"llama.attention.head_count_kv", GGUF_U32, 3, NULL},
    {"llama.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-5, NULL},
    {"llama.rope.freq_base", GGUF_F32, 100000, NULL},
    {"llama.vocab_size", GGUF_U32, 49152, NULL},
};

static void put_value(image *im, const gguf_value *value)
{
    if (value->type == GGUF_STRING)
        image_key_string(im, value->key, value->text);
    else if (value->type == GGUF_F32)
        image_key_f32(im, value->key, (float)value->number);
    else
        image_key_u32(im, value->key, (uint32_t)value->number);
}

/* The good keys with one changed, added, or left out (type GGUF_ARRAY). */
static gguf *open_with(const gguf_value *change, const char *tensor, error *err)
{
    static image im;
    uint64_t     n_keys   = 0;
    bool         replaced = change == NULL;
    im.n                  = 0;
    image_gguf_header(&im, tensor != NULL, 0);
    for (size_t i = 0; i < COUNT(good_keys); i++) {
        const gguf_value *value = &good_keys[i];
        if (change && strcmp(change->key, value->key) == 0) {
            replaced = true;
            value    = change;
        }
        if (value->type != GGUF_ARRAY) {
            put_value(&im, value);
            n_keys++;
        }
    }
    if (!replaced) {
        put_value(&im, change);
        n_keys++;
    }
    memcpy(im.bytes + 16, &n_keys, sizeof n_keys);
    if (tensor)
        image_tensor(&im, tensor, 1, (uint64_t[]){1}, 0, 0);
    image_align(&im, 32);
    image_f32(&im, 1);
    return gguf_open_memory(im.bytes, im.n, "tiny.gguf", err);
}

static void reads_a_gguf_file(void **state)
{
    (void)state;
    error        err = {0};
    model_config c;
    gguf        *file = open_with(NULL, NULL, &err);
    assert_non_null(file);
    assert_true(model_config_from_gguf(&c, file, &err));
    assert_string_equal("llama", c.architecture);
    assert_string_equal("Tiny", c.name);
    assert_true(c.n_layers == 2 && c.n_embd == 576 && c.n_heads == 9 && c.n_kv_heads == 3 && c.head_dim == 64);
    assert_true(c.n_ff == 1536 && c.n_vocab == 49152 && c.n_ctx_train == 8192 && c.rope_dim == 64);
    assert_true(c.rope_theta == 100000 && c.rms_epsilon == 1e-5f && c.rope_pairs == KERN_ROPE_ADJACENT && c.tied_head);
    assert_int_equal(49152 * 576 + 576 + 2 * (2 * 576 + 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536),
                     c.n_parameters);
    gguf_close(&file);
    file = open_with(NULL, "output.weight", &err);
    assert_true(model_config_from_gguf(&c, file, &err) && !c.tied_head);
    gguf_close(&file);
}

static void refuses_a_gguf_file_by_the_name_of_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        gguf_value  change;
        const char *says;
    } cases[] = {
        {{"general.architecture", GGUF_STRING, 0, "qwen2"},
         "the architecture \"qwen2\" is not supported; supported is llama"},
        {{"general.architecture", GGUF_ARRAY, 0, NULL}, "key general.architecture is missing"},
        {{"general.architecture", GGUF_U32, 1, NULL}, "key general.architecture is of type u32"},
        {{"llama.block_count", GGUF_ARRAY, 0, NULL}, "key llama.block_count is missing"},
        {{"llama.block_count", GGUF_STRING, 0, "2"}, "key llama.block_count is of type string"},
        {{"llama.block_count", GGUF_U32, 0, NULL}, "the number of layers is 0; 1 to 1024 was expected"},
        {{"llama.block_count", GGUF_U32, 4e9, NULL}, "the number of layers is 4000000000"},
        {{"llama.context_length", GGUF_U32, 0, NULL}, "the context length is 0"},
        {{"llama.embedding_length", GGUF_U32, 577, NULL}, "the embedding length 577 is no multiple of 9 heads"},
        {{"llama.embedding_length", GGUF_U32, 0, NULL}, "the embedding length is 0"},
        {{"llama.feed_forward_length", GGUF_U32, 0, NULL}, "the feed-forward length is 0"},
        {{"llama.attention.head_count", GGUF_U32, 0, NULL}, "the number of heads is 0"},
        {{"llama.attention.head_count_kv", GGUF_U32, 0, NULL}, "the number of key-value heads is 0"},
        {{"llama.attention.head_count_kv", GGUF_U32, 4, NULL}, "9 heads are no multiple of 4 key-value heads"},
        {{"llama.attention.head_count_kv", GGUF_U32, 18, NULL},
         "the number of key-value heads is 18; 1 to 9 was expected"},
        {{"llama.attention.value_length", GGUF_U32, 32, NULL}, "keys of length 64 with values of length 32"},
        {{"llama.attention.key_length", GGUF_U32, 5000, NULL}, "keys of length 5000"},
        {{"llama.attention.layer_norm_rms_epsilon", GGUF_F32, 0, NULL}, "the epsilon of RMSNorm is 0"},
        {{"llama.attention.layer_norm_rms_epsilon", GGUF_F32, NAN, NULL}, "the epsilon of RMSNorm is nan"},
        {{"llama.rope.freq_base", GGUF_F32, -1, NULL}, "the base of the rotary frequencies is -1"},
        {{"llama.rope.freq_base", GGUF_F32, INFINITY, NULL}, "the base of the rotary frequencies is inf"},
        {{"llama.rope.dimension_count", GGUF_U32, 63, NULL}, "the number of rotated dimensions, 63, must be even"},
        {{"llama.rope.dimension_count", GGUF_U32, 66, NULL}, "the number of rotated dimensions is 66; 2 to 64"},
        {{"llama.rope.scaling.type", GGUF_STRING, 0, "yarn"}, "rope scaling \"yarn\" is not supported"},
        {{"llama.rope.scaling.factor", GGUF_F32, 4, NULL}, "key llama.rope.scaling.factor is 4"},
        {{"llama.expert_count", GGUF_U32, 8, NULL}, "mixture of experts (llama.expert_count = 8) is not supported"},
        {{"llama.attention.sliding_window", GGUF_U32, 4096, NULL}, "key llama.attention.sliding_window may change"},
        {{"llama.vocab_size", GGUF_U32, 0, NULL}, "the size of the vocabulary is 0"},
        {{"llama.vocab_size", GGUF_ARRAY, 0, NULL}, "keys llama.vocab_size and tokenizer.ggml.tokens are both missing"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error        err = {0};
        model_config c;
        gguf        *file = open_with(&cases[i].change, NULL, &err);
        assert_non_null(file);
        if (model_config_from_gguf(&c, file, &err) || !strstr(err.text, cases[i].says) ||
            strncmp(err.text, "tiny.gguf: ", 11))
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].says, err.text);
        gguf_close(&file);
    }
    error        err = {0};
    model_config c;
    gguf        *file = open_with(NULL, "rope_freqs.weight", &err);
    assert_false(model_config_from_gguf(&c, file, &err));
    assert_non_null(strstr(err.text, "rope scaling \"rope_freqs.weight\" is not supported"));
    gguf_close(&file);
}

static void accepts_gguf_keys_that_change_nothing(void **state)
{
    (void)state;
    static const gguf_value cases[] = {
        {"llama.rope.scaling.type", GGUF_STRING, 0, "none"}, {"llama.rope.scaling.factor", GGUF_F32, 1, NULL},
        {"llama.expert_count", GGUF_U32, 0, NULL},           {"llama.attention.key_length", GGUF_U32, 64, NULL},
        {"llama.rope.dimension_count", GGUF_U32, 32, NULL},  {"general.url", GGUF_STRING, 0, "somewhere"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error        err = {0};
        model_config c;
        gguf        *file = open_with(&cases[i], NULL, &err);
        if (!file || !model_config_from_gguf(&c, file, &err))
            fail_msg("case %zu: %s", i, err.text);
        gguf_close(&file);
    }
}

/* ---- config.json ----------------------------------------------------------------------------------------------- */

#define SIZES                                                                                                          \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":"    \
    "128,"                                                                                                             \
    "\"max_position_embeddings\":256"
#define LLAMA "\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"]," SIZES

static bool from_text(model_config *c, const char *text, error *err)
{
    return model_config_from_json(c, span_of(text), "models/tiny/config.json", err);
}

static void reads_a_config_json(void **state)
{
    (void)state;
    error        err = {0};
    model_config c;
    assert_true(from_text(&c, "{" LLAMA "}", &err));
    assert_string_equal("tiny", c.name);
    assert_true(c.n_layers == 2 && c.n_embd == 64 && c.n_heads == 4 && c.n_kv_heads == 4 && c.head_dim == 16 &&
                c.n_ff == 96);
    assert_true(c.rope_theta == 10000 && c.rms_epsilon == 1e-6f && c.rope_pairs == KERN_ROPE_HALVES && !c.tied_head);
    assert_true(from_text(&c,
                          "{" LLAMA
                          ",\"num_key_value_heads\":2,\"head_dim\":32,\"rope_theta\":5e5,\"rms_norm_eps\":1e-5,"
                          "\"tie_word_embeddings\":true,\"rope_scaling\":null,\"attention_bias\":true}",
                          &err));
    assert_true(c.n_kv_heads == 2 && c.head_dim == 32 && c.rope_dim == 32 && c.rope_theta == 5e5f && c.tied_head);
    assert_true(from_text(&c, "{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":77}}", &err));
    assert_true(c.rope_theta == 77);
}

static void refuses_a_config_json_by_the_name_of_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{", "not valid JSON"},
        {"[]", "a JSON object was expected"},
        {"{}", "\"model_type\" must be a string"},
        {"{\"model_type\":\"mistral\"," SIZES "}", "the architecture \"mistral\" is not supported; supported is llama"},
        {"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForSequenceClassification\"]," SIZES "}",
         "the architecture \"LlamaForSequenceClassification\" is not supported; supported is LlamaForCausalLM"},
        {"{\"model_type\":\"llama\",\"architectures\":7," SIZES "}", "\"architectures\" must be an array of one name"},
        {"{\"model_type\":\"llama\"}", "\"num_hidden_layers\" is missing"},
        {"{" LLAMA ",\"hidden_act\":\"gelu\"}", "the activation \"gelu\" is not supported; supported is silu"},
        {"{" LLAMA ",\"hidden_act\":1}", "\"hidden_act\" must be a string"},
        {"{" LLAMA ",\"mlp_bias\":true}", "\"mlp_bias\" is not supported"},
        {"{" LLAMA ",\"quantization_config\":{}}", "\"quantization_config\" is not supported"},
        {"{" LLAMA ",\"sliding_window\":4096}", "\"sliding_window\" is not supported"},
        {"{" LLAMA ",\"partial_rotary_factor\":0.5}", "\"partial_rotary_factor\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}",
         "rope scaling \"llama3\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "rope scaling \"linear\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":5}", "\"rope_scaling\" must be null or an object with a \"rope_type\""},
        {"{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "rope scaling \"yarn\" is not supported"},
        {"{" LLAMA ",\"num_key_value_heads\":3}", "4 heads are no multiple of 3 key-value heads"},
        {"{" LLAMA ",\"num_key_value_heads\":-1}", "\"num_key_value_heads\" must be an integer that is not negative"},
        {"{" LLAMA ",\"num_key_value_heads\":4294967296}", "\"num_key_value_heads\" must be an integer"},
        {"{" LLAMA ",\"num_key_value_heads\":\"4\"}", "\"num_key_value_heads\" must be an integer"},
        {"{" LLAMA ",\"head_dim\":15}", "the number of rotated dimensions, 15, must be even"},
        {"{" LLAMA ",\"head_dim\":100000}", "the length of a head is 100000; 2 to 1024 was expected"},
        {"{" LLAMA ",\"rope_theta\":\"big\"}", "\"rope_theta\" must be a number"},
        {"{" LLAMA ",\"rope_theta\":0}", "the base of the rotary frequencies is 0"},
        {"{" LLAMA ",\"rms_norm_eps\":1}", "the epsilon of RMSNorm is 1"},
        {"{" LLAMA ",\"tie_word_embeddings\":1}", "\"tie_word_embeddings\" must be true or false"},
        {"{" LLAMA ",\"hidden_size\":64}", "duplicate object key"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error        err = {0};
        model_config c;
        if (from_text(&c, cases[i].text, &err) || !strstr(err.text, cases[i].says) ||
            strncmp(err.text, "models/tiny/config.json: ", 25) != 0)
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].says, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_gguf_file),
        cmocka_unit_test(refuses_a_gguf_file_by_the_name_of_what_is_wrong),
        cmocka_unit_test(accepts_gguf_keys_that_change_nothing),
        cmocka_unit_test(reads_a_config_json),
        cmocka_unit_test(refuses_a_config_json_by_the_name_of_what_is_wrong),
    };
    return cmocka_run_group_tests_name("model_config", tests, NULL, NULL);
}
