/* Where Redis is: its URL, and its host's address found without blocking. */
#ifndef TROUPE_STORE_REDIS_ADDRESS_H
#define TROUPE_STORE_REDIS_ADDRESS_H

#include "base/error.h"
#include "base/span.h"

enum { REDIS_HOST_BYTES = 256 };

typedef struct {
    bool     is_unix;
    bool     is_numeric;             /* host is an address already */
    char     host[REDIS_HOST_BYTES]; /* name, address, or the socket's path */
    char     user[REDIS_HOST_BYTES]; /* "" for none */
    uint16_t port;
    uint32_t database;
} redis_address;

/* Reads "redis://[user@]host[:port][/database]" (an IPv6 address stands in brackets) or "unix:/path". A password in it
 * is refused: it belongs in a file. */
bool redis_address_parse(const char *url, redis_address *address, error *err) MUST_CHECK;

/* A look-up in progress. */
typedef struct redis_lookup redis_lookup;

redis_lookup *redis_lookup_start(const char *host, error *err);

typedef enum { REDIS_LOOKUP_PENDING, REDIS_LOOKUP_FOUND, REDIS_LOOKUP_FAILED } redis_lookup_state;

/* Found: the numeric address is in ip. Failed: *err says why. */
redis_lookup_state redis_lookup_poll(redis_lookup *lookup, char ip[REDIS_HOST_BYTES], error *err);

/* Ends a look-up at any moment. */
void redis_lookup_free(redis_lookup **lookup);

#endif
