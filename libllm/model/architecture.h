/* What distinguishes the supported architectures: one row of a table each, read by the two config readers alone. The
 * forward pass knows model_config's fields and no architecture. */
#ifndef TROUPE_MODEL_ARCHITECTURE_H
#define TROUPE_MODEL_ARCHITECTURE_H

#include "base/span.h"
#include "model/model.h"

/* Keys that mean something to some architectures alone; a file of another that has them is refused. */
typedef enum {
    HAS_WINDOW        = 1 << 0, /* sliding_window */
    HAS_WINDOW_SWITCH = 1 << 1, /* use_sliding_window, off unless it says true */
    HAS_SOFTCAPS      = 1 << 2, /* attn_logit_softcapping, final_logit_softcapping */
    HAS_MULTIPLIERS   = 1 << 3, /* of embedding, residual, attention and logits */
    HAS_QUERY_SCALAR  = 1 << 4, /* query_pre_attn_scalar */
    HAS_PARTIAL_ROPE  = 1 << 5, /* partial_rotary_factor */
    HAS_BARE_LAYERS   = 1 << 6, /* no_rope_layers */
    HAS_WINDOW_ROPE   = 1 << 7, /* rope_local_base_freq: layers with a window have rotary positions of their own */
    HAS_LAYER_NORM    = 1 << 8, /* layer_norm_eps in place of rms_norm_eps, in GGUF layer_norm_epsilon */
    HAS_TYPES         = 1 << 9, /* type_vocab_size */
} architecture_keys;

/* Numbers are those that hold when no key says otherwise. */
typedef struct {
    const char     *model_type, *class_name; /* in config.json */
    const char     *scoring_class;           /* with a label; NULL: not supported */
    const char     *gguf;                    /* general.architecture; NULL: its files say "llama" */
    kern_rope_pairs gguf_pairs;              /* how the rows of q and k stand in GGUF files */
    uint32_t        keys;                    /* of architecture_keys */
    kern_activation activation;
    model_qk_norm   qk_norm;
    bool            norm_before, norm_after, fused; /* see model_config */
    bool            norm_stream, encoder, learned_positions, plain_mlp;
    bool            tied_head;
    bool            scales_embedding;    /* by sqrt(n_embd) */
    float           norm_offset;         /* safetensors hold the weights of norms less this */
    uint32_t        full_period;         /* every how many layers one sees all positions; 0: see first_windowed */
    uint32_t        first_windowed;      /* layers before it see all positions */
    uint32_t        bare_period;         /* every how many layers one has no rotary positions; 0: all have */
    uint32_t        head_dim;            /* 0: n_embd / n_heads */
    uint32_t        window, gguf_window; /* of config.json and of GGUF files */
    uint32_t        n_layers_wide; /* GGUF has no query scalar: the model of so many layers takes n_embd / n_heads */
    float           rms_epsilon;
    float           theta;
    float           window_theta;
    float           attention_softcap, logit_softcap;
} architecture;

/* NULL when not supported. */
const architecture *architecture_of_gguf(span name);
const architecture *architecture_of_model_type(span name);

enum { ARCHITECTURE_LIST_BYTES = 256 };

/* "llama, mistral, qwen2, ...": for refusals. */
void architecture_list(bool of_gguf, char text[ARCHITECTURE_LIST_BYTES]);

/* A config of zeros with what the row says. */
void architecture_begin(const architecture *a, model_config *config);

/* Which layers see all positions and which a window, which have rotary positions: as in architecture. */
typedef struct {
    uint32_t window, full_period, first_windowed, bare_period;
} layer_rules;

/* Once n_layers is read. */
void architecture_lay_out(const layer_rules *rules, model_config *config);

#endif
