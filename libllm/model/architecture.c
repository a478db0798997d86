/* Sources: the models of transformers, and for GGUF the converter and loader of llama.cpp. */
#include "model/architecture.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const architecture rows[] = {
    {.model_type  = "llama",
     .class_name  = "LlamaForCausalLM",
     .gguf        = "llama",
     .norm_before = true,
     .theta       = 10000,
     .rms_epsilon = 1e-6f},
    {.model_type  = "mistral",
     .class_name  = "MistralForCausalLM",
     .keys        = HAS_WINDOW,
     .norm_before = true,
     .theta       = 10000,
     .rms_epsilon = 1e-6f,
     .window      = 4096},
    {.model_type     = "qwen2",
     .class_name     = "Qwen2ForCausalLM",
     .gguf           = "qwen2",
     .gguf_pairs     = KERN_ROPE_HALVES,
     .keys           = HAS_WINDOW | HAS_WINDOW_SWITCH,
     .norm_before    = true,
     .first_windowed = 28,
     .theta          = 10000,
     .rms_epsilon    = 1e-6f,
     .window         = 4096},
    {.model_type     = "qwen3",
     .class_name     = "Qwen3ForCausalLM",
     .gguf           = "qwen3",
     .gguf_pairs     = KERN_ROPE_HALVES,
     .keys           = HAS_WINDOW | HAS_WINDOW_SWITCH,
     .norm_before    = true,
     .qk_norm        = MODEL_QK_NORM_HEADS,
     .first_windowed = 28,
     .theta          = 10000,
     .head_dim       = 128,
     .rms_epsilon    = 1e-6f,
     .window         = 4096},
    {.model_type        = "gemma2",
     .class_name        = "Gemma2ForCausalLM",
     .gguf              = "gemma2",
     .gguf_pairs        = KERN_ROPE_HALVES,
     .keys              = HAS_WINDOW | HAS_SOFTCAPS | HAS_QUERY_SCALAR,
     .activation        = KERN_ACT_GELU_TANH,
     .norm_before       = true,
     .norm_after        = true,
     .norm_offset       = 1,
     .scales_embedding  = true,
     .full_period       = 2,
     .theta             = 10000,
     .head_dim          = 256,
     .n_layers_wide     = 46,
     .attention_softcap = 50,
     .logit_softcap     = 30,
     .rms_epsilon       = 1e-6f,
     .tied_head         = true,
     .window            = 4096,
     .gguf_window       = 4096},
    {.model_type       = "gemma3_text",
     .class_name       = "Gemma3ForCausalLM",
     .gguf             = "gemma3",
     .gguf_pairs       = KERN_ROPE_HALVES,
     .keys             = HAS_WINDOW | HAS_WINDOW_ROPE | HAS_SOFTCAPS | HAS_QUERY_SCALAR,
     .activation       = KERN_ACT_GELU_TANH,
     .norm_before      = true,
     .norm_after       = true,
     .norm_offset      = 1,
     .qk_norm          = MODEL_QK_NORM_HEADS,
     .scales_embedding = true,
     .full_period      = 6,
     .theta            = 1e6f,
     .window_theta     = 10000,
     .head_dim         = 256,
     .n_layers_wide    = 62,
     .rms_epsilon      = 1e-6f,
     .tied_head        = true,
     .window           = 4096},
    {.model_type  = "phi3",
     .class_name  = "Phi3ForCausalLM",
     .gguf        = "phi3",
     .gguf_pairs  = KERN_ROPE_HALVES,
     .keys        = HAS_WINDOW | HAS_PARTIAL_ROPE,
     .norm_before = true,
     .fused       = true,
     .theta       = 10000,
     .rms_epsilon = 1e-5f},
    {.model_type  = "olmo2",
     .class_name  = "Olmo2ForCausalLM",
     .gguf        = "olmo2",
     .gguf_pairs  = KERN_ROPE_HALVES,
     .norm_after  = true,
     .qk_norm     = MODEL_QK_NORM_WHOLE,
     .theta       = 10000,
     .rms_epsilon = 1e-5f},
    {.model_type  = "smollm3",
     .class_name  = "SmolLM3ForCausalLM",
     .gguf        = "smollm3",
     .keys        = HAS_BARE_LAYERS,
     .norm_before = true,
     .bare_period = 4,
     .theta       = 2e6f,
     .rms_epsilon = 1e-6f,
     .tied_head   = true},
    {.model_type  = "granite",
     .class_name  = "GraniteForCausalLM",
     .gguf        = "granite",
     .keys        = HAS_MULTIPLIERS,
     .norm_before = true,
     .theta       = 10000,
     .rms_epsilon = 1e-6f},
    {.model_type        = "bert",
     .class_name        = "BertModel",
     .scoring_class     = "BertForSequenceClassification",
     .gguf              = "bert",
     .keys              = HAS_LAYER_NORM | HAS_TYPES,
     .activation        = KERN_ACT_GELU_ERF,
     .norm_stream       = true,
     .encoder           = true,
     .learned_positions = true,
     .plain_mlp         = true,
     .bare_period       = 1,
     .tied_head         = true,
     .rms_epsilon       = 1e-12f},
};

const architecture *architecture_of_gguf(span name)
{
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i].gguf && span_is(name, rows[i].gguf))
            return &rows[i];
    return NULL;
}

const architecture *architecture_of_model_type(span name)
{
    for (size_t i = 0; i < COUNT(rows); i++)
        if (span_is(name, rows[i].model_type))
            return &rows[i];
    return NULL;
}

void architecture_list(bool of_gguf, char text[ARCHITECTURE_LIST_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *name = of_gguf ? rows[i].gguf : rows[i].model_type;
        if (name)
            used += (size_t)snprintf(text + used, ARCHITECTURE_LIST_BYTES - used, "%s%s", used ? ", " : "", name);
        assert(used < ARCHITECTURE_LIST_BYTES);
    }
}

/* memset: executors compare a hash of the config's bytes. */
void architecture_begin(const architecture *a, model_config *config)
{
    memset(config, 0, sizeof *config);
    snprintf(config->architecture, sizeof config->architecture, "%s", a->model_type);
    config->activation        = a->activation;
    config->norm_before       = a->norm_before;
    config->norm_after        = a->norm_after;
    config->fused             = a->fused;
    config->norm_stream       = a->norm_stream;
    config->encoder           = a->encoder;
    config->learned_positions = a->learned_positions;
    config->plain_mlp         = a->plain_mlp;
    config->qk_norm           = a->qk_norm;
    config->embedding_scale   = 1;
    config->residual_scale    = 1;
    config->logit_scale       = 1;
    config->attention_softcap = a->attention_softcap;
    config->logit_softcap     = a->logit_softcap;
    config->head_dim          = a->head_dim;
    config->n_ropes           = a->bare_period == 1 ? 0 : a->keys & HAS_WINDOW_ROPE ? 2 : 1;
    config->ropes[0]          = (rope_config){.theta = a->theta, .attention_factor = 1};
    config->ropes[1]          = (rope_config){.theta = a->window_theta, .attention_factor = 1};
}

void architecture_lay_out(const layer_rules *rules, model_config *config)
{
    for (uint32_t i = 0; i < config->n_layers && i < MODEL_LAYERS_MAX; i++) {
        model_layer_config *layer = &config->layers[i];
        bool full     = rules->full_period > 0 ? (i + 1) % rules->full_period == 0 : i < rules->first_windowed;
        bool bare     = rules->bare_period > 0 && (i + 1) % rules->bare_period == 0;
        layer->window = full ? 0 : rules->window;
        layer->rope   = bare ? MODEL_NO_ROPE : 0;
    }
}
