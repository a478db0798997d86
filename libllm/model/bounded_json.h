/* Parses JSON from outside with jansson, within limits that keep a hostile text from costing more than it should. */
#ifndef TROUPE_MODEL_BOUNDED_JSON_H
#define TROUPE_MODEL_BOUNDED_JSON_H

#include "base/error.h"
#include "base/span.h"

#include <jansson.h>

/* jansson's tree takes up to some 40 times its text. */
enum { BOUNDED_JSON_BYTES_MAX = 16 << 20, BOUNDED_JSON_DEPTH_MAX = 32 };

/* An object at the top is required, duplicate keys are refused. `name` stands in messages. The caller owns the result.
 */
json_t *bounded_json_parse(span text, const char *name, error *err);
json_t *bounded_json_parse_array(span text, const char *name, error *err); /* an array is required */
json_t *bounded_json_load(const char *path, error *err);

#endif
