/* The tail is one block so many times over, or it is not: beside a check that looks at all tokens. */
#include "services/postprocessor/repetition.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool tail_repeats(const uint32_t *tokens, uint32_t n, uint32_t limit)
{
    for (uint32_t length = 1; length <= REPETITION_BLOCK_MAX && (uint64_t)length * limit <= n; length++) {
        bool same = true;
        for (uint32_t i = n - length * (limit - 1); i < n; i++)
            same = same && tokens[i] == tokens[i - length];
        if (same)
            return true;
    }
    return false;
}

static void a_tail_of_equal_blocks_is_noticed_at_its_last_token(void **state)
{
    (void)state;
    for (uint32_t length = 1; length <= REPETITION_BLOCK_MAX; length++) {
        repetition r        = {0};
        uint32_t   limit    = 2 + length % 4, n;
        bool       repeated = false;
        for (uint32_t i = 0; i < 100; i++)
            assert_false(repetition_add(&r, 1000 + i, limit));
        for (n = 0; !repeated && n < length * limit; n++)
            repeated = repetition_add(&r, n % length, limit);
        assert_true(repeated);
        assert_int_equal(n, length * limit);
    }
}

static void blocks_that_are_too_long_or_broken_are_not_noticed(void **state)
{
    (void)state;
    repetition r = {0};
    for (uint32_t i = 0; i < 1000; i++)
        assert_false(repetition_add(&r, i % (REPETITION_BLOCK_MAX + 1), 2));
    r = (repetition){0};
    for (uint32_t i = 0; i < 1000; i++)
        assert_false(repetition_add(&r, i % 5 == 4 ? 100 + i : i % 5, 2));
}

static void random_tokens_are_judged_as_by_looking_at_all_of_them(void **state)
{
    (void)state;
    random_seeded random     = random_from_seed(2);
    uint32_t      n_repeated = 0;
    for (uint32_t round = 0; round < 400; round++) {
        repetition r = {0};
        uint32_t   tokens[200], limit = 2 + round % 5, kinds = 1 + round % 3;
        for (uint32_t n = 0; n < 200; n++) {
            tokens[n]   = (uint32_t)random_below(&random, kinds + 1);
            bool wanted = tail_repeats(tokens, n + 1, limit);
            assert_int_equal(repetition_add(&r, tokens[n], limit), wanted);
            n_repeated += wanted;
        }
    }
    assert_true(n_repeated > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tail_of_equal_blocks_is_noticed_at_its_last_token),
        cmocka_unit_test(blocks_that_are_too_long_or_broken_are_not_noticed),
        cmocka_unit_test(random_tokens_are_judged_as_by_looking_at_all_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
