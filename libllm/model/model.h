/* A loaded language model and its forward pass, written once over kernels.h.
 *
 * model = config + tokenizer-independent weights, packed for one device; immutable. A step runs a ragged batch: rows of
 * tokens that belong to several sequences, each at its own positions, over one paged KV cache. The caller owns block
 * tables and decides who runs. */
#ifndef TROUPE_MODEL_MODEL_H
#define TROUPE_MODEL_MODEL_H

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/quantization.h"
#include "model/rope_frequencies.h"

typedef struct model model;

enum { MODEL_LAYERS_MAX = 1024, MODEL_ROPES_MAX = 2 };

#define MODEL_NO_ROPE UINT32_MAX

typedef struct {
    uint32_t window; /* the newest positions that attention sees, its own included; 0: all */
    uint32_t rope;   /* index into ropes, or MODEL_NO_ROPE */
} model_layer_config;

/* RMSNorm of queries and keys before their rotation: none, of each head, or of all heads as one row. */
typedef enum { MODEL_QK_NORM_NONE, MODEL_QK_NORM_HEADS, MODEL_QK_NORM_WHOLE } model_qk_norm;

/* What the file says about the network. Names follow Hugging Face's config.json. */
typedef struct {
    char               architecture[32]; /* "llama" */
    char               name[128];
    uint32_t           n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab;
    uint32_t           n_ctx_train; /* positions the model was trained for */
    uint32_t           rope_dim, n_ropes;
    kern_rope_pairs    rope_pairs;
    kern_activation    activation;
    model_qk_norm      qk_norm;
    float              rms_epsilon;
    float              norm_offset;                      /* what the file's weights of norms lack */
    float              attention_scale;                  /* of q.k */
    float              attention_softcap, logit_softcap; /* 0: none */
    float              embedding_scale, logit_scale;
    float              residual_scale; /* of what attention and MLP add */
    bool               norm_before;    /* attention and MLP read a normed stream */
    bool               norm_after;     /* what they add to it is normed */
    bool               fused;          /* the file holds q, k, v as one tensor, and gate, up */
    bool               tied_head;      /* the output head is the embedding */
    uint64_t           n_parameters, weight_bytes;
    rope_config        ropes[MODEL_ROPES_MAX];   /* [n_ropes] */
    model_layer_config layers[MODEL_LAYERS_MAX]; /* [n_layers] */
} model_config;

/* How a model is loaded. All zero: as it is, on all cores. */
typedef struct {
    model_quantization quantization;
    uint32_t           n_threads; /* that quantise; 0: one a core */
    const char *weight_cache;     /* where packed weights are kept: see weight_cache_places; NULL or "off": nowhere */
} model_options;

/* `path` is a GGUF file or a folder with config.json and *.safetensors. Loads and packs all weights on `device`
 * (borrowed, must outlive the model). Errors name the file, the key or tensor, and what was expected; an unsupported
 * architecture, tensor type or rope kind is refused by name. */
model *model_open_with(const char *path, kern_device *device, const model_options *options, error *err);
model *model_open(const char *path, kern_device *device, error *err); /* as it is */
void   model_free(model **m);

/* Reads the config alone: no weights are touched. */
bool model_read_config(const char *path, model_config *config, error *err) MUST_CHECK;

const model_config *model_get_config(const model *m);

/* Tells models apart: the same for the same weights and config, whatever their file is called, wherever they are loaded
 * and however they are packed there; another when they were quantised. See fingerprint.h. */
uint64_t model_fingerprint(const model *m);

/* The KV cache's shape for `n_blocks` blocks of this model. */
kern_kv_shape model_kv_shape(const model *m, uint32_t n_blocks, kern_dtype dtype);

/* Sizes of a step, fixed at start-up; all activation memory is taken here. */
typedef struct {
    uint32_t n_tokens_max, n_sequences_max, n_logit_rows_max;
    uint32_t n_table_entries_max; /* block table entries of all sequences of a step */
    uint32_t n_positions_max;     /* of the longest sequence, for rope_frequencies; 0: n_ctx_train */
} forward_limits;

typedef struct forward forward;

forward *forward_new(const model *m, const forward_limits *limits, error *err);
void     forward_free(forward **f);
size_t   forward_bytes(const forward *f);

/* One step's batch. Host memory; read during forward_run only. */
typedef struct {
    const uint32_t      *tokens;    /* [n_tokens] */
    const uint32_t      *positions; /* [n_tokens] */
    const uint32_t      *slots;     /* [n_tokens] where each token's keys and values go: see kern_kv_write_args */
    const kern_sequence *sequences; /* [n_sequences], covering all rows in order */
    const uint32_t      *block_tables;
    const uint32_t      *logit_rows; /* [n_logit_rows] rows whose logits are wanted */
    uint32_t             n_tokens, n_sequences, n_table_entries, n_logit_rows;
} forward_batch;

/* Runs the batch. Returns device memory [n_logit_rows][n_vocab], valid until the next run; the caller may overwrite it
 * (kern_sample does). Asserts the limits, and that sequences, positions, tokens and rows agree with each other; slots
 * and block numbers are the caller's. At least one token and one sequence. */
float *forward_run(forward *f, kern_kv_cache *cache, const forward_batch *batch);

#endif
