/* Servers behind a name. A name may stand for several addresses, and tomorrow for others: whoever looks it up (a thread
 * of the process's, for that may block) hands the addresses over, and the actor calls each of them. */
#include "actor/runtime.h"
#include "base/log.h"

#include <stdio.h>

bool actor_set_places(actor *a, const char *name, const char (*places)[ACTOR_PLACE_BYTES], uint32_t n, error *err)
{
    uint32_t i = 0;
    if (strlen(name) >= ACTOR_PLACE_BYTES || n > ACTOR_PLACES_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s: %u addresses; at most %d are called, of %d bytes", name, n,
                         ACTOR_PLACES_MAX, ACTOR_PLACE_BYTES - 1);
    pthread_mutex_lock(&a->names_mutex);
    while (i < ACTOR_NAMES_MAX && a->names[i].name[0] && strcmp(a->names[i].name, name) != 0)
        i++;
    if (i < ACTOR_NAMES_MAX) {
        actor_name_places *p = &a->names[i];
        memcpy(p->name, name, strlen(name) + 1);
        p->n = n;
        for (uint32_t k = 0; k < n; k++)
            snprintf(p->places[k], ACTOR_PLACE_BYTES, "%s", places[k]);
    }
    pthread_mutex_unlock(&a->names_mutex);
    if (i == ACTOR_NAMES_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s: servers have at most %d names", name, ACTOR_NAMES_MAX);
    atomic_store(&a->names_changed, true);
    actor_wake(a);
    return true;
}

static actor_link *find_link(actor *a, const char *name, const char *endpoint)
{
    for (uint32_t i = 0; i < a->n_links; i++)
        if (a->links[i].name == name && strcmp(a->links[i].endpoint, endpoint) == 0)
            return &a->links[i];
    return NULL;
}

/* One that was used before, or a new one; NULL when all are taken. */
static actor_link *free_link(actor *a)
{
    for (uint32_t i = 0; i < a->n_links; i++)
        if (!a->links[i].mailbox)
            return &a->links[i];
    return a->n_links < ACTOR_LINKS_MAX ? &a->links[a->n_links++] : NULL;
}

static void call(actor *a, const char *name, const char *endpoint)
{
    actor_link *link = find_link(a, name, endpoint);
    error       err;
    if (link) {
        link->listed = true;
        return;
    }
    link = free_link(a);
    if (!link) {
        log_error("too many servers to call", "name=%s endpoint=%s", name, endpoint);
        return;
    }
    *link         = (actor_link){.connects = true, .name = name, .listed = true, .owner = a};
    link->mailbox = actor_mailbox_for(a, endpoint, &err);
    memcpy(link->endpoint, endpoint, strlen(endpoint) + 1);
    if (!link->mailbox || !transport_connect(link->mailbox, (uint32_t)(link - a->links), endpoint, &err)) {
        log_error("a server cannot be called", "endpoint=%s why=\"%s\"", endpoint, err.text);
        link->mailbox = NULL;
        return;
    }
    log_info("calls a server", "name=%s endpoint=%s", name, endpoint);
    actor_link_start(link);
}

void actor_drop_link(actor *a, uint32_t number)
{
    actor_link *link = &a->links[number];
    error       err;
    log_info("calls a server no more", "name=%s endpoint=%s", link->name, link->endpoint);
    actor_timer_cancel(a, &link->timer);
    if (!transport_connect(link->mailbox, number, NULL, &err))
        log_debug("a connection was not closed", "reason=\"%s\"", err.text);
    *link = (actor_link){.owner = a};
}

void actor_take_places(actor *a)
{
    if (!atomic_exchange(&a->names_changed, false))
        return;
    pthread_mutex_lock(&a->names_mutex);
    for (uint32_t i = 0; i < a->n_links; i++)
        a->links[i].listed = false;
    for (uint32_t i = 0; i < ACTOR_NAMES_MAX; i++)
        for (uint32_t k = 0; k < a->names[i].n; k++)
            call(a, a->names[i].name, a->names[i].places[k]);
    pthread_mutex_unlock(&a->names_mutex);
    for (uint32_t i = 0; i < a->n_links; i++)
        if (a->links[i].mailbox && a->links[i].name && !a->links[i].listed && a->links[i].state != LINK_UP)
            actor_drop_link(a, i);
}
