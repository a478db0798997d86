/* See key_usage.h. */
#include "services/gateway/key_usage.h"

#include "base/clock.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A minute's worth at most; `per_minute` 0: no limit. */
typedef struct {
    uint32_t per_minute;
    double   level;
} bucket;

struct key_usage {
    uint32_t n_references;
    uint32_t concurrent_requests; /* at most; 0: no limit */
    uint32_t n_running;
    int64_t  filled_ns;
    bucket   requests, tokens;
};

key_usage *key_usage_new(void)
{
    key_usage *u = calloc(1, sizeof *u);
    if (u)
        u->n_references = 1;
    return u;
}

key_usage *key_usage_hold(key_usage *u)
{
    u->n_references++;
    return u;
}

void key_usage_release(key_usage **u)
{
    if (*u && --(*u)->n_references == 0)
        free(*u);
    *u = NULL;
}

static void set_rate(bucket *b, uint32_t per_minute)
{
    if (b->per_minute == 0 || b->level > per_minute)
        b->level = per_minute;
    b->per_minute = per_minute;
}

void key_usage_limit(key_usage *u, const key_limits *limits)
{
    set_rate(&u->requests, limits->requests_per_minute);
    set_rate(&u->tokens, limits->tokens_per_minute);
    u->concurrent_requests = limits->concurrent_requests;
}

static void fill_bucket(bucket *b, double minutes)
{
    b->level += b->per_minute * minutes;
    if (b->level > b->per_minute)
        b->level = b->per_minute;
}

static void fill(key_usage *u, int64_t now_ns)
{
    double minutes = u->filled_ns ? (double)(now_ns - u->filled_ns) / 60e9 : 0;
    u->filled_ns   = now_ns;
    fill_bucket(&u->requests, minutes);
    fill_bucket(&u->tokens, minutes);
}

/* Until the level is `wanted`; 0 when it is, or when there is no limit. */
static double seconds_until(const bucket *b, double wanted)
{
    return b->per_minute == 0 || b->level >= wanted ? 0 : (wanted - b->level) * 60 / b->per_minute;
}

bool key_usage_take(key_usage *u, int64_t now_ns, uint32_t *retry_after_ms, error *err)
{
    fill(u, now_ns);
    double requests_s = seconds_until(&u->requests, 1), tokens_s = seconds_until(&u->tokens, 1);
    double wait_s   = requests_s > tokens_s ? requests_s : tokens_s;
    *retry_after_ms = (uint32_t)fmin(ceil(wait_s) * 1e3, 1e9);
    if (requests_s > 0)
        return error_set(err, ERR_RATE_LIMITED, "this key may ask %u times a minute", u->requests.per_minute);
    if (tokens_s > 0)
        return error_set(err, ERR_RATE_LIMITED, "this key may use %u tokens a minute", u->tokens.per_minute);
    *retry_after_ms = 1000;
    if (u->concurrent_requests > 0 && u->n_running >= u->concurrent_requests)
        return error_set(err, ERR_RATE_LIMITED, "this key has %u requests running, as many as it may", u->n_running);
    if (u->requests.per_minute > 0)
        u->requests.level -= 1;
    return true;
}

void key_usage_enter(key_usage *u)
{
    u->n_running++;
}

void key_usage_leave(key_usage *u, int64_t now_ns, uint64_t n_tokens)
{
    assert(u->n_running > 0);
    u->n_running--;
    fill(u, now_ns);
    if (u->tokens.per_minute > 0)
        u->tokens.level -= (double)n_tokens;
}

/* "6m1s", "12s", "250ms", as OpenAI writes it. */
static void print_wait(char *out, size_t out_bytes, double seconds)
{
    uint64_t whole = (uint64_t)ceil(seconds);
    if (seconds < 1)
        snprintf(out, out_bytes, "%ums", (unsigned)ceil(seconds * 1e3));
    else if (whole < 60)
        snprintf(out, out_bytes, "%us", (unsigned)whole);
    else
        snprintf(out, out_bytes, "%um%us", (unsigned)(whole / 60), (unsigned)(whole % 60));
}

static void describe(const bucket *b, const char *const names[3], key_usage_fields *out)
{
    if (b->per_minute == 0)
        return;
    char(*values)[sizeof out->values[0]] = &out->values[out->n];
    snprintf(values[0], sizeof values[0], "%u", b->per_minute);
    snprintf(values[1], sizeof values[1], "%u", b->level > 0 ? (unsigned)b->level : 0);
    print_wait(values[2], sizeof values[2], seconds_until(b, b->per_minute));
    for (int i = 0; i < 3; i++)
        out->fields[out->n + (size_t)i] = (http_field){names[i], span_of(values[i])};
    out->n += 3;
}

void key_usage_describe(key_usage *u, int64_t now_ns, key_usage_fields *out)
{
    static const char *const requests[] = {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
                                           "x-ratelimit-reset-requests"};
    static const char *const tokens[]   = {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
                                           "x-ratelimit-reset-tokens"};
    out->n                              = 0;
    if (!u)
        return;
    fill(u, now_ns);
    describe(&u->requests, requests, out);
    describe(&u->tokens, tokens, out);
}
