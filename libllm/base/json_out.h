/* Writes JSON into a buffer that the caller owns, with correct escaping and a known bound.
 *
 *   json_out j = json_out_into(buffer, sizeof buffer);
 *   json_out_object(&j);
 *   json_out_member_string(&j, "object", SPAN("chat.completion.chunk"));
 *   json_out_key(&j, SPAN("choices"));
 *   json_out_array(&j);
 *   ...
 *   json_out_end(&j);
 *   json_out_end(&j);
 *   span text;
 *   if (!json_out_finish(&j, &text, err)) ...
 *
 * Commas and colons are put where they belong. Nothing is ever cut silently: a text that does not fit sets
 * `overflowed`, the writer goes on counting, and json_out_finish fails and says how many bytes were needed. To leave
 * out what does not fit, copy the json_out before writing it and assign the copy back. Closing what is not open, a
 * value without a key in an object, or nesting past JSON_OUT_DEPTH_MAX is a bug of the caller and asserts. */
#ifndef TROUPE_BASE_JSON_OUT_H
#define TROUPE_BASE_JSON_OUT_H

#include "base/error.h"
#include "base/span.h"

enum { JSON_OUT_DEPTH_MAX = 64, JSON_NUMBER_BYTES = 32 };

typedef struct {
    char    *out;
    size_t   capacity;   /* bytes of `out`, one of them for the NUL */
    size_t   used;       /* bytes the text has so far, also when they no longer fit */
    uint64_t is_object;  /* bit d: the container open at depth d is an object */
    uint32_t depth;      /* open containers */
    bool     has_before; /* a comma is due before the next value or key */
    bool     has_key;    /* a key was written and waits for its value */
    bool     overflowed;
} json_out;

json_out json_out_into(char *out, size_t out_bytes);

void json_out_object(json_out *j); /* { */
void json_out_array(json_out *j);  /* [ */
void json_out_end(json_out *j);    /* } or ], whichever is open */
void json_out_key(json_out *j, span key);

/* UTF-8 goes through as it is; what is not UTF-8 becomes U+FFFD, one for each maximal subpart (Unicode 15, 3.9). */
void json_out_string(json_out *j, span text);
void json_out_u64(json_out *j, uint64_t value);
void json_out_i64(json_out *j, int64_t value);
void json_out_double(json_out *j, double value); /* shortest form that reads back the same; NaN and infinities: null */
void json_out_float(json_out *j, float value);   /* shortest form that reads back as the same float */
void json_out_bool(json_out *j, bool value);
void json_out_null(json_out *j);
void json_out_raw(json_out *j, span json); /* a value that is JSON already */

/* A key and its value in one call; `key` is a C string. */
void json_out_member_string(json_out *j, const char *key, span text);
void json_out_member_u64(json_out *j, const char *key, uint64_t value);
void json_out_member_i64(json_out *j, const char *key, int64_t value);
void json_out_member_double(json_out *j, const char *key, double value);
void json_out_member_bool(json_out *j, const char *key, bool value);
void json_out_member_null(json_out *j, const char *key);

/* The whole text, NUL-terminated, in *text. Fails with ERR_NO_MEMORY when it did not fit. All containers are closed. */
bool json_out_finish(json_out *j, span *text, error *err) MUST_CHECK;

/* The shortest decimal form of a finite number that reads back the same; returns its length. NUL-terminated. */
size_t json_number(double value, char out[JSON_NUMBER_BYTES]);

#endif
