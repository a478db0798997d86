/* Characters are told apart as the detokenizer does it. */
#include "postprocessor/text_position.h"

static void advance_byte(text_position *p, char byte)
{
    p->partial[p->n_partial++] = byte;
    while (p->n_partial > 0) {
        uint32_t character;
        bool     may_continue = false;
        span     partial      = {p->partial, p->n_partial};
        size_t   n            = utf8_decode(partial, &character);
        if (n == 0)
            n = utf8_invalid_length(partial, &may_continue);
        if (may_continue)
            return;
        p->n_characters++;
        p->n_partial -= (uint32_t)n;
        memmove(p->partial, p->partial + n, p->n_partial);
    }
}

void text_position_advance(text_position *p, span token)
{
    for (size_t i = 0; i < token.size; i++)
        advance_byte(p, token.data[i]);
}
