/* The prompt of a request: a conversation, or one or several texts or lists of token ids. */
#include "services/gateway/openai_request.h"

#include <stdio.h>

enum {
    MESSAGES_MAX      = 1024,
    PARTS_MAX         = 1024,
    CONTENT_BYTES_MAX = 4 << 20,
    TOOLS_BYTES_MAX   = 1 << 20,
    FIELD_BYTES       = 96
};

bool openai_tokens(openai_parser *p, const json_t *list, const char *field, uint32_t *n, const uint32_t **tokens)
{
    size_t    count = json_array_size(list);
    uint32_t *ids   = arena_take_array(p->memory, count, sizeof *ids);
    if (count > OPENAI_TOKENS_MAX)
        return openai_refuse(p, ERR_TOO_LARGE, field, "a list of token ids has at most %d", OPENAI_TOKENS_MAX);
    if (!ids)
        return openai_refuse(p, ERR_TOO_LARGE, field, "the request needs more memory than this server gives to one");
    for (size_t i = 0; i < count; i++) {
        int64_t id;
        if (!openai_integer(json_array_get(list, i), &id) || id < 0 || id > INT32_MAX)
            return openai_refuse(p, ERR_INVALID, field, "entry %zu must be a token id, a whole number from 0", i);
        ids[i] = (uint32_t)id;
    }
    *n      = (uint32_t)count;
    *tokens = ids;
    return true;
}

/* ---- prompts of completions, inputs of embeddings ---- */

static bool take_prompt(openai_parser *p, const json_t *value, const char *field, openai_prompt *out)
{
    if (json_is_string(value))
        return openai_string(p, value, field, CONTENT_BYTES_MAX, &out->text);
    out->is_tokens = true;
    if (!json_is_array(value) || json_array_size(value) == 0)
        return openai_refuse(p, ERR_INVALID, field, "must be a text or a list of token ids");
    return openai_tokens(p, value, field, &out->n_tokens, &out->tokens);
}

bool openai_prompts(openai_parser *p, const json_t *value, const char *name, uint32_t n_max, uint32_t *n,
                    const openai_prompt **prompts)
{
    bool   several = json_is_array(value) && !json_is_number(json_array_get(value, 0));
    size_t count   = several ? json_array_size(value) : 1;
    if (count == 0 || count > n_max)
        return openai_refuse(p, ERR_INVALID, name, "a list has from 1 to %u entries, and this one %zu", n_max, count);
    openai_prompt *out = arena_take_array(p->memory, count, sizeof *out);
    if (!out)
        return openai_refuse(p, ERR_TOO_LARGE, name, "the list needs more memory than this server gives");
    for (size_t i = 0; i < count; i++) {
        char field[FIELD_BYTES];
        snprintf(field, sizeof field, several ? "%s[%zu]" : "%s", name, i);
        if (!take_prompt(p, several ? json_array_get(value, i) : value, field, &out[i]))
            return false;
    }
    *n       = (uint32_t)count;
    *prompts = out;
    return true;
}

/* ---- messages of chats ---- */

/* Text parts are joined by a line end, as templates that expect a string see them elsewhere too. */
static bool join_parts(openai_parser *p, const json_t *parts, const char *field, span *out)
{
    size_t n = json_array_size(parts), total = 0, i;
    if (n > PARTS_MAX)
        return openai_refuse(p, ERR_INVALID, field, "a message has at most %d parts", PARTS_MAX);
    const json_t *part;
    json_array_foreach(parts, i, part)
    {
        char          name[FIELD_BYTES + 24];
        const char   *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        snprintf(name, sizeof name, "%s[%zu]", field, i);
        if (!type)
            return openai_refuse(p, ERR_INVALID, name, "a part must be an object with a type");
        if (strcmp(type, "text") != 0)
            return openai_refuse(p, ERR_UNSUPPORTED, name, "this server takes parts of type text, no %.32s", type);
        if (!json_is_string(text))
            return openai_refuse(p, ERR_INVALID, name, "a part of type text must have a string text");
        total += json_string_length(text) + (i > 0);
    }
    char *joined = total <= CONTENT_BYTES_MAX ? arena_take(p->memory, total + 1) : NULL;
    if (!joined)
        return openai_refuse(p, ERR_TOO_LARGE, field, "a message has at most %d bytes", CONTENT_BYTES_MAX);
    size_t used = 0;
    json_array_foreach(parts, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (i > 0)
            joined[used++] = '\n';
        memcpy(joined + used, json_string_value(text), json_string_length(text));
        used += json_string_length(text);
    }
    *out = (span){joined, used};
    return true;
}

static bool take_content(openai_parser *p, const json_t *message, const char *prefix, chat_message *out)
{
    char          field[FIELD_BYTES];
    const json_t *content = json_object_get(message, "content");
    snprintf(field, sizeof field, "%s.content", prefix);
    if (json_is_string(content))
        return openai_string(p, content, field, CONTENT_BYTES_MAX, &out->content);
    if (json_is_array(content))
        return join_parts(p, content, field, &out->content);
    if (content && !json_is_null(content))
        return openai_refuse(p, ERR_INVALID, field, "must be a text or a list of parts");
    if (!span_is(out->role, "assistant"))
        return openai_refuse(p, ERR_INVALID, field, "is missing; only an assistant's message may have none");
    return true;
}

static bool take_message(openai_parser *p, const json_t *message, size_t index, chat_message *out)
{
    static const struct {
        const char *name;
        size_t      offset, bytes_max;
    } texts[] = {
        {"name", offsetof(chat_message, name), 256},
        {"tool_call_id", offsetof(chat_message, tool_call_id), 256},
        {"reasoning_content", offsetof(chat_message, reasoning_content), CONTENT_BYTES_MAX},
    };
    char prefix[FIELD_BYTES / 2], field[FIELD_BYTES];
    snprintf(prefix, sizeof prefix, "messages[%zu]", index);
    if (!json_is_object(message))
        return openai_refuse(p, ERR_INVALID, prefix, "must be an object with role and content");
    *out = chat_message_defaults;
    snprintf(field, sizeof field, "%s.role", prefix);
    if (!openai_string(p, json_object_get(message, "role"), field, 64, &out->role))
        return false;
    if (out->role.size == 0)
        return openai_refuse(p, ERR_INVALID, field, "must be system, user, assistant or tool");
    for (size_t i = 0; i < COUNT(texts); i++) {
        const json_t *value = openai_get(message, texts[i].name);
        snprintf(field, sizeof field, "%s.%s", prefix, texts[i].name);
        if (value && !openai_string(p, value, field, texts[i].bytes_max, (span *)((char *)out + texts[i].offset)))
            return false;
    }
    const json_t *calls = openai_get(message, "tool_calls");
    snprintf(field, sizeof field, "%s.tool_calls", prefix);
    if (calls) {
        if (!json_is_array(calls))
            return openai_refuse(p, ERR_INVALID, field, "must be a list");
        if (json_array_size(calls) > 0 && !openai_raw(p, calls, field, TOOLS_BYTES_MAX, &out->tool_calls_json))
            return false;
    }
    return take_content(p, message, prefix, out);
}

bool openai_messages(openai_parser *p, const json_t *value, uint32_t *n, const chat_message **messages)
{
    if (!json_is_array(value))
        return openai_refuse(p, ERR_INVALID, "messages", "must be a list of messages");
    size_t count = json_array_size(value);
    if (count == 0 || count > MESSAGES_MAX)
        return openai_refuse(p, ERR_INVALID, "messages", "must have from 1 to %d messages", MESSAGES_MAX);
    chat_message *out = arena_take_array(p->memory, count, sizeof *out);
    if (!out)
        return openai_refuse(p, ERR_TOO_LARGE, "messages", "the messages need more memory than this server gives");
    for (size_t i = 0; i < count; i++)
        if (!take_message(p, json_array_get(value, i), i, &out[i]))
            return false;
    *n        = (uint32_t)count;
    *messages = out;
    return true;
}

/* ---- /tokenize and /detokenize ---- */

static bool take_model(openai_parser *p, const json_t *root, span *model)
{
    const json_t *value = openai_get(root, "model");
    *model              = (span){0};
    return !value || openai_string(p, value, "model", 256, model);
}

static bool fill_encode(openai_parser *p, const json_t *root, text_encode *out)
{
    const json_t *messages = openai_get(root, "messages"), *prompt = openai_get(root, "prompt");
    bool          begins = true, strings = false;
    if (!openai_bool(p, root, "add_generation_prompt", &out->add_generation_prompt) ||
        !openai_bool(p, root, "parse_special", &out->special_tokens) ||
        !openai_bool(p, root, "add_special_tokens", &begins) || !openai_bool(p, root, "return_token_strs", &strings))
        return false;
    if (!begins)
        return openai_refuse(p, ERR_UNSUPPORTED, "add_special_tokens", "the tokens are those the model would be given");
    if (strings)
        return openai_refuse(p, ERR_UNSUPPORTED, "return_token_strs", "is not supported by this server");
    if (messages && prompt)
        return openai_refuse(p, ERR_INVALID, "messages", "give either prompt or messages");
    if (messages) {
        out->kind = PROMPT_KIND_CHAT;
        return openai_messages(p, messages, &out->n_messages, &out->messages);
    }
    out->kind = PROMPT_KIND_TEXT;
    return openai_string(p, prompt, "prompt", CONTENT_BYTES_MAX, &out->prompt);
}

bool openai_tokenize_parse(span body, arena *memory, text_encode *out, span *model, openai_fault *fault)
{
    openai_parser p     = {memory, fault};
    json_t       *root  = openai_json(&p, body);
    *out                = text_encode_defaults;
    out->special_tokens = true;
    bool ok             = root && take_model(&p, root, model) && fill_encode(&p, root, out);
    json_decref(root);
    return ok;
}

bool openai_detokenize_parse(span body, arena *memory, text_decode *out, span *model, openai_fault *fault)
{
    openai_parser p    = {memory, fault};
    json_t       *root = openai_json(&p, body);
    *out               = text_decode_defaults;
    bool ok            = root && take_model(&p, root, model);
    if (ok) {
        const json_t *tokens = json_object_get(root, "tokens");
        ok                   = json_is_array(tokens) ? openai_tokens(&p, tokens, "tokens", &out->n_tokens, &out->tokens)
                                                     : openai_refuse(&p, ERR_INVALID, "tokens", "must be a list of token ids");
    }
    json_decref(root);
    return ok;
}
