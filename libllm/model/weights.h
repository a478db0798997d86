/* The inside of a loaded model: shared by the loader (model.c) and the forward pass (forward.c), private to them. */
#ifndef TROUPE_MODEL_WEIGHTS_H
#define TROUPE_MODEL_WEIGHTS_H

#include "model/mapped_file.h"
#include "model/model.h"

/* Biases and norms are NULL where the model has none. n_q = n_heads * head_dim, n_kv = n_kv_heads * head_dim. */
typedef struct {
    const float *attention_norm, *ffn_norm;           /* [n_embd] of what attention and MLP read */
    const float *attention_post_norm, *ffn_post_norm; /* [n_embd] of what they add to the stream */
    const float *q_norm, *k_norm;                     /* [head_dim], or [n_q] and [n_kv]: see model_qk_norm */
    kern_weight *q, *k, *v;                           /* [n_q][n_embd], [n_kv][n_embd] twice */
    kern_weight *o;                                   /* [n_embd][n_q] */
    const float *q_bias, *k_bias, *v_bias, *o_bias;   /* [n_q], [n_kv], [n_kv], [n_embd] */
    kern_weight *gate, *up;                           /* [n_ff][n_embd] */
    kern_weight *down;                                /* [n_embd][n_ff] */
} model_layer;

struct model {
    model_config config;
    uint64_t     fingerprint;
    kern_device *device;
    kern_weight *embedding;   /* [n_vocab][n_embd] */
    kern_weight *head;        /* [n_vocab][n_embd]; the embedding itself when tied */
    const float *output_norm; /* [n_embd] */
    model_layer *layers;      /* [n_layers] */
    float       *vectors;     /* device memory of all norms and biases */
    mapped_file  packed;      /* what the weights lie in when they come from a cache */
};

#endif
