/* Run counters; see repetition.h. */
#include "postprocessor/repetition.h"

#include <assert.h>

bool repetition_add(repetition *r, uint32_t token, uint32_t limit)
{
    assert(limit >= 2);
    bool     repeats = false;
    uint64_t longest = r->n_tokens < REPETITION_BLOCK_MAX ? r->n_tokens : REPETITION_BLOCK_MAX;
    for (uint32_t length = 1; length <= longest; length++) {
        uint32_t *run   = &r->runs[length - 1];
        bool      equal = r->recent[(r->n_tokens - length) % REPETITION_BLOCK_MAX] == token;
        *run            = !equal ? 0 : *run < UINT32_MAX ? *run + 1 : *run;
        repeats         = repeats || *run >= (uint64_t)(limit - 1) * length;
    }
    r->recent[r->n_tokens++ % REPETITION_BLOCK_MAX] = token;
    return repeats;
}
