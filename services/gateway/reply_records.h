/* The entries of a reply's log: deltas one behind the other, each with the run that it belongs to.
 *
 *   u32 bytes of the body, u32 run, the body of a text.delta; little-endian */
#ifndef TROUPE_GATEWAY_REPLY_RECORDS_H
#define TROUPE_GATEWAY_REPLY_RECORDS_H

#include "bus/messages.h"

/* Appends a record. False with *err set when it does not fit into the rest of *out, which is then unchanged. */
bool reply_record_write(wire_writer *out, uint32_t run, const text_delta *delta, error *err) MUST_CHECK;

/* Takes the first record off *records, which come from outside. The delta points into them and into `memory`. */
bool reply_record_read(span *records, arena *memory, uint32_t *run, const text_delta **delta, error *err) MUST_CHECK;

#endif
