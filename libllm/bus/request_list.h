/* Requests as gen.find and gen.found list them: five numbers each, the bytes of the id and the attempt. */
#ifndef TROUPE_BUS_REQUEST_LIST_H
#define TROUPE_BUS_REQUEST_LIST_H

#include "bus/bus.h"

enum { REQUEST_LIST_WORDS = 5, REQUEST_LIST_MAX = 2048 };

void request_list_put(uint32_t *words, const request_id *id, uint32_t attempt);
void request_list_get(const uint32_t *words, request_id *id, uint32_t *attempt);

/* Copies those for which has(arg, ...) is true into out[0..n_words), and returns how many words they are. Words at the
 * end that are no whole request are left out. */
uint32_t request_list_filter(const uint32_t *words, uint32_t n_words, uint32_t *out,
                             bool (*has)(void *arg, const request_id *id, uint32_t attempt), void *arg);

#endif
