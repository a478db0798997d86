/* The postprocessor: turns the tokens that the scheduler hands on into the text that clients read. See README.md. */
#ifndef TROUPE_POSTPROCESSOR_POSTPROCESSOR_H
#define TROUPE_POSTPROCESSOR_POSTPROCESSOR_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    const char *model;              /* GGUF file, or a folder with tokenizer.json */
    const char *output_filter_file; /* rules for what must not leave (output_filter.h); NULL: none */
    uint64_t    max_num_streams;    /* requests whose text it makes at once */
    uint64_t    repetition_limit;   /* for requests that set none; 0: off */
} postprocessor_options;

extern const option_row postprocessor_option_rows[];
extern const size_t     n_postprocessor_option_rows;

extern const actor_class postprocessor_class;

#endif
