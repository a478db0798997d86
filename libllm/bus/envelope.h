/* The first frame of every message: a msgpack array of ten values in fixed order.
 *
 *   [magic, type, protocol, request, attempt, incarnation, epoch, sequence, deadline_unix_ms, trace]
 *
 * magic is 0x7401: 't' and the version of this layout, first so that anything else is recognised before it is read.
 * request is a bin of 16 bytes, trace a bin of 25, the rest integers; all zero means none. The encoder writes every
 * integer in its widest form, so that an envelope has one size; the decoder takes any form of an integer, and nothing
 * else. */
#ifndef TROUPE_BUS_ENVELOPE_H
#define TROUPE_BUS_ENVELOPE_H

#include "bus/bus.h"

enum { ENVELOPE_MAGIC = 0x7401, ENVELOPE_BYTES = 96 };

/* Writes ENVELOPE_BYTES bytes. */
void envelope_encode(const envelope *e, uint8_t out[ENVELOPE_BYTES]);

/* Reads a whole frame. Fails with ERR_UNSUPPORTED on another magic, with ERR_INVALID on anything malformed, naming the
 * value. */
bool envelope_decode(span frame, envelope *e, error *err) MUST_CHECK;

#endif
