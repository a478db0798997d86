/* The tokenizer: turns what a client said into the token ids that the model reads. See README.md. */
#ifndef TROUPE_TOKENIZER_TOKENIZER_H
#define TROUPE_TOKENIZER_TOKENIZER_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    const char *model;         /* GGUF file, or a folder with tokenizer.json and config.json */
    const char *chat_template; /* file with a Jinja template; NULL: the model's own */
    uint64_t    max_model_len; /* prompt and answer together; 0: what the model was trained for */
} tokenizer_options;

extern const option_row tokenizer_option_rows[];
extern const size_t     n_tokenizer_option_rows;

extern const actor_class tokenizer_class;

#endif
