/* Bus messages into JSON for the chat template. Everything in here came from outside. */
#include "tokenizer/conversation.h"

#include "base/json_shape.h"

#include <stdarg.h>
#include <stdio.h>

bool refuse(request_field *field, const char *name, error *err, error_code code, const char *format, ...)
{
    char    text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(field->name, sizeof field->name, "%s", name);
    return error_set(err, code, "%s", text);
}

static json_t *json_text(span text)
{
    return json_stringn(text.data ? text.data : "", text.size);
}

/* What is said when something is wrong, and how much JSON may still come: in all of a conversation, not in each string
 * of it, as much as in a request's body. */
typedef struct {
    request_field *field;
    error         *err;
    uint32_t       n_values;
} reading;

/* JSON that a client sent inside a string. `kind` is "array" or "object". */
static json_t *parse(span text, json_type type, const char *name, reading *r)
{
    json_error_t where;
    error        shape;
    if (!json_shape_check(text, JSON_REQUEST_DEPTH_MAX, &r->n_values, &shape)) {
        refuse(r->field, name, r->err, shape.code, "%s: %s", name, shape.text);
        return NULL;
    }
    json_t *json = json_loadb(text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (!json)
        refuse(r->field, name, r->err, ERR_INVALID, "%s is not valid JSON: %s (byte %d)", name, where.text,
               where.position);
    else if (json_typeof(json) != type) {
        json_decref(json);
        json = NULL;
        refuse(r->field, name, r->err, ERR_INVALID, "%s must be a JSON %s", name,
               type == JSON_ARRAY ? "array" : "object");
    }
    return json;
}

/* Clients send a call's arguments as a string of JSON; templates want the object (as transformers documents it). */
static bool unfold_arguments(json_t *calls, uint32_t message, reading *r)
{
    json_t *call;
    size_t  i;
    json_array_foreach(calls, i, call)
    {
        char    name[2 * FIELD_BYTES];
        json_t *function  = json_object_get(call, "function");
        json_t *arguments = json_object_get(function, "arguments");
        snprintf(name, sizeof name, "messages[%u].tool_calls[%zu]", message, i);
        if (!json_is_object(call) || !json_is_object(function) || !json_is_string(json_object_get(function, "name")))
            return refuse(r->field, name, r->err, ERR_INVALID, "%s must have a function with a name", name);
        if (!json_is_string(arguments))
            continue;
        snprintf(name, sizeof name, "messages[%u].tool_calls[%zu].function.arguments", message, i);
        span    text   = {json_string_value(arguments), json_string_length(arguments)};
        json_t *object = text.size ? parse(text, JSON_OBJECT, name, r) : json_object();
        if (!object)
            return false;
        json_object_set_new(function, "arguments", object);
    }
    return true;
}

static bool add_tool_calls(json_t *to, const chat_message *m, uint32_t i, reading *r)
{
    char name[FIELD_BYTES];
    snprintf(name, sizeof name, "messages[%u].tool_calls", i);
    json_t *calls = parse(m->tool_calls_json, JSON_ARRAY, name, r);
    if (!calls)
        return false;
    json_object_set_new(to, "tool_calls", calls);
    return unfold_arguments(calls, i, r);
}

static bool add_message(json_t *list, const chat_message *m, uint32_t i, reading *r)
{
    json_t *to = json_object();
    json_array_append_new(list, to);
    if (m->role.size == 0) {
        char name[FIELD_BYTES];
        snprintf(name, sizeof name, "messages[%u].role", i);
        return refuse(r->field, name, r->err, ERR_INVALID, "%s is missing", name);
    }
    json_object_set_new(to, "role", json_text(m->role));
    /* An answer that is all tool calls has no content, and templates ask whether it is none. */
    bool none = m->content.size == 0 && m->tool_calls_json.size > 0;
    json_object_set_new(to, "content", none ? json_null() : json_text(m->content));
    if (m->name.size > 0)
        json_object_set_new(to, "name", json_text(m->name));
    if (m->tool_call_id.size > 0)
        json_object_set_new(to, "tool_call_id", json_text(m->tool_call_id));
    if (m->reasoning_content.size > 0)
        json_object_set_new(to, "reasoning_content", json_text(m->reasoning_content));
    return m->tool_calls_json.size == 0 || add_tool_calls(to, m, i, r);
}

static bool add_messages(json_t *variables, const conversation *c, reading *r)
{
    json_t *list = json_array();
    json_object_set_new(variables, "messages", list);
    if (c->n_messages == 0)
        return refuse(r->field, "messages", r->err, ERR_INVALID, "messages is empty");
    for (uint32_t i = 0; i < c->n_messages; i++)
        if (!add_message(list, &c->messages[i], i, r))
            return false;
    return true;
}

/* The model's own tokens are trusted text in the template, so nothing from outside may come under their names. */
static bool add_further_variables(json_t *variables, span text, reading *r)
{
    static const char        name[]     = "chat_template_kwargs";
    static const char *const reserved[] = {"messages",  "tools",    "add_generation_prompt", "bos_token", "eos_token",
                                           "unk_token", "pad_token"};
    json_t                  *further    = parse(text, JSON_OBJECT, name, r);
    if (!further)
        return false;
    for (size_t i = 0; i < COUNT(reserved); i++)
        if (json_object_get(further, reserved[i])) {
            json_decref(further);
            return refuse(r->field, name, r->err, ERR_INVALID, "%s must not contain '%s'", name, reserved[i]);
        }
    json_object_update(variables, further);
    json_decref(further);
    return true;
}

static bool fill(json_t *variables, const conversation *c, reading *r)
{
    json_t *tools = NULL;
    if (c->tools_json.size > 0 && !(tools = parse(c->tools_json, JSON_ARRAY, "tools", r)))
        return false;
    json_object_set_new(variables, "tools", tools ? tools : json_null());
    json_object_set_new(variables, "documents", json_null());
    json_object_set_new(variables, "add_generation_prompt", json_boolean(c->add_generation_prompt));
    if (c->template_json.size > 0 && !add_further_variables(variables, c->template_json, r))
        return false;
    if (c->bos_token.size > 0)
        json_object_set_new(variables, "bos_token", json_text(c->bos_token));
    if (c->eos_token.size > 0)
        json_object_set_new(variables, "eos_token", json_text(c->eos_token));
    return add_messages(variables, c, r);
}

json_t *conversation_variables(const conversation *c, request_field *field, error *err)
{
    reading r         = {field, err, JSON_REQUEST_VALUES_MAX};
    json_t *variables = json_object();
    if (!variables) {
        refuse(field, "messages", err, ERR_NO_MEMORY, "no memory for the conversation");
        return NULL;
    }
    if (!fill(variables, c, &r)) {
        json_decref(variables);
        return NULL;
    }
    return variables;
}
