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
