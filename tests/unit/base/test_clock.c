/* The system's clock runs, a virtual one only when told. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static void the_system_clock_goes_forward_and_knows_the_date(void **state)
{
    (void)state;
    const clock_source *clock  = clock_system();
    int64_t             before = clock_now_ns(clock);
    nanosleep(&(struct timespec){.tv_nsec = 2 * NS_PER_MS}, NULL);
    int64_t after = clock_now_ns(clock);
    assert_true(after - before >= 2 * NS_PER_MS);
    assert_in_range(clock_unix_ms(clock) / 1000, time(NULL) - 2, time(NULL) + 2);
}

static void a_virtual_clock_moves_only_when_told(void **state)
{
    (void)state;
    clock_source clock = clock_virtual(5 * NS_PER_S);
    assert_int_equal(clock_now_ns(&clock), 5 * NS_PER_S);
    assert_int_equal(clock_unix_ms(&clock), 5000);
    clock_advance(&clock, 1500 * NS_PER_MS);
    assert_int_equal(clock_now_ns(&clock), 6500 * NS_PER_MS);
    assert_int_equal(clock_unix_ms(&clock), 6500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_system_clock_goes_forward_and_knows_the_date),
        cmocka_unit_test(a_virtual_clock_moves_only_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
