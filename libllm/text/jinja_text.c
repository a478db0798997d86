/* What filters and string methods share: strip, replace, join, pad, lines, numbers from text. */
#include "text/jinja_eval.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

/* Whether the character at text[begin, end) is to be stripped: one of `set`, or white space when there is no set. */
static bool is_stripped(jinja *j, span text, size_t begin, size_t end, const span *set)
{
    size_t at = begin;
    if (!set)
        return jinja_is_space(jinja_next_char(text, &at));
    return jinja_find(j, *set, (span){text.data + begin, end - begin}, 0) != SIZE_MAX;
}

jinja_string *jinja_strip(jinja *j, const jinja_string *s, jinja_value characters, int sides)
{
    span  text  = jinja_string_text(j, s), set;
    span *given = NULL;
    if (characters.kind != JINJA_MISSING && characters.kind != JINJA_NONE) {
        if (characters.kind != JINJA_STRING)
            jinja_fail_type(j, "strip arg must be None or str", characters);
        set   = jinja_string_text(j, characters.string);
        given = &set;
    }
    size_t begin = 0, end = text.size;
    while ((sides & JINJA_STRIP_LEFT) && begin < end) {
        size_t next = begin;
        (void)jinja_next_char(text, &next);
        if (!is_stripped(j, text, begin, next, given))
            break;
        begin = next;
    }
    while ((sides & JINJA_STRIP_RIGHT) && begin < end) {
        size_t last = end - 1;
        while (((unsigned char)text.data[last] & 0xC0) == 0x80)
            last--;
        if (!is_stripped(j, text, last, end, given))
            break;
        end = last;
    }
    jinja_charge_bytes(j, text.size - (end - begin));
    return jinja_string_slice(j, s, begin, end);
}

jinja_string *jinja_replace(jinja *j, const jinja_string *s, span old, const jinja_string *new, int64_t count)
{
    span          text = jinja_string_text(j, s);
    size_t        at   = 0, found;
    jinja_builder out;
    jinja_builder_start(&out, j);
    if (old.size == 0) { /* Python puts `new` around every character */
        for (size_t begin = 0; count != 0; begin = at, count -= count > 0) {
            jinja_builder_add_string(&out, new);
            if (begin == text.size)
                return jinja_builder_finish(&out);
            (void)jinja_next_char(text, &at);
            jinja_builder_add_string(&out, jinja_string_slice(j, s, begin, at));
        }
    }
    for (; count != 0 && (found = jinja_find(j, text, old, at)) != SIZE_MAX && old.size > 0; count -= count > 0) {
        jinja_builder_add_string(&out, jinja_string_slice(j, s, at, found));
        jinja_builder_add_string(&out, new);
        at = found + old.size;
    }
    if (at == 0 && out.size == 0)
        return (jinja_string *)s;
    jinja_builder_add_string(&out, jinja_string_slice(j, s, at, text.size));
    return jinja_builder_finish(&out);
}

jinja_string *jinja_join(jinja *j, const jinja_string *separator, const jinja_sequence *items, bool only_strings)
{
    jinja_builder out;
    jinja_builder_start(&out, j);
    for (size_t i = 0; i < items->n; i++) {
        jinja_value item = jinja_item(items, i);
        jinja_charge_items(j, 1);
        if (only_strings && item.kind != JINJA_STRING)
            jinja_fail_type(j, "join needs strings", item);
        if (i > 0)
            jinja_builder_add_string(&out, separator);
        jinja_builder_add_string(&out, jinja_str(j, item));
    }
    return jinja_builder_finish(&out);
}

/* The padding has the origin of the text, so that the two read as one. */
jinja_string *jinja_pad(jinja *j, const jinja_string *s, size_t left, size_t right, uint32_t fill)
{
    jinja_builder out;
    bool          untrusted = jinja_string_is_untrusted(j, s);
    if (left > JINJA_STRING_BYTES_MAX || right > JINJA_STRING_BYTES_MAX)
        jinja_fail(j, ERR_TOO_LARGE, "a string is over %d bytes", JINJA_STRING_BYTES_MAX);
    jinja_builder_start(&out, j);
    for (size_t i = 0; i < left; i++)
        jinja_builder_add_char(&out, fill, untrusted);
    jinja_builder_add_string(&out, s);
    for (size_t i = 0; i < right; i++)
        jinja_builder_add_char(&out, fill, untrusted);
    return jinja_builder_finish(&out);
}

static bool ends_line(uint32_t c)
{
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

jinja_value jinja_split_lines(jinja *j, const jinja_string *s, bool keep_ends)
{
    span        text     = jinja_string_text(j, s);
    jinja_value lines    = jinja_sequence_new(j, JINJA_LIST, 0);
    size_t      capacity = 0;
    jinja_charge_bytes(j, text.size);
    for (size_t begin = 0, at = 0; begin < text.size;) {
        size_t   end = at;
        uint32_t c   = at < text.size ? jinja_next_char(text, &at) : '\n';
        if (end < text.size && !ends_line(c))
            continue;
        if (c == '\r' && at < text.size && text.data[at] == '\n')
            at++;
        jinja_append(j, lines.sequence, &capacity, jinja_of(jinja_string_slice(j, s, begin, keep_ends ? at : end)));
        begin = at;
    }
    return lines;
}

/* ---- numbers ---- */

enum { NUMBER_TEXT_MAX = 400 };

/* Trimmed, and without the underscores that Python allows between digits. */
static bool clean_number(span text, char out[NUMBER_TEXT_MAX])
{
    size_t n = 0, begin = 0, end = text.size;
    for (size_t at = 0; at < text.size && jinja_is_space(jinja_next_char(text, &at));)
        begin = at;
    while (end > begin && isspace((unsigned char)text.data[end - 1]))
        end--;
    for (size_t i = begin; i < end; i++) {
        char c = text.data[i];
        if (c == '_' && i > begin && i + 1 < end && isalnum((unsigned char)text.data[i - 1]) &&
            isalnum((unsigned char)text.data[i + 1]))
            continue;
        if (c == '_' || c == '\0' || n + 1 >= NUMBER_TEXT_MAX)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

bool jinja_parse_integer(span text, int base, int64_t *value)
{
    char  digits[NUMBER_TEXT_MAX];
    char *c = digits, *stop;
    if (!clean_number(text, digits) || (base != 0 && (base < 2 || base > 36)))
        return false;
    bool negative = *c == '-';
    c += *c == '-' || *c == '+';
    int prefix = c[0] != '0' ? 0 : tolower(c[1]) == 'x' ? 16 : tolower(c[1]) == 'o' ? 8 : tolower(c[1]) == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) {
        c += 2;
        base = prefix;
    } else if (base == 0)
        base = 10;
    if (!isalnum((unsigned char)*c))
        return false;
    errno                   = 0;
    unsigned long long size = strtoull(c, &stop, base);
    if (*stop || errno || (base == 16 && tolower(c[1]) == 'x') || size > INT64_MAX)
        return false;
    *value = negative ? -(int64_t)size : (int64_t)size;
    return true;
}

bool jinja_parse_float(span text, double *value)
{
    char  digits[NUMBER_TEXT_MAX];
    char *stop;
    if (!clean_number(text, digits) || strpbrk(digits, "xX()"))
        return false; /* strtod takes hexadecimal and nan(...), Python does not */
    *value = strtod(digits, &stop);
    return *stop == '\0' && !isspace((unsigned char)digits[0]);
}
