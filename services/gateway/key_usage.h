/* What an API key may use, and what it has used: requests and tokens a minute, and requests at once.
 *
 * Rates are token buckets with room for a minute's worth, which fills at the rate: a key may use a minute's worth at
 * once, and then as it comes back. A request costs one before it begins. What it costs in tokens is known at its end;
 * the balance may fall below zero then, and the next request waits until it is above. Counted by each gateway for
 * itself. */
#ifndef TROUPE_GATEWAY_KEY_USAGE_H
#define TROUPE_GATEWAY_KEY_USAGE_H

#include "base/error.h"
#include "services/gateway/http_server.h"

/* 0: no limit. */
typedef struct {
    uint32_t requests_per_minute, tokens_per_minute, concurrent_requests;
} key_limits;

typedef struct key_usage key_usage;

/* Counted references: an answer keeps its key's when the file is read again. NULL: no memory. */
key_usage *key_usage_new(void);
key_usage *key_usage_hold(key_usage *u);
void       key_usage_release(key_usage **u);

/* What was used stays used. */
void key_usage_limit(key_usage *u, const key_limits *limits);

/* Takes a request from the key's balance; false, with *err and how long to wait, when it has to wait. */
bool key_usage_take(key_usage *u, int64_t now_ns, uint32_t *retry_after_ms, error *err) MUST_CHECK;

/* A request that was taken runs from here to there, and has cost so many tokens. */
void key_usage_enter(key_usage *u);
void key_usage_leave(key_usage *u, int64_t now_ns, uint64_t n_tokens);

/* OpenAI's header fields x-ratelimit-*, of the limits that there are. */
enum { KEY_USAGE_FIELDS = 6 };

typedef struct {
    size_t     n;
    http_field fields[KEY_USAGE_FIELDS];
    char       values[KEY_USAGE_FIELDS][24];
} key_usage_fields;

/* `u` may be NULL. */
void key_usage_describe(key_usage *u, int64_t now_ns, key_usage_fields *out);

#endif
