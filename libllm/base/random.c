/* getrandom(2), and xoshiro256** seeded by splitmix64. */
#include "base/random.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

bool random_bytes(void *out, size_t bytes, error *err)
{
    char *at = out;
    while (bytes > 0) {
        ssize_t n = getrandom(at, bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERR_IO, "getrandom: the system gives no random bytes (%s)", strerror(errno));
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

uint64_t random_splitmix64(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z          = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z          = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

random_seeded random_from_seed(uint64_t seed)
{
    random_seeded r;
    for (int i = 0; i < 4; i++)
        r.state[i] = random_splitmix64(&seed);
    return r;
}

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

uint64_t random_u64(random_seeded *r)
{
    uint64_t *s      = r->state;
    uint64_t  result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t  t      = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* Rejects the low 2^64 mod bound numbers, so that every remainder is equally likely. */
uint64_t random_below(random_seeded *r, uint64_t bound)
{
    assert(bound > 0);
    uint64_t threshold = -bound % bound;
    uint64_t x;
    do
        x = random_u64(r);
    while (x < threshold);
    return x % bound;
}

double random_unit(random_seeded *r)
{
    return (double)(random_u64(r) >> 11) * 0x1p-53;
}
