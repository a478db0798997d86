/* See trace_context.h. */
#include "trace/trace_context.h"

#include "base/hex.h"

enum { TRACEPARENT_BYTES = 55, VERSION_AT = 0, TRACE_AT = 3, PARENT_AT = 36, FLAGS_AT = 53 };

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *text, uint8_t *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return false;
    return true;
}

bool trace_context_is_valid(const uint8_t context[TRACE_CONTEXT_BYTES])
{
    return !is_zero(context, TRACE_ID_BYTES) && !is_zero(context + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
}

bool trace_context_parse(span header, uint8_t context[TRACE_CONTEXT_BYTES])
{
    uint8_t     version, read[TRACE_CONTEXT_BYTES];
    const char *text = header.data;
    if (header.size < TRACEPARENT_BYTES || !read_hex(text + VERSION_AT, &version, 1) || version == 0xff)
        return false;
    if (header.size > TRACEPARENT_BYTES && (version == 0 || text[TRACEPARENT_BYTES] != '-'))
        return false;
    if (text[TRACE_AT - 1] != '-' || text[PARENT_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
        return false;
    if (!read_hex(text + TRACE_AT, read, TRACE_ID_BYTES) ||
        !read_hex(text + PARENT_AT, read + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES) ||
        !read_hex(text + FLAGS_AT, read + TRACE_CONTEXT_BYTES - 1, 1) || !trace_context_is_valid(read))
        return false;
    read[TRACE_CONTEXT_BYTES - 1] &= TRACE_SAMPLED;
    memcpy(context, read, sizeof read);
    return true;
}

void trace_id_print(const uint8_t context[TRACE_CONTEXT_BYTES], char text[TRACE_ID_TEXT])
{
    if (is_zero(context, TRACE_ID_BYTES))
        memcpy(text, "-", 2);
    else
        hex_print(context, TRACE_ID_BYTES, text);
}
