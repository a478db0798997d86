/* The seeded generator against the published sequences, and the system's bytes. */
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* The first numbers of xoshiro256** from the state {1, 2, 3, 4}. */
static void the_generator_is_xoshiro256_starstar(void **state)
{
    (void)state;
    static const uint64_t expected[] = {11520, 0, 1509978240, UINT64_C(1215971899390074240)};
    random_seeded         r          = {{1, 2, 3, 4}};
    for (size_t i = 0; i < COUNT(expected); i++)
        assert_true(random_u64(&r) == expected[i]);
}

/* The first numbers of splitmix64 from the seed 1234567. */
static void the_state_is_filled_by_splitmix64(void **state)
{
    (void)state;
    random_seeded r = random_from_seed(1234567);
    assert_true(r.state[0] == UINT64_C(6457827717110365317));
    assert_true(r.state[1] == UINT64_C(3203168211198807973));
    assert_true(r.state[2] == UINT64_C(9817491932198370423));
    assert_true(r.state[3] == UINT64_C(4593380528125082431));
}

static void the_same_seed_gives_the_same_sequence(void **state)
{
    (void)state;
    random_seeded a = random_from_seed(7), b = random_from_seed(7), c = random_from_seed(8);
    bool          differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t x = random_u64(&a);
        assert_true(x == random_u64(&b));
        differs |= x != random_u64(&c);
    }
    assert_true(differs);
}

static void numbers_below_a_bound_reach_all_of_it_and_no_more(void **state)
{
    (void)state;
    random_seeded r       = random_from_seed(1);
    unsigned      seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        uint64_t x = random_below(&r, 7);
        assert_true(x < 7);
        seen[x]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 850, 1150);
    assert_true(random_below(&r, 1) == 0);
}

static void unit_numbers_lie_in_zero_to_one_with_mean_one_half(void **state)
{
    (void)state;
    random_seeded r   = random_from_seed(3);
    double        sum = 0;
    for (int i = 0; i < 10000; i++) {
        double x = random_unit(&r);
        assert_true(x >= 0 && x < 1);
        sum += x;
    }
    assert_true(sum > 4850 && sum < 5150);
}

static void the_system_fills_every_byte_and_never_twice_the_same(void **state)
{
    (void)state;
    unsigned char a[1024], b[1024];
    error         err;
    assert_true(random_bytes(a, sizeof a, &err));
    assert_true(random_bytes(b, sizeof b, &err));
    assert_true(memcmp(a, b, sizeof a) != 0);
    unsigned different = 0;
    for (size_t i = 0; i < sizeof a; i++)
        different += a[i] != b[i];
    assert_true(different > 900);
    assert_true(random_bytes(a, 0, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_generator_is_xoshiro256_starstar),
        cmocka_unit_test(the_state_is_filled_by_splitmix64),
        cmocka_unit_test(the_same_seed_gives_the_same_sequence),
        cmocka_unit_test(numbers_below_a_bound_reach_all_of_it_and_no_more),
        cmocka_unit_test(unit_numbers_lie_in_zero_to_one_with_mean_one_half),
        cmocka_unit_test(the_system_fills_every_byte_and_never_twice_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
