/* See find.h. */
#include "actor/find.h"

#include "base/log.h"
#include "bus/request_list.h"

void actor_answer_find(actor *a, const message *m, bool (*has)(void *arg, const request_id *id, uint32_t attempt),
                       void *arg)
{
    const gen_find *asked = m->body;
    uint32_t        words[REQUEST_LIST_WORDS * REQUEST_LIST_MAX];
    gen_found       found = {.round = asked->round, .requests = words};
    error           err;
    for (uint32_t i = 0; i + REQUEST_LIST_WORDS <= asked->n_requests; i += REQUEST_LIST_WORDS) {
        request_id id;
        uint32_t   attempt;
        request_list_get(asked->requests + i, &id, &attempt);
        if (!has(arg, &id, attempt))
            continue;
        request_list_put(words + found.n_requests, &id, attempt);
        found.n_requests += REQUEST_LIST_WORDS;
    }
    if (!actor_send(a, m->from, MSG_GEN_FOUND, &found, NULL, &err))
        log_debug("not answered", "node=%s why=\"%s\"", m->from->name, err.text);
}
