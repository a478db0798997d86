/* Unicode 15, table 3-7 as a lookup by first byte: the range of the second byte and the number of bytes. */
#include "base/utf8.h"

typedef struct {
    uint8_t n_bytes; /* 0: no sequence begins with this byte */
    uint8_t second_min, second_max;
} lead_rule;

static lead_rule rule_of(uint8_t lead)
{
    if (lead < 0x80)
        return (lead_rule){1, 0, 0};
    if (lead >= 0xC2 && lead <= 0xDF)
        return (lead_rule){2, 0x80, 0xBF};
    if (lead >= 0xE0 && lead <= 0xEF)
        return (lead_rule){3, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF};
    if (lead >= 0xF0 && lead <= 0xF4)
        return (lead_rule){4, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF};
    return (lead_rule){0, 0, 0};
}

/* How many bytes at the start of `text` agree with `rule`; rule.n_bytes of them make a code point. */
static size_t matching_bytes(span text, lead_rule rule)
{
    size_t n = 1;
    while (n < rule.n_bytes && n < text.size) {
        uint8_t byte = (uint8_t)text.data[n];
        uint8_t min  = n == 1 ? rule.second_min : 0x80;
        uint8_t max  = n == 1 ? rule.second_max : 0xBF;
        if (byte < min || byte > max)
            break;
        n++;
    }
    return n;
}

size_t utf8_decode(span text, uint32_t *code_point)
{
    *code_point = UTF8_REPLACEMENT;
    if (text.size == 0)
        return 0;
    uint8_t lead = (uint8_t)text.data[0];
    if (lead < 0x80) {
        *code_point = lead;
        return 1;
    }
    lead_rule rule = rule_of(lead);
    if (rule.n_bytes == 0 || matching_bytes(text, rule) < rule.n_bytes)
        return 0;
    uint32_t value = lead & (0x7Fu >> rule.n_bytes);
    for (size_t i = 1; i < rule.n_bytes; i++)
        value = value << 6 | ((uint8_t)text.data[i] & 0x3F);
    *code_point = value;
    return rule.n_bytes;
}

size_t utf8_encode(uint32_t code_point, char out[UTF8_BYTES_MAX])
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if ((code_point >= 0xD800 && code_point <= 0xDFFF) || code_point > 0x10FFFF)
        return 0;
    size_t n_bytes = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
    for (size_t i = n_bytes - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code_point & 0x3F));
        code_point >>= 6;
    }
    out[0] = (char)((0xF00u >> n_bytes & 0xFF) | code_point);
    return n_bytes;
}

size_t utf8_valid_prefix(span text)
{
    size_t at = 0;
    while (at < text.size) {
        uint32_t code_point;
        size_t   n_bytes = utf8_decode((span){text.data + at, text.size - at}, &code_point);
        if (n_bytes == 0)
            break;
        at += n_bytes;
    }
    return at;
}

bool utf8_is_valid(span text)
{
    return utf8_valid_prefix(text) == text.size;
}

size_t utf8_invalid_length(span text, bool *may_continue)
{
    lead_rule rule = rule_of((uint8_t)text.data[0]);
    size_t    n    = matching_bytes(text, rule);
    if (may_continue)
        *may_continue = n == text.size && n < rule.n_bytes;
    return n;
}
