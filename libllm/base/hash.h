/* SipHash-2-4 (Aumasson, Bernstein, 2012): a keyed hash for names that outsiders choose.
 *
 * Without the key nobody can build inputs that collide, so it is safe for hash tables over request data and for the
 * hashes of KV blocks, where a forged collision would serve one tenant another's cache. */
#ifndef TROUPE_BASE_HASH_H
#define TROUPE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t k0, k1; /* the 16 key bytes as two little-endian words */
} hash_key;

typedef struct {
    uint64_t low, high; /* the 16 result bytes as two little-endian words */
} hash128;

hash_key hash_key_from_bytes(const uint8_t bytes[16]);

uint64_t hash_64(hash_key key, const void *data, size_t bytes);
hash128  hash_128(hash_key key, const void *data, size_t bytes);

#endif
