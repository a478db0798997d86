/* The file format of the flight recorder: what a process said and heard on the bus, as it was.
 *
 * A file is a header of RECORDING_HEADER_BYTES and records up to its end, all numbers little-endian:
 *
 *   header   "TROUPREC", u32 version, u32 zero, u64 incarnation, u64 segment, i64 unix_ms, service (16 bytes, padded
 *            with zeros), u64 checksum of what stands before it
 *   record   u32 bytes of the whole record, u8 kind, u8 node bytes, u8 peer bytes, u8 zero, u64 checksum,
 *            i64 monotonic_ns, i64 unix_ms, u32 envelope bytes, u32 body bytes, u64 messages lost,
 *            then node, peer, envelope and body
 *
 * Checksums are SipHash under a fixed key: against a torn write and a bad disk, not against a forger. A file whose
 * process was killed ends anywhere; the reader says where its whole records end. */
#ifndef TROUPE_ACTOR_RECORDING_H
#define TROUPE_ACTOR_RECORDING_H

#include "base/error.h"
#include "base/span.h"

enum {
    RECORDING_VERSION       = 1,
    RECORDING_HEADER_BYTES  = 64,
    RECORDING_SERVICE_BYTES = 16,
    RECORD_HEADER_BYTES     = 48,
    RECORD_BYTES_MAX        = 8 << 20, /* a message that takes more is not recorded, but counted */
};

typedef struct {
    uint64_t incarnation; /* of the process */
    uint64_t segment;     /* rises by one with each file of the process */
    int64_t  unix_ms;
    char     service[RECORDING_SERVICE_BYTES]; /* "serve", "executor"; NUL-terminated */
} recording_header;

typedef enum { RECORD_IN = 1, RECORD_OUT = 2, RECORD_GAP = 3 } record_kind;

typedef struct {
    record_kind kind;
    int64_t     monotonic_ns, unix_ms;
    uint64_t    n_lost; /* RECORD_GAP: messages before the next record that are not here */
    span        node;   /* whose message it is: the actor that took it in or sent it */
    span        peer;   /* the other side; empty: a stranger, before its hello */
    span        envelope, body;
} record;

typedef enum {
    RECORDING_RECORD, /* *r is filled; its spans point into the file's bytes */
    RECORDING_END,
    RECORDING_TORN,   /* the last record is not whole, as when the process was killed */
    RECORDING_DAMAGED /* a record is not what was written; nothing behind it can be found */
} recording_state;

void recording_write_header(const recording_header *h, uint8_t out[RECORDING_HEADER_BYTES]);

/* Reads the header and moves *rest behind it. ERR_INVALID: not such a file, or a damaged one; ERR_UNSUPPORTED: of
 * another version. */
bool recording_read_header(span *rest, recording_header *h, error *err) MUST_CHECK;

/* Bytes that a record takes in a file; over RECORD_BYTES_MAX it can't be written. */
size_t record_bytes(const record *r);

/* Writes all of a record but its checksum; `out` has record_bytes(r). Names of nodes have at most 255 bytes. */
void record_write(const record *r, uint8_t *out);

/* Puts the checksum into the record that begins at `bytes`, and returns the record's length. */
size_t record_seal(uint8_t *bytes);

/* Reads the next record and moves *rest behind it; unless that succeeds, *rest stays. */
recording_state recording_next(span *rest, record *r);

#endif
