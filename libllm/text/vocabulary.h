/* A model's tokens: the bytes and kind of each id, and the id of some bytes.
 *
 * Built once, token by token in the order of their ids, then read by many threads. Ids may be left empty: they never
 * come out of a text and decode to nothing. */
#ifndef TROUPE_TEXT_VOCABULARY_H
#define TROUPE_TEXT_VOCABULARY_H

#include "base/error.h"
#include "base/span.h"

typedef struct vocabulary vocabulary;

enum { VOCABULARY_TOKENS_MAX = 4 << 20, VOCABULARY_TOKEN_BYTES_MAX = 64 << 10 };
#define VOCABULARY_NONE UINT32_MAX

/* Bits: a search can name several, and a token can be both normal and added. */
typedef enum {
    TOKEN_NORMAL  = 1,  /* byte-pair encoding makes it */
    TOKEN_ADDED   = 2,  /* matched whole in any text */
    TOKEN_SPECIAL = 4,  /* matched whole in trusted text only; not printed */
    TOKEN_UNUSED  = 8,  /* never made */
    TOKEN_BYTE    = 16, /* "<0x0A>": stands for a byte of a character that is no token */
} token_kind;

/* Room for exactly `n_tokens`. NULL with *err set: ERR_NO_MEMORY, ERR_UNSUPPORTED past the limit. */
vocabulary *vocabulary_new(uint32_t n_tokens, error *err);
void        vocabulary_free(vocabulary **v);

/* The next id's token; `bytes` are copied. Empty bytes leave the id empty. */
bool vocabulary_append(vocabulary *v, span bytes, uint32_t kinds, error *err);

uint32_t vocabulary_n_tokens(const vocabulary *v);
span     vocabulary_bytes(const vocabulary *v, uint32_t token); /* empty when the id is out of range */
uint32_t vocabulary_kinds(const vocabulary *v, uint32_t token); /* TOKEN_UNUSED when the id is out of range */
size_t   vocabulary_longest(const vocabulary *v);               /* bytes of the longest token */

/* The lowest id of these bytes among the tokens of these kinds; VOCABULARY_NONE when there is none. */
uint32_t vocabulary_find(const vocabulary *v, span bytes, uint32_t kinds);

/* The TOKEN_BYTE token of `byte`; VOCABULARY_NONE when there is none. */
uint32_t vocabulary_find_byte(const vocabulary *v, uint8_t byte);

/* The byte that a token spelled "<0x0A>" is named after; -1 when it is spelled otherwise. */
int vocabulary_byte_of_name(span spelling);

/* A seeded hash of two words, for tables that a model file fills. */
static inline uint64_t vocabulary_mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)(a ^ UINT64_C(0x2d358dccaa6c78a5)) * (b ^ UINT64_C(0x8bb84b93962eacc9));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
