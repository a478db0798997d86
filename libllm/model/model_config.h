/* What a model file says about the network, checked. Anything that would change the arithmetic and isn't implemented
 * (another architecture, rope scaling, activation, experts, ...) is refused by name: ignoring it would give wrong text.
 */
#ifndef TROUPE_MODEL_MODEL_CONFIG_H
#define TROUPE_MODEL_MODEL_CONFIG_H

#include "model/gguf.h"
#include "model/model.h"

/* The llama.* and general.* keys of a GGUF file; whether the head is tied is seen from its list of tensors. */
bool model_config_from_gguf(model_config *config, const gguf *file, error *err) MUST_CHECK;

/* The text of Hugging Face's config.json. `path` stands in messages. */
bool model_config_from_json(model_config *config, span json, const char *path, error *err) MUST_CHECK;

#endif
