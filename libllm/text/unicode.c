/* Lookups in the generated tables. */
#include "text/unicode.h"

#include "base/utf8.h"

uint32_t unicode_classes(uint32_t code_point)
{
    if (code_point >= 0x110000)
        return 0;
    uint8_t page = unicode_page_of[code_point >> UNICODE_PAGE_BITS];
    return unicode_class_sets[unicode_pages[page][code_point & ((1 << UNICODE_PAGE_BITS) - 1)]];
}

unicode_character unicode_multibyte_at(span text, size_t at)
{
    uint32_t code_point;
    size_t   n_bytes = utf8_decode((span){text.data + at, text.size - at}, &code_point);
    if (n_bytes == 0)
        return (unicode_character){0, 1};
    return (unicode_character){unicode_classes(code_point), (uint32_t)n_bytes};
}

unicode_character unicode_before(span text, size_t at)
{
    for (size_t n_bytes = 1; n_bytes <= UTF8_BYTES_MAX && n_bytes <= at; n_bytes++) {
        unicode_character c = unicode_at((span){text.data, at}, at - n_bytes);
        if (c.n_bytes == n_bytes && (n_bytes > 1 || (uint8_t)text.data[at - 1] < 0x80))
            return c;
    }
    return (unicode_character){0, 1};
}
