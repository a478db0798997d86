/* The answer to gen.find, of every service that may have requests: those of the list that it has. */
#ifndef TROUPE_ACTOR_FIND_H
#define TROUPE_ACTOR_FIND_H

#include "actor/actor.h"

/* To whoever sent `m`, a gen.find. has(arg, ...) tells whether the request is here, in this very attempt. */
void actor_answer_find(actor *a, const message *m, bool (*has)(void *arg, const request_id *id, uint32_t attempt),
                       void *arg);

#endif
