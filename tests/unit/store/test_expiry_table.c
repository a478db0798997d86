/* The table of the in-process store against a plain array that does the same slowly. */
#include "store/expiry_table.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static expiry_table *table_of(uint32_t capacity)
{
    error         err;
    expiry_table *t = expiry_table_new(capacity, 32, sizeof(uint32_t), &err);
    assert_non_null(t);
    return t;
}

static uint32_t *put(expiry_table *t, const char *key, uint32_t value, int64_t now, int64_t expires)
{
    uint32_t *v = expiry_table_put(t, span_of(key), now);
    *v          = value;
    expiry_table_touch(t, v, expires);
    return v;
}

static void an_entry_lives_until_its_time(void **state)
{
    (void)state;
    expiry_table *t = table_of(4);
    put(t, "a", 1, 0, 100);
    assert_int_equal(*(uint32_t *)expiry_table_find(t, SPAN("a"), 99), 1);
    assert_null(expiry_table_find(t, SPAN("a"), 100));
    assert_int_equal(expiry_table_count(t), 0);
    assert_int_equal(*(uint32_t *)expiry_table_put(t, SPAN("a"), 100), 0); /* new and zeroed */
    expiry_table_free(&t);
    assert_null(t);
    expiry_table_free(&t);
}

static void a_full_table_gives_up_what_was_touched_longest_ago(void **state)
{
    (void)state;
    expiry_table *t = table_of(3);
    put(t, "a", 1, 0, 1000);
    put(t, "b", 2, 0, 1000);
    put(t, "c", 3, 0, 1000);
    expiry_table_touch(t, expiry_table_find(t, SPAN("a"), 1), 1000);
    put(t, "d", 4, 1, 1000);
    assert_non_null(expiry_table_find(t, SPAN("a"), 1));
    assert_null(expiry_table_find(t, SPAN("b"), 1));
    assert_non_null(expiry_table_find(t, SPAN("c"), 1));
    assert_non_null(expiry_table_find(t, SPAN("d"), 1));
    assert_int_equal(expiry_table_count(t), 3);
    expiry_table_free(&t);
}

enum { N_KEYS = 60, CAPACITY = 64 };

static void random_histories_agree_with_an_array(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        expiry_table *t               = table_of(CAPACITY);
        random_seeded r               = random_from_seed(seed);
        int64_t       expires[N_KEYS] = {0}, now = 1;
        uint32_t      values[N_KEYS] = {0};
        for (int step = 0; step < 5000; step++) {
            char     key[16];
            uint32_t k = (uint32_t)random_below(&r, N_KEYS);
            snprintf(key, sizeof key, "key %u", k);
            uint32_t *found = expiry_table_find(t, span_of(key), now);
            assert_int_equal(found != NULL, expires[k] > now);
            if (found)
                assert_int_equal(*found, values[k]);
            switch (random_below(&r, 4)) {
            case 0:
            case 1:
                expires[k] = now + 1 + (int64_t)random_below(&r, 200);
                values[k]  = (uint32_t)step;
                put(t, key, values[k], now, expires[k]);
                break;
            case 2:
                if (found)
                    expiry_table_remove(t, found);
                expires[k] = 0;
                break;
            default:
                now += (int64_t)random_below(&r, 5);
            }
        }
        uint32_t n_alive = 0, n_walked = 0;
        for (int k = 0; k < N_KEYS; k++)
            n_alive += expires[k] > now;
        for (void *v = NULL; (v = expiry_table_next(t, v, now)); n_walked++) {
            unsigned k;
            span     key = expiry_table_key(t, v);
            char     text[33];
            snprintf(text, sizeof text, "%.*s", SPAN_ARG(key));
            assert_int_equal(sscanf(text, "key %u", &k), 1);
            assert_int_equal(*(uint32_t *)v, values[k]);
        }
        assert_int_equal(n_walked, n_alive);
        expiry_table_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_lives_until_its_time),
        cmocka_unit_test(a_full_table_gives_up_what_was_touched_longest_ago),
        cmocka_unit_test(random_histories_agree_with_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
