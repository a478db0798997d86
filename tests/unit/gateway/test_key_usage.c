#include "services/gateway/key_usage.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { START_NS = 5 };

static key_usage *with(uint32_t requests, uint32_t tokens, uint32_t concurrent)
{
    key_usage *u = key_usage_new();
    assert_non_null(u);
    key_usage_limit(u, &(key_limits){requests, tokens, concurrent});
    return u;
}

static bool take(key_usage *u, double at_s, uint32_t *wait_ms)
{
    error err;
    bool  taken = key_usage_take(u, START_NS + (int64_t)(at_s * 1e9), wait_ms, &err);
    assert_true(taken || err.code == ERR_RATE_LIMITED);
    return taken;
}

static void requests_come_back_at_their_rate(void **state)
{
    (void)state;
    key_usage *u = with(30, 0, 0);
    uint32_t   wait_ms;
    for (int i = 0; i < 30; i++)
        assert_true(take(u, 0, &wait_ms));
    assert_false(take(u, 0, &wait_ms));
    assert_int_equal(wait_ms, 2000);
    assert_false(take(u, 1.9, &wait_ms));
    assert_int_equal(wait_ms, 1000); /* whole seconds, as Retry-After has them */
    assert_true(take(u, 2.01, &wait_ms));
    assert_false(take(u, 2.01, &wait_ms));
    for (int i = 0; i < 30; i++)
        assert_true(take(u, 1000, &wait_ms)); /* never more than a minute's worth */
    assert_false(take(u, 1000, &wait_ms));
    key_usage_release(&u);
    assert_null(u);
}

static void tokens_are_paid_afterwards(void **state)
{
    (void)state;
    key_usage *u = with(0, 600, 0);
    uint32_t   wait_ms;
    assert_true(take(u, 0, &wait_ms));
    key_usage_enter(u);
    key_usage_leave(u, START_NS, 1199); /* nobody knew */
    assert_false(take(u, 0, &wait_ms));
    assert_int_equal(wait_ms, 60000);
    assert_false(take(u, 59, &wait_ms));
    assert_true(take(u, 60.1, &wait_ms));
    key_usage_release(&u);
}

static void so_many_run_at_once(void **state)
{
    (void)state;
    key_usage *u = with(0, 0, 2);
    uint32_t   wait_ms;
    for (int i = 0; i < 2; i++) {
        assert_true(take(u, 0, &wait_ms));
        key_usage_enter(u);
    }
    assert_false(take(u, 0, &wait_ms));
    assert_int_equal(wait_ms, 1000);
    key_usage_leave(u, START_NS, 7);
    assert_true(take(u, 0, &wait_ms));
    key_usage_release(&u);
}

static void headers_say_what_is_left(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } wanted[]         = {{"x-ratelimit-limit-requests", "2"},   {"x-ratelimit-remaining-requests", "1"},
                          {"x-ratelimit-reset-requests", "30s"}, {"x-ratelimit-limit-tokens", "100"},
                          {"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", "2m1s"}};
    key_usage       *u = with(2, 100, 1);
    key_usage_fields out;
    uint32_t         wait_ms;
    assert_true(take(u, 0, &wait_ms));
    key_usage_enter(u);
    key_usage_leave(u, START_NS, 201);
    key_usage_describe(u, START_NS, &out);
    assert_int_equal(out.n, COUNT(wanted));
    for (size_t i = 0; i < COUNT(wanted); i++) {
        assert_string_equal(out.fields[i].name, wanted[i].name);
        if (!span_is(out.fields[i].value, wanted[i].value))
            fail_msg("%s: %.*s", wanted[i].name, SPAN_ARG(out.fields[i].value));
    }
    key_usage_release(&u);
    u = with(0, 0, 1);
    key_usage_describe(u, START_NS, &out);
    assert_int_equal(out.n, 0);
    key_usage_describe(NULL, START_NS, &out);
    assert_int_equal(out.n, 0);
    key_usage_release(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_back_at_their_rate),
        cmocka_unit_test(tokens_are_paid_afterwards),
        cmocka_unit_test(so_many_run_at_once),
        cmocka_unit_test(headers_say_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
