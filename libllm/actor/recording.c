/* See recording.h. */
#include "actor/recording.h"

#include "base/hash.h"

#include <assert.h>
#include <stdio.h>

static const char     magic[8]     = {'T', 'R', 'O', 'U', 'P', 'R', 'E', 'C'};
static const uint64_t checksum_key = UINT64_C(0x7265636f72646572);

enum { CHECKSUM_AT = 8, CHECKED_AT = 16, HEADER_CHECKSUM_AT = RECORDING_HEADER_BYTES - 8 };

static void put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const void *in, size_t bytes)
{
    const uint8_t *from  = in;
    uint64_t       value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

static uint64_t header_checksum(const void *header)
{
    return hash_64((hash_key){checksum_key, 0}, header, HEADER_CHECKSUM_AT);
}

void recording_write_header(const recording_header *h, uint8_t out[RECORDING_HEADER_BYTES])
{
    memset(out, 0, RECORDING_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    put(out + 8, RECORDING_VERSION, 4);
    put(out + 16, h->incarnation, 8);
    put(out + 24, h->segment, 8);
    put(out + 32, (uint64_t)h->unix_ms, 8);
    snprintf((char *)out + 40, RECORDING_SERVICE_BYTES, "%s", h->service);
    put(out + HEADER_CHECKSUM_AT, header_checksum(out), 8);
}

bool recording_read_header(span *rest, recording_header *h, error *err)
{
    const char *in = rest->data;
    if (rest->size < RECORDING_HEADER_BYTES || memcmp(in, magic, sizeof magic) != 0)
        return error_set(err, ERR_INVALID, "this is not a file of the flight recorder");
    if (get(in + 8, 4) != RECORDING_VERSION)
        return error_set(err, ERR_UNSUPPORTED, "version %u of the flight recorder's files; this program reads %d",
                         (unsigned)get(in + 8, 4), RECORDING_VERSION);
    if (get(in + HEADER_CHECKSUM_AT, 8) != header_checksum(in) || in[40 + RECORDING_SERVICE_BYTES - 1] != 0)
        return error_set(err, ERR_INVALID, "the header of this recording is damaged");
    *h = (recording_header){
        .incarnation = get(in + 16, 8), .segment = get(in + 24, 8), .unix_ms = (int64_t)get(in + 32, 8)};
    memcpy(h->service, in + 40, RECORDING_SERVICE_BYTES);
    *rest = (span){in + RECORDING_HEADER_BYTES, rest->size - RECORDING_HEADER_BYTES};
    return true;
}

size_t record_bytes(const record *r)
{
    return RECORD_HEADER_BYTES + r->node.size + r->peer.size + r->envelope.size + r->body.size;
}

static uint8_t *put_span(uint8_t *out, span bytes)
{
    if (bytes.size > 0)
        memcpy(out, bytes.data, bytes.size);
    return out + bytes.size;
}

void record_write(const record *r, uint8_t *out)
{
    size_t bytes = record_bytes(r);
    assert(bytes <= RECORD_BYTES_MAX && r->node.size <= UINT8_MAX && r->peer.size <= UINT8_MAX);
    put(out, bytes, 4);
    put(out + 4, r->kind, 1);
    put(out + 5, r->node.size, 1);
    put(out + 6, r->peer.size, 1);
    put(out + 7, 0, 1);
    put(out + CHECKSUM_AT, 0, 8);
    put(out + 16, (uint64_t)r->monotonic_ns, 8);
    put(out + 24, (uint64_t)r->unix_ms, 8);
    put(out + 32, r->envelope.size, 4);
    put(out + 36, r->body.size, 4);
    put(out + 40, r->n_lost, 8);
    put_span(put_span(put_span(put_span(out + RECORD_HEADER_BYTES, r->node), r->peer), r->envelope), r->body);
}

/* The first eight bytes are the key's half, so that they are checked too. */
static uint64_t record_checksum(const void *bytes, size_t size)
{
    hash_key key = {checksum_key, get(bytes, 8)};
    return hash_64(key, (const char *)bytes + CHECKED_AT, size - CHECKED_AT);
}

size_t record_seal(uint8_t *bytes)
{
    size_t size = get(bytes, 4);
    put(bytes + CHECKSUM_AT, record_checksum(bytes, size), 8);
    return size;
}

static span take(const char **at, size_t size)
{
    span taken = {*at, size};
    *at += size;
    return taken;
}

recording_state recording_next(span *rest, record *r)
{
    const char *in = rest->data;
    if (rest->size == 0)
        return RECORDING_END;
    if (rest->size < RECORD_HEADER_BYTES)
        return RECORDING_TORN;
    size_t size = get(in, 4), node = get(in + 5, 1), peer = get(in + 6, 1);
    size_t envelope = get(in + 32, 4), body = get(in + 36, 4);
    if (size > RECORD_BYTES_MAX || size != RECORD_HEADER_BYTES + node + peer + envelope + body)
        return RECORDING_DAMAGED;
    if (size > rest->size)
        return RECORDING_TORN;
    uint64_t kind = get(in + 4, 1);
    if (kind < RECORD_IN || kind > RECORD_GAP || get(in + CHECKSUM_AT, 8) != record_checksum(in, size))
        return RECORDING_DAMAGED;
    *r             = (record){.kind         = (record_kind)kind,
                              .monotonic_ns = (int64_t)get(in + 16, 8),
                              .unix_ms      = (int64_t)get(in + 24, 8),
                              .n_lost       = get(in + 40, 8)};
    const char *at = in + RECORD_HEADER_BYTES;
    r->node        = take(&at, node);
    r->peer        = take(&at, peer);
    r->envelope    = take(&at, envelope);
    r->body        = take(&at, body);
    *rest          = (span){in + size, rest->size - size};
    return RECORDING_RECORD;
}
