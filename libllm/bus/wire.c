/* Table-driven msgpack codec; see wire.h. */
#include "bus/wire.h"

#include "base/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <msgpack/pack.h>
#include <stdarg.h>
#include <stdio.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blobs are little-endian and read in place");

/* ---- reading msgpack ---- */

typedef enum {
    TOKEN_NIL,
    TOKEN_BOOL,
    TOKEN_UINT,
    TOKEN_INT,
    TOKEN_F32,
    TOKEN_F64,
    TOKEN_STR,
    TOKEN_BIN,
    TOKEN_ARRAY,
    TOKEN_MAP,
    TOKEN_EXT,
    TOKEN_BAD
} token_kind;

/* One msgpack value's head; `length` is bytes of a str, bin or ext that follow, or items of an array or map. */
typedef struct {
    token_kind kind;
    uint64_t   u; /* UINT and BOOL: the value; STR, BIN, EXT, ARRAY, MAP: the length */
    int64_t    i;
    double     f;
} token;

typedef struct {
    const uint8_t *at, *end;
} reader;

static uint64_t big_endian(const uint8_t *p, uint32_t n)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

/* Reads n bytes big-endian behind the head byte; false when they are not there. */
static bool take_number(reader *r, uint32_t n, uint64_t *value)
{
    if ((size_t)(r->end - r->at) < n)
        return false;
    *value = big_endian(r->at, n);
    r->at += n;
    return true;
}

static token token_with_length(reader *r, token_kind kind, uint32_t length_bytes, uint64_t extra)
{
    token t = {.kind = kind};
    if (!take_number(r, length_bytes, &t.u))
        t.kind = TOKEN_BAD;
    t.u += extra;
    return t;
}

static token signed_token(reader *r, uint32_t n)
{
    token    t = {.kind = TOKEN_INT};
    uint64_t raw;
    if (!take_number(r, n, &raw))
        return (token){.kind = TOKEN_BAD};
    uint32_t shift = 64 - 8 * n;
    t.i            = (int64_t)(raw << shift) >> shift;
    if (t.i >= 0)
        t = (token){.kind = TOKEN_UINT, .u = (uint64_t)t.i};
    return t;
}

static token float_token(reader *r, uint32_t n)
{
    uint64_t raw;
    if (!take_number(r, n, &raw))
        return (token){.kind = TOKEN_BAD};
    if (n == 8) {
        double value;
        memcpy(&value, &raw, sizeof value);
        return (token){.kind = TOKEN_F64, .f = value};
    }
    uint32_t raw32 = (uint32_t)raw;
    float    value;
    memcpy(&value, &raw32, sizeof value);
    return (token){.kind = TOKEN_F32, .f = (double)value};
}

/* Reads one head (https://github.com/msgpack/msgpack/blob/master/spec.md). */
static token read_token(reader *r)
{
    if (r->at == r->end)
        return (token){.kind = TOKEN_BAD};
    uint8_t head = *r->at++;
    if (head <= 0x7f)
        return (token){.kind = TOKEN_UINT, .u = head};
    if (head >= 0xe0)
        return (token){.kind = TOKEN_INT, .i = (int8_t)head};
    if (head <= 0x8f)
        return (token){.kind = TOKEN_MAP, .u = head & 15};
    if (head <= 0x9f)
        return (token){.kind = TOKEN_ARRAY, .u = head & 15};
    if (head <= 0xbf)
        return (token){.kind = TOKEN_STR, .u = head & 31};
    switch (head) {
    case 0xc0:
        return (token){.kind = TOKEN_NIL};
    case 0xc2:
    case 0xc3:
        return (token){.kind = TOKEN_BOOL, .u = head & 1};
    case 0xc4:
        return token_with_length(r, TOKEN_BIN, 1, 0);
    case 0xc5:
        return token_with_length(r, TOKEN_BIN, 2, 0);
    case 0xc6:
        return token_with_length(r, TOKEN_BIN, 4, 0);
    case 0xc7:
        return token_with_length(r, TOKEN_EXT, 1, 1);
    case 0xc8:
        return token_with_length(r, TOKEN_EXT, 2, 1);
    case 0xc9:
        return token_with_length(r, TOKEN_EXT, 4, 1);
    case 0xca:
        return float_token(r, 4);
    case 0xcb:
        return float_token(r, 8);
    case 0xcc:
        return token_with_length(r, TOKEN_UINT, 1, 0);
    case 0xcd:
        return token_with_length(r, TOKEN_UINT, 2, 0);
    case 0xce:
        return token_with_length(r, TOKEN_UINT, 4, 0);
    case 0xcf:
        return token_with_length(r, TOKEN_UINT, 8, 0);
    case 0xd0:
        return signed_token(r, 1);
    case 0xd1:
        return signed_token(r, 2);
    case 0xd2:
        return signed_token(r, 4);
    case 0xd3:
        return signed_token(r, 8);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return (token){.kind = TOKEN_EXT, .u = 1 + (UINT64_C(1) << (head - 0xd4))};
    case 0xd9:
        return token_with_length(r, TOKEN_STR, 1, 0);
    case 0xda:
        return token_with_length(r, TOKEN_STR, 2, 0);
    case 0xdb:
        return token_with_length(r, TOKEN_STR, 4, 0);
    case 0xdc:
        return token_with_length(r, TOKEN_ARRAY, 2, 0);
    case 0xdd:
        return token_with_length(r, TOKEN_ARRAY, 4, 0);
    case 0xde:
        return token_with_length(r, TOKEN_MAP, 2, 0);
    case 0xdf:
        return token_with_length(r, TOKEN_MAP, 4, 0);
    default:
        return (token){.kind = TOKEN_BAD}; /* 0xc1 */
    }
}

static bool has_payload(token_kind kind)
{
    return kind == TOKEN_STR || kind == TOKEN_BIN || kind == TOKEN_EXT;
}

bool wire_check(span bytes, error *err)
{
    reader   r = {(const uint8_t *)bytes.data, (const uint8_t *)bytes.data + bytes.size};
    uint64_t owed[WIRE_DEPTH_MAX + 1]; /* values still to come, by open container */
    uint32_t depth = 0;
    uint64_t need  = 1; /* values owed by all open containers: each takes at least one byte */
    owed[0]        = 1;
    while (need > 0) {
        token t = read_token(&r);
        if (t.kind == TOKEN_BAD)
            return error_set(err, ERR_INVALID, "malformed or truncated msgpack at byte %td",
                             r.at - (const uint8_t *)bytes.data);
        need--;
        owed[depth]--;
        if (has_payload(t.kind)) {
            if (t.u > (uint64_t)(r.end - r.at))
                return error_set(err, ERR_INVALID, "a msgpack string of %" PRIu64 " bytes reaches past the end", t.u);
            r.at += t.u;
        } else if (t.kind == TOKEN_ARRAY || t.kind == TOKEN_MAP) {
            uint64_t items = t.kind == TOKEN_MAP ? 2 * t.u : t.u;
            if (items > (uint64_t)(r.end - r.at) || need + items > (uint64_t)(r.end - r.at))
                return error_set(err, ERR_INVALID, "a msgpack container claims more values than there are bytes");
            if (depth == WIRE_DEPTH_MAX)
                return error_set(err, ERR_INVALID, "msgpack nested deeper than %d", WIRE_DEPTH_MAX);
            need += items;
            owed[++depth] = items;
        }
        while (depth > 0 && owed[depth] == 0)
            depth--;
    }
    if (r.at != r.end)
        return error_set(err, ERR_INVALID, "%td bytes behind the msgpack value", r.end - r.at);
    return true;
}

/* Skips one value of checked msgpack. */
static void skip_value(reader *r)
{
    for (uint64_t left = 1; left > 0; left--) {
        token t = read_token(r);
        if (has_payload(t.kind))
            r->at += t.u;
        else if (t.kind == TOKEN_ARRAY)
            left += t.u;
        else if (t.kind == TOKEN_MAP)
            left += 2 * t.u;
    }
}

/* ---- decoding ---- */

static bool wrong_type(const wire_struct *type, const wire_field *f, const char *expected, error *err)
{
    return error_set(err, ERR_INVALID, "%s.%s: expected %s", type->name, f->name, expected);
}

static bool out_of_range(const wire_struct *type, const wire_field *f, error *err)
{
    return error_set(err, ERR_INVALID, "%s.%s: must be between %g and %g", type->name, f->name, f->min, f->max);
}

static bool in_range(const wire_field *f, double value)
{
    return !f->ranged || (value >= f->min && value <= f->max); /* false for NaN */
}

static bool decode_unsigned(const wire_struct *type, const wire_field *f, const token *t, uint8_t *to, error *err)
{
    uint64_t limit = f->kind == WIRE_U64 ? UINT64_MAX : UINT32_MAX;
    if (t->kind != TOKEN_UINT || t->u > limit)
        return wrong_type(type, f, f->kind == WIRE_U64 ? "an unsigned 64-bit integer" : "an unsigned 32-bit integer",
                          err);
    if (!in_range(f, (double)t->u))
        return out_of_range(type, f, err);
    if (f->kind == WIRE_U64) {
        memcpy(to, &t->u, 8);
    } else {
        uint32_t value = (uint32_t)t->u;
        if (f->kind == WIRE_ENUM && value >= f->n_enum)
            value = 0; /* a newer sender's value: unknown */
        memcpy(to, &value, 4);
    }
    return true;
}

static bool decode_signed(const wire_struct *type, const wire_field *f, const token *t, uint8_t *to, error *err)
{
    bool    fits  = t->kind == TOKEN_INT || (t->kind == TOKEN_UINT && t->u <= INT64_MAX);
    int64_t value = t->kind == TOKEN_INT ? t->i : (int64_t)t->u;
    if (fits && f->kind == WIRE_I32)
        fits = value >= INT32_MIN && value <= INT32_MAX;
    if (!fits)
        return wrong_type(type, f, f->kind == WIRE_I64 ? "a signed 64-bit integer" : "a signed 32-bit integer", err);
    if (!in_range(f, (double)value))
        return out_of_range(type, f, err);
    int32_t narrow = (int32_t)value;
    if (f->kind == WIRE_I64)
        memcpy(to, &value, 8);
    else
        memcpy(to, &narrow, 4);
    return true;
}

static bool decode_float(const wire_struct *type, const wire_field *f, const token *t, uint8_t *to, error *err)
{
    double value;
    switch (t->kind) {
    case TOKEN_F32:
    case TOKEN_F64:
        value = t->f;
        break;
    case TOKEN_UINT:
        value = (double)t->u;
        break;
    case TOKEN_INT:
        value = (double)t->i;
        break;
    default:
        return wrong_type(type, f, "a number", err);
    }
    if (!in_range(f, value))
        return out_of_range(type, f, err);
    float narrow = (float)value;
    if (f->kind == WIRE_F64)
        memcpy(to, &value, 8);
    else
        memcpy(to, &narrow, 4);
    return true;
}

/* Takes the payload of a str or bin whose head was read. */
static span take_payload(reader *r, const token *t)
{
    span s = {(const char *)r->at, (size_t)t->u};
    r->at += t->u;
    return s;
}

static bool decode_text(const wire_struct *type, const wire_field *f, const token *t, reader *r, span *to, error *err)
{
    bool is_str = f->kind != WIRE_BYTES;
    if (t->kind != (is_str ? TOKEN_STR : TOKEN_BIN))
        return wrong_type(type, f, is_str ? "a string" : "bytes", err);
    if (t->u > f->max_bytes)
        return error_set(err, ERR_TOO_LARGE, "%s.%s: %" PRIu64 " bytes, at most %u are taken", type->name, f->name,
                         t->u, f->max_bytes);
    *to = take_payload(r, t);
    if (is_str && !utf8_is_valid(*to))
        return wrong_type(type, f, "valid UTF-8", err);
    return true;
}

static bool too_many(const wire_struct *type, const wire_field *f, uint64_t n, error *err)
{
    return error_set(err, ERR_TOO_LARGE, "%s.%s: %" PRIu64 " items, at most %u are taken", type->name, f->name, n,
                     f->max_items);
}

static bool no_memory(const wire_struct *type, const wire_field *f, error *err)
{
    return error_set(err, ERR_NO_MEMORY, "%s.%s: the message is larger than the receiver's memory for one", type->name,
                     f->name);
}

static bool decode_blob(const wire_struct *type, const wire_field *f, const token *t, reader *r, arena *memory,
                        uint8_t *base, error *err)
{
    if (t->kind != TOKEN_BIN || t->u % 4 != 0)
        return wrong_type(type, f, "bytes, four an item", err);
    if (t->u / 4 > f->max_items)
        return too_many(type, f, t->u / 4, err);
    span        raw   = take_payload(r, t);
    uint32_t    n     = (uint32_t)(raw.size / 4);
    const void *items = raw.data;
    if (n > 0 && (uintptr_t)raw.data % 4 != 0) {
        void *copy = arena_take(memory, raw.size);
        if (!copy)
            return no_memory(type, f, err);
        memcpy(copy, raw.data, raw.size);
        items = copy;
    }
    memcpy(base + f->count_offset, &n, 4);
    memcpy(base + f->offset, &items, sizeof items);
    return true;
}

static bool decode_struct(const wire_struct *type, reader *r, arena *memory, void *value, error *err);

static bool decode_list(const wire_struct *type, const wire_field *f, const token *t, reader *r, arena *memory,
                        uint8_t *base, error *err)
{
    if (t->kind != TOKEN_ARRAY)
        return wrong_type(type, f, "a list", err);
    if (t->u > f->max_items)
        return too_many(type, f, t->u, err);
    uint32_t n         = (uint32_t)t->u;
    size_t   item_size = f->kind == WIRE_LIST_STR ? sizeof(span) : f->of->size;
    uint8_t *items     = NULL;
    if (n > 0 && !(items = arena_take_array(memory, n, item_size)))
        return no_memory(type, f, err);
    for (uint32_t i = 0; i < n; i++) {
        if (f->kind == WIRE_LIST_STRUCT) {
            if (!decode_struct(f->of, r, memory, items + i * item_size, err))
                return false;
        } else {
            token item = read_token(r);
            if (!decode_text(type, f, &item, r, (span *)(void *)(items + i * item_size), err))
                return false;
        }
    }
    memcpy(base + f->count_offset, &n, 4);
    memcpy(base + f->offset, &items, sizeof items);
    return true;
}

static bool decode_field(const wire_struct *type, const wire_field *f, reader *r, arena *memory, uint8_t *base,
                         error *err)
{
    if (f->kind == WIRE_STRUCT)
        return decode_struct(f->of, r, memory, base + f->offset, err);
    token    t  = read_token(r);
    uint8_t *to = base + f->offset;
    switch (f->kind) {
    case WIRE_BOOL:
        if (t.kind != TOKEN_BOOL)
            return wrong_type(type, f, "true or false", err);
        *(bool *)to = t.u != 0;
        return true;
    case WIRE_U32:
    case WIRE_U64:
    case WIRE_ENUM:
        return decode_unsigned(type, f, &t, to, err);
    case WIRE_I32:
    case WIRE_I64:
        return decode_signed(type, f, &t, to, err);
    case WIRE_F32:
    case WIRE_F64:
        return decode_float(type, f, &t, to, err);
    case WIRE_STR:
    case WIRE_BYTES:
        return decode_text(type, f, &t, r, (span *)(void *)to, err);
    case WIRE_BLOB:
        return decode_blob(type, f, &t, r, memory, base, err);
    case WIRE_LIST_STRUCT:
    case WIRE_LIST_STR:
        return decode_list(type, f, &t, r, memory, base, err);
    case WIRE_STRUCT:
        break;
    }
    assert(!"every kind is handled");
    return false;
}

static const wire_field *find_field(const wire_struct *type, uint64_t number)
{
    for (uint32_t i = 0; i < type->n_fields; i++)
        if (type->fields[i].number == number)
            return &type->fields[i];
    return NULL;
}

/* Depth is bounded by wire_check, which ran over the whole body. */
static bool decode_struct(const wire_struct *type, reader *r, arena *memory, void *value, error *err)
{
    memcpy(value, type->defaults, type->size);
    token t = read_token(r);
    if (t.kind != TOKEN_MAP)
        return error_set(err, ERR_INVALID, "%s: expected a map from field number to value", type->name);
    uint64_t seen = 0;
    for (uint64_t i = 0; i < t.u; i++) {
        token key = read_token(r);
        if (key.kind != TOKEN_UINT)
            return error_set(err, ERR_INVALID, "%s: a field number must be an unsigned integer", type->name);
        const wire_field *f = find_field(type, key.u);
        if (!f) {
            skip_value(r);
            continue;
        }
        if (seen & UINT64_C(1) << f->number)
            return error_set(err, ERR_INVALID, "%s.%s: given twice", type->name, f->name);
        seen |= UINT64_C(1) << f->number;
        if (!decode_field(type, f, r, memory, value, err))
            return false;
    }
    for (uint32_t i = 0; i < type->n_fields; i++)
        if (type->fields[i].required && !(seen & UINT64_C(1) << type->fields[i].number))
            return error_set(err, ERR_INVALID, "%s.%s: required, but absent", type->name, type->fields[i].name);
    return true;
}

bool wire_decode(const wire_struct *type, span bytes, arena *memory, void *value, error *err)
{
    if (!wire_check(bytes, err))
        return error_wrap(err, "%s", type->name);
    reader r = {(const uint8_t *)bytes.data, (const uint8_t *)bytes.data + bytes.size};
    return decode_struct(type, &r, memory, value, err);
}

/* ---- encoding ---- */

static int write_bytes(void *to, const char *data, size_t size)
{
    wire_writer *out = to;
    if (out->overflow || out->capacity - out->size < size) {
        out->overflow = true;
        return -1;
    }
    if (size > 0)
        memcpy(out->data + out->size, data, size);
    out->size += size;
    return 0;
}

/* The value of a number field as a double, for its range. */
static double number_of(const wire_field *f, const uint8_t *at)
{
    uint32_t u32;
    int32_t  i32;
    uint64_t u64;
    int64_t  i64;
    float    f32;
    double   f64;
    switch (f->kind) {
    case WIRE_I32:
        memcpy(&i32, at, 4);
        return i32;
    case WIRE_U64:
        memcpy(&u64, at, 8);
        return (double)u64;
    case WIRE_I64:
        memcpy(&i64, at, 8);
        return (double)i64;
    case WIRE_F32:
        memcpy(&f32, at, 4);
        return (double)f32;
    case WIRE_F64:
        memcpy(&f64, at, 8);
        return f64;
    default:
        memcpy(&u32, at, 4);
        return u32;
    }
}

static void encode_number(msgpack_packer *pk, const wire_field *f, const uint8_t *at)
{
    uint64_t u64 = 0;
    int64_t  i64 = 0;
    uint32_t u32;
    int32_t  i32;
    float    f32;
    double   f64;
    switch (f->kind) {
    case WIRE_U64:
        memcpy(&u64, at, 8);
        msgpack_pack_uint64(pk, u64);
        break;
    case WIRE_I64:
        memcpy(&i64, at, 8);
        msgpack_pack_int64(pk, i64);
        break;
    case WIRE_I32:
        memcpy(&i32, at, 4);
        msgpack_pack_int32(pk, i32);
        break;
    case WIRE_F32:
        memcpy(&f32, at, 4);
        msgpack_pack_float(pk, f32);
        break;
    case WIRE_F64:
        memcpy(&f64, at, 8);
        msgpack_pack_double(pk, f64);
        break;
    default:
        memcpy(&u32, at, 4);
        msgpack_pack_uint32(pk, u32);
        break;
    }
}

static uint32_t count_of(const wire_field *f, const uint8_t *base)
{
    uint32_t n;
    memcpy(&n, base + f->count_offset, 4);
    return n;
}

static const void *pointer_of(const wire_field *f, const uint8_t *base)
{
    const void *p;
    memcpy(&p, base + f->offset, sizeof p);
    return p;
}

static bool is_default(const wire_struct *type, const wire_field *f, const uint8_t *base)
{
    const uint8_t *defaults = type->defaults;
    switch (f->kind) {
    case WIRE_BOOL:
        return base[f->offset] == defaults[f->offset];
    case WIRE_U32:
    case WIRE_I32:
    case WIRE_F32:
    case WIRE_ENUM:
        return memcmp(base + f->offset, defaults + f->offset, 4) == 0;
    case WIRE_U64:
    case WIRE_I64:
    case WIRE_F64:
        return memcmp(base + f->offset, defaults + f->offset, 8) == 0;
    case WIRE_STR:
    case WIRE_BYTES:
        return ((const span *)(const void *)(base + f->offset))->size == 0;
    case WIRE_BLOB:
    case WIRE_LIST_STRUCT:
    case WIRE_LIST_STR:
        return count_of(f, base) == 0;
    case WIRE_STRUCT:
        break;
    }
    for (uint32_t i = 0; i < f->of->n_fields; i++)
        if (!is_default(f->of, &f->of->fields[i], base + f->offset))
            return false;
    return true;
}

static bool encode_text(msgpack_packer *pk, const wire_struct *type, const wire_field *f, const span *s, error *err)
{
    if (s->size > f->max_bytes)
        return error_set(err, ERR_TOO_LARGE, "%s.%s: %zu bytes, at most %u are sent", type->name, f->name, s->size,
                         f->max_bytes);
    if (f->kind == WIRE_BYTES) {
        msgpack_pack_bin(pk, s->size);
        msgpack_pack_bin_body(pk, s->data, s->size);
        return true;
    }
    if (!utf8_is_valid(*s))
        return error_set(err, ERR_INVALID, "%s.%s: not valid UTF-8", type->name, f->name);
    msgpack_pack_str(pk, s->size);
    msgpack_pack_str_body(pk, s->data, s->size);
    return true;
}

static bool encode_struct(msgpack_packer *pk, const wire_struct *type, const void *value, error *err);

static bool encode_items(msgpack_packer *pk, const wire_struct *type, const wire_field *f, const uint8_t *base,
                         error *err)
{
    uint32_t    n     = count_of(f, base);
    const char *items = pointer_of(f, base);
    if (n > f->max_items)
        return error_set(err, ERR_TOO_LARGE, "%s.%s: %u items, at most %u are sent", type->name, f->name, n,
                         f->max_items);
    if (f->kind == WIRE_BLOB) {
        msgpack_pack_bin(pk, 4 * (size_t)n);
        msgpack_pack_bin_body(pk, items, 4 * (size_t)n);
        return true;
    }
    msgpack_pack_array(pk, n);
    for (uint32_t i = 0; i < n; i++) {
        bool ok = f->kind == WIRE_LIST_STR ? encode_text(pk, type, f, (const span *)(const void *)items + i, err)
                                           : encode_struct(pk, f->of, items + (size_t)i * f->of->size, err);
        if (!ok)
            return false;
    }
    return true;
}

static bool encode_field(msgpack_packer *pk, const wire_struct *type, const wire_field *f, const uint8_t *base,
                         error *err)
{
    const uint8_t *at = base + f->offset;
    switch (f->kind) {
    case WIRE_BOOL:
        if (*(const bool *)at)
            msgpack_pack_true(pk);
        else
            msgpack_pack_false(pk);
        return true;
    case WIRE_U32:
    case WIRE_I32:
    case WIRE_U64:
    case WIRE_I64:
    case WIRE_F32:
    case WIRE_F64:
    case WIRE_ENUM:
        if (!in_range(f, number_of(f, at)))
            return out_of_range(type, f, err);
        encode_number(pk, f, at);
        return true;
    case WIRE_STR:
    case WIRE_BYTES:
        return encode_text(pk, type, f, (const span *)(const void *)at, err);
    case WIRE_STRUCT:
        return encode_struct(pk, f->of, at, err);
    case WIRE_BLOB:
    case WIRE_LIST_STRUCT:
    case WIRE_LIST_STR:
        return encode_items(pk, type, f, base, err);
    }
    assert(!"every kind is handled");
    return false;
}

static bool encode_struct(msgpack_packer *pk, const wire_struct *type, const void *value, error *err)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < type->n_fields; i++)
        n += type->fields[i].required || !is_default(type, &type->fields[i], value);
    msgpack_pack_map(pk, n);
    for (uint32_t i = 0; i < type->n_fields; i++) {
        const wire_field *f = &type->fields[i];
        if (!f->required && is_default(type, f, value))
            continue;
        msgpack_pack_uint32(pk, f->number);
        if (!encode_field(pk, type, f, value, err))
            return false;
    }
    return true;
}

bool wire_encode(const wire_struct *type, const void *value, wire_writer *out, error *err)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_bytes);
    if (!encode_struct(&pk, type, value, err))
        return false;
    if (out->overflow)
        return error_set(err, ERR_TOO_LARGE, "%s: the message does not fit into %zu bytes", type->name, out->capacity);
    return true;
}

/* ---- printing ---- */

typedef struct {
    char  *out;
    size_t capacity, size;
} printer;

static void __attribute__((format(printf, 2, 3))) print(printer *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = p->size < p->capacity ? p->capacity - p->size : 0;
    int    n    = vsnprintf(room ? p->out + p->size : NULL, room, format, args);
    va_end(args);
    p->size += n > 0 ? (size_t)n : 0;
}

static void print_struct(printer *p, const wire_struct *type, const uint8_t *base);

static void print_items(printer *p, const wire_field *f, const uint8_t *base)
{
    enum { SHOWN_MAX = 16 };
    uint32_t    n     = count_of(f, base);
    const char *items = pointer_of(f, base);
    print(p, "[");
    for (uint32_t i = 0; i < n && i < SHOWN_MAX; i++) {
        if (i > 0)
            print(p, ",");
        if (f->kind == WIRE_BLOB)
            print(p, "%u", ((const uint32_t *)(const void *)items)[i]);
        else if (f->kind == WIRE_LIST_STR)
            print(p, "\"%.*s\"", SPAN_ARG(((const span *)(const void *)items)[i]));
        else
            print_struct(p, f->of, (const uint8_t *)items + (size_t)i * f->of->size);
    }
    if (n > SHOWN_MAX)
        print(p, ",... %u", n);
    print(p, "]");
}

static void print_struct(printer *p, const wire_struct *type, const uint8_t *base)
{
    bool first = true;
    print(p, "{");
    for (uint32_t i = 0; i < type->n_fields; i++) {
        const wire_field *f  = &type->fields[i];
        const uint8_t    *at = base + f->offset;
        if (is_default(type, f, base))
            continue;
        print(p, "%s\"%s\":", first ? "" : ",", f->name);
        first = false;
        switch (f->kind) {
        case WIRE_BOOL:
            print(p, "%s", *at ? "true" : "false");
            break;
        case WIRE_STR:
            print(p, "\"%.*s\"", SPAN_ARG(*(const span *)(const void *)at));
            break;
        case WIRE_BYTES:
            print(p, "\"(%zu bytes)\"", ((const span *)(const void *)at)->size);
            break;
        case WIRE_STRUCT:
            print_struct(p, f->of, at);
            break;
        case WIRE_BLOB:
        case WIRE_LIST_STRUCT:
        case WIRE_LIST_STR:
            print_items(p, f, base);
            break;
        default:
            print(p, "%.9g", number_of(f, at));
            break;
        }
    }
    print(p, "}");
}

size_t wire_print(const wire_struct *type, const void *value, char *out, size_t out_bytes)
{
    printer p = {out, out_bytes, 0};
    if (out_bytes > 0)
        out[0] = '\0';
    print_struct(&p, type, value);
    return p.size;
}
