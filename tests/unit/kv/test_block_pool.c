/* The block pool: who gets which block, who is evicted, and that nothing is ever lost. */
#include "kv/block_pool.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static kv_hash hash_of(uint64_t n)
{
    return (kv_hash){n, ~n};
}

static void blocks_are_taken_all_or_none(void **state)
{
    (void)state;
    kv_pool *pool = kv_pool_new(4, NULL);
    uint32_t b[5];
    assert_false(kv_pool_take(pool, 5, b));
    assert_int_equal(4, kv_pool_n_available(pool));
    assert_true(kv_pool_take(pool, 4, b));
    assert_int_equal(0, kv_pool_n_available(pool));
    assert_false(kv_pool_take(pool, 1, b));
    assert_true(kv_pool_take(pool, 0, b));
    for (int i = 0; i < 4; i++)
        kv_pool_release(pool, b[i]);
    assert_int_equal(4, kv_pool_n_available(pool));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

static void a_published_block_stays_findable_until_it_is_needed(void **state)
{
    (void)state;
    kv_pool *pool = kv_pool_new(2, NULL);
    uint32_t b[2];
    assert_true(kv_pool_take(pool, 1, b));
    kv_pool_publish(pool, b[0], hash_of(7));
    kv_pool_release(pool, b[0]);
    assert_int_equal(b[0], kv_pool_find(pool, hash_of(7)));
    assert_int_equal(1, kv_pool_n_cached(pool));
    uint32_t other[2];
    assert_true(kv_pool_take(pool, 1, other)); /* the free one first */
    assert_int_equal(b[0], kv_pool_find(pool, hash_of(7)));
    assert_true(kv_pool_take(pool, 1, other + 1)); /* now the cached one goes */
    assert_int_equal(KV_NO_BLOCK, kv_pool_find(pool, hash_of(7)));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

static void evicts_the_least_recently_used_block_without_references(void **state)
{
    (void)state;
    kv_pool *pool = kv_pool_new(3, NULL);
    uint32_t b[3], taken;
    assert_true(kv_pool_take(pool, 3, b));
    for (uint32_t i = 0; i < 3; i++) {
        kv_pool_publish(pool, b[i], hash_of(i));
        kv_pool_release(pool, b[i]);
    }
    kv_pool_share(pool, b[0]); /* used again: now the newest */
    kv_pool_release(pool, b[0]);
    kv_pool_share(pool, b[1]); /* in use: never evicted */
    assert_true(kv_pool_take(pool, 1, &taken));
    assert_int_equal(b[2], taken);
    assert_true(kv_pool_take(pool, 1, &taken));
    assert_int_equal(b[0], taken);
    assert_false(kv_pool_take(pool, 1, &taken));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

static void the_first_block_with_a_hash_keeps_it(void **state)
{
    (void)state;
    kv_pool *pool = kv_pool_new(2, NULL);
    uint32_t b[2];
    assert_true(kv_pool_take(pool, 2, b));
    kv_pool_publish(pool, b[0], hash_of(1));
    kv_pool_publish(pool, b[1], hash_of(1));
    assert_int_equal(b[0], kv_pool_find(pool, hash_of(1)));
    kv_pool_release(pool, b[1]); /* not published: free at once */
    assert_int_equal(0, kv_pool_n_cached(pool));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

static void forgetting_frees_what_was_only_cached(void **state)
{
    (void)state;
    kv_pool *pool = kv_pool_new(4, NULL);
    uint32_t b[2];
    assert_true(kv_pool_take(pool, 2, b));
    kv_pool_publish(pool, b[0], hash_of(1));
    kv_pool_publish(pool, b[1], hash_of(2));
    kv_pool_release(pool, b[0]);
    kv_pool_forget(pool);
    assert_int_equal(KV_NO_BLOCK, kv_pool_find(pool, hash_of(1)));
    assert_int_equal(KV_NO_BLOCK, kv_pool_find(pool, hash_of(2)));
    assert_int_equal(3, kv_pool_n_available(pool));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

static void a_prefix_hash_depends_on_key_tenant_and_every_token(void **state)
{
    (void)state;
    hash_key key                     = {1, 2};
    uint32_t tokens[KV_BLOCK_TOKENS] = {1, 2, 3};
    kv_hash  root                    = kv_hash_root(key, SPAN("tenant"));
    kv_hash  first                   = kv_hash_block(key, root, tokens);
    assert_int_not_equal(first.low, kv_hash_block((hash_key){1, 3}, root, tokens).low);
    assert_int_not_equal(first.low, kv_hash_block(key, kv_hash_root(key, SPAN("other")), tokens).low);
    assert_int_not_equal(first.low, kv_hash_block(key, first, tokens).low);
    tokens[KV_BLOCK_TOKENS - 1] = 9;
    assert_int_not_equal(first.low, kv_hash_block(key, root, tokens).low);
}

/* Random takes, shares, releases and publications: the invariants hold after each, and at the end everything is back.
 */
static void nothing_is_lost_under_random_use(void **state)
{
    (void)state;
    enum { N_BLOCKS = 64, N_HELD = 200, N_STEPS = 20000 };
    kv_pool      *pool = kv_pool_new(N_BLOCKS, NULL);
    random_seeded rng  = random_from_seed(11);
    uint32_t      held[N_HELD], n_held = 0;
    for (int step = 0; step < N_STEPS; step++) {
        uint32_t what = (uint32_t)random_below(&rng, 4);
        if (what == 0 && n_held < N_HELD && kv_pool_take(pool, 1, &held[n_held])) {
            n_held++;
        } else if (what == 1 && n_held > 0) {
            uint32_t i = (uint32_t)random_below(&rng, n_held);
            kv_pool_release(pool, held[i]);
            held[i] = held[--n_held];
        } else if (what == 2 && n_held > 0) {
            kv_pool_publish(pool, held[random_below(&rng, n_held)], hash_of(random_below(&rng, 40) * 64));
        } else if (what == 3 && n_held < N_HELD) {
            uint32_t found = kv_pool_find(pool, hash_of(random_below(&rng, 40) * 64));
            if (found != KV_NO_BLOCK) {
                kv_pool_share(pool, found);
                held[n_held++] = found;
            }
        }
        if (step % 64 == 0)
            kv_pool_check(pool);
    }
    while (n_held > 0)
        kv_pool_release(pool, held[--n_held]);
    assert_int_equal(N_BLOCKS, kv_pool_n_available(pool));
    kv_pool_check(pool);
    kv_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_taken_all_or_none),
        cmocka_unit_test(a_published_block_stays_findable_until_it_is_needed),
        cmocka_unit_test(evicts_the_least_recently_used_block_without_references),
        cmocka_unit_test(the_first_block_with_a_hash_keeps_it),
        cmocka_unit_test(forgetting_frees_what_was_only_cached),
        cmocka_unit_test(a_prefix_hash_depends_on_key_tenant_and_every_token),
        cmocka_unit_test(nothing_is_lost_under_random_use),
    };
    return cmocka_run_group_tests_name("kv/block_pool", tests, NULL, NULL);
}
