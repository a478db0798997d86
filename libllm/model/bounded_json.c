/* The limits in front of jansson. */
#include "model/bounded_json.h"

#include "model/mapped_file.h"

/* Brackets in strings don't count. The text need not be valid JSON. */
static bool is_too_deep(span text)
{
    uint32_t depth     = 0;
    bool     in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '{' || c == '[') && ++depth > BOUNDED_JSON_DEPTH_MAX)
            return true;
        else if (!in_string && (c == '}' || c == ']') && depth > 0)
            depth--;
    }
    return false;
}

json_t *bounded_json_parse(span text, const char *name, error *err)
{
    json_error_t why;
    json_t      *root = NULL;
    if (text.size > BOUNDED_JSON_BYTES_MAX)
        error_set(err, ERR_TOO_LARGE, "%s: its JSON has %zu bytes; at most %d are read", name, text.size,
                  BOUNDED_JSON_BYTES_MAX);
    else if (is_too_deep(text))
        error_set(err, ERR_TOO_LARGE, "%s: its JSON is nested deeper than %d", name, BOUNDED_JSON_DEPTH_MAX);
    else if (!(root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &why)))
        error_set(err, ERR_INVALID, "%s: not valid JSON: %s (line %d, column %d)", name, why.text, why.line,
                  why.column);
    else if (!json_is_object(root)) {
        error_set(err, ERR_INVALID, "%s: a JSON object was expected", name);
        json_decref(root);
        root = NULL;
    }
    return root;
}

json_t *bounded_json_load(const char *path, error *err)
{
    mapped_file file;
    if (!mapped_file_open(&file, path, err))
        return NULL;
    json_t *root = bounded_json_parse((span){(const char *)file.data, file.size}, path, err);
    mapped_file_close(&file);
    return root;
}
