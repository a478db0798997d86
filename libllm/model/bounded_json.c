/* The limits in front of jansson. */
#include "model/bounded_json.h"

#include "base/json_shape.h"
#include "model/mapped_file.h"

static json_t *parse(span text, const char *name, json_type wanted, error *err)
{
    json_error_t why;
    json_t      *root     = NULL;
    uint32_t     n_values = BOUNDED_JSON_BYTES_MAX; /* the bytes are limit enough */
    if (text.size > BOUNDED_JSON_BYTES_MAX)
        error_set(err, ERR_TOO_LARGE, "%s: its JSON has %zu bytes; at most %d are read", name, text.size,
                  BOUNDED_JSON_BYTES_MAX);
    else if (!json_shape_check(text, BOUNDED_JSON_DEPTH_MAX, &n_values, err))
        error_wrap(err, "%s", name);
    else if (!(root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &why)))
        error_set(err, ERR_INVALID, "%s: not valid JSON: %s (line %d, column %d)", name, why.text, why.line,
                  why.column);
    else if (json_typeof(root) != wanted) {
        error_set(err, ERR_INVALID, "%s: a JSON %s was expected", name, wanted == JSON_OBJECT ? "object" : "array");
        json_decref(root);
        root = NULL;
    }
    return root;
}

json_t *bounded_json_parse(span text, const char *name, error *err)
{
    return parse(text, name, JSON_OBJECT, err);
}

json_t *bounded_json_parse_array(span text, const char *name, error *err)
{
    return parse(text, name, JSON_ARRAY, err);
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
