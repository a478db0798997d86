/* Brackets and commas outside of strings; see json_shape.h. */
#include "base/json_shape.h"

bool json_shape_check(span text, uint32_t depth_max, uint32_t *n_values, error *err)
{
    uint32_t depth = 0, limit = *n_values;
    bool     in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        char c       = text.data[i];
        bool is_open = c == '[' || c == '{';
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == ']' || c == '}') {
            depth -= depth > 0;
        } else if (is_open && ++depth > depth_max) {
            return error_set(err, ERR_TOO_LARGE, "the JSON is nested deeper than %u", depth_max);
        } else if (is_open || c == ',') {
            if (*n_values == 0)
                return error_set(err, ERR_TOO_LARGE, "the JSON has more than %u values", limit);
            --*n_values;
        }
    }
    return true;
}
