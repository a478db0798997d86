/* One block of bytes, one array of offsets into it, and a table of ids by the hash of their bytes. */
#include "text/vocabulary.h"

#include "base/hash.h"
#include "base/random.h"
#include <assert.h>
#include <stdlib.h>

struct vocabulary {
    uint32_t  n_tokens, n_tokens_max;
    size_t    n_bytes, n_bytes_max, longest;
    char     *bytes;
    size_t   *starts; /* [n_tokens + 1] */
    uint8_t  *kinds;
    uint32_t *slots; /* id + 1, or 0; a power of two of them, at most half full */
    size_t    n_slots;
    hash_key  key;
};

vocabulary *vocabulary_new(uint32_t n_tokens, error *err)
{
    if (n_tokens > VOCABULARY_TOKENS_MAX) {
        error_set(err, ERR_UNSUPPORTED, "a vocabulary of %u tokens; at most %d are supported", n_tokens,
                  VOCABULARY_TOKENS_MAX);
        return NULL;
    }
    vocabulary *v = calloc(1, sizeof *v);
    if (v) {
        v->n_tokens_max = n_tokens;
        v->n_slots      = 16;
        while (v->n_slots < 2 * (size_t)n_tokens)
            v->n_slots *= 2;
        v->starts = calloc((size_t)n_tokens + 1, sizeof *v->starts);
        v->kinds  = calloc((size_t)n_tokens + 1, sizeof *v->kinds);
        v->slots  = calloc(v->n_slots, sizeof *v->slots);
    }
    if (!v || !v->starts || !v->kinds || !v->slots || !random_bytes(&v->key, sizeof v->key, NULL)) {
        error_set(err, ERR_NO_MEMORY, "no memory for a vocabulary of %u tokens", n_tokens);
        vocabulary_free(&v);
    }
    return v;
}

void vocabulary_free(vocabulary **v)
{
    if (!*v)
        return;
    free((*v)->bytes);
    free((*v)->starts);
    free((*v)->kinds);
    free((*v)->slots);
    free(*v);
    *v = NULL;
}

static bool reserve(vocabulary *v, size_t n_bytes, error *err)
{
    if (v->n_bytes + n_bytes <= v->n_bytes_max)
        return true;
    size_t bigger = 2 * v->n_bytes_max + n_bytes + 4096;
    char  *bytes  = realloc(v->bytes, bigger);
    if (!bytes)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of token text", bigger);
    v->bytes       = bytes;
    v->n_bytes_max = bigger;
    return true;
}

static size_t first_slot(const vocabulary *v, span bytes)
{
    return hash_64(v->key, bytes.data, bytes.size) & (v->n_slots - 1);
}

bool vocabulary_append(vocabulary *v, span bytes, uint32_t kinds, error *err)
{
    assert(v->n_tokens < v->n_tokens_max);
    uint32_t id = v->n_tokens;
    if (bytes.size > VOCABULARY_TOKEN_BYTES_MAX)
        return error_set(err, ERR_UNSUPPORTED, "token %u has %zu bytes; at most %d are supported", id, bytes.size,
                         VOCABULARY_TOKEN_BYTES_MAX);
    if (!reserve(v, bytes.size, err))
        return false;
    if (bytes.size)
        memcpy(v->bytes + v->n_bytes, bytes.data, bytes.size);
    v->n_bytes += bytes.size;
    v->kinds[id]      = (uint8_t)(bytes.size ? kinds : TOKEN_UNUSED);
    v->starts[id + 1] = v->n_bytes;
    v->n_tokens++;
    if (bytes.size > v->longest)
        v->longest = bytes.size;
    size_t slot = first_slot(v, bytes);
    while (bytes.size && v->slots[slot])
        slot = (slot + 1) & (v->n_slots - 1);
    if (bytes.size)
        v->slots[slot] = id + 1;
    return true;
}

uint32_t vocabulary_n_tokens(const vocabulary *v)
{
    return v->n_tokens;
}

span vocabulary_bytes(const vocabulary *v, uint32_t token)
{
    if (token >= v->n_tokens)
        return (span){"", 0};
    return (span){v->bytes + v->starts[token], v->starts[token + 1] - v->starts[token]};
}

uint32_t vocabulary_kinds(const vocabulary *v, uint32_t token)
{
    return token < v->n_tokens ? v->kinds[token] : TOKEN_UNUSED;
}

size_t vocabulary_longest(const vocabulary *v)
{
    return v->longest;
}

uint32_t vocabulary_find(const vocabulary *v, span bytes, uint32_t kinds)
{
    if (bytes.size == 0)
        return VOCABULARY_NONE;
    for (size_t slot = first_slot(v, bytes); v->slots[slot]; slot = (slot + 1) & (v->n_slots - 1)) {
        uint32_t id = v->slots[slot] - 1;
        if (v->kinds[id] & kinds && span_equal(vocabulary_bytes(v, id), bytes))
            return id;
    }
    return VOCABULARY_NONE;
}

uint32_t vocabulary_find_byte(const vocabulary *v, uint8_t byte)
{
    static const char digits[] = "0123456789ABCDEF";
    char              name[]   = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
    return vocabulary_find(v, (span){name, sizeof name}, TOKEN_BYTE);
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return (c >= 'A' && c <= 'F') ? c - 'A' + 10 : -1;
}

int vocabulary_byte_of_name(span spelling)
{
    const char *c = spelling.data;
    if (spelling.size != 6 || memcmp(c, "<0x", 3) != 0 || c[5] != '>' || digit_of(c[3]) < 0 || digit_of(c[4]) < 0)
        return -1;
    return digit_of(c[3]) << 4 | digit_of(c[4]);
}
