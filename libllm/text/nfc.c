/* utf8proc has the data and the composition; the order of combining marks is sorted here, because its own sort is
 * quadratic in the length of a run of marks. Its data is Unicode 15 in Debian 12. */
#include "text/nfc.h"

#include "base/utf8.h"
#include <utf8proc.h>

enum { DECOMPOSED_MAX = 4, CLASS_COUNT = 256, INSERTION_MAX = 32 };

/* The one letter of Unicode 13 and 14 that decomposes; `tokenizers` normalizes by Unicode 12. */
enum { NEWER_THAN_TOKENIZERS = 0x11938 };

/* All text below U+0300 is in form C, below U+00C0 in form D, and nothing from there on is encoded with a first byte
 * below 0xCC or 0xC3. */
static size_t plain_prefix(span text, bool compose)
{
    uint8_t first = compose ? 0xCC : 0xC3;
    size_t  at = 0, last = 0; /* the last character may compose with what follows */
    while (at < text.size && (uint8_t)text.data[at] < first) {
        if (((uint8_t)text.data[at] & 0xC0) != 0x80)
            last = at;
        at++;
    }
    return at == text.size ? at : last;
}

static uint8_t combining_class(utf8proc_int32_t c)
{
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

/* Sorts a run of marks by combining class, keeping the order of equals: by insertion, or by counting where that would
 * take quadratic time. */
static void sort_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *spare)
{
    if (n <= INSERTION_MAX) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t mark = marks[i];
            size_t           at   = i;
            for (; at > 0 && combining_class(marks[at - 1]) > combining_class(mark); at--)
                marks[at] = marks[at - 1];
            marks[at] = mark;
        }
        return;
    }
    size_t starts[CLASS_COUNT + 1] = {0};
    for (size_t i = 0; i < n; i++)
        starts[combining_class(marks[i]) + 1]++;
    for (size_t c = 0; c < CLASS_COUNT; c++)
        starts[c + 1] += starts[c];
    for (size_t i = 0; i < n; i++)
        spare[starts[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

static void order_canonically(utf8proc_int32_t *text, size_t n, utf8proc_int32_t *spare)
{
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && combining_class(text[end]) != 0)
            end++;
        sort_marks(text + at, end - at, spare);
        at = end + 1;
    }
}

/* The canonical decomposition of a valid `text` into `out`. Returns the number of code points. */
static size_t decompose(span text, utf8proc_int32_t *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        int      boundary = 0;
        at += utf8_decode((span){text.data + at, text.size - at}, &c);
        if (c == NEWER_THAN_TOKENIZERS)
            out[n++] = (utf8proc_int32_t)c;
        else
            n += (size_t)utf8proc_decompose_char((utf8proc_int32_t)c, out + n, DECOMPOSED_MAX, UTF8PROC_DECOMPOSE,
                                                 &boundary);
    }
    return n;
}

/* Appends a valid `text` in form C or D to out. Returns the bytes written: at most 3 a byte of `text`. */
static size_t normalize_valid(span text, bool compose, utf8proc_int32_t *points, utf8proc_int32_t *spare, char *out)
{
    size_t n_bytes = 0, n = decompose(text, points);
    order_canonically(points, n, spare);
    if (compose)
        n = (size_t)utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (size_t i = 0; i < n; i++)
        n_bytes += utf8_encode((uint32_t)points[i], out + n_bytes);
    return n_bytes;
}

static bool normalize(span text, bool compose, arena *memory, span *normal, error *err)
{
    size_t at = plain_prefix(text, compose);
    *normal   = text;
    if (at == text.size)
        return true;
    size_t            left = text.size - at, n_points = 2 * left + DECOMPOSED_MAX;
    char             *out    = arena_take(memory, at + 3 * left + UTF8_BYTES_MAX);
    size_t            mark   = arena_mark(memory);
    utf8proc_int32_t *points = arena_take_array(memory, n_points, sizeof *points);
    utf8proc_int32_t *spare  = arena_take_array(memory, n_points, sizeof *spare);
    if (!out || !points || !spare)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to normalize a text of %zu bytes", text.size);
    size_t n_out = at;
    memcpy(out, text.data, at);
    while (at < text.size) {
        span rest  = {text.data + at, text.size - at};
        span valid = {rest.data, utf8_valid_prefix(rest)};
        n_out += normalize_valid(valid, compose, points, spare, out + n_out);
        at += valid.size;
        if (at < text.size)
            out[n_out++] = text.data[at++]; /* one invalid byte */
    }
    arena_rewind(memory, mark);
    if (n_out == text.size && memcmp(out, text.data, n_out) == 0)
        return true; /* the copy stays in the arena until its owner's next rewind */
    *normal = (span){out, n_out};
    return true;
}

bool nfc_normalize(span text, arena *memory, span *normal, error *err)
{
    return normalize(text, true, memory, normal, err);
}

bool nfd_normalize(span text, arena *memory, span *normal, error *err)
{
    return normalize(text, false, memory, normal, err);
}
