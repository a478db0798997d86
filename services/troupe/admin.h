/* The admin port of a process: /health and /metrics over HTTP, on a thread of its own. */
#ifndef TROUPE_TROUPE_ADMIN_H
#define TROUPE_TROUPE_ADMIN_H

#include "base/error.h"
#include <stdint.h>

typedef struct admin admin;

/* Listens at once. */
admin *admin_new(const char *host, uint16_t port, error *err);
void   admin_free(admin **a);

/* GET http://host:port/path: the check that containers run, so that no image needs a curl. True when the status is 200;
 * else *err says what came back. */
bool admin_get(const char *host, uint16_t port, const char *path, error *err) MUST_CHECK;

#endif
