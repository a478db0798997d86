/* The executor: holds the weights and the KV cache of one model on one device, runs step plans, and samples.
 *
 * It connects to a scheduler, says what it holds, and does what the plans say. It keeps up to two plans, so that the
 * next one is there when a pass ends; a thread of its own computes, so that heartbeats go out while it does. */
#ifndef TROUPE_EXECUTOR_EXECUTOR_H
#define TROUPE_EXECUTOR_EXECUTOR_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    const char *model;                  /* GGUF file, or a folder with safetensors */
    const char *model_name;             /* as clients call it; NULL: from the file */
    const char *backend;                /* cpu, ref, cuda; NULL: the best there is */
    const char *variant;                /* of the cpu backend; NULL: the best there is */
    uint32_t    quantization;           /* model_quantization; index into none|int8|int4 */
    const char *weight_cache;           /* auto, off or a folder; NULL: off */
    uint64_t    n_threads;              /* 0: one a core */
    uint64_t    max_model_len;          /* positions of one sequence; 0: what the model was trained for */
    uint64_t    max_num_seqs;           /* sequences at once */
    uint64_t    max_num_batched_tokens; /* tokens of one step */
    uint64_t    max_logit_rows;         /* rows of one step that are sampled or scored */
    uint64_t    kv_cache_memory;        /* bytes */
    uint64_t    kv_offload_memory;      /* bytes; 0: none */
    uint64_t    kv_offload_disk;        /* bytes; 0: none */
    const char *kv_offload_dir;         /* NULL: none */
    uint32_t    kv_cache_dtype;         /* index into auto|f32|f16|bf16|int8|int4 */
    uint32_t    pooling;                /* index into auto|mean|cls|last */
    uint32_t    serves;                 /* executor_role; index into both|prefill|decode */
    const char *kv_bind;                /* endpoint where executors fetch KV blocks; NULL: none. The process binds it */
    bool        compute_inline;         /* simulations: compute on the actor's thread, in virtual time */
} executor_options;

extern const option_row executor_option_rows[];
extern const size_t     n_executor_option_rows;

extern const actor_class executor_class;

/* Of the model that an executor holds; executor.ready says it too. From any thread. */
uint64_t executor_fingerprint(const actor *executor);

#endif
