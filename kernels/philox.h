/* Philox4x32-10: a counter-based random generator (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as
 * easy as 1, 2, 3"). The same 128-bit counter and 64-bit key give the same four words on every machine, in any order of
 * asking. */
#ifndef TROUPE_KERNELS_PHILOX_H
#define TROUPE_KERNELS_PHILOX_H

#include <stdint.h>

#include "kernels/dtype.h"

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_MULTIPLIER_0 0xD2511F53u
#define PHILOX_MULTIPLIER_1 0xCD9E8D57u
#define PHILOX_KEY_STEP_0 0x9E3779B9u
#define PHILOX_KEY_STEP_1 0xBB67AE85u

/* Replaces the counter by its four random words. */
KERN_HOST_DEVICE static inline void philox_4x32(uint32_t words[4], uint32_t key_0, uint32_t key_1)
{
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product_0 = (uint64_t)PHILOX_MULTIPLIER_0 * words[0];
        uint64_t product_1 = (uint64_t)PHILOX_MULTIPLIER_1 * words[2];
        uint32_t next_0    = (uint32_t)(product_1 >> 32) ^ words[1] ^ key_0;
        uint32_t next_2    = (uint32_t)(product_0 >> 32) ^ words[3] ^ key_1;
        words[0] = next_0, words[1] = (uint32_t)product_1;
        words[2] = next_2, words[3] = (uint32_t)product_0;
        key_0 += PHILOX_KEY_STEP_0, key_1 += PHILOX_KEY_STEP_1;
    }
}

/* The word that belongs to token i at a position: word i % 4 of counter (i / 4, position, 0, 0), key = seed. */
KERN_HOST_DEVICE static inline uint32_t philox_token_word(uint64_t seed, uint32_t position, uint32_t token)
{
    uint32_t words[4] = {token / 4, position, 0, 0};
    philox_4x32(words, (uint32_t)seed, (uint32_t)(seed >> 32));
    return words[token % 4];
}

#endif
