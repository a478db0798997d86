/* The fields of a request: tables of numbers and switches, then what takes more than a row. */
#include "services/gateway/openai_request.h"

#include "base/json_shape.h"
#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHAT = OPENAI_CHAT, TEXT = OPENAI_COMPLETION, BOTH = OPENAI_CHAT | OPENAI_COMPLETION };
enum { STOPS_MAX = 16, STOP_BYTES_MAX = 256, BIASES_MAX = 1024, UNKNOWN_BYTES = 240, SESSION_BYTES_MAX = 128 };
#define TIMEOUT_MAX_S 1e6
static const size_t tools_bytes_max = 1 << 20, template_bytes_max = 65536;

typedef enum { FIELD_F32, FIELD_F64, FIELD_U32, FIELD_I32, FIELD_BOOL } field_kind;

/* A number or a switch that goes straight into a struct. */
typedef struct {
    const char *name;
    field_kind  kind;
    int         apis;
    size_t      offset;
    double      min, max;
    bool        above_min;    /* the minimum itself is not allowed */
    bool        minus_is_off; /* -1 means the same as 0 */
} field_row;

#define SAMPLING(member) offsetof(openai_request, request.sampling.member)
#define OUTPUT(member) offsetof(openai_request, request.output.member)
#define REQUEST(member) offsetof(openai_request, request.member)

static const field_row rows[] = {
    {"temperature", FIELD_F32, BOTH, SAMPLING(temperature), 0, 100, false, false},
    {"top_p", FIELD_F32, BOTH, SAMPLING(top_p), 0, 1, true, false},
    {"top_k", FIELD_U32, BOTH, SAMPLING(top_k), 0, 1e9, false, true},
    {"min_p", FIELD_F32, BOTH, SAMPLING(min_p), 0, 1, false, false},
    {"typical_p", FIELD_F32, BOTH, SAMPLING(typical_p), 0, 1, true, false},
    {"repetition_penalty", FIELD_F32, BOTH, SAMPLING(repetition_penalty), 0.01, 100, false, false},
    {"frequency_penalty", FIELD_F32, BOTH, SAMPLING(frequency_penalty), -2, 2, false, false},
    {"presence_penalty", FIELD_F32, BOTH, SAMPLING(presence_penalty), -2, 2, false, false},
    {"no_repeat_ngram_size", FIELD_U32, BOTH, SAMPLING(no_repeat_ngram), 0, 64, false, false},
    {"length_penalty", FIELD_F32, BOTH, SAMPLING(length_penalty), -10, 10, false, false},
    {"min_tokens", FIELD_U32, BOTH, SAMPLING(min_tokens), 0, OPENAI_TOKENS_MAX, false, false},
    {"ignore_eos", FIELD_BOOL, BOTH, SAMPLING(ignore_eos), 0, 0, false, false},
    {"include_stop_str_in_output", FIELD_BOOL, BOTH, OUTPUT(include_stop), 0, 0, false, false},
    {"repetition_limit", FIELD_U32, BOTH, OUTPUT(repetition_limit), 0, 1000, false, false},
    {"n", FIELD_U32, BOTH, REQUEST(n), 1, 64, false, false},
    {"priority", FIELD_I32, BOTH, REQUEST(priority), -1000, 1000, false, false},
    {"draft_tokens", FIELD_U32, BOTH, REQUEST(draft_tokens), 0, 16, false, false},
    {"stream", FIELD_BOOL, BOTH, offsetof(openai_request, stream), 0, 0, false, false},
    {"timeout", FIELD_F64, BOTH, offsetof(openai_request, timeout_s), 0, TIMEOUT_MAX_S, true, false},
    {"echo", FIELD_BOOL, TEXT, OUTPUT(echo), 0, 0, false, false},
    {"add_generation_prompt", FIELD_BOOL, CHAT, REQUEST(add_generation_prompt), 0, 0, false, false},
    {"continue_final_message", FIELD_BOOL, CHAT, REQUEST(continue_final_message), 0, 0, false, false},
};

/* Fields with code of their own below. */
static const char *const other_fields[] = {
    "model",
    "messages",
    "prompt",
    "stop",
    "seed",
    "max_tokens",
    "logit_bias",
    "logprobs",
    "tools",
    "max_completion_tokens",
    "tool_choice",
    "best_of",
    "top_logprobs",
    "user",
    "stream_options",
    "beam_width",
    "response_format",
    "prompt_cache_key",
    "use_beam_search",
    "skip_special_tokens",
    "chat_template_kwargs",
    "modalities",
};

/* Known elsewhere and not done here: a value that asks for something is refused, a neutral one is not. */
static const char *const unsupported_fields[] = {
    "functions",
    "function_call",
    "audio",
    "prediction",
    "suffix",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "stop_token_ids",
    "bad_words",
    "prompt_logprobs",
    "documents",
    "chat_template",
    "allowed_token_ids",
    "logits_processors",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "mirostat",
    "dry_multiplier",
    "xtc_probability",
    "grammar",
    "json_schema",
    "web_search_options",
    "reasoning_effort",
    "top_n_sigma",
    "dynatemp_range",
    "regex",
    "ebnf",
};

/* ---- faults, and the parts the other parsers share ---- */

bool openai_refuse(openai_parser *p, error_code code, const char *field, const char *format, ...)
{
    char    text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(p->fault->field, sizeof p->fault->field, "%s", field);
    if (field[0])
        return error_set(&p->fault->error, code, "%s: %s", field, text);
    return error_set(&p->fault->error, code, "%s", text);
}

/* Why jansson did not take it, for a person who has to find the place. */
static const char *json_complaint(const json_error_t *why)
{
    switch (json_error_code(why)) {
    case json_error_duplicate_key:
        return "the body has a field twice";
    case json_error_null_byte_in_key:
        return "the name of a field has a NUL in it";
    case json_error_invalid_utf8:
        return "the body is not UTF-8";
    case json_error_premature_end_of_input:
        return "the body ends before its JSON does";
    case json_error_numeric_overflow:
        return "a number is out of range: whole numbers have 64 bits and a sign, others are IEEE doubles";
    default:
        return "the body is not JSON as RFC 8259 has it";
    }
}

json_t *openai_json(openai_parser *p, span body)
{
    json_error_t why;
    error        shape;
    uint32_t     n_values = JSON_REQUEST_VALUES_MAX;
    if (!json_shape_check(body, JSON_REQUEST_DEPTH_MAX, &n_values, &shape)) {
        openai_refuse(p, shape.code, "", "%s", shape.text);
        return NULL;
    }
    json_t *root = json_loadb(body.data, body.size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!root) {
        openai_refuse(p, ERR_INVALID, "", "%s: line %d, column %d", json_complaint(&why), why.line, why.column);
        return NULL;
    }
    if (!json_is_object(root)) {
        openai_refuse(p, ERR_INVALID, "", "the body must be a JSON object");
        json_decref(root);
        return NULL;
    }
    return root;
}

bool openai_string(openai_parser *p, const json_t *value, const char *field, size_t bytes_max, span *out)
{
    if (!value)
        return openai_refuse(p, ERR_INVALID, field, "is missing");
    if (!json_is_string(value))
        return openai_refuse(p, ERR_INVALID, field, "must be a string");
    span text = {json_string_value(value), json_string_length(value)};
    if (text.size > bytes_max)
        return openai_refuse(p, ERR_TOO_LARGE, field, "has %zu bytes; %zu are the most", text.size, bytes_max);
    *out = arena_copy(p->memory, text);
    if (!out->data)
        return openai_refuse(p, ERR_TOO_LARGE, field, "the request needs more memory than this server gives to one");
    return true;
}

bool openai_raw(openai_parser *p, const json_t *value, const char *field, size_t bytes_max, span *out)
{
    size_t bytes = json_dumpb(value, NULL, 0, JSON_COMPACT);
    char  *text  = bytes > 0 && bytes <= bytes_max ? arena_take(p->memory, bytes + 1) : NULL;
    if (!text)
        return openai_refuse(p, ERR_TOO_LARGE, field, "has %zu bytes as JSON; %zu are the most", bytes, bytes_max);
    json_dumpb(value, text, bytes, JSON_COMPACT);
    *out = (span){text, bytes};
    return true;
}

/* ---- rows ---- */

const json_t *openai_get(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);
    return json_is_null(value) ? NULL : value;
}

bool openai_integer(const json_t *value, int64_t *out)
{
    double number = json_number_value(value);
    *out          = json_is_integer(value) ? json_integer_value(value) : 0;
    if (!json_is_real(value) || fabs(number) > 0x1p53 || number != floor(number))
        return json_is_integer(value);
    *out = (int64_t)number;
    return true;
}

static bool take_number(openai_parser *p, const json_t *value, const field_row *row, void *at)
{
    bool    whole = row->kind == FIELD_U32 || row->kind == FIELD_I32;
    int64_t integer;
    if (whole ? !openai_integer(value, &integer) : !json_is_number(value))
        return openai_refuse(p, ERR_INVALID, row->name, "must be a %s", whole ? "whole number" : "number");
    double number = json_number_value(value);
    if (row->minus_is_off && number == -1)
        number = 0;
    if (!(number >= row->min && number <= row->max) || (row->above_min && number == row->min))
        return openai_refuse(p, ERR_INVALID, row->name, "must be %s %.10g and at most %.10g",
                             row->above_min ? "above" : "at least", row->min, row->max);
    switch (row->kind) {
    case FIELD_F32:
        *(float *)at = (float)number;
        break;
    case FIELD_F64:
        *(double *)at = number;
        break;
    case FIELD_U32:
        *(uint32_t *)at = (uint32_t)number;
        break;
    default:
        *(int32_t *)at = (int32_t)number;
    }
    return true;
}

bool openai_bool(openai_parser *p, const json_t *root, const char *name, bool *out)
{
    const json_t *value = openai_get(root, name);
    if (value && !json_is_boolean(value))
        return openai_refuse(p, ERR_INVALID, name, "must be true or false");
    if (value)
        *out = json_is_true(value);
    return true;
}

static bool take_rows(openai_parser *p, const json_t *root, openai_request *out)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        const json_t *value = openai_get(root, rows[i].name);
        void         *at    = (char *)out + rows[i].offset;
        if (!value)
            continue;
        if (!(rows[i].apis & out->api)) {
            if (json_is_true(value))
                return openai_refuse(p, ERR_UNSUPPORTED, rows[i].name, "is not supported by this endpoint");
        } else if (rows[i].kind == FIELD_BOOL) {
            if (!openai_bool(p, root, rows[i].name, at))
                return false;
        } else if (!take_number(p, value, &rows[i], at)) {
            return false;
        }
    }
    return true;
}

bool openai_whole(openai_parser *p, const json_t *root, const char *name, double min, double max, uint32_t *out)
{
    field_row row = {.name = name, .kind = FIELD_U32, .min = min, .max = max};
    return !openai_get(root, name) || take_number(p, openai_get(root, name), &row, out);
}

bool openai_timeout(openai_parser *p, const json_t *root, double *seconds)
{
    field_row row = {.name = "timeout", .kind = FIELD_F64, .max = TIMEOUT_MAX_S, .above_min = true};
    return !openai_get(root, row.name) || take_number(p, openai_get(root, row.name), &row, seconds);
}

bool openai_priority(openai_parser *p, const json_t *root, int32_t *priority)
{
    field_row row = {.name = "priority", .kind = FIELD_I32, .min = -1000, .max = 1000};
    return !openai_get(root, row.name) || take_number(p, openai_get(root, row.name), &row, priority);
}

/* ---- what takes more than a row ---- */

static bool take_stop(openai_parser *p, const json_t *root, openai_request *out)
{
    const json_t *value = openai_get(root, "stop");
    if (!value)
        return true;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > STOPS_MAX)
        return openai_refuse(p, ERR_INVALID, "stop", "has %zu entries; %d are the most", n, STOPS_MAX);
    span *stops = arena_take_array(p->memory, n, sizeof *stops);
    if (!stops)
        return openai_refuse(p, ERR_TOO_LARGE, "stop", "the request needs more memory than this server gives to one");
    for (size_t i = 0; i < n; i++) {
        if (!openai_string(p, json_is_array(value) ? json_array_get(value, i) : value, "stop", STOP_BYTES_MAX,
                           &stops[i]))
            return false;
        if (stops[i].size == 0)
            return openai_refuse(p, ERR_INVALID, "stop", "an empty text would stop everything");
    }
    out->request.output.n_stop = (uint32_t)n;
    out->request.output.stop   = stops;
    return true;
}

static bool take_logit_bias(openai_parser *p, const json_t *root, openai_request *out)
{
    json_t     *value = json_object_get(root, "logit_bias"), *number;
    const char *key;
    size_t      n = 0;
    if (!value || json_is_null(value))
        return true;
    if (!json_is_object(value) || json_object_size(value) > BIASES_MAX)
        return openai_refuse(p, ERR_INVALID, "logit_bias",
                             "must be an object of at most %d entries from token id to bias", BIASES_MAX);
    logit_bias *biases = arena_take_array(p->memory, json_object_size(value), sizeof *biases);
    if (!biases)
        return openai_refuse(p, ERR_TOO_LARGE, "logit_bias", "the request needs more memory than this server gives");
    json_object_foreach(value, key, number)
    {
        char         *end;
        unsigned long token = strtoul(key, &end, 10);
        double        bias  = json_number_value(number);
        if (key[0] < '0' || key[0] > '9' || *end || token > INT32_MAX)
            return openai_refuse(p, ERR_INVALID, "logit_bias", "each key must be a token id");
        if (!json_is_number(number) || !(fabs(bias) <= 100))
            return openai_refuse(p, ERR_INVALID, "logit_bias",
                                 "the bias of token %lu must be a number from -100 to 100", token);
        biases[n++] = (logit_bias){(uint32_t)token, (float)bias};
    }
    out->request.sampling.n_logit_bias = (uint32_t)n;
    out->request.sampling.logit_bias   = biases;
    return true;
}

static bool take_seed(openai_parser *p, const json_t *root, openai_request *out)
{
    const json_t *value = openai_get(root, "seed");
    if (!value)
        return true;
    int64_t seed;
    if (!openai_integer(value, &seed))
        return openai_refuse(p, ERR_INVALID, "seed", "must be a whole number of 64 bits");
    out->request.sampling.seed = (uint64_t)seed;
    out->has_seed              = true;
    return true;
}

static bool take_max_tokens(openai_parser *p, const json_t *root, openai_request *out)
{
    uint32_t least = out->api == OPENAI_CHAT ? 1 : 0, limit = UINT32_MAX;
    if (!openai_whole(p, root, "max_tokens", least, OPENAI_TOKENS_MAX, &limit))
        return false;
    if (out->api == OPENAI_CHAT && !openai_whole(p, root, "max_completion_tokens", least, OPENAI_TOKENS_MAX, &limit))
        return false;
    if (limit == UINT32_MAX)
        limit = out->api == OPENAI_CHAT ? 0 : OPENAI_COMPLETION_DEFAULT;
    else if (limit == 0 && !out->request.output.echo)
        return openai_refuse(p, ERR_INVALID, "max_tokens", "must be at least 1, or 0 together with echo");
    out->score_only         = out->api == OPENAI_COMPLETION && limit == 0;
    out->request.max_tokens = limit;
    if (limit > 0 && out->request.sampling.min_tokens > limit)
        return openai_refuse(p, ERR_INVALID, "min_tokens", "must not be above max_tokens (%u)", limit);
    return true;
}

static bool take_logprobs(openai_parser *p, const json_t *root, openai_request *out)
{
    sampling_params *sampling = &out->request.sampling;
    if (out->api == OPENAI_COMPLETION) {
        const json_t *value = openai_get(root, "logprobs");
        if (!value || json_is_false(value))
            return true;
        if (!openai_whole(p, root, "logprobs", 0, 64, &sampling->n_top_logprobs))
            return false;
        out->has_logprobs = sampling->logprobs = true;
        out->request.prompt_logprobs           = out->request.output.echo;
        return true;
    }
    if (!openai_bool(p, root, "logprobs", &sampling->logprobs) ||
        !openai_whole(p, root, "top_logprobs", 0, 64, &sampling->n_top_logprobs))
        return false;
    if (sampling->n_top_logprobs > 0 && !sampling->logprobs)
        return openai_refuse(p, ERR_INVALID, "top_logprobs", "needs logprobs to be true");
    return true;
}

/* Beams: `use_beam_search` of width beam_width, best_of or n. */
static bool take_beams(openai_parser *p, const json_t *root, openai_request *out)
{
    uint32_t n = out->request.n, best_of = n, width = 0;
    bool     beams = false;
    if (!openai_bool(p, root, "use_beam_search", &beams) || !openai_whole(p, root, "best_of", 1, 64, &best_of) ||
        !openai_whole(p, root, "beam_width", 1, 16, &width))
        return false;
    if (!beams && best_of != n)
        return openai_refuse(p, ERR_UNSUPPORTED, "best_of", "must equal n, or be used with use_beam_search");
    if (!beams && width > 0)
        return openai_refuse(p, ERR_INVALID, "beam_width", "needs use_beam_search to be true");
    if (!beams)
        return true;
    width = width > 0 ? width : best_of;
    if (width < n)
        return openai_refuse(p, ERR_INVALID, "beam_width", "must be at least n (%u)", n);
    if (width > 16)
        return openai_refuse(p, ERR_INVALID, "best_of", "beam search is at most 16 wide");
    out->request.sampling.beam_width = width;
    return true;
}

static bool take_stream_options(openai_parser *p, const json_t *root, openai_request *out)
{
    const json_t *value = openai_get(root, "stream_options");
    if (!value)
        return true;
    if (!json_is_object(value))
        return openai_refuse(p, ERR_INVALID, "stream_options", "must be an object");
    if (!out->stream)
        return openai_refuse(p, ERR_INVALID, "stream_options", "needs stream to be true");
    const json_t *wanted = openai_get(value, "include_usage");
    if (wanted && !json_is_boolean(wanted))
        return openai_refuse(p, ERR_INVALID, "stream_options.include_usage", "must be true or false");
    out->include_usage = json_is_true(wanted);
    return true;
}

static bool take_tools(openai_parser *p, const json_t *root, openai_request *out)
{
    const json_t *tools = openai_get(root, "tools"), *choice = openai_get(root, "tool_choice");
    const json_t *variables = openai_get(root, "chat_template_kwargs");
    const char   *how       = json_string_value(choice);
    if (choice && (!how || (strcmp(how, "auto") != 0 && strcmp(how, "none") != 0)))
        return openai_refuse(p, ERR_UNSUPPORTED, "tool_choice", "this server takes \"auto\" and \"none\"");
    if (tools && !json_is_array(tools))
        return openai_refuse(p, ERR_INVALID, "tools", "must be a list");
    if (tools && json_array_size(tools) > 0 && !(how && strcmp(how, "none") == 0) &&
        !openai_raw(p, tools, "tools", tools_bytes_max, &out->request.tools_json))
        return false;
    if (variables && !json_is_object(variables))
        return openai_refuse(p, ERR_INVALID, "chat_template_kwargs", "must be an object");
    return !variables ||
           openai_raw(p, variables, "chat_template_kwargs", template_bytes_max, &out->request.template_json);
}

static bool take_names(openai_parser *p, const json_t *root, openai_request *out)
{
    const json_t *model = openai_get(root, "model"), *user = openai_get(root, "user"),
                 *session = openai_get(root, "prompt_cache_key");
    bool skip             = true;
    if (!openai_bool(p, root, "skip_special_tokens", &skip))
        return false;
    out->request.output.special_tokens = !skip;
    out->has_session                   = session != NULL;
    return (!model || openai_string(p, model, "model", 256, &out->model)) &&
           (!user || openai_string(p, user, "user", 256, &out->user)) &&
           (!session || openai_string(p, session, "prompt_cache_key", SESSION_BYTES_MAX, &out->request.session));
}

/* What a client may leave in without meaning anything: null, false, 0, "", {} and []. */
static bool is_neutral(const json_t *value)
{
    return json_is_false(value) || (json_is_number(value) && json_number_value(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool refuse_unsupported(openai_parser *p, const json_t *root)
{
    for (size_t i = 0; i < COUNT(unsupported_fields); i++) {
        const json_t *value = openai_get(root, unsupported_fields[i]);
        if (value && !is_neutral(value))
            return openai_refuse(p, ERR_UNSUPPORTED, unsupported_fields[i], "is not supported by this server");
    }
    const json_t *format = openai_get(root, "response_format"), *modalities = openai_get(root, "modalities");
    const char   *type = json_string_value(json_object_get(format, "type"));
    if (format && (!type || strcmp(type, "text") != 0))
        return openai_refuse(p, ERR_UNSUPPORTED, "response_format",
                             "this server answers with {\"type\": \"text\"} only");
    const char *modality = json_string_value(json_array_get(modalities, 0));
    if (modalities && (json_array_size(modalities) != 1 || !modality || strcmp(modality, "text") != 0))
        return openai_refuse(p, ERR_UNSUPPORTED, "modalities", "this server answers with [\"text\"] only");
    return true;
}

const char *openai_field_name(size_t i)
{
    if (i < COUNT(rows))
        return rows[i].name;
    i -= COUNT(rows);
    if (i < COUNT(other_fields))
        return other_fields[i];
    i -= COUNT(other_fields);
    return i < COUNT(unsupported_fields) ? unsupported_fields[i] : NULL;
}

static bool is_known(const char *name)
{
    const char *known;
    for (size_t i = 0; (known = openai_field_name(i)); i++)
        if (strcmp(known, name) == 0)
            return true;
    return false;
}

/* Only names that look like names are listed: the others could be anybody's text. */
static void list_unknown(openai_parser *p, json_t *root, openai_request *out)
{
    const char *key;
    json_t     *value;
    char        names[UNKNOWN_BYTES];
    size_t      used = 0;
    json_object_foreach(root, key, value)
    {
        bool is_name = strspn(key, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(key);
        if (!is_known(key) && used + strlen(key) + 3 <= sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? "," : "", is_name ? key : "?");
    }
    if (used > 0)
        out->unknown_fields = arena_copy(p->memory, (span){names, used});
}

/* ---- the whole ---- */

static bool take_prompt(openai_parser *p, const json_t *root, openai_request *out)
{
    if (out->api == OPENAI_COMPLETION) {
        const json_t *prompt = openai_get(root, "prompt");
        if (!prompt)
            return openai_refuse(p, ERR_INVALID, "prompt", "is missing");
        if (!openai_prompts(p, prompt, "prompt", OPENAI_PROMPTS_MAX, &out->n_prompts, &out->prompts))
            return false;
        if (out->n_prompts * out->request.n > OPENAI_CHOICES_MAX)
            return openai_refuse(p, ERR_TOO_LARGE, "n", "%u prompts times %u choices are over %d", out->n_prompts,
                                 out->request.n, OPENAI_CHOICES_MAX);
        return true;
    }
    if (!openai_get(root, "messages"))
        return openai_refuse(p, ERR_INVALID, "messages", "is missing");
    out->request.kind = PROMPT_KIND_CHAT;
    if (!openai_messages(p, openai_get(root, "messages"), &out->request.n_messages, &out->request.messages))
        return false;
    if (out->request.continue_final_message && openai_get(root, "add_generation_prompt") &&
        out->request.add_generation_prompt)
        return openai_refuse(p, ERR_INVALID, "continue_final_message", "excludes add_generation_prompt");
    if (out->request.continue_final_message)
        out->request.add_generation_prompt = false;
    return true;
}

bool openai_request_parse(openai_api api, span body, arena *memory, openai_request *out, openai_fault *fault)
{
    openai_parser p    = {memory, fault};
    json_t       *root = openai_json(&p, body);
    *out               = (openai_request){.api = api, .request = text_request_defaults};
    bool ok = root && take_names(&p, root, out) && refuse_unsupported(&p, root) && take_rows(&p, root, out) &&
              take_prompt(&p, root, out) && take_stop(&p, root, out) && take_logit_bias(&p, root, out) &&
              take_seed(&p, root, out) && take_max_tokens(&p, root, out) && take_logprobs(&p, root, out) &&
              take_beams(&p, root, out) && take_stream_options(&p, root, out) &&
              (api != OPENAI_CHAT || take_tools(&p, root, out));
    if (ok)
        list_unknown(&p, root, out);
    json_decref(root);
    return ok;
}
