/* See resolver.h. */
#include "troupe/resolver.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { NAMES_MAX = 64, HOST_BYTES = 256, PERIOD_S = 1, PATIENCE_S = 2 };

typedef struct {
    actor   *actor;
    char     endpoint[BUS_ENDPOINT_BYTES], host[HOST_BYTES], port[16];
    uint32_t n_places; /* that the actor knows of */
    char     places[ACTOR_PLACES_MAX][ACTOR_PLACE_BYTES];
} resolved_name;

struct resolver {
    resolver_lookup *lookup;
    uint32_t         n_names;
    resolved_name    names[NAMES_MAX];
    pthread_t        thread;
    bool             has_thread;
    atomic_bool      stopping;
    pthread_mutex_t  mutex; /* of the wait between rounds */
    pthread_cond_t   stopped;
};

/* ---- endpoints ---- */

/* "tcp://host:port"; false for others, and for addresses in brackets. */
static bool split(const char *endpoint, char *host, char *port)
{
    return sscanf(endpoint, "tcp://%255[^][:/]:%15[0-9]", host, port) == 2;
}

bool resolver_wants(const char *endpoint)
{
    char           host[HOST_BYTES], port[16];
    struct in_addr address;
    return split(endpoint, host, port) && strcmp(host, "*") != 0 && inet_pton(AF_INET, host, &address) != 1;
}

/* ---- looking up ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

static uint32_t collect(const struct addrinfo *all, int family, char (*out)[ACTOR_PLACE_BYTES])
{
    uint32_t n = 0;
    for (const struct addrinfo *a = all; a && n < ACTOR_PLACES_MAX; a = a->ai_next) {
        char text[INET6_ADDRSTRLEN];
        if (a->ai_family != family ||
            getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST))
            continue;
        snprintf(out[n++], ACTOR_PLACE_BYTES, family == AF_INET6 ? "[%s]" : "%s", text);
    }
    qsort(out, n, ACTOR_PLACE_BYTES, by_text); /* name servers turn the order around with each answer */
    return n;
}

static bool ask_the_system(const char *host, char (*out)[ACTOR_PLACE_BYTES], uint32_t *n)
{
    struct addrinfo  hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all   = NULL;
    if (getaddrinfo(host, NULL, &hints, &all) != 0)
        return false;
    *n = collect(all, AF_INET, out);
    if (*n == 0)
        *n = collect(all, AF_INET6, out);
    freeaddrinfo(all);
    return *n > 0;
}

/* ---- rounds ---- */

static void look_up(resolver *r, resolved_name *name)
{
    char     hosts[ACTOR_PLACES_MAX][ACTOR_PLACE_BYTES], places[ACTOR_PLACES_MAX][ACTOR_PLACE_BYTES] = {{0}};
    uint32_t n;
    error    err;
    if (!r->lookup(name->host, hosts, &n) || atomic_load(&r->stopping))
        return; /* what was there before may still be */
    for (uint32_t i = 0; i < n; i++)
        if (snprintf(places[i], ACTOR_PLACE_BYTES, "tcp://%s:%s", hosts[i], name->port) >= ACTOR_PLACE_BYTES)
            return;
    if (n == name->n_places && memcmp(places, name->places, n * sizeof places[0]) == 0)
        return;
    log_info("a name's addresses", "endpoint=%s n=%u first=%s", name->endpoint, n, places[0]);
    if (!actor_set_places(name->actor, name->endpoint, (const char(*)[ACTOR_PLACE_BYTES])places, n, &err)) {
        log_error("a name is not followed", "endpoint=%s why=\"%s\"", name->endpoint, err.text);
        return;
    }
    name->n_places = n;
    memcpy(name->places, places, sizeof places);
}

void resolver_turn(resolver *r)
{
    for (uint32_t i = 0; i < r->n_names; i++)
        look_up(r, &r->names[i]);
}

static void *run(void *arg)
{
    resolver *r = arg;
    log_set_thread_service("resolver");
    while (!atomic_load(&r->stopping)) {
        struct timespec until;
        resolver_turn(r);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PERIOD_S;
        pthread_mutex_lock(&r->mutex);
        if (!atomic_load(&r->stopping))
            pthread_cond_timedwait(&r->stopped, &r->mutex, &until);
        pthread_mutex_unlock(&r->mutex);
    }
    return NULL;
}

/* ---- life ---- */

resolver *resolver_new(resolver_lookup *lookup, error *err)
{
    resolver *r = calloc(1, sizeof *r);
    if (!r) {
        error_set(err, ERR_NO_MEMORY, "no memory to look up names");
        return NULL;
    }
    r->lookup = lookup ? lookup : ask_the_system;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->stopped, NULL);
    return r;
}

bool resolver_add(resolver *r, actor *a, const char *endpoint, error *err)
{
    resolved_name *name = &r->names[r->n_names];
    if (r->n_names == NAMES_MAX || strlen(endpoint) >= ACTOR_PLACE_BYTES || !split(endpoint, name->host, name->port))
        return error_set(err, ERR_TOO_LARGE, "%s: it has no name in it, or is too long, or there are over %d", endpoint,
                         NAMES_MAX);
    snprintf(name->endpoint, sizeof name->endpoint, "%s", endpoint);
    name->actor = a;
    r->n_names++;
    return true;
}

bool resolver_start(resolver *r, error *err)
{
    if (r->n_names == 0)
        return true;
    if (pthread_create(&r->thread, NULL, run, r) != 0)
        return error_set(err, ERR_NO_MEMORY, "no thread to look up names");
    r->has_thread = true;
    return true;
}

/* Whether the thread ended. A name server that does not answer may hold it for long; it touches no actor any more. */
static bool stop_thread(resolver *r)
{
    struct timespec until;
    pthread_mutex_lock(&r->mutex);
    atomic_store(&r->stopping, true);
    pthread_cond_signal(&r->stopped);
    pthread_mutex_unlock(&r->mutex);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    return !r->has_thread || pthread_timedjoin_np(r->thread, NULL, &until) == 0;
}

void resolver_free(resolver **r)
{
    if (*r && stop_thread(*r)) {
        pthread_mutex_destroy(&(*r)->mutex);
        pthread_cond_destroy(&(*r)->stopped);
        free(*r);
    } else if (*r) {
        log_warn("a name server does not answer", " "); /* and the process ends: what its thread needs stays */
    }
    *r = NULL;
}
