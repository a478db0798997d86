/* Every unit of the double array that any key leads to is looked at once, when the map is made: what a text leads to
 * later needs no doubt. */
#include "text/charsmap.h"

#include "base/utf8.h"
#include <stdlib.h>
#include <utf8proc.h>

enum { ASCII = 0x80, BYTES = 0x100, WHOLE_GRAPHEME_BYTES = 5, KEY_BYTES_MAX = 64 };

struct charsmap {
    uint32_t *units;
    uint32_t  n_units;
    char     *strings;
    size_t    n_strings;
    size_t    growth;
    bool      plain[ASCII]; /* stays as it is before another ASCII character */
};

/* ---- units (s-yata/darts-clone, darts.h, DoubleArrayUnit) ---- */

static bool has_leaf(uint32_t unit)
{
    return unit >> 8 & 1;
}

static uint32_t value(uint32_t unit)
{
    return unit & 0x7FFFFFFF;
}

/* The byte that leads here; more than a byte where the unit is a value. */
static uint32_t label(uint32_t unit)
{
    return unit & 0x800000FF;
}

static uint32_t offset(uint32_t unit)
{
    return unit >> 10 << (unit >> 6 & 8);
}

/* From *place, where the children of a node lie, to its child by `byte`; sets *unit to the child's. */
static bool step(const charsmap *map, uint8_t byte, uint32_t *place, uint32_t *unit)
{
    uint32_t child = *place ^ byte;
    if (byte == 0 || child >= map->n_units || label(map->units[child]) != byte)
        return false;
    *unit  = map->units[child];
    *place = child ^ offset(*unit);
    return true;
}

static span replacement_at(const charsmap *map, size_t at)
{
    const char *begin = map->strings + at, *end = memchr(begin, 0, map->n_strings - at);
    return (span){begin, end ? (size_t)(end - begin) : map->n_strings - at};
}

/* ---- building ---- */

static bool check_leaf(charsmap *map, uint32_t place, size_t depth, error *err)
{
    if (place >= map->n_units || value(map->units[place]) > map->n_strings)
        return error_set(err, ERR_INVALID, "the charsmap has a key whose replacement lies behind its end");
    span text = replacement_at(map, value(map->units[place]));
    if (text.size > CHARSMAP_REPLACEMENT_BYTES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "the charsmap has a replacement of %zu bytes; at most %d are supported",
                         text.size, CHARSMAP_REPLACEMENT_BYTES_MAX);
    if (!utf8_is_valid(text))
        return error_set(err, ERR_INVALID, "the charsmap has a replacement that is not UTF-8");
    size_t growth = (text.size + depth - 1) / depth;
    map->growth   = growth > map->growth ? growth : map->growth;
    return true;
}

/* Breadth first, so that the first way to a unit is its shortest key: its replacement grows most. */
static bool check_units(charsmap *map, uint32_t *queue, uint8_t *seen, error *err)
{
    size_t n = 1, depth = 0, end_of_depth = 1;
    queue[0] = 0;
    seen[0]  = true;
    for (size_t i = 0; i < n; i++) {
        if (i == end_of_depth) {
            end_of_depth = n;
            if (++depth > KEY_BYTES_MAX)
                return error_set(err, ERR_UNSUPPORTED, "the charsmap has a key of more than %d bytes", KEY_BYTES_MAX);
        }
        uint32_t unit = map->units[queue[i]], place = queue[i] ^ offset(unit);
        if (has_leaf(unit) && !check_leaf(map, place, depth ? depth : 1, err))
            return false;
        for (uint32_t byte = 1; byte < BYTES; byte++) {
            uint32_t child = place ^ byte;
            if (child < map->n_units && label(map->units[child]) == byte && !seen[child]) {
                seen[child] = true;
                queue[n++]  = child;
            }
        }
    }
    return true;
}

/* A carriage return may be one grapheme with what follows. */
static void find_plain(charsmap *map)
{
    for (uint32_t c = 0; c < ASCII; c++) {
        uint32_t unit, place = offset(map->units[0]), below, last;
        map->plain[c] = c != '\r';
        if (!step(map, (uint8_t)c, &place, &unit))
            continue;
        map->plain[c] &= !has_leaf(unit);
        for (uint32_t next = 1; next < ASCII; next++) {
            below = place;
            map->plain[c] &= !step(map, (uint8_t)next, &below, &last);
        }
    }
}

static bool read_parts(charsmap *map, span bytes, error *err)
{
    uint32_t size;
    if (bytes.size > CHARSMAP_BYTES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "a charsmap of %zu bytes; at most %d are supported", bytes.size,
                         CHARSMAP_BYTES_MAX);
    if (bytes.size < sizeof size)
        return error_set(err, ERR_INVALID, "a charsmap of %zu bytes", bytes.size);
    memcpy(&size, bytes.data, sizeof size);
    if (size < sizeof *map->units || size % sizeof *map->units != 0 || size > bytes.size - sizeof size)
        return error_set(err, ERR_INVALID, "the charsmap says that its double array has %u of its %zu bytes", size,
                         bytes.size);
    map->n_units   = size / (uint32_t)sizeof *map->units;
    map->n_strings = bytes.size - sizeof size - size;
    map->units     = malloc(size);
    map->strings   = malloc(map->n_strings + 1);
    if (!map->units || !map->strings)
        return error_set(err, ERR_NO_MEMORY, "no memory for a charsmap of %zu bytes", bytes.size);
    memcpy(map->units, bytes.data + sizeof size, size);
    memcpy(map->strings, bytes.data + sizeof size + size, map->n_strings);
    map->growth = 1;
    return true;
}

charsmap *charsmap_new(span bytes, error *err)
{
    charsmap *map = calloc(1, sizeof *map);
    if (!map) {
        error_set(err, ERR_NO_MEMORY, "no memory for a charsmap");
        return NULL;
    }
    bool done = read_parts(map, bytes, err);
    if (done) {
        uint32_t *queue = malloc(map->n_units * sizeof *queue);
        uint8_t  *seen  = calloc(map->n_units, sizeof *seen);
        done            = (queue && seen) || error_set(err, ERR_NO_MEMORY, "no memory for a charsmap");
        done            = done && check_units(map, queue, seen, err);
        free(queue);
        free(seen);
    }
    if (done)
        find_plain(map);
    else
        charsmap_free(&map);
    return map;
}

void charsmap_free(charsmap **map)
{
    if (!*map)
        return;
    free((*map)->units);
    free((*map)->strings);
    free(*map);
    *map = NULL;
}

size_t charsmap_growth(const charsmap *map)
{
    return map->growth;
}

/* ---- normalizing ---- */

/* The bytes of a key that `text` begins with, the longest or the shortest one, and its replacement; 0 without one. */
static size_t find_key(const charsmap *map, span text, bool longest, span *replacement)
{
    uint32_t place = offset(map->units[0]), unit;
    size_t   n     = 0;
    text.size      = text.size < KEY_BYTES_MAX ? text.size : KEY_BYTES_MAX; /* units may form a ring */
    for (size_t i = 0; i < text.size && (n == 0 || longest) && step(map, (uint8_t)text.data[i], &place, &unit); i++)
        if (has_leaf(unit)) {
            n            = i + 1;
            *replacement = replacement_at(map, value(map->units[place]));
        }
    return n;
}

/* The bytes of the character at `at`; a byte that is not UTF-8 is one. */
static size_t character_bytes(span text, size_t at, uint32_t *c)
{
    size_t n = utf8_decode((span){text.data + at, text.size - at}, c);
    return n ? n : 1;
}

/* The bytes of the extended grapheme cluster at `at` (UAX #29); a byte that is not UTF-8 is one. */
static size_t grapheme_bytes(span text, size_t at)
{
    uint32_t         c, next;
    utf8proc_int32_t state = 0;
    size_t           n     = utf8_decode((span){text.data + at, text.size - at}, &c);
    if (n == 0)
        return 1;
    for (size_t more; (more = utf8_decode((span){text.data + at + n, text.size - at - n}, &next)) > 0; n += more) {
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state))
            break;
        c = next;
    }
    return n;
}

static size_t put(char *out, size_t n_out, span text)
{
    memcpy(out + n_out, text.data, text.size);
    return n_out + text.size;
}

/* The characters of text[at..end), each by itself. */
static size_t put_characters(const charsmap *map, span text, size_t at, size_t end, char *out, size_t n_out)
{
    for (size_t n; at < end; at += n) {
        uint32_t c;
        n                = character_bytes(text, at, &c);
        span replacement = {text.data + at, n};
        (void)find_key(map, (span){text.data + at, n}, false, &replacement);
        n_out = put(out, n_out, replacement);
    }
    return n_out;
}

size_t charsmap_normalize(const charsmap *map, span text, charsmap_matching matching, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0, n; at < text.size; at += n) {
        uint8_t  byte = (uint8_t)text.data[at];
        uint32_t c;
        span     rest = {text.data + at, text.size - at}, replacement;
        if (byte < ASCII && map->plain[byte] && (rest.size == 1 || (uint8_t)rest.data[1] < ASCII)) {
            out[n_out++] = (char)byte;
            n            = 1;
            continue;
        }
        n               = matching == CHARSMAP_LONGEST ? rest.size : grapheme_bytes(text, at);
        bool   by_key   = matching == CHARSMAP_LONGEST || n <= WHOLE_GRAPHEME_BYTES;
        size_t n_of_key = by_key ? find_key(map, (span){rest.data, n}, matching == CHARSMAP_LONGEST, &replacement) : 0;
        if (matching == CHARSMAP_LONGEST)
            n = n_of_key ? n_of_key : character_bytes(text, at, &c);
        n_out = n_of_key ? put(out, n_out, replacement) : put_characters(map, text, at, at + n, out, n_out);
    }
    return n_out;
}
