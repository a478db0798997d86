/* The door to the Jinja evaluator: parses once, renders often. See chat_template.h. */
#include "text/chat_template.h"

#include "text/jinja_eval.h"
#include <stdlib.h>

struct chat_template {
    arena         *memory; /* of the program */
    jinja_program *program;
};

/* A token and its node for each byte is the most that a source can need. */
enum { PARSE_BYTES_EACH = 512, PARSE_BYTES_FIXED = 256 << 10 };

static bool parse(chat_template *t, span source, error *err)
{
    jmp_buf failure;
    jinja   j = {.memory = t->memory, .err = err, .failure = &failure, .line = 1};
    if (setjmp(failure))
        return false;
    t->program = jinja_parse(&j, source);
    return true;
}

chat_template *chat_template_new(span source, error *err)
{
    if (source.size > CHAT_TEMPLATE_BYTES_MAX) {
        error_set(err, ERR_TOO_LARGE, "the chat template has %zu bytes; at most %d are taken", source.size,
                  CHAT_TEMPLATE_BYTES_MAX);
        return NULL;
    }
    chat_template *t = calloc(1, sizeof *t);
    if (!t) {
        error_set(err, ERR_NO_MEMORY, "no memory for a chat template");
        return NULL;
    }
    t->memory = arena_new(source.size * PARSE_BYTES_EACH + PARSE_BYTES_FIXED, err);
    if (!t->memory || !parse(t, source, err))
        chat_template_free(&t);
    return t;
}

void chat_template_free(chat_template **t)
{
    if (!*t)
        return;
    arena_free(&(*t)->memory);
    free(*t);
    *t = NULL;
}

/* ---- variables ---- */

static jinja_value from_json(jinja *j, const json_t *json, bool untrusted, uint32_t depth);

static jinja_value from_object(jinja *j, const json_t *json, uint32_t depth)
{
    size_t      n = json_object_size(json);
    jinja_value v = jinja_dict_new(j, JINJA_DICT, n);
    const char *key;
    json_t     *value;
    json_object_foreach((json_t *)json, key, value)
    {
        v.dict->keys[v.dict->n]     = jinja_text_value(j, span_of(key), true);
        v.dict->values[v.dict->n++] = from_json(j, value, true, depth + 1);
    }
    return v;
}

static jinja_value from_json(jinja *j, const json_t *json, bool untrusted, uint32_t depth)
{
    jinja_value v = jinja_none();
    if (depth > CHAT_TEMPLATE_DEPTH_MAX)
        jinja_fail(j, ERR_INVALID, "the values are nested more than %d levels deep", CHAT_TEMPLATE_DEPTH_MAX);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return from_object(j, json, depth);
    case JSON_ARRAY:
        v = jinja_sequence_new(j, JINJA_LIST, json_array_size(json));
        for (size_t i = 0; i < v.sequence->n; i++)
            v.sequence->items[i] = from_json(j, json_array_get(json, i), untrusted, depth + 1);
        return v;
    case JSON_STRING:
        return jinja_text_value(j, (span){json_string_value(json), json_string_length(json)}, untrusted);
    case JSON_INTEGER:
        v = jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = jinja_bool(json_is_true(json));
        break;
    case JSON_NULL:
        return v;
    }
    v.untrusted = untrusted;
    return v;
}

/* The model's own special tokens, as the caller read them from the model's files. */
static bool is_trusted_variable(span name)
{
    return span_is(name, "bos_token") || span_is(name, "eos_token") || span_is(name, "unk_token") ||
           span_is(name, "pad_token");
}

/* Only the names that the template mentions: the rest is never converted. */
static void bind_variables(jinja *j, const json_t *variables)
{
    j->globals = jinja_take(j, j->program->n_names, sizeof *j->globals);
    for (uint32_t i = 0; i < j->program->n_names; i++) {
        span                 name     = j->program->names[i];
        const json_t        *json     = json_object_getn(variables, name.data, name.size);
        const jinja_builtin *function = jinja_find_function(name);
        if (json)
            j->globals[i] = from_json(j, json, !is_trusted_variable(name), 0);
        else if (function)
            j->globals[i] = jinja_callable_new(j, function, jinja_none());
    }
}

/* ---- rendering ---- */

static void render(jinja *j, const json_t *variables, size_t output_bytes_max, text_part **parts, uint32_t *n_parts)
{
    jinja_builder out;
    jinja_builder_start(&out, j);
    out.size_max = output_bytes_max < JINJA_STRING_BYTES_MAX ? output_bytes_max : JINJA_STRING_BYTES_MAX;
    j->out       = &out;
    bind_variables(j, variables);
    jinja_run(j);
    if (out.n_marks > UINT32_MAX)
        jinja_fail(j, ERR_TOO_LARGE, "the prompt is in more than %u pieces", UINT32_MAX);
    *n_parts = (uint32_t)out.n_marks;
    *parts   = jinja_take(j, out.n_marks, sizeof **parts);
    for (size_t i = 0, begin = 0; i < out.n_marks; begin = out.marks[i++].end)
        (*parts)[i] =
            (text_part){.text = {out.data + begin, out.marks[i].end - begin}, .trusted = !out.marks[i].untrusted};
}

bool chat_template_render(const chat_template *t, const json_t *variables, int64_t now_unix_s, size_t output_bytes_max,
                          arena *memory, text_part **parts, uint32_t *n_parts, error *err)
{
    jmp_buf failure;
    jinja   j = {
          .memory = memory, .err = err, .failure = &failure, .line = 1, .program = t->program, .now_unix_s = now_unix_s};
    if (!json_is_object(variables))
        return error_set(err, ERR_INVALID, "the variables of a chat template must be a JSON object");
    if (setjmp(failure))
        return false;
    render(&j, variables, output_bytes_max, parts, n_parts);
    return true;
}
