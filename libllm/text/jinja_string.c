/* Strings with the origin of every byte; see jinja_value.h. */
#include "text/jinja_value.h"

#include "base/utf8.h"

jinja_string *jinja_string_new(jinja *j, span text, bool untrusted)
{
    jinja_string *s = jinja_take(j, 1, sizeof *s);
    s->text         = text.data ? text : (span){"", 0};
    s->n_chars      = SIZE_MAX;
    s->untrusted    = untrusted;
    s->n_leaves     = 1;
    return s;
}

jinja_value jinja_text_value(jinja *j, span text, bool untrusted)
{
    return jinja_of(jinja_string_new(j, text, untrusted));
}

jinja_value jinja_literal(jinja *j, const char *text)
{
    return jinja_text_value(j, span_of(text), false);
}

jinja_string *jinja_string_concat(jinja *j, const jinja_string *a, const jinja_string *b)
{
    if (a->text.size == 0)
        return (jinja_string *)b;
    if (b->text.size == 0)
        return (jinja_string *)a;
    if (a->text.size > JINJA_STRING_BYTES_MAX - b->text.size)
        jinja_fail(j, ERR_TOO_LARGE, "a string is over %d bytes", JINJA_STRING_BYTES_MAX);
    jinja_string *s = jinja_take(j, 1, sizeof *s);
    s->text         = (span){NULL, a->text.size + b->text.size};
    s->n_chars      = SIZE_MAX;
    s->left         = a;
    s->right        = b;
    s->n_leaves     = a->n_leaves + b->n_leaves;
    return s;
}

/* Adds the leaves of a rope in order. Ropes grow as deep as a template's loop is long, so no recursion here. */
static void add_rope(jinja_builder *b, const jinja_string *rope)
{
    jinja               *j       = b->j;
    const jinja_string **pending = jinja_take(j, rope->n_leaves, sizeof *pending);
    size_t               n       = 0;
    for (const jinja_string *at = rope;;) {
        if (!at->text.data) {
            pending[n++] = at->right;
            at           = at->left;
            continue;
        }
        jinja_builder_add_string(b, at);
        if (n == 0)
            break;
        at = pending[--n];
    }
}

span jinja_string_text(jinja *j, const jinja_string *s)
{
    if (!s->text.data) {
        jinja_builder b;
        jinja_builder_start(&b, j);
        add_rope(&b, s);
        /* The rope becomes the flat string it stands for: same value, computed once. */
        jinja_string *self = (jinja_string *)s;
        *self              = *jinja_builder_finish(&b);
    }
    return s->text;
}

size_t jinja_string_n_chars(jinja *j, const jinja_string *s)
{
    if (s->n_chars == SIZE_MAX) {
        span   text = jinja_string_text(j, s);
        size_t n    = 0;
        jinja_charge_bytes(j, text.size);
        for (size_t i = 0; i < text.size; i++)
            n += ((unsigned char)text.data[i] & 0xC0) != 0x80;
        ((jinja_string *)s)->n_chars = n;
    }
    return s->n_chars;
}

bool jinja_string_is_untrusted(jinja *j, const jinja_string *s)
{
    (void)jinja_string_text(j, s);
    return s->n_marks > 0 || s->untrusted; /* several runs alternate, so one of them is */
}

bool jinja_string_origin_at(jinja *j, const jinja_string *s, size_t at)
{
    (void)jinja_string_text(j, s);
    for (uint32_t i = 0; i < s->n_marks; i++)
        if (at < s->marks[i].end)
            return s->marks[i].untrusted;
    return s->n_marks ? s->marks[s->n_marks - 1].untrusted : s->untrusted;
}

jinja_string *jinja_string_slice(jinja *j, const jinja_string *s, size_t begin, size_t end)
{
    span text = jinja_string_text(j, s);
    if (begin == 0 && end == text.size)
        return (jinja_string *)s;
    if (begin >= end)
        return jinja_string_new(j, (span){"", 0}, false);
    jinja_string *piece = jinja_string_new(j, (span){text.data + begin, end - begin}, s->untrusted);
    if (s->n_marks == 0)
        return piece;
    uint32_t first = 0;
    while (s->marks[first].end <= begin)
        first++;
    uint32_t last = first;
    while (s->marks[last].end < end)
        last++;
    jinja_charge_items(j, last);
    piece->untrusted = s->marks[first].untrusted;
    if (last == first)
        return piece;
    piece->n_marks = last - first + 1;
    piece->marks   = jinja_take(j, piece->n_marks, sizeof *piece->marks);
    for (uint32_t i = 0; i < piece->n_marks; i++) {
        jinja_mark mark = s->marks[first + i];
        piece->marks[i] = (jinja_mark){(mark.end < end ? mark.end : end) - begin, mark.untrusted};
    }
    return piece;
}

size_t jinja_string_offset(jinja *j, const jinja_string *s, size_t n)
{
    size_t n_chars = jinja_string_n_chars(j, s);
    if (n >= n_chars)
        return s->text.size;
    if (n_chars == s->text.size)
        return n;
    size_t at = 0;
    for (; n > 0; n--)
        (void)jinja_next_char(s->text, &at);
    jinja_charge_bytes(j, at);
    return at;
}

jinja_string *jinja_str(jinja *j, jinja_value v)
{
    return v.kind == JINJA_STRING ? v.string : jinja_repr(j, v);
}

span jinja_str_text(jinja *j, jinja_value v)
{
    return jinja_string_text(j, jinja_str(j, v));
}

/* ---- builder ---- */

void jinja_builder_start(jinja_builder *b, jinja *j)
{
    *b = (jinja_builder){.j = j, .size_max = JINJA_STRING_BYTES_MAX};
}

/* Room for `bytes` more. The arena often continues right behind the buffer; then nothing is copied. */
static void reserve(jinja_builder *b, size_t bytes)
{
    if (b->capacity - b->size >= bytes)
        return;
    size_t more = bytes > b->capacity ? bytes : b->capacity;
    more        = (more + 79) / 16 * 16;
    char *block = jinja_take(b->j, more, 1);
    if (b->capacity > 0 && block == b->data + b->capacity) {
        b->capacity += more;
        return;
    }
    if (b->capacity > 0) {
        size_t total = b->capacity + more;
        block        = jinja_take(b->j, total, 1);
        memcpy(block, b->data, b->size);
        more = total;
    }
    b->data     = block;
    b->capacity = more;
}

static void mark(jinja_builder *b, bool untrusted)
{
    if (b->n_marks > 0 && b->marks[b->n_marks - 1].untrusted == untrusted) {
        b->marks[b->n_marks - 1].end = b->size;
        return;
    }
    if (b->n_marks == b->marks_capacity) {
        size_t      capacity = b->marks_capacity ? 2 * b->marks_capacity : 4;
        jinja_mark *marks    = jinja_take(b->j, capacity, sizeof *marks);
        if (b->n_marks > 0)
            memcpy(marks, b->marks, b->n_marks * sizeof *marks);
        b->marks          = marks;
        b->marks_capacity = capacity;
    }
    b->marks[b->n_marks++] = (jinja_mark){b->size, untrusted};
}

void jinja_builder_add(jinja_builder *b, span text, bool untrusted)
{
    if (text.size == 0)
        return;
    jinja_charge_bytes(b->j, text.size);
    if (text.size > b->size_max - b->size)
        jinja_fail(b->j, ERR_TOO_LARGE, "the rendered text is over the limit of %zu bytes", b->size_max);
    reserve(b, text.size);
    memcpy(b->data + b->size, text.data, text.size);
    b->size += text.size;
    mark(b, untrusted);
}

void jinja_builder_add_char(jinja_builder *b, uint32_t code_point, bool untrusted)
{
    char   bytes[UTF8_BYTES_MAX];
    size_t n = utf8_encode(code_point, bytes);
    if (n == 0)
        jinja_fail(b->j, ERR_INVALID, "U+%04X is not a character", (unsigned)code_point);
    jinja_builder_add(b, (span){bytes, n}, untrusted);
}

void jinja_builder_add_string(jinja_builder *b, const jinja_string *s)
{
    if (!s->text.data) {
        add_rope(b, s);
        return;
    }
    if (s->n_marks == 0) {
        jinja_builder_add(b, s->text, s->untrusted);
        return;
    }
    for (size_t i = 0, begin = 0; i < s->n_marks; begin = s->marks[i++].end)
        jinja_builder_add(b, (span){s->text.data + begin, s->marks[i].end - begin}, s->marks[i].untrusted);
}

jinja_string *jinja_builder_finish(jinja_builder *b)
{
    jinja_string *s = jinja_string_new(b->j, (span){b->data, b->size}, b->n_marks > 0 && b->marks[0].untrusted);
    if (b->n_marks > 1) {
        s->n_marks = (uint32_t)b->n_marks;
        s->marks   = b->marks;
    }
    return s;
}

/* ---- characters ---- */

bool jinja_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint32_t jinja_next_char(span text, size_t *at)
{
    unsigned char first = (unsigned char)text.data[*at];
    if (first < 0x80) {
        ++*at;
        return first;
    }
    uint32_t code_point;
    size_t   n = utf8_decode((span){text.data + *at, text.size - *at}, &code_point);
    *at += n > 0 ? n : 1;
    return code_point;
}

size_t jinja_find(jinja *j, span haystack, span needle, size_t from)
{
    if (from > haystack.size)
        return SIZE_MAX;
    if (needle.size == 0)
        return from;
    const char *found = memmem(haystack.data + from, haystack.size - from, needle.data, needle.size);
    size_t      at    = found ? (size_t)(found - haystack.data) : SIZE_MAX;
    jinja_charge_bytes(j, (found ? at : haystack.size) - from);
    return at;
}
