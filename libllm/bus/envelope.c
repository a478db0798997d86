/* Envelopes to bytes and back. msgpack: github.com/msgpack/msgpack/blob/master/spec.md. */
#include "bus/envelope.h"

#include "base/hex.h"

#include <assert.h>

enum { N_ENVELOPE_VALUES = 10, REQUEST_BYTES = 16, TRACE_BYTES = 25 };

static uint8_t *put_big_endian(uint8_t *out, uint8_t tag, uint64_t value, uint32_t bytes)
{
    *out++ = tag;
    for (uint32_t i = bytes; i-- > 0;)
        *out++ = (uint8_t)(value >> (8 * i));
    return out;
}

static uint8_t *put_bin(uint8_t *out, const uint8_t *data, uint8_t bytes)
{
    *out++ = 0xc4;
    *out++ = bytes;
    memcpy(out, data, bytes);
    return out + bytes;
}

void envelope_encode(const envelope *e, uint8_t out[ENVELOPE_BYTES])
{
    uint8_t *p = out;
    *p++       = 0x90 | N_ENVELOPE_VALUES;
    p          = put_big_endian(p, 0xcd, ENVELOPE_MAGIC, 2);
    p          = put_big_endian(p, 0xcd, e->type, 2);
    p          = put_big_endian(p, 0xcd, e->protocol, 2);
    p          = put_bin(p, e->request.bytes, REQUEST_BYTES);
    p          = put_big_endian(p, 0xce, e->attempt, 4);
    p          = put_big_endian(p, 0xcf, e->incarnation, 8);
    p          = put_big_endian(p, 0xcf, e->epoch, 8);
    p          = put_big_endian(p, 0xcf, e->sequence, 8);
    p          = put_big_endian(p, 0xd3, (uint64_t)e->deadline_unix_ms, 8);
    p          = put_bin(p, e->trace, TRACE_BYTES);
    assert(p == out + ENVELOPE_BYTES);
}

/* What is left of the frame; `ok` goes false once and stays. */
typedef struct {
    const uint8_t *at, *end;
    bool           ok;
} reader;

static uint64_t take_big_endian(reader *r, uint32_t bytes)
{
    uint64_t value = 0;
    if ((size_t)(r->end - r->at) < bytes) {
        r->ok = false;
        return 0;
    }
    for (uint32_t i = 0; i < bytes; i++)
        value = value << 8 | *r->at++;
    return value;
}

/* An integer from 0 to `max`, in any of msgpack's forms. */
static uint64_t take_integer(reader *r, uint64_t max)
{
    uint64_t tag   = take_big_endian(r, 1);
    uint64_t value = 0;
    if (tag <= 0x7f)
        value = tag;
    else if (tag >= 0xcc && tag <= 0xcf)
        value = take_big_endian(r, 1u << (tag - 0xcc));
    else if (tag >= 0xd0 && tag <= 0xd3) {
        uint32_t bytes = 1u << (tag - 0xd0);
        value          = take_big_endian(r, bytes);
        r->ok          = r->ok && value >> (8 * bytes - 1) == 0; /* no field of an envelope is negative */
    } else
        r->ok = false;
    r->ok = r->ok && value <= max;
    return r->ok ? value : 0;
}

static void take_bin(reader *r, uint8_t *out, uint32_t bytes)
{
    if (take_big_endian(r, 1) != 0xc4 || take_big_endian(r, 1) != bytes || (size_t)(r->end - r->at) < bytes) {
        r->ok = false;
        return;
    }
    memcpy(out, r->at, bytes);
    r->at += bytes;
}

static bool malformed(error *err, const char *name)
{
    return error_set(err, ERR_INVALID, "envelope: %s is missing, of another type or out of range", name);
}

bool envelope_decode(span frame, envelope *e, error *err)
{
    reader r = {.at = (const uint8_t *)frame.data, .end = (const uint8_t *)frame.data + frame.size, .ok = true};
    memset(e, 0, sizeof *e);
    if (frame.size == 0 || frame.size > BUS_ENVELOPE_BYTES_MAX)
        return error_set(err, ERR_INVALID, "envelope: a frame of 1 to %d bytes was expected, not of %zu",
                         BUS_ENVELOPE_BYTES_MAX, frame.size);
    if (take_big_endian(&r, 1) != (0x90 | N_ENVELOPE_VALUES))
        return error_set(err, ERR_INVALID, "envelope: a msgpack array of %d values was expected", N_ENVELOPE_VALUES);
    uint64_t magic = take_integer(&r, UINT64_MAX);
    if (!r.ok || magic != ENVELOPE_MAGIC)
        return error_set(err, ERR_UNSUPPORTED, "envelope: the first value must be %d (layout 1)", ENVELOPE_MAGIC);

#define TAKE(name, statement)                                                                                          \
    statement;                                                                                                         \
    if (!r.ok)                                                                                                         \
        return malformed(err, name);
    TAKE("type", e->type = (uint16_t)take_integer(&r, UINT16_MAX))
    TAKE("protocol", e->protocol = (uint16_t)take_integer(&r, UINT16_MAX))
    TAKE("request", take_bin(&r, e->request.bytes, REQUEST_BYTES))
    TAKE("attempt", e->attempt = (uint32_t)take_integer(&r, UINT32_MAX))
    TAKE("incarnation", e->incarnation = take_integer(&r, UINT64_MAX))
    TAKE("epoch", e->epoch = take_integer(&r, UINT64_MAX))
    TAKE("sequence", e->sequence = take_integer(&r, UINT64_MAX))
    TAKE("deadline_unix_ms", e->deadline_unix_ms = (int64_t)take_integer(&r, INT64_MAX))
    TAKE("trace", take_bin(&r, e->trace, TRACE_BYTES))
#undef TAKE
    if (r.at != r.end)
        return error_set(err, ERR_INVALID, "envelope: %zu bytes follow the last value", (size_t)(r.end - r.at));
    return true;
}

bool request_id_is_zero(const request_id *id)
{
    static const request_id zero;
    return request_id_equal(id, &zero);
}

bool request_id_equal(const request_id *a, const request_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

void request_id_print(const request_id *id, char text[33])
{
    hex_print(id->bytes, sizeof id->bytes, text);
}
