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
    assert_true(c.rms_epsilon == 1e-5f && c.rope_pairs == KERN_ROPE_ADJACENT && c.tied_head);
    assert_true(c.n_ropes == 1 && c.ropes[0].theta == 100000 && c.ropes[0].scaling == ROPE_PLAIN);
    assert_true(c.norm_before && !c.norm_after && !c.fused && c.qk_norm == MODEL_QK_NORM_NONE);
    assert_true(c.attention_scale == 0.125f && c.embedding_scale == 1 && c.residual_scale == 1 && c.logit_scale == 1);
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
        {{"general.architecture", GGUF_STRING, 0, "mamba"},
         "the architecture \"mamba\" is not supported; supported are llama, qwen2, qwen3, gemma2, gemma3, phi3, olmo2, "
         "smollm3, granite, bert"},
        {{"llama.pooling_type", GGUF_U32, 4, NULL}, "llama.pooling_type = 4 is not supported"},
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
        {{"llama.attention.key_length", GGUF_U32, 5000, NULL}, "the length of a head is 5000; 2 to 1024 was expected"},
        {{"llama.attention.layer_norm_rms_epsilon", GGUF_F32, 0, NULL}, "the epsilon of norms is 0"},
        {{"llama.attention.layer_norm_rms_epsilon", GGUF_F32, NAN, NULL}, "the epsilon of norms is nan"},
        {{"llama.rope.freq_base", GGUF_F32, -1, NULL}, "the base of the rotary frequencies is -1"},
        {{"llama.rope.freq_base", GGUF_F32, INFINITY, NULL}, "the base of the rotary frequencies is inf"},
        {{"llama.rope.dimension_count", GGUF_U32, 63, NULL}, "the number of rotated dimensions, 63, must be even"},
        {{"llama.rope.dimension_count", GGUF_U32, 66, NULL}, "the number of rotated dimensions is 66; 2 to 64"},
        {{"llama.rope.scaling.type", GGUF_STRING, 0, "ntk"},
         "rope scaling \"ntk\" is not supported; supported are none, linear, yarn, longrope"},
        {{"llama.rope.scaling.type", GGUF_STRING, 0, "yarn"}, "the numbers of its rope scaling don't fit each other"},
        {{"llama.rope.scaling.type", GGUF_STRING, 0, "longrope"}, "longrope without tensor rope_factors_long.weight"},
        {{"llama.rope.scaling.factor", GGUF_F32, -4, NULL}, "the numbers of its rope scaling don't fit each other"},
        {{"llama.rope.scaling.attn_factor", GGUF_F32, 0, NULL}, "the rotary attention factor is 0"},
        {{"llama.rope.scaling.yarn_log_multiplier", GGUF_F32, 1, NULL}, "key llama.rope.scaling.yarn_log_multiplier"},
        {{"llama.expert_count", GGUF_U32, 8, NULL}, "mixture of experts (llama.expert_count = 8) is not supported"},
        {{"llama.attention.sliding_window", GGUF_F32, 4096, NULL}, "key llama.attention.sliding_window is of type f32"},
        {{"llama.attention.causal", GGUF_U32, 0, NULL}, "key llama.attention.causal may change the arithmetic"},
        {{"llama.attention.scale", GGUF_F32, 2, NULL}, "key llama.attention.scale may change the arithmetic"},
        {{"llama.final_logit_softcapping", GGUF_F32, 30, NULL}, "key llama.final_logit_softcapping may change"},
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
    assert_non_null(strstr(err.text, "tensor rope_freqs.weight must be a vector of 32 numbers of type F32"));
    gguf_close(&file);
}

/* The good keys of another architecture, and one more. */
static model_config read_architecture(const char *architecture, uint32_t n_layers, const gguf_value *more)
{
    static image im;
    error        err = {0};
    model_config c   = {0};
    im.n             = 0;
    image_gguf_header(&im, 0, COUNT(good_keys) + (more != NULL));
    image_key_string(&im, "general.architecture", architecture);
    for (size_t i = 1; i < COUNT(good_keys); i++) {
        char       key[96];
        gguf_value value = good_keys[i];
        if (strncmp(value.key, "llama.", 6) == 0)
            snprintf(key, sizeof key, "%s.%s", architecture, value.key + 6);
        else
            snprintf(key, sizeof key, "%s", value.key);
        value.number = strstr(key, "block_count") ? n_layers : value.number;
        value.key    = key;
        put_value(&im, &value);
    }
    if (more)
        put_value(&im, more);
    image_align(&im, 32);
    gguf *file = gguf_open_memory(im.bytes, im.n, "tiny.gguf", &err);
    if (!file || !model_config_from_gguf(&c, file, &err))
        fail_msg("%s: %s", architecture, err.text);
    gguf_close(&file);
    return c;
}

static void tells_architectures_apart_by_the_config_alone(void **state)
{
    (void)state;
    static const struct {
        const char     *name;
        kern_rope_pairs pairs;
        kern_activation activation;
        model_qk_norm   qk_norm;
        bool            norm_before, norm_after, fused;
    } cases[] = {
        {"llama", KERN_ROPE_ADJACENT, KERN_ACT_SILU, MODEL_QK_NORM_NONE, true, false, false},
        {"qwen2", KERN_ROPE_HALVES, KERN_ACT_SILU, MODEL_QK_NORM_NONE, true, false, false},
        {"qwen3", KERN_ROPE_HALVES, KERN_ACT_SILU, MODEL_QK_NORM_HEADS, true, false, false},
        {"gemma2", KERN_ROPE_HALVES, KERN_ACT_GELU_TANH, MODEL_QK_NORM_NONE, true, true, false},
        {"gemma3", KERN_ROPE_HALVES, KERN_ACT_GELU_TANH, MODEL_QK_NORM_HEADS, true, true, false},
        {"phi3", KERN_ROPE_HALVES, KERN_ACT_SILU, MODEL_QK_NORM_NONE, true, false, true},
        {"olmo2", KERN_ROPE_HALVES, KERN_ACT_SILU, MODEL_QK_NORM_WHOLE, false, true, false},
        {"smollm3", KERN_ROPE_ADJACENT, KERN_ACT_SILU, MODEL_QK_NORM_NONE, true, false, false},
        {"granite", KERN_ROPE_ADJACENT, KERN_ACT_SILU, MODEL_QK_NORM_NONE, true, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        model_config c = read_architecture(cases[i].name, 2, NULL);
        if (c.rope_pairs != cases[i].pairs || c.activation != cases[i].activation || c.qk_norm != cases[i].qk_norm ||
            c.norm_before != cases[i].norm_before || c.norm_after != cases[i].norm_after || c.fused != cases[i].fused ||
            c.norm_offset != 0 || c.head_dim != 64)
            fail_msg("%s is read as something else", cases[i].name);
    }
}

static void gives_layers_their_windows_and_rotary_positions(void **state)
{
    (void)state;
    const gguf_value mistral = {"llama.attention.sliding_window", GGUF_U32, 512, NULL};
    const gguf_value gemma   = {"gemma3.attention.sliding_window", GGUF_U32, 512, NULL};
    model_config     c       = read_architecture("llama", 3, &mistral);
    assert_string_equal("mistral", c.architecture);
    assert_true(c.layers[0].window == 512 && c.layers[2].window == 512 && c.layers[2].rope == 0);
    c = read_architecture("gemma3", 12, &gemma);
    for (uint32_t i = 0; i < 12; i++)
        assert_true(c.layers[i].window == (i % 6 == 5 ? 0 : 512) && c.layers[i].rope == (i % 6 == 5 ? 0 : 1));
    assert_true(c.n_ropes == 2 && c.ropes[0].theta == 100000 && c.ropes[1].theta == 10000);
    c = read_architecture("gemma3", 12, NULL);
    assert_true(c.layers[0].window == 0 && c.layers[0].rope == 0);
    c = read_architecture("gemma2", 4, NULL);
    assert_true(c.layers[0].window == 4096 && c.layers[1].window == 0 && c.layers[2].window == 4096);
    c = read_architecture("smollm3", 8, NULL);
    for (uint32_t i = 0; i < 8; i++)
        assert_true(c.layers[i].rope == (i % 4 == 3 ? MODEL_NO_ROPE : 0) && c.layers[i].window == 0);
}

static void reads_the_scales_of_gguf_files(void **state)
{
    (void)state;
    const gguf_value logits = {"granite.logit_scale", GGUF_F32, 8, NULL};
    model_config     c      = read_architecture("granite", 2, &logits);
    assert_true(c.logit_scale == 0.125f && c.attention_scale == 0.125f && c.embedding_scale == 1);
    c = read_architecture("gemma2", 2, NULL);
    assert_true(c.embedding_scale == 24 && c.attention_softcap == 50 && c.logit_softcap == 30);
    c = read_architecture("gemma2", 46, &(gguf_value){"gemma2.attention.key_length", GGUF_U32, 32, NULL});
    assert_true(c.head_dim == 32 && c.attention_scale == 0.125f); /* of 576 / 9 heads, as the 27B model wants */
    c = read_architecture("gemma3", 2, &(gguf_value){"gemma3.attention.key_length", GGUF_U32, 256, NULL});
    assert_true(c.attention_scale == 0.0625f && c.attention_softcap == 0 && c.logit_softcap == 0);
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
    assert_true(c.ropes[0].theta == 10000 && c.rms_epsilon == 1e-6f && c.rope_pairs == KERN_ROPE_HALVES);
    assert_true(!c.tied_head && c.activation == KERN_ACT_SILU && c.attention_scale == 0.25f);
    assert_true(from_text(&c,
                          "{" LLAMA
                          ",\"num_key_value_heads\":2,\"head_dim\":32,\"rope_theta\":5e5,\"rms_norm_eps\":1e-5,"
                          "\"tie_word_embeddings\":true,\"rope_scaling\":null,\"attention_bias\":true}",
                          &err));
    assert_true(c.n_kv_heads == 2 && c.head_dim == 32 && c.rope_dim == 32 && c.ropes[0].theta == 5e5f && c.tied_head);
    assert_true(from_text(&c, "{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":77}}", &err));
    assert_true(c.ropes[0].theta == 77);
}

#define GRANITE "\"model_type\":\"granite\"," SIZES
#define GEMMA2 "\"model_type\":\"gemma2\",\"head_dim\":16," SIZES
#define GEMMA3 "\"model_type\":\"gemma3_text\",\"head_dim\":16," SIZES
#define SMOLLM3 "\"model_type\":\"smollm3\"," SIZES
#define QWEN2 "\"model_type\":\"qwen2\"," SIZES

static model_config good_text(const char *text)
{
    error        err = {0};
    model_config c   = {0};
    if (!from_text(&c, text, &err))
        fail_msg("%s: %s", text, err.text);
    return c;
}

static void reads_layers_and_scales_of_a_config_json(void **state)
{
    (void)state;
    model_config c = good_text("{" QWEN2 ",\"sliding_window\":99,\"max_window_layers\":1}");
    assert_true(c.layers[0].window == 0 && c.layers[1].window == 0);
    c = good_text("{" QWEN2 ",\"sliding_window\":99,\"max_window_layers\":1,\"use_sliding_window\":true}");
    assert_true(c.layers[0].window == 0 && c.layers[1].window == 99);
    c = good_text("{\"model_type\":\"mistral\",\"sliding_window\":null," SIZES "}");
    assert_true(c.layers[0].window == 0);
    c = good_text("{\"model_type\":\"mistral\"," SIZES "}");
    assert_true(c.layers[0].window == 4096 && c.layers[1].window == 4096);
    c = good_text("{" GEMMA3 ",\"sliding_window\":512,\"sliding_window_pattern\":2,\"rope_local_base_freq\":50,"
                  "\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}}");
    assert_true(c.layers[0].window == 512 && c.layers[0].rope == 1 && c.layers[1].window == 0 && c.layers[1].rope == 0);
    assert_true(c.ropes[0].theta == 5e5f && c.ropes[0].scaling == ROPE_LINEAR && c.ropes[0].factor == 8);
    assert_true(c.ropes[1].theta == 50 && c.ropes[1].scaling == ROPE_PLAIN);
    assert_true(c.tied_head && c.norm_offset == 1 && c.embedding_scale == 8 && c.attention_scale == 0.0625f);
    c = good_text("{" GEMMA3 ",\"layer_types\":[\"full_attention\",\"sliding_attention\"],\"sliding_window\":7,"
                  "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":3},"
                  "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":4}}}");
    assert_true(c.layers[0].window == 0 && c.layers[1].window == 7 && c.ropes[0].theta == 3 && c.ropes[1].theta == 4);
    c = good_text("{" GEMMA2 ",\"attn_logit_softcapping\":null,\"query_pre_attn_scalar\":64}");
    assert_true(c.attention_softcap == 0 && c.logit_softcap == 30 && c.attention_scale == 0.125f);
    c = good_text("{" SMOLLM3 ",\"no_rope_layers\":[0,1]}");
    assert_true(c.layers[0].rope == MODEL_NO_ROPE && c.layers[1].rope == 0 && c.ropes[0].theta == 2e6f);
    c = good_text("{" SMOLLM3 ",\"no_rope_layer_interval\":2}");
    assert_true(c.layers[0].rope == 0 && c.layers[1].rope == MODEL_NO_ROPE);
    c = good_text("{" GRANITE "}");
    assert_true(c.attention_scale == 1);
}

static void reads_rope_scalings_of_a_config_json(void **state)
{
    (void)state;
    model_config c = good_text("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
                               "\"low_freq_factor\":1,\"high_freq_factor\":4,"
                               "\"original_max_position_embeddings\":32}}");
    assert_true(c.ropes[0].scaling == ROPE_LLAMA3 && c.ropes[0].n_ctx_original == 32 && c.ropes[0].factor == 8 &&
                c.ropes[0].low_freq_factor == 1 && c.ropes[0].high_freq_factor == 4);
    c = good_text("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}");
    assert_float_equal(1 + 0.1 * log(4), c.ropes[0].attention_factor, 1e-6);
    assert_true(c.ropes[0].beta_fast == 32 && c.ropes[0].beta_slow == 1 && c.ropes[0].n_ctx_original == c.n_ctx_train);
    c = good_text("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":2}}");
    assert_true(c.ropes[0].attention_factor == 2);
    c = good_text("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":1}}");
    assert_float_equal(1, c.ropes[0].attention_factor, 1e-6);
    c = good_text("{\"model_type\":\"phi3\",\"original_max_position_embeddings\":16," SIZES ",\"rope_scaling\":"
                  "{\"type\":\"yarn\",\"short_factor\":[1,1,1,1],\"long_factor\":[2,2,2,2]},"
                  "\"partial_rotary_factor\":0.5}");
    assert_true(c.ropes[0].scaling == ROPE_LONGROPE && c.ropes[0].n_ctx_original == 16 && c.rope_dim == 8 && c.fused);
    assert_float_equal(sqrt(1 + log(c.n_ctx_train / 16.0) / log(16)), c.ropes[0].attention_factor, 1e-6);
    assert_true(c.ropes[0].short_factors[3] == 1 && c.ropes[0].long_factors[3] == 2);
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
        {"{\"model_type\":\"mixtral\"," SIZES "}", "the architecture \"mixtral\" is not supported; supported are "
                                                   "llama, mistral, qwen2, qwen3, gemma2, gemma3_text, "
                                                   "phi3, olmo2, smollm3, granite"},
        {"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForSequenceClassification\"]," SIZES "}",
         "the architecture \"LlamaForSequenceClassification\" is not supported; supported is LlamaForCausalLM"},
        {"{\"model_type\":\"llama\",\"architectures\":7," SIZES "}", "\"architectures\" must be an array of one name"},
        {"{\"model_type\":\"llama\"}", "\"num_hidden_layers\" is missing"},
        {"{" LLAMA ",\"hidden_act\":\"gelu_new\"}",
         "the activation \"gelu_new\" is not supported; supported are silu, gelu_pytorch_tanh, gelu"},
        {"{" LLAMA ",\"hidden_act\":1}", "\"hidden_act\" must be a string"},
        {"{" LLAMA ",\"mlp_bias\":true}", "\"mlp_bias\" is not supported"},
        {"{" LLAMA ",\"quantization_config\":{}}", "\"quantization_config\" is not supported"},
        {"{" QWEN2 ",\"dual_chunk_attention_config\":{}}", "\"dual_chunk_attention_config\" is not supported"},
        {"{" LLAMA ",\"sliding_window\":4096}", "\"sliding_window\" is not supported"},
        {"{" LLAMA ",\"partial_rotary_factor\":0.5}", "\"partial_rotary_factor\" is not supported"},
        {"{" LLAMA ",\"query_pre_attn_scalar\":256}", "\"query_pre_attn_scalar\" is not supported"},
        {"{" LLAMA ",\"embedding_multiplier\":12}", "\"embedding_multiplier\" is not supported"},
        {"{" LLAMA ",\"use_bidirectional_attention\":true}", "\"use_bidirectional_attention\" is not supported"},
        {"{" LLAMA ",\"layer_types\":[\"full_attention\"]}", "\"layer_types\" must be an array with a name for each"},
        {"{" LLAMA ",\"layer_types\":[\"full_attention\",\"linear_attention\"]}",
         "\"layer_types\": \"linear_attention\" is not supported; supported are full_attention, and"},
        {"{" LLAMA ",\"layer_types\":[\"full_attention\",7]}", "\"layer_types\": \"\" is not supported"},
        {"{" LLAMA ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
         "\"sliding_attention\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", "rope scaling don't fit each other"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "rope scaling don't fit each other"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":0.5}}", "rope scaling don't fit each other"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"beta_slow\":40}}", "don't fit each other"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"truncate\":false}}",
         "\"truncate\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", "\"factor\" must be a number"},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":1,\"type\":\"linear\"}}", "with a \"rope_type\""},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"mrope\"}}",
         "rope scaling \"mrope\" is not supported; supported are default, linear, dynamic, llama3, yarn, longrope"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1],\"long_factor\":[1,1]}}",
         "\"short_factor\" must be an array of a number for each of 8 rotated pairs"},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1,1,1,1,1,1,0],"
         "\"long_factor\":[1,1,1,1,1,1,1,1]}}",
         "rotary factor 7 is 0"},
        {"{" LLAMA ",\"rope_parameters\":{\"sliding_attention\":{\"rope_type\":\"default\"}}}",
         "\"sliding_attention\" is not supported"},
        {"{" LLAMA ",\"rope_scaling\":5}", "\"rope_scaling\" must be null or an object with a \"rope_type\""},
        {"{" GRANITE ",\"logits_scaling\":0}", "the scale of logits is inf"},
        {"{" GRANITE ",\"residual_multiplier\":0}", "the scale of residuals is 0"},
        {"{" GEMMA2 ",\"final_logit_softcapping\":-30}", "the soft cap of logits is -30"},
        {"{" GEMMA2 ",\"query_pre_attn_scalar\":-1}", "the scale of attention is"},
        {"{" SMOLLM3 ",\"no_rope_layers\":[1]}", "\"no_rope_layers\" must be an array with 0 or 1 for each layer"},
        {"{" LLAMA ",\"num_key_value_heads\":3}", "4 heads are no multiple of 3 key-value heads"},
        {"{" LLAMA ",\"num_key_value_heads\":-1}", "\"num_key_value_heads\" must be an integer that is not negative"},
        {"{" LLAMA ",\"num_key_value_heads\":4294967296}", "\"num_key_value_heads\" must be an integer"},
        {"{" LLAMA ",\"num_key_value_heads\":\"4\"}", "\"num_key_value_heads\" must be an integer"},
        {"{" LLAMA ",\"head_dim\":15}", "the number of rotated dimensions, 15, must be even"},
        {"{" LLAMA ",\"head_dim\":100000}", "the length of a head is 100000; 2 to 1024 was expected"},
        {"{" LLAMA ",\"rope_theta\":\"big\"}", "\"rope_theta\" must be a number"},
        {"{" LLAMA ",\"rope_theta\":0}", "the base of the rotary frequencies is 0"},
        {"{" LLAMA ",\"rms_norm_eps\":1}", "the epsilon of norms is 1"},
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

#define BERT_SIZES                                                                                                     \
    "\"num_hidden_layers\":2,\"hidden_size\":32,\"num_attention_heads\":2,\"intermediate_size\":48,\"vocab_size\":"    \
    "128,"                                                                                                             \
    "\"max_position_embeddings\":64,\"hidden_act\":\"gelu\""
#define BERT "\"model_type\":\"bert\",\"architectures\":[\"BertModel\"]," BERT_SIZES
#define SCORER "\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"]," BERT_SIZES

static void reads_an_encoder(void **state)
{
    (void)state;
    error        err = {0};
    model_config c;
    assert_true(from_text(&c, "{" BERT "}", &err));
    assert_true(c.encoder && c.norm_stream && c.learned_positions && c.plain_mlp && c.tied_head && !c.norm_before);
    assert_true(c.n_types == 2 && c.n_labels == 0 && c.n_ropes == 0 && c.layers[1].rope == MODEL_NO_ROPE);
    assert_true(c.rms_epsilon == 1e-12f && c.activation == KERN_ACT_GELU_ERF && c.pooling == MODEL_POOLING_MEAN);
    assert_true(from_text(&c, "{" BERT ",\"layer_norm_eps\":1e-5,\"type_vocab_size\":0}", &err));
    assert_true(c.n_types == 0 && c.rms_epsilon == 1e-5f);
    assert_true(from_text(&c, "{" SCORER ",\"id2label\":{\"0\":\"LABEL_0\"}}", &err));
    assert_true(c.n_labels == 1 && c.pooling == MODEL_POOLING_CLS);
    static const char *const refused[][2] = {
        {"{" SCORER "}", "a classifier of 2 labels is not supported"},
        {"{" SCORER ",\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\"}}", "a classifier of 3 labels"},
        {"{" BERT ",\"position_embedding_type\":\"relative_key\"}", "\"position_embedding_type\" of another kind"},
        {"{" BERT ",\"is_decoder\":true}", "\"is_decoder\" is not supported"},
        {"{" BERT ",\"add_cross_attention\":true}", "\"add_cross_attention\" is not supported"},
        {"{\"model_type\":\"bert\",\"architectures\":[\"BertForMaskedLM\"]," BERT_SIZES "}", "\"BertForMaskedLM\""},
        {"{" BERT ",\"type_vocab_size\":100000}", "the number of token types is 100000"},
    };
    for (size_t i = 0; i < COUNT(refused); i++)
        if (from_text(&c, refused[i][0], &err) || !strstr(err.text, refused[i][1]))
            fail_msg("%s: %s", refused[i][0], err.text);
}

static void reads_how_a_model_pools(void **state)
{
    (void)state;
    static const struct {
        const char   *text;
        model_pooling pooling;
        const char   *says; /* NULL: it is read */
    } cases[] = {
        {"{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":false}", MODEL_POOLING_MEAN, NULL},
        {"{\"pooling_mode_cls_token\":true}", MODEL_POOLING_CLS, NULL},
        {"{\"pooling_mode_lasttoken\":true,\"include_prompt\":true}", MODEL_POOLING_LAST, NULL},
        {"{\"pooling_mode\":\"mean\"}", MODEL_POOLING_MEAN, NULL},
        {"{\"pooling_mode\":\"cls\"}", MODEL_POOLING_CLS, NULL},
        {"{}", 0, "one mode of pooling was expected"},
        {"{\"pooling_mode\":\"median\"}", 0, "one mode of pooling was expected"},
        {"{\"pooling_mode\":7}", 0, "\"pooling_mode\" must be the name of one mode"},
        {"{\"pooling_mode_mean_tokens\":1}", 0, "\"pooling_mode_mean_tokens\" must be true or false"},
        {"{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}", 0, "one mode of pooling was expected"},
        {"{\"pooling_mode_max_tokens\":true}", 0, "\"pooling_mode_max_tokens\" is not supported"},
        {"[]", 0, "a JSON object was expected"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error        err = {0};
        model_config c   = {0};
        bool         ok  = model_config_pooling_from_json(&c, span_of(cases[i].text), "1_Pooling/config.json", &err);
        if (ok != (cases[i].says == NULL) || (ok ? c.pooling != cases[i].pooling : !strstr(err.text, cases[i].says)))
            fail_msg("%s: pooling %d: %s", cases[i].text, c.pooling, err.text);
    }
}

static void refuses_a_sentence_transformer_of_further_modules(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"[{\"type\":\"sentence_transformers.models.Transformer\"},{\"type\":\"sentence_transformers.models.Pooling\"},"
         "{\"type\":\"sentence_transformers.models.Normalize\"}]",
         NULL},
        {"[]", NULL},
        {"[{\"type\":\"sentence_transformers.models.Transformer\"},{\"type\":\"sentence_transformers.models.Dense\"}]",
         "module 1, \"sentence_transformers.models.Dense\", is not supported"},
        {"[{\"type\":7}]", "module 0, \"\", is not supported"},
        {"[7]", "module 0, \"\", is not supported"},
        {"{}", "a JSON array was expected"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        bool  ok  = model_config_check_modules(span_of(cases[i][0]), "modules.json", &err);
        if (ok != (cases[i][1] == NULL) || (!ok && !strstr(err.text, cases[i][1])))
            fail_msg("%s: %s", cases[i][0], err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_gguf_file),
        cmocka_unit_test(refuses_a_gguf_file_by_the_name_of_what_is_wrong),
        cmocka_unit_test(tells_architectures_apart_by_the_config_alone),
        cmocka_unit_test(gives_layers_their_windows_and_rotary_positions),
        cmocka_unit_test(reads_the_scales_of_gguf_files),
        cmocka_unit_test(accepts_gguf_keys_that_change_nothing),
        cmocka_unit_test(reads_a_config_json),
        cmocka_unit_test(reads_layers_and_scales_of_a_config_json),
        cmocka_unit_test(reads_rope_scalings_of_a_config_json),
        cmocka_unit_test(refuses_a_config_json_by_the_name_of_what_is_wrong),
        cmocka_unit_test(reads_an_encoder),
        cmocka_unit_test(reads_how_a_model_pools),
        cmocka_unit_test(refuses_a_sentence_transformer_of_further_modules),
    };
    return cmocka_run_group_tests_name("model_config", tests, NULL, NULL);
}
