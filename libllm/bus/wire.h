/* The codec of message bodies: msgpack maps from field number to value, described by tables that schemas/codegen.py
 * writes.
 *
 * Encoding goes through msgpack-c's packer into a caller's buffer. Decoding is our own: msgpack-c's unpacker allocates
 * what a hostile header claims, this one allocates nothing but what fits into the caller's arena after every size was
 * checked. Text and bytes point into the body; lists, and numbers that lie unaligned, are copied to the arena.
 *
 * A decoder refuses: malformed or truncated msgpack, depth over WIRE_DEPTH_MAX, trailing bytes, duplicate fields, a
 * wrong type, a number out of the schema's range, text that is not UTF-8, anything longer than the schema allows, a
 * required field that is absent. It skips fields it does not know, and takes the default of those that are absent. */
#ifndef TROUPE_BUS_WIRE_H
#define TROUPE_BUS_WIRE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/span.h"

enum { WIRE_DEPTH_MAX = 16, WIRE_FIELDS_MAX = 64 };

/* Output buffer. When it is full, `overflow` is set and nothing more is written. */
typedef struct {
    uint8_t *data;
    size_t   capacity, size;
    bool     overflow;
} wire_writer;

typedef enum {
    WIRE_BOOL,
    WIRE_U32,
    WIRE_I32,
    WIRE_U64,
    WIRE_I64,
    WIRE_F32,
    WIRE_F64,
    WIRE_ENUM,
    WIRE_STR,         /* span, UTF-8 */
    WIRE_BYTES,       /* span */
    WIRE_BLOB,        /* uint32_t n_x; const uint32_t *x or const float *x: little-endian in one msgpack bin */
    WIRE_STRUCT,      /* by value */
    WIRE_LIST_STRUCT, /* uint32_t n_x; const T *x */
    WIRE_LIST_STR,    /* uint32_t n_x; const span *x */
} wire_kind;

typedef struct wire_struct wire_struct;

typedef struct {
    const char        *name;
    uint32_t           number; /* 1..WIRE_FIELDS_MAX-1 */
    wire_kind          kind;
    bool               required;
    bool               ranged;       /* numbers: min <= value <= max is checked; floats must be finite */
    uint32_t           offset;       /* of the value in the struct */
    uint32_t           count_offset; /* of n_x */
    uint32_t           max_items, max_bytes;
    uint32_t           n_enum; /* known enum values are 0..n_enum-1; others become 0 when the receiver is older */
    double             min, max;
    const wire_struct *of;
} wire_field;

struct wire_struct {
    const char       *name;
    const wire_field *fields; /* by rising number */
    uint32_t          n_fields, size;
    const void       *defaults; /* a struct with every default */
};

/* One pass, no recursion, no allocation: is this one well-formed msgpack value, within depth, with no length that
 * reaches past the end, and nothing behind it? Catches nested count bombs before any decoder runs. */
bool wire_check(span bytes, error *err) MUST_CHECK;

/* Encodes *value. False (err says which field) when a value breaks the schema's limits, or the buffer is full
 * (ERR_TOO_LARGE). Fields that equal their default are left out. */
bool wire_encode(const wire_struct *type, const void *value, wire_writer *out, error *err) MUST_CHECK;

/* Decodes a whole body into *value. Strings point into `bytes`. ERR_INVALID names struct and field; ERR_NO_MEMORY: the
 * arena is full. */
bool wire_decode(const wire_struct *type, span bytes, arena *memory, void *value, error *err) MUST_CHECK;

/* Prints a decoded struct as JSON-like text for logs and failing tests; long strings and blobs are cut. Returns bytes
 * needed. */
size_t wire_print(const wire_struct *type, const void *value, char *out, size_t out_bytes);

#endif
