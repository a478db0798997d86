/* utf8proc has the data and the composition; the order of combining marks is sorted here, because its own sort is
 * quadratic in the length of a run of marks. Its data is Unicode 15 in Debian 12. */
#include "text/nfc.h"

#include "base/utf8.h"
#include <utf8proc.h>

enum { CLASS_COUNT = 256, INSERTION_MAX = 32 };

/* What a byte of text becomes at most, and what one character does. U+FDFA, three bytes, is 18 characters of 33 bytes
 * in the forms of compatibility. */
typedef struct {
    size_t bytes, points, points_of_one;
} expansion;

static const expansion canonical = {3, 2, 4}, compatible = {11, 6, 18};

/* What decomposes since Unicode 12.1; `tokenizers` normalizes by Unicode 12. */
static const struct {
    uint32_t first, last;
} newer_than_tokenizers[] = {{0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x107BA},
                             {0x11938, 0x11938}, {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

static bool is_compatible(normal_form form)
{
    return form == NORMAL_FORM_KC || form == NORMAL_FORM_KD;
}

static expansion expansion_of(normal_form form)
{
    return is_compatible(form) ? compatible : canonical;
}

size_t normal_form_growth(normal_form form)
{
    return expansion_of(form).bytes;
}

size_t normal_form_scratch(normal_form form)
{
    enum { MORE = 17 }; /* a short text takes more a byte */
    return expansion_of(form).bytes + 2 * sizeof(utf8proc_int32_t) * expansion_of(form).points + MORE;
}

/* All text below U+0300 is in form C, below U+00C0 in form D, below U+00A0 in every form, and nothing from there on is
 * encoded with a first byte below 0xCC, 0xC3 or 0xC2. */
static size_t plain_prefix(span text, normal_form form)
{
    uint8_t first = form == NORMAL_FORM_C ? 0xCC : form == NORMAL_FORM_D ? 0xC3 : 0xC2;
    size_t  at = 0, last = 0; /* the last character may compose with what follows */
    while (at < text.size && (uint8_t)text.data[at] < first) {
        if (((uint8_t)text.data[at] & 0xC0) != 0x80)
            last = at;
        at++;
    }
    return at == text.size ? at : last;
}

static bool is_newer_than_tokenizers(uint32_t c)
{
    for (size_t i = 0; i < COUNT(newer_than_tokenizers); i++)
        if (c >= newer_than_tokenizers[i].first && c <= newer_than_tokenizers[i].last)
            return true;
    return false;
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

/* The decomposition of a valid `text` into `out`. Returns the number of code points. */
static size_t decompose(span text, normal_form form, utf8proc_int32_t *out)
{
    size_t            n       = 0;
    utf8proc_option_t options = UTF8PROC_DECOMPOSE | (is_compatible(form) ? UTF8PROC_COMPAT : 0);
    for (size_t at = 0; at < text.size;) {
        uint32_t c;
        int      boundary = 0;
        at += utf8_decode((span){text.data + at, text.size - at}, &c);
        if (is_newer_than_tokenizers(c))
            out[n++] = (utf8proc_int32_t)c;
        else
            n += (size_t)utf8proc_decompose_char(
                (utf8proc_int32_t)c, out + n, (utf8proc_ssize_t)expansion_of(form).points_of_one, options, &boundary);
    }
    return n;
}

/* Appends a valid `text` in its form to out. Returns the bytes written. */
static size_t normalize_valid(span text, normal_form form, utf8proc_int32_t *points, utf8proc_int32_t *spare, char *out)
{
    size_t n_bytes = 0, n = decompose(text, form, points);
    order_canonically(points, n, spare);
    if (form == NORMAL_FORM_C || form == NORMAL_FORM_KC)
        n = (size_t)utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (size_t i = 0; i < n; i++)
        n_bytes += utf8_encode((uint32_t)points[i], out + n_bytes);
    return n_bytes;
}

bool normal_form_of(span text, normal_form form, arena *memory, span *normal, error *err)
{
    expansion most = expansion_of(form);
    size_t    at   = plain_prefix(text, form);
    *normal        = text;
    if (at == text.size)
        return true;
    size_t            left = text.size - at, n_points = most.points * left + most.points_of_one;
    char             *out    = arena_take_uncleared(memory, at + most.bytes * left + UTF8_BYTES_MAX);
    size_t            mark   = arena_mark(memory);
    utf8proc_int32_t *points = arena_take_uncleared(memory, n_points * sizeof *points);
    utf8proc_int32_t *spare  = arena_take_uncleared(memory, n_points * sizeof *spare);
    if (!out || !points || !spare)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to normalize a text of %zu bytes", text.size);
    size_t n_out = at;
    memcpy(out, text.data, at);
    while (at < text.size) {
        span rest  = {text.data + at, text.size - at};
        span valid = {rest.data, utf8_valid_prefix(rest)};
        n_out += normalize_valid(valid, form, points, spare, out + n_out);
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
