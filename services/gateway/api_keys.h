/* API keys from a file: who may ask, and who pays.
 *
 * A line is `key [tenant] [limit=N]...`; empty lines and lines that begin with # are skipped. Limits are
 * requests-per-minute, tokens-per-minute and concurrent-requests (key_usage.h). Only SHA-256 digests are kept, and a
 * key is compared with every one of them in constant time. A key without a tenant is a tenant of its own, named by the
 * first bytes of its digest: a tenant's name salts the prefix cache. */
#ifndef TROUPE_GATEWAY_API_KEYS_H
#define TROUPE_GATEWAY_API_KEYS_H

#include "base/error.h"
#include "services/gateway/key_usage.h"

enum { API_KEYS_MAX = 4096, API_KEY_BYTES_MIN = 8, API_KEY_BYTES_MAX = 512, TENANT_BYTES = 64 };

typedef struct api_keys api_keys;

/* Reads `path`. NULL with *err naming the file and the line. A file without a key is refused: it would lock everybody
 * out without saying so. Keys that are in `before` too (may be NULL) have used what they used there. */
api_keys *api_keys_load(const char *path, const api_keys *before, error *err);
void      api_keys_free(api_keys **keys);
size_t    api_keys_count(const api_keys *keys);

/* The tenant of a key, owned by `keys`; NULL when the key is unknown. *usage (may be NULL) is what it has used: hold it
 * to keep it. */
const char *api_keys_find(const api_keys *keys, span key, key_usage **usage);

/* The key in the value of an Authorization header ("Bearer KEY"); empty when it is not one. */
span api_key_of(span authorization);

#endif
