/* A ring in the order of the text; see held_logprobs.h. */
#include "postprocessor/held_logprobs.h"

struct held_logprobs {
    uint32_t     oldest, n;
    held_logprob ring[HELD_LOGPROBS_MAX];
};

size_t held_logprobs_bytes(void)
{
    return sizeof(held_logprobs) + 16;
}

held_logprobs *held_logprobs_new(arena *memory)
{
    return arena_take(memory, sizeof(held_logprobs));
}

static held_logprob *at(held_logprobs *h, uint32_t i)
{
    return &h->ring[(h->oldest + i) % HELD_LOGPROBS_MAX];
}

void held_logprobs_add(held_logprobs *h, const token_logprob *scored, uint32_t first, uint32_t end)
{
    if (h->n == HELD_LOGPROBS_MAX)
        return;
    held_logprob *l = at(h, h->n++);
    uint32_t      n = scored->n_top_tokens < scored->n_top_logprobs ? scored->n_top_tokens : scored->n_top_logprobs;
    n               = n < LOGPROB_TOP_MAX ? n : LOGPROB_TOP_MAX;
    l->scored       = *scored;
    l->first        = first;
    l->end          = end;
    l->is_covered   = false;
    for (uint32_t i = 0; i < n; i++) {
        l->top_tokens[i]   = scored->top_tokens[i];
        l->top_logprobs[i] = scored->top_logprobs[i];
    }
    l->scored.n_top_tokens = l->scored.n_top_logprobs = n;
    l->scored.top_tokens                              = l->top_tokens;
    l->scored.top_logprobs                            = l->top_logprobs;
}

uint32_t held_logprobs_n(const held_logprobs *h)
{
    return h->n;
}

void held_logprobs_cover(held_logprobs *h, uint32_t character)
{
    for (uint32_t i = 0; i < h->n && at(h, i)->first <= character; i++)
        at(h, i)->is_covered |= character < at(h, i)->end;
}

const held_logprob *held_logprobs_next(held_logprobs *h, uint32_t n_said)
{
    while (h->n > 0 && at(h, 0)->end <= n_said) {
        held_logprob *l = at(h, 0);
        h->oldest       = (h->oldest + 1) % HELD_LOGPROBS_MAX;
        h->n--;
        if (!l->is_covered)
            return l;
    }
    return NULL;
}
