/* API keys: digests in an array, all of them compared each time. */
#include "services/gateway/api_keys.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    char    tenant[TENANT_BYTES + 1];

    key_usage *usage;
    key_limits limits; /* in force when the whole file is good */
} api_key;

struct api_keys {
    size_t  n;
    api_key all[];
};

/* Takes the next word off *line. */
static span next_word(span *line)
{
    while (line->size > 0 && isspace((unsigned char)line->data[0]))
        line->data++, line->size--;
    span word = {line->data, 0};
    while (word.size < line->size && !isspace((unsigned char)word.data[word.size]))
        word.size++;
    line->data += word.size;
    line->size -= word.size;
    return word;
}

static bool is_printable(span text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] > '~')
            return false;
    return true;
}

static bool take_limit(span word, key_limits *limits, error *err)
{
    const struct {
        const char *name;
        uint32_t   *value;
    } all[]              = {{"requests-per-minute=", &limits->requests_per_minute},
                            {"tokens-per-minute=", &limits->tokens_per_minute},
                            {"concurrent-requests=", &limits->concurrent_requests}};
    char        text[64] = "";
    const char *number   = NULL;
    char       *end;
    if (word.size < sizeof text)
        memcpy(text, word.data, word.size);
    for (size_t i = 0; i < COUNT(all); i++) {
        size_t n = strlen(all[i].name);
        if (strncmp(text, all[i].name, n) != 0)
            continue;
        number              = text + n;
        unsigned long value = strtoul(number, &end, 10);
        if (*number < '0' || *number > '9' || *end != '\0' || value == 0 || value > 1000000000)
            return error_set(err, ERR_INVALID, "%s expects a number from 1 to 1000000000", all[i].name);
        *all[i].value = (uint32_t)value;
    }
    return number || error_set(err, ERR_INVALID,
                               "a limit is requests-per-minute=N, tokens-per-minute=N or "
                               "concurrent-requests=N");
}

/* What stands behind the key. */
static bool take_rest(span line, span *tenant, key_limits *limits, error *err)
{
    for (span word; (word = next_word(&line)).size > 0;) {
        bool is_limit = memchr(word.data, '=', word.size);
        if (!is_limit && tenant->size > 0)
            return error_set(err, ERR_INVALID, "a line is `key [tenant] [limit=N]...`");
        if (is_limit && !take_limit(word, limits, err))
            return false;
        if (!is_limit)
            *tenant = word;
    }
    return true;
}

static api_key *find(const api_keys *keys, const uint8_t digest[SHA256_DIGEST_LENGTH])
{
    const api_key *found = NULL;
    for (size_t i = 0; i < keys->n; i++)
        if (CRYPTO_memcmp(keys->all[i].digest, digest, SHA256_DIGEST_LENGTH) == 0)
            found = &keys->all[i];
    return (api_key *)(uintptr_t)found;
}

static bool take_line(api_keys *keys, const api_keys *before, span line, error *err)
{
    span       key = next_word(&line), tenant = {0};
    key_limits limits = {0};
    if (key.size == 0 || key.data[0] == '#')
        return true;
    if (!take_rest(line, &tenant, &limits, err))
        return false;
    if (key.size < API_KEY_BYTES_MIN || key.size > API_KEY_BYTES_MAX || !is_printable(key))
        return error_set(err, ERR_INVALID, "a key has %d to %d printable ASCII characters", API_KEY_BYTES_MIN,
                         API_KEY_BYTES_MAX);
    if (tenant.size > TENANT_BYTES || !is_printable(tenant))
        return error_set(err, ERR_INVALID, "a tenant has at most %d printable ASCII characters", TENANT_BYTES);
    if (keys->n == API_KEYS_MAX)
        return error_set(err, ERR_TOO_LARGE, "a file has at most %d keys", API_KEYS_MAX);
    if (api_keys_find(keys, key, NULL))
        return error_set(err, ERR_INVALID, "this key was there before");
    api_key *k = &keys->all[keys->n];
    SHA256((const uint8_t *)key.data, key.size, k->digest);
    const api_key *same = before ? find(before, k->digest) : NULL;
    k->usage            = same ? key_usage_hold(same->usage) : key_usage_new();
    if (!k->usage)
        return error_set(err, ERR_NO_MEMORY, "no memory for a key");
    keys->n++;
    if (tenant.size > 0)
        snprintf(k->tenant, sizeof k->tenant, "%.*s", SPAN_ARG(tenant));
    else
        snprintf(k->tenant, sizeof k->tenant, "key-%02x%02x%02x%02x%02x%02x", k->digest[0], k->digest[1], k->digest[2],
                 k->digest[3], k->digest[4], k->digest[5]);
    k->limits = limits;
    return true;
}

api_keys *api_keys_load(const char *path, const api_keys *before, error *err)
{
    FILE     *file     = fopen(path, "re");
    api_keys *keys     = calloc(1, sizeof *keys + API_KEYS_MAX * sizeof(api_key));
    char     *line     = NULL;
    size_t    capacity = 0, number = 0;
    ssize_t   size = 0;
    bool      ok   = file && keys;
    if (!ok)
        error_set(err, file ? ERR_NO_MEMORY : ERR_IO, "%s: %s", path, file ? "no memory" : strerror(errno));
    while (ok && (size = getline(&line, &capacity, file)) >= 0) {
        number++;
        ok = take_line(keys, before, (span){line, (size_t)size}, err) || error_wrap(err, "%s, line %zu", path, number);
    }
    if (ok && ferror(file))
        ok = error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    if (ok && keys->n == 0)
        ok = error_set(err, ERR_INVALID, "%s: there is no key in this file", path);
    if (line)
        OPENSSL_cleanse(line, capacity);
    free(line);
    if (file)
        fclose(file);
    for (size_t i = 0; ok && i < keys->n; i++)
        key_usage_limit(keys->all[i].usage, &keys->all[i].limits);
    if (!ok)
        api_keys_free(&keys);
    return keys;
}

void api_keys_free(api_keys **keys)
{
    for (size_t i = 0; *keys && i < (*keys)->n; i++)
        key_usage_release(&(*keys)->all[i].usage);
    free(*keys);
    *keys = NULL;
}

size_t api_keys_count(const api_keys *keys)
{
    return keys->n;
}

const char *api_keys_find(const api_keys *keys, span key, key_usage **usage)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)key.data, key.size, digest);
    const api_key *found = find(keys, digest);
    if (usage)
        *usage = found ? found->usage : NULL;
    return found ? found->tenant : NULL;
}

span api_key_of(span authorization)
{
    static const char scheme[] = "bearer ";
    const size_t      bytes    = sizeof scheme - 1;
    if (authorization.size <= bytes || strncasecmp(authorization.data, scheme, bytes) != 0)
        return (span){0};
    span rest = {authorization.data + bytes, authorization.size - bytes};
    span key  = next_word(&rest);
    return next_word(&rest).size == 0 ? key : (span){0};
}
