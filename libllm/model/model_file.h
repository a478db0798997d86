/* A model's tensors by what they are for, whichever kind of file they come from. */
#ifndef TROUPE_MODEL_MODEL_FILE_H
#define TROUPE_MODEL_MODEL_FILE_H

#include "model/mapped_file.h"
#include "model/model.h"

typedef enum {
    TENSOR_EMBEDDING,
    TENSOR_OUTPUT_NORM,
    TENSOR_HEAD, /* one a model */
    TENSOR_ATTENTION_NORM,
    TENSOR_ATTENTION_POST_NORM,
    TENSOR_Q,
    TENSOR_K,
    TENSOR_V,
    TENSOR_QKV, /* the rows of q, k and v one behind the other */
    TENSOR_O,
    TENSOR_Q_NORM,
    TENSOR_K_NORM,
    TENSOR_FFN_NORM,
    TENSOR_FFN_NORM_OF_TWO, /* the same where another stands behind the MLP */
    TENSOR_FFN_POST_NORM,
    TENSOR_GATE,
    TENSOR_UP,
    TENSOR_GATE_UP, /* the rows of gate and up one behind the other */
    TENSOR_DOWN,    /* one a layer */
    TENSOR_Q_BIAS,
    TENSOR_K_BIAS,
    TENSOR_V_BIAS,
    TENSOR_O_BIAS,
    N_TENSOR_ROLES
} tensor_role;

typedef struct model_file model_file;

/* Maps a GGUF file, or a folder with config.json and safetensors, and reads its config. */
model_file *model_file_open(const char *path, model_config *config, error *err);
void        model_file_close(model_file **file);

const char   *model_file_path(const model_file *file);
file_identity model_file_identity(const model_file *file); /* of the files that have its tensors */

/* "blk.3.attn_q.weight" or "model.layers.3.self_attn.q_proj.weight", valid until the next call. `layer` is ignored
 * where there is one a model. */
const char *model_file_name(model_file *file, tensor_role role, uint32_t layer);

bool model_file_has(model_file *file, tensor_role role, uint32_t layer);

/* Finds a tensor that must be n_rows x n_cols (a vector: 1 x n_cols); it points into the file. */
bool model_file_take(model_file *file, tensor_role role, uint32_t layer, uint32_t n_rows, uint32_t n_cols,
                     kern_matrix *tensor, error *err) MUST_CHECK;

/* Of all tensors that a model may take, in whatever order the file has them: see fingerprint.h. */
uint64_t model_file_fingerprint(const model_file *file);

/* A tensor that nobody took would have changed the result: it is refused by name. */
bool model_file_check_all_taken(const model_file *file, error *err) MUST_CHECK;

#endif
