/* Messages out of a fuzzer's input: any struct that a schema allows, field by field, so that what is made is valid and
 * every byte of the input says something. A field takes a byte; below FIELD_LEFT it keeps its default. */
#ifndef TROUPE_TESTS_FUZZ_SUPPORT_MESSAGE_H
#define TROUPE_TESTS_FUZZ_SUPPORT_MESSAGE_H

#include "base/utf8.h"
#include "bus/messages.h"

#include <stdlib.h>

enum { FIELD_LEFT = 176, MESSAGE_ITEMS = 12, MESSAGE_TEXT_BYTES = 24 };

typedef struct {
    const uint8_t *data;
    size_t         size;
} fuzz_input;

/* The next byte; 0 when there is none left. */
static inline uint8_t take(fuzz_input *in)
{
    return in->size ? (in->size--, *in->data++) : 0;
}

static inline uint64_t take_wide(fuzz_input *in)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | take(in);
    return value;
}

/* Small ones, those at the limits, any. */
static inline double take_number(fuzz_input *in, const wire_field *f, double most)
{
    double low = f->ranged ? f->min : 0, high = f->ranged ? f->max : most, value;
    switch (take(in) % 4) {
    case 0:
        value = take(in);
        break;
    case 1:
        value = high;
        break;
    case 2:
        value = low + take(in) / 255.0 * (high - low);
        break;
    default:
        value = (double)(take_wide(in) % UINT32_MAX);
        break;
    }
    return value < low ? low : value > high ? high : value;
}

/* Text that is in the input too. */
static inline span take_text(fuzz_input *in, uint32_t max_bytes)
{
    size_t n  = take(in) % MESSAGE_TEXT_BYTES;
    n         = n < max_bytes ? n : max_bytes;
    n         = n < in->size ? n : in->size;
    span text = {(const char *)in->data, n};
    in->data += n;
    in->size -= n;
    return utf8_is_valid(text) ? text : (span){0};
}

static inline void fill(fuzz_input *in, const wire_struct *type, uint8_t *base, arena *memory);

/* Lists are short: what they hold is told by what follows. */
static inline void fill_items(fuzz_input *in, const wire_field *f, uint8_t *base, arena *memory)
{
    uint32_t n     = take(in) % MESSAGE_ITEMS;
    size_t   bytes = f->kind == WIRE_BLOB ? 4 : f->kind == WIRE_LIST_STR ? sizeof(span) : f->of->size;
    n              = n < f->max_items ? n : f->max_items;
    uint8_t *items = arena_take_array(memory, n ? n : 1, bytes);
    if (!items)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t word = take(in);
        word          = word < 250 ? word : UINT32_MAX - (word - 250);
        if (f->kind == WIRE_BLOB)
            memcpy(items + i * bytes, &word, sizeof word);
        else if (f->kind == WIRE_LIST_STR)
            ((span *)(void *)items)[i] = take_text(in, f->max_bytes);
        else
            fill(in, f->of, items + i * bytes, memory);
    }
    memcpy(base + f->offset, &items, sizeof items);
    memcpy(base + f->count_offset, &n, sizeof n);
}

static inline void fill_field(fuzz_input *in, const wire_field *f, uint8_t *base, arena *memory)
{
    void *to = base + f->offset;
    switch (f->kind) {
    case WIRE_BOOL:
        *(bool *)to = take(in) & 1;
        break;
    case WIRE_U32:
        *(uint32_t *)to = (uint32_t)take_number(in, f, UINT32_MAX);
        break;
    case WIRE_I32:
        *(int32_t *)to = (int32_t)take_number(in, f, INT32_MAX);
        break;
    case WIRE_U64:
        *(uint64_t *)to = take_wide(in);
        break;
    case WIRE_I64:
        *(int64_t *)to = (int64_t)take_wide(in);
        break;
    case WIRE_F32:
        *(float *)to = (float)take_number(in, f, 1e30);
        break;
    case WIRE_F64:
        *(double *)to = take_number(in, f, 1e300);
        break;
    case WIRE_ENUM:
        *(uint32_t *)to = take(in) % f->n_enum;
        break;
    case WIRE_STR:
    case WIRE_BYTES:
        *(span *)to = take_text(in, f->max_bytes);
        break;
    case WIRE_STRUCT:
        fill(in, f->of, to, memory);
        break;
    case WIRE_BLOB:
    case WIRE_LIST_STRUCT:
    case WIRE_LIST_STR:
        fill_items(in, f, base, memory);
        break;
    }
}

static inline void fill(fuzz_input *in, const wire_struct *type, uint8_t *base, arena *memory)
{
    memcpy(base, type->defaults, type->size);
    for (uint32_t i = 0; i < type->n_fields; i++)
        if (take(in) >= FIELD_LEFT)
            fill_field(in, &type->fields[i], base, memory);
}

/* A body of `type`, in `memory`. */
static inline void *take_message(fuzz_input *in, uint16_t type, arena *memory)
{
    const message_info *info = message_info_find(type);
    uint8_t            *body = arena_take(memory, info->body->size);
    if (!body)
        abort();
    fill(in, info->body, body, memory);
    return body;
}

#endif
