#include "support_recording.h"

#include "actor/recording.h"
#include "bus/envelope.h"

#include <assert.h>

static void add(recording *r, const record *what)
{
    assert(r->size + record_bytes(what) <= RECORDING_BYTES);
    record_write(what, r->bytes + r->size);
    r->size += record_seal(r->bytes + r->size);
}

void recording_begin(recording *r)
{
    recording_write_header(&(recording_header){.service = "serve"}, r->bytes);
    r->size = RECORDING_HEADER_BYTES;
}

void recording_say(recording *r, uint8_t id, uint32_t attempt, uint16_t type, const void *body)
{
    uint8_t     frame[ENVELOPE_BYTES], encoded[4096];
    envelope    e   = {.type = type, .protocol = 1, .request.bytes = {id}, .attempt = attempt};
    wire_writer out = {.data = encoded, .capacity = sizeof encoded};
    error       err;
    bool        ok = message_encode(type, body, &out, &err);
    assert(ok);
    envelope_encode(&e, frame);
    add(r, &(record){.kind     = RECORD_IN,
                     .unix_ms  = 1000 + id,
                     .node     = SPAN("scheduler-1"),
                     .peer     = SPAN("other-2"),
                     .envelope = {(char *)frame, sizeof frame},
                     .body     = {(char *)encoded, out.size}});
}

void recording_say_tokens(recording *r, uint8_t id, uint32_t choice, uint32_t index, const uint32_t *tokens, uint32_t n,
                          finish_reason finish)
{
    gen_tokens body = gen_tokens_defaults;
    body.choice     = choice;
    body.index      = index;
    body.tokens     = tokens;
    body.n_tokens   = n;
    body.finish     = finish;
    recording_say(r, id, 0, MSG_GEN_TOKENS, &body);
}

void recording_gap(recording *r, uint64_t n_lost)
{
    add(r, &(record){.kind = RECORD_GAP, .n_lost = n_lost});
}

span recording_file(const recording *r)
{
    return (span){(const char *)r->bytes, r->size};
}
