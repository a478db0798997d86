/* What a model file says about the network, checked. Anything that would change the arithmetic and isn't implemented
 * (another architecture, rope scaling, activation, experts, ...) is refused by name: ignoring it would give wrong text.
 */
#ifndef TROUPE_MODEL_MODEL_CONFIG_H
#define TROUPE_MODEL_MODEL_CONFIG_H

#include "model/gguf.h"
#include "model/model.h"

/* The <architecture>.* and general.* keys of a GGUF file, and its tensors of rotary factors; whether the head is tied
 * is seen from its list of tensors. */
bool model_config_from_gguf(model_config *config, const gguf *file, error *err) MUST_CHECK;

/* The text of Hugging Face's config.json. `path` stands in messages. */
bool model_config_from_json(model_config *config, span json, const char *path, error *err) MUST_CHECK;

/* The text of 1_Pooling/config.json beside it, as sentence-transformers writes it: the pooling of a config that was
 * read already. */
bool model_config_pooling_from_json(model_config *config, span json, const char *path, error *err) MUST_CHECK;

/* The text of modules.json, the steps of a model of sentence-transformers: what is more than the network, pooling and
 * a length of 1 is refused by name. */
bool model_config_check_modules(span json, const char *path, error *err) MUST_CHECK;

/* ---- what the two readers share ---- */

/* Checks what was read and derives the rest. */
bool model_config_finish(model_config *config, const char *path, error *err) MUST_CHECK;

void model_config_set_name(model_config *config, span name);

/* The head's length from n_embd and n_heads where neither file nor architecture gave one. */
bool model_config_divide_heads(model_config *config, const char *path, error *err) MUST_CHECK;

/* Two refusals; they return false. */
bool model_config_refuse_architecture(const char *path, span name, bool of_gguf, error *err);
bool model_config_refuse_rope(const char *path, span kind, const char *supported, error *err);

/* For a message: at most 64 bytes, UTF-8. */
span model_config_shown(span text);

#endif
