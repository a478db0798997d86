/* See request_list.h. */
#include "bus/request_list.h"

#include <string.h>

void request_list_put(uint32_t *words, const request_id *id, uint32_t attempt)
{
    memcpy(words, id->bytes, sizeof id->bytes);
    words[REQUEST_LIST_WORDS - 1] = attempt;
}

void request_list_get(const uint32_t *words, request_id *id, uint32_t *attempt)
{
    memcpy(id->bytes, words, sizeof id->bytes);
    *attempt = words[REQUEST_LIST_WORDS - 1];
}

uint32_t request_list_filter(const uint32_t *words, uint32_t n_words, uint32_t *out,
                             bool (*has)(void *arg, const request_id *id, uint32_t attempt), void *arg)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i + REQUEST_LIST_WORDS <= n_words; i += REQUEST_LIST_WORDS) {
        request_id id;
        uint32_t   attempt;
        request_list_get(words + i, &id, &attempt);
        if (!has(arg, &id, attempt))
            continue;
        request_list_put(out + n, &id, attempt);
        n += REQUEST_LIST_WORDS;
    }
    return n;
}
