#include "services/gateway/throughput.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int64_t now_ns;

static void pass(throughput *t, double seconds, bool busy)
{
    now_ns += (int64_t)(seconds * 1e9);
    throughput_pass(t, now_ns, busy);
}

/* Completions at a steady rate. */
static void work(throughput *t, double rate, double seconds)
{
    for (int i = 0; i < (int)(rate * seconds); i++) {
        pass(t, 1 / rate, true);
        throughput_complete(t);
    }
}

static void expects_what_littles_law_says(void **state)
{
    (void)state;
    throughput t = {0};
    now_ns       = 1;
    pass(&t, 0, false);
    assert_true(throughput_expect_s(&t, 1000) == 0); /* nothing is known */
    work(&t, 20, 60);
    assert_float_equal(throughput_expect_s(&t, 100), 5, 0.2);
    pass(&t, 3600, false); /* what is idle is not slow */
    assert_float_equal(throughput_expect_s(&t, 100), 5, 0.2);
    work(&t, 5, 60);
    assert_float_equal(throughput_expect_s(&t, 100), 20, 1);
}

static void without_completions_it_expects_the_worse_the_longer_it_lasts(void **state)
{
    (void)state;
    throughput t = {0};
    now_ns       = 1;
    pass(&t, 0, false);
    pass(&t, 0.1, true);
    assert_float_equal(throughput_expect_s(&t, 10), 1, 0.1);
    pass(&t, 2, true);
    assert_true(throughput_expect_s(&t, 10) > 15);
    pass(&t, 1000, true);
    assert_float_equal(throughput_expect_s(&t, 10), 100, 1); /* but it doesn't grow for ever */
    assert_true(throughput_expect_s(&t, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expects_what_littles_law_says),
        cmocka_unit_test(without_completions_it_expects_the_worse_the_longer_it_lasts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
