/* SipHash-2-4 with 64 and 128 bits of result, after "SipHash: a fast short-input PRF" (2012). */
#include "base/hash.h"

#include <endian.h>
#include <string.h>

typedef struct {
    uint64_t v0, v1, v2, v3;
} sip_state;

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t load_le64(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return le64toh(word);
}

static inline void sip_rounds(sip_state *s, int n_rounds)
{
    for (int i = 0; i < n_rounds; i++) {
        s->v0 += s->v1;
        s->v1 = rotate_left(s->v1, 13) ^ s->v0;
        s->v0 = rotate_left(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotate_left(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotate_left(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotate_left(s->v1, 17) ^ s->v2;
        s->v2 = rotate_left(s->v2, 32);
    }
}

static void sip_absorb(sip_state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_rounds(s, 2);
    s->v0 ^= word;
}

static sip_state sip_over(hash_key key, const void *data, size_t bytes, uint64_t v1_tweak)
{
    sip_state s = {
        key.k0 ^ UINT64_C(0x736f6d6570736575),
        key.k1 ^ UINT64_C(0x646f72616e646f6d) ^ v1_tweak,
        key.k0 ^ UINT64_C(0x6c7967656e657261),
        key.k1 ^ UINT64_C(0x7465646279746573),
    };
    const uint8_t *at   = data;
    size_t         left = bytes;
    for (; left >= 8; at += 8, left -= 8)
        sip_absorb(&s, load_le64(at));
    uint64_t last = (uint64_t)bytes << 56;
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)at[i] << (8 * i);
    sip_absorb(&s, last);
    return s;
}

static uint64_t sip_squeeze(sip_state *s)
{
    sip_rounds(s, 4);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

hash_key hash_key_from_bytes(const uint8_t bytes[16])
{
    return (hash_key){load_le64(bytes), load_le64(bytes + 8)};
}

uint64_t hash_64(hash_key key, const void *data, size_t bytes)
{
    sip_state s = sip_over(key, data, bytes, 0);
    s.v2 ^= 0xff;
    return sip_squeeze(&s);
}

hash128 hash_128(hash_key key, const void *data, size_t bytes)
{
    sip_state s = sip_over(key, data, bytes, 0xee);
    s.v2 ^= 0xee;
    hash128 result;
    result.low = sip_squeeze(&s);
    s.v1 ^= 0xdd;
    result.high = sip_squeeze(&s);
    return result;
}
