/* Requests as gen.find and gen.found list them: five numbers each, the bytes of the id and the attempt. */
#ifndef TROUPE_BUS_REQUEST_LIST_H
#define TROUPE_BUS_REQUEST_LIST_H

#include "bus/bus.h"

enum { REQUEST_LIST_WORDS = 5, REQUEST_LIST_MAX = 2048 };

void request_list_put(uint32_t *words, const request_id *id, uint32_t attempt);
void request_list_get(const uint32_t *words, request_id *id, uint32_t *attempt);

#endif
