/* See reply_records.h. */
#include "services/gateway/reply_records.h"

#include <endian.h>

enum { HEAD_BYTES = 8 };

bool reply_record_write(wire_writer *out, uint32_t run, const text_delta *delta, error *err)
{
    if (out->capacity - out->size < HEAD_BYTES)
        return error_set(err, ERR_TOO_LARGE, "a record needs %d bytes", HEAD_BYTES);
    wire_writer body = {.data = out->data + out->size + HEAD_BYTES, .capacity = out->capacity - out->size - HEAD_BYTES};
    if (!message_encode(MSG_TEXT_DELTA, delta, &body, err))
        return false;
    uint32_t head[2] = {htole32((uint32_t)body.size), htole32(run)};
    memcpy(out->data + out->size, head, HEAD_BYTES);
    out->size += HEAD_BYTES + body.size;
    return true;
}

bool reply_record_read(span *records, arena *memory, uint32_t *run, const text_delta **delta, error *err)
{
    uint32_t    head[2];
    const void *body;
    if (records->size < HEAD_BYTES)
        return error_set(err, ERR_INVALID, "a record of %zu bytes has no head", records->size);
    memcpy(head, records->data, HEAD_BYTES);
    size_t size = le32toh(head[0]);
    if (size > records->size - HEAD_BYTES)
        return error_set(err, ERR_INVALID, "a record of %zu bytes, of which there are %zu", size,
                         records->size - HEAD_BYTES);
    *run = le32toh(head[1]);
    if (!message_decode(MSG_TEXT_DELTA, (span){records->data + HEAD_BYTES, size}, memory, &body, err))
        return false;
    *delta = body;
    records->data += HEAD_BYTES + size;
    records->size -= HEAD_BYTES + size;
    return true;
}
