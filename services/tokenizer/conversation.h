/* A conversation as the variables of a chat template: what transformers would hand to it, built from bus messages. */
#ifndef TROUPE_TOKENIZER_CONVERSATION_H
#define TROUPE_TOKENIZER_CONVERSATION_H

#include "base/error.h"
#include "bus/messages.h"
#include <jansson.h>

enum { FIELD_BYTES = 64 };

/* The request's field at fault, as the API calls it: "messages[2].tool_calls". */
typedef struct {
    char name[FIELD_BYTES];
} request_field;

/* False, so that `return refuse(...)` reads as one step. */
bool refuse(request_field *field, const char *name, error *err, error_code code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

typedef struct {
    const chat_message *messages;
    uint32_t            n_messages;
    span                tools_json;    /* may be empty */
    span                template_json; /* further variables; may be empty */
    bool                add_generation_prompt;
    span                bos_token, eos_token; /* empty: the model has none */
} conversation;

/* The caller's to json_decref; NULL with *err and *field set. Arguments of tool calls become objects, as templates
 * expect them; further variables may not take the place of those given here. */
json_t *conversation_variables(const conversation *c, request_field *field, error *err);

#endif
