/* Random bytes from the system, and a small seeded generator for tests, simulation and jitter.
 *
 * The seeded one is xoshiro256** (Blackman, Vigna, 2018), its state filled by splitmix64 from one number: the same seed
 * gives the same sequence on every machine. It is not for secrets; token sampling has a generator of its own. */
#ifndef TROUPE_BASE_RANDOM_H
#define TROUPE_BASE_RANDOM_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

/* Fills out[0..bytes) from getrandom(2). Fails with ERR_IO only where the system has no such call. */
bool random_bytes(void *out, size_t bytes, error *err) MUST_CHECK;

typedef struct {
    uint64_t state[4];
} random_seeded;

random_seeded random_from_seed(uint64_t seed);
uint64_t      random_splitmix64(uint64_t *state); /* another number for each state, which becomes the next one */
uint64_t      random_u64(random_seeded *r);
uint64_t      random_below(random_seeded *r, uint64_t bound); /* uniform in [0, bound); bound > 0 */
double        random_unit(random_seeded *r);                  /* uniform in [0, 1), 53 bits */

#endif
