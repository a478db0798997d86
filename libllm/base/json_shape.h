/* What a JSON text would cost to build, counted without building anything: a parser's tree takes some forty times its
 * text, and its recursion follows the text's depth. To be asked before text from outside is parsed. */
#ifndef TROUPE_BASE_JSON_SHAPE_H
#define TROUPE_BASE_JSON_SHAPE_H

#include "base/error.h"
#include "base/span.h"

/* What one request may bring, in its body or in strings inside of it. */
enum { JSON_REQUEST_DEPTH_MAX = 48, JSON_REQUEST_VALUES_MAX = 1200000 };

/* Whether the text nests at most `depth_max` deep and has at most *n_values values, which are taken off *n_values; else
 * ERR_TOO_LARGE. The text need not be valid JSON. */
bool json_shape_check(span text, uint32_t depth_max, uint32_t *n_values, error *err) MUST_CHECK;

#endif
