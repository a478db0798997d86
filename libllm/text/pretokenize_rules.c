/* The pre-tokenizer rules that most models share, written out by hand.
 *
 * A regular expression tries its alternatives in order at each position; these functions do the same by looking at the
 * first one or two characters, which decide the alternative. Whitespace is the one place that needs a second thought:
 * `\s+(?!\S)` leaves the last space of a run to the word that follows. */
#include "text/pretokenize_rules.h"

#include "base/utf8.h"
#include "text/bert_normalize.h"
#include "text/unicode.h"

static size_t skip(span text, size_t at, uint32_t classes)
{
    while (at < text.size) {
        unicode_character c = unicode_at(text, at);
        if (!(c.classes & classes))
            break;
        at += c.n_bytes;
    }
    return at;
}

/* Past [^\s\p{L}\p{N}]*. */
static size_t skip_symbols(span text, size_t at)
{
    while (at < text.size) {
        unicode_character c = unicode_at(text, at);
        if (c.classes & (UNICODE_SPACE | UNICODE_LETTER | UNICODE_NUMBER))
            break;
        at += c.n_bytes;
    }
    return at;
}

static size_t skip_line_ends(span text, size_t at)
{
    while (at < text.size && (text.data[at] == '\r' || text.data[at] == '\n'))
        at++;
    return at;
}

static uint32_t classes_at(span text, size_t at)
{
    return at < text.size ? unicode_at(text, at).classes : UNICODE_SPACE;
}

/* The bytes of 's|'t|'re|'ve|'m|'ll|'d at `at`, or 0. Without regard to case, U+017F (long s) is an s. */
static size_t contraction_bytes(span text, size_t at, bool any_case)
{
    const uint8_t *c = (const uint8_t *)text.data + at;
    size_t         n = text.size - at;
    if (n < 2 || c[0] != '\'')
        return 0;
    uint8_t fold   = any_case ? 0x20 : 0;
    uint8_t first  = c[1] | fold;
    uint8_t second = n > 2 ? c[2] | fold : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l'))
        return 3;
    return any_case && n > 2 && c[1] == 0xC5 && c[2] == 0xBF ? 3 : 0;
}

/* \s+(?!\S)|\s+ where a space begins at `at`. With `single_digits` a number is the end of the text. */
static size_t next_spaces(span text, size_t at, bool single_digits)
{
    size_t end = at, last = at;
    while (end < text.size) {
        unicode_character c = unicode_at(text, end);
        if (!(c.classes & UNICODE_SPACE))
            break;
        last = end;
        end += c.n_bytes;
    }
    bool at_end = end == text.size || (single_digits && classes_at(text, end) & UNICODE_NUMBER);
    return at_end || last == at ? end : last;
}

size_t pretokenize_next_gpt2(span text, size_t at, bool single_digits)
{
    size_t contraction = contraction_bytes(text, at, false);
    if (contraction)
        return at + contraction;
    size_t   word    = at + (text.data[at] == ' ');
    uint32_t classes = classes_at(text, word);
    if (classes & UNICODE_LETTER)
        return skip(text, word, UNICODE_LETTER);
    if (classes & UNICODE_NUMBER && !single_digits)
        return skip(text, word, UNICODE_NUMBER);
    if (classes & UNICODE_NUMBER)
        return word > at ? word : at + unicode_at(text, at).n_bytes;
    if (classes & UNICODE_SPACE)
        return next_spaces(text, at, single_digits);
    return skip_symbols(text, word);
}

/* \s*[\r\n]+ where a space begins at `at`: up to the last line end of the run; or `at` when it has none. */
static size_t next_lines(span text, size_t at)
{
    size_t end = at;
    for (size_t i = at; i < text.size;) {
        unicode_character c = unicode_at(text, i);
        if (!(c.classes & UNICODE_SPACE))
            break;
        if (text.data[i] == '\r' || text.data[i] == '\n')
            end = i + 1;
        i += c.n_bytes;
    }
    return end;
}

size_t pretokenize_next_llama3(span text, size_t at, uint32_t digits_max)
{
    size_t contraction = contraction_bytes(text, at, true);
    if (contraction)
        return at + contraction;
    unicode_character first = unicode_at(text, at);
    if (first.classes & UNICODE_LETTER)
        return skip(text, at, UNICODE_LETTER);
    if (first.classes & UNICODE_NUMBER) {
        for (uint32_t i = 0; i < digits_max && at < text.size; i++) {
            unicode_character c = unicode_at(text, at);
            if (!(c.classes & UNICODE_NUMBER))
                break;
            at += c.n_bytes;
        }
        return at;
    }
    size_t second = at + first.n_bytes;
    if (text.data[at] != '\r' && text.data[at] != '\n' && second < text.size &&
        classes_at(text, second) & UNICODE_LETTER)
        return skip(text, second, UNICODE_LETTER);
    size_t symbols = at + (text.data[at] == ' ');
    if (!(classes_at(text, symbols) & (UNICODE_SPACE | UNICODE_NUMBER)))
        return skip_line_ends(text, skip_symbols(text, symbols));
    size_t lines = next_lines(text, at);
    return lines > at ? lines : next_spaces(text, at, false);
}

size_t pretokenize_next_digits(span text, size_t at, bool single_digits)
{
    unicode_character c = unicode_at(text, at);
    if (c.classes & UNICODE_NUMBER)
        return single_digits ? at + c.n_bytes : skip(text, at, UNICODE_NUMBER);
    while (at < text.size) {
        c = unicode_at(text, at);
        if (c.classes & UNICODE_NUMBER)
            break;
        at += c.n_bytes;
    }
    return at;
}

static bool is_punctuation(span text, size_t at)
{
    uint8_t  byte = (uint8_t)text.data[at];
    uint32_t c;
    if (byte < 0x80)
        return (unicode_ascii[byte] & (UNICODE_PUNCTUATION | UNICODE_SYMBOL)) != 0;
    return utf8_decode((span){text.data + at, text.size - at}, &c) && bert_is_punctuation(c);
}

size_t pretokenize_next_bert(span text, size_t at, bool punctuation_alone)
{
    if (punctuation_alone && is_punctuation(text, at))
        return at + unicode_at(text, at).n_bytes;
    while (at < text.size) {
        unicode_character c = unicode_at(text, at);
        if (c.classes & UNICODE_SPACE || (punctuation_alone && is_punctuation(text, at)))
            break;
        at += c.n_bytes;
    }
    return at;
}

size_t pretokenize_next_punctuation(span text, size_t at)
{
    size_t end = at;
    while (end < text.size && !is_punctuation(text, end))
        end += unicode_at(text, end).n_bytes;
    return end > at ? end : at + unicode_at(text, at).n_bytes;
}

size_t pretokenize_next_word(span text, size_t at)
{
    if (classes_at(text, at) & UNICODE_WORD)
        return skip(text, at, UNICODE_WORD);
    while (at < text.size) {
        unicode_character c = unicode_at(text, at);
        if (c.classes & (UNICODE_SPACE | UNICODE_WORD))
            break;
        at += c.n_bytes;
    }
    return at;
}

size_t pretokenize_next_blank(span text, size_t at, bool cuts_runs)
{
    static const char blank[] = "\xE2\x96\x81";
    enum { BLANK_BYTES = sizeof blank - 1 };
    bool in_run = true;
    for (size_t end = at; end < text.size;) {
        const char *found = memchr(text.data + end, blank[0], text.size - end);
        size_t      next  = found ? (size_t)(found - text.data) : text.size;
        in_run            = in_run && next == end;
        end               = next;
        if (text.size - end < BLANK_BYTES)
            break;
        bool is_blank = memcmp(text.data + end, blank, BLANK_BYTES) == 0;
        if (is_blank && end > at && (cuts_runs || !in_run))
            return end;
        in_run = in_run && is_blank;
        end += is_blank ? BLANK_BYTES : 1;
    }
    return text.size;
}
