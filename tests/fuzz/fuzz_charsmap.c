// links: llm_text
/* Any bytes are a charsmap, or refused; what it makes of any text fits into what was promised. The first byte
 * is the text's size; the text follows, then the map. */
#include "text/charsmap.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    error  err    = {0};
    size_t n_text = size > 0 ? data[0] : 0;
    if (size < 1 + n_text)
        return 0;
    span      text = {(const char *)data + 1, n_text};
    charsmap *map  = charsmap_new((span){(const char *)data + 1 + n_text, size - 1 - n_text}, &err);
    if (!map && !err.text[0])
        abort();
    for (int matching = CHARSMAP_LONGEST; map && matching <= CHARSMAP_GRAPHEMES; matching++) {
        char  *out = malloc(n_text * charsmap_growth(map) + 1); /* exactly what is promised: ASan sees a byte more */
        size_t n   = charsmap_normalize(map, text, (charsmap_matching)matching, out);
        if (n > n_text * charsmap_growth(map))
            abort();
        free(out);
    }
    charsmap_free(&map);
    return 0;
}
