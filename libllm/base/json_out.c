/* The JSON writer: one function puts bytes, everything else decides which. */
#include "base/json_out.h"

#include "base/utf8.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void put(json_out *j, const char *bytes, size_t n)
{
    if (!j->overflowed && n < j->capacity - j->used)
        memcpy(j->out + j->used, bytes, n);
    else
        j->overflowed = true;
    j->used += n;
}

json_out json_out_into(char *out, size_t out_bytes)
{
    return (json_out){.out = out, .capacity = out_bytes, .overflowed = out_bytes == 0};
}

static bool in_object(const json_out *j)
{
    return j->depth > 0 && (j->is_object >> (j->depth - 1) & 1);
}

/* What comes before any value: its comma, or proof that its key was written. */
static void begin_value(json_out *j)
{
    assert(j->has_key == in_object(j));
    if (j->has_before && !j->has_key)
        put(j, ",", 1);
    j->has_key    = false;
    j->has_before = true;
}

static void open_container(json_out *j, bool is_object)
{
    begin_value(j);
    assert(j->depth < JSON_OUT_DEPTH_MAX);
    uint64_t bit  = UINT64_C(1) << j->depth++;
    j->is_object  = is_object ? j->is_object | bit : j->is_object & ~bit;
    j->has_before = false;
    put(j, is_object ? "{" : "[", 1);
}

void json_out_object(json_out *j)
{
    open_container(j, true);
}

void json_out_array(json_out *j)
{
    open_container(j, false);
}

void json_out_end(json_out *j)
{
    assert(j->depth > 0 && !j->has_key);
    put(j, in_object(j) ? "}" : "]", 1);
    j->depth--;
    j->has_before = true;
}

static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\';
}

static void put_escaped(json_out *j, uint8_t byte)
{
    static const char short_forms[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\'};
    char text[8];
    int  n;
    if (byte < sizeof short_forms && short_forms[byte])
        n = snprintf(text, sizeof text, "\\%c", short_forms[byte]);
    else
        n = snprintf(text, sizeof text, "\\u%04x", byte);
    put(j, text, (size_t)n);
}

static void put_string(json_out *j, span text)
{
    put(j, "\"", 1);
    size_t at = 0;
    while (at < text.size) {
        size_t run = at;
        while (run < text.size && is_plain((uint8_t)text.data[run]))
            run++;
        put(j, text.data + at, run - at);
        at = run;
        if (at == text.size)
            break;
        uint32_t code_point;
        span     rest    = {text.data + at, text.size - at};
        size_t   n_bytes = utf8_decode(rest, &code_point);
        if (n_bytes == 0) {
            put(j, "\xEF\xBF\xBD", 3);
            n_bytes = utf8_invalid_length(rest, NULL);
        } else if (code_point < 0x80) {
            put_escaped(j, (uint8_t)code_point);
        } else {
            put(j, rest.data, n_bytes);
        }
        at += n_bytes;
    }
    put(j, "\"", 1);
}

void json_out_key(json_out *j, span key)
{
    assert(in_object(j) && !j->has_key);
    if (j->has_before)
        put(j, ",", 1);
    put_string(j, key);
    put(j, ":", 1);
    j->has_key = true;
}

void json_out_string(json_out *j, span text)
{
    begin_value(j);
    put_string(j, text);
}

void json_out_raw(json_out *j, span json)
{
    begin_value(j);
    put(j, json.data, json.size);
}

void json_out_u64(json_out *j, uint64_t value)
{
    char text[JSON_NUMBER_BYTES];
    int  n = snprintf(text, sizeof text, "%" PRIu64, value);
    json_out_raw(j, (span){text, (size_t)n});
}

void json_out_i64(json_out *j, int64_t value)
{
    char text[JSON_NUMBER_BYTES];
    int  n = snprintf(text, sizeof text, "%" PRId64, value);
    json_out_raw(j, (span){text, (size_t)n});
}

/* 15 digits always suffice to print and 17 to read back a normal double; a subnormal can be exact with fewer. %g drops
 * trailing zeros, so the first precision that reads back the same gives the shortest form. */
size_t json_number(double value, char out[JSON_NUMBER_BYTES])
{
    assert(isfinite(value));
    int n = 0;
    for (int digits = fabs(value) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        n = snprintf(out, JSON_NUMBER_BYTES, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return (size_t)n;
}

static size_t float_number(float value, char out[JSON_NUMBER_BYTES])
{
    int n = 0;
    for (int digits = fabsf(value) < FLT_MIN ? 1 : 6; digits <= 9; digits++) {
        n = snprintf(out, JSON_NUMBER_BYTES, "%.*g", digits, (double)value);
        if (strtof(out, NULL) == value)
            break;
    }
    return (size_t)n;
}

void json_out_double(json_out *j, double value)
{
    char text[JSON_NUMBER_BYTES];
    if (isfinite(value))
        json_out_raw(j, (span){text, json_number(value, text)});
    else
        json_out_null(j);
}

void json_out_float(json_out *j, float value)
{
    char text[JSON_NUMBER_BYTES];
    if (isfinite(value))
        json_out_raw(j, (span){text, float_number(value, text)});
    else
        json_out_null(j);
}

void json_out_bool(json_out *j, bool value)
{
    json_out_raw(j, value ? SPAN("true") : SPAN("false"));
}

void json_out_null(json_out *j)
{
    json_out_raw(j, SPAN("null"));
}

void json_out_member_string(json_out *j, const char *key, span text)
{
    json_out_key(j, span_of(key));
    json_out_string(j, text);
}

void json_out_member_u64(json_out *j, const char *key, uint64_t value)
{
    json_out_key(j, span_of(key));
    json_out_u64(j, value);
}

void json_out_member_i64(json_out *j, const char *key, int64_t value)
{
    json_out_key(j, span_of(key));
    json_out_i64(j, value);
}

void json_out_member_double(json_out *j, const char *key, double value)
{
    json_out_key(j, span_of(key));
    json_out_double(j, value);
}

void json_out_member_bool(json_out *j, const char *key, bool value)
{
    json_out_key(j, span_of(key));
    json_out_bool(j, value);
}

void json_out_member_null(json_out *j, const char *key)
{
    json_out_key(j, span_of(key));
    json_out_null(j);
}

bool json_out_finish(json_out *j, span *text, error *err)
{
    assert(j->depth == 0 && j->has_before);
    *text = (span){NULL, 0};
    if (j->overflowed)
        return error_set(err, ERR_NO_MEMORY, "a JSON text of %zu bytes does not fit a buffer of %zu", j->used + 1,
                         j->capacity);
    j->out[j->used] = '\0';
    *text           = (span){j->out, j->used};
    return true;
}
