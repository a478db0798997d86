/* ASCII by a table; what is not in two passes with form D between them, because form D sorts marks of a run. */
#include "text/bert_normalize.h"

#include "base/utf8.h"
#include "text/nfc.h"
#include <utf8proc.h>

static bool is_in(uint32_t c, const bert_range *ranges, size_t n)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && c >= ranges[low].first;
}

bool bert_is_punctuation(uint32_t c)
{
    return is_in(c, bert_punctuation, bert_punctuation_ranges);
}

bool bert_is_accent(uint32_t c)
{
    return is_in(c, bert_accents, bert_accents_ranges);
}

/* A character of `text`; an invalid byte is a character of its own, *c is then U+FFFD. */
static size_t read_character(span text, size_t at, uint32_t *c)
{
    size_t n = utf8_decode((span){text.data + at, text.size - at}, c);
    return n ? n : 1;
}

static size_t clean(const bert_options *options, span text, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0, n; at < text.size; at += n) {
        uint32_t c;
        n = read_character(text, at, &c);
        if (options->clean_text && is_in(c, bert_dropped, bert_dropped_ranges))
            continue;
        bool alone = options->chinese_blanks && is_in(c, bert_chinese, bert_chinese_ranges);
        if (alone)
            out[n_out++] = ' ';
        if (options->clean_text && is_in(c, bert_blanks, bert_blanks_ranges)) {
            out[n_out++] = ' ';
        } else {
            memcpy(out + n_out, text.data + at, n);
            n_out += n;
        }
        if (alone)
            out[n_out++] = ' ';
    }
    return n_out;
}

static uint32_t lowercase(uint32_t c)
{
    for (size_t i = 0; i < bert_lowercase_ranges && c >= 0x1C89; i++)
        if (c >= bert_lowercase[i].first && c <= bert_lowercase[i].last)
            return (uint32_t)((int32_t)c + bert_lowercase[i].difference);
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

static size_t put_lowercase(uint32_t c, char *out)
{
    if (c == 0x130) { /* the one letter whose lowercase is two: i and a dot above */
        memcpy(out, "i\xCC\x87", 3);
        return 3;
    }
    return utf8_encode(lowercase(c), out);
}

static size_t fold(const bert_options *options, span text, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0, n; at < text.size; at += n) {
        uint32_t c;
        n = read_character(text, at, &c);
        if (options->strip_accents && is_in(c, bert_marks, bert_marks_ranges)) {
            continue;
        } else if (options->lowercase && (n > 1 || c < 0x80)) {
            n_out += put_lowercase(c, out + n_out);
        } else {
            memcpy(out + n_out, text.data + at, n);
            n_out += n;
        }
    }
    return n_out;
}

/* A run of what is not ASCII. ASCII beside it is not changed by it, nor it by that: form D only moves marks, past no
 * ASCII character that stays. */
static bool normalize_other(const bert_options *options, span text, arena *scratch, char *out, size_t *n_out,
                            error *err)
{
    enum { CLEAN_GROWTH = 2 };
    size_t mark    = arena_mark(scratch);
    char  *cleaned = arena_take_array(scratch, text.size, CLEAN_GROWTH);
    if (!cleaned)
        return error_set(err, ERR_NO_MEMORY, "no scratch memory to normalize a text of %zu bytes", text.size);
    span normal = {cleaned, clean(options, text, cleaned)};
    bool done   = !options->strip_accents || normal_form_of(normal, NORMAL_FORM_D, scratch, &normal, err);
    *n_out      = done ? fold(options, normal, out) : 0;
    arena_rewind(scratch, mark);
    return done;
}

/* What each ASCII character becomes: one character, or 0 for nothing where drops[] says so. */
static void fill_ascii(const bert_options *options, char *becomes, bool *drops)
{
    for (uint32_t c = 0; c < 0x80; c++) {
        char cleaned[2], text = (char)c;
        drops[c]   = clean(options, (span){&text, 1}, cleaned) == 0;
        becomes[c] = drops[c] ? 0 : cleaned[0];
        if (options->lowercase && becomes[c] >= 'A' && becomes[c] <= 'Z')
            becomes[c] = (char)(becomes[c] + 0x20);
    }
}

bool bert_normalize(const bert_options *options, span text, arena *scratch, char *out, size_t *n_out, error *err)
{
    char becomes[0x80];
    bool drops[0x80];
    fill_ascii(options, becomes, drops);
    *n_out = 0;
    for (size_t at = 0, end; at < text.size; at = end) {
        for (end = at; end < text.size && (uint8_t)text.data[end] < 0x80; end++) {
            out[*n_out] = becomes[(uint8_t)text.data[end]];
            *n_out += !drops[(uint8_t)text.data[end]];
        }
        at = end;
        while (end < text.size && ((uint8_t)text.data[end] >= 0x80 || drops[(uint8_t)text.data[end]]))
            end++;
        size_t n = 0;
        if (end > at && !normalize_other(options, (span){text.data + at, end - at}, scratch, out + *n_out, &n, err))
            return false;
        *n_out += n;
    }
    return true;
}
