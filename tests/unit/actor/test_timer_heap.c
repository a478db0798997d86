/* The heap of timers against a plain sorted list. */
#include "actor/timer_heap.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void timers_come_by_due_time(void **state)
{
    (void)state;
    timer_heap    heap    = {0};
    actor_timer   t[6]    = {0};
    const int64_t due[]   = {50, 10, 40, 20, 60, 30};
    const int     order[] = {1, 3, 5, 2, 0, 4};
    for (size_t i = 0; i < COUNT(due); i++)
        timer_heap_set(&heap, &t[i], due[i]);
    for (int64_t now = 10; now <= 60; now += 10) {
        assert_int_equal(timer_heap_next_ns(&heap), now);
        assert_null(timer_heap_take_due(&heap, now - 1));
        assert_ptr_equal(timer_heap_take_due(&heap, now), &t[order[now / 10 - 1]]);
        assert_null(timer_heap_take_due(&heap, now));
    }
    assert_true(timer_heap_next_ns(&heap) == INT64_MAX);
    timer_heap_clear(&heap);
}

static void cancelling_what_is_not_set_does_nothing(void **state)
{
    (void)state;
    timer_heap  heap  = {0};
    actor_timer timer = {0};
    timer_heap_cancel(&heap, &timer);
    timer_heap_set(&heap, &timer, 5);
    timer_heap_cancel(&heap, &timer);
    timer_heap_cancel(&heap, &timer);
    assert_int_equal(heap.n, 0);
    timer_heap_clear(&heap);
}

/* The earliest due time among those set, or INT64_MAX. */
static int64_t earliest(const actor_timer *timers, size_t n)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < n; i++)
        if (timers[i].due_ns != 0 && timers[i].due_ns < due_ns)
            due_ns = timers[i].due_ns;
    return due_ns;
}

static void random_sets_moves_and_cancels_keep_the_order(void **state)
{
    (void)state;
    static actor_timer timers[200];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        random_seeded random = random_from_seed(seed);
        timer_heap    heap   = {0};
        for (int step = 0; step < 5000; step++) {
            actor_timer *timer = &timers[random_below(&random, COUNT(timers))];
            uint64_t     what  = random_below(&random, 10);
            int64_t      first = earliest(timers, COUNT(timers));
            assert_true(timer_heap_next_ns(&heap) == first);
            if (what < 6)
                timer_heap_set(&heap, timer, 1 + (int64_t)random_below(&random, 1000)); /* new, or moved */
            else if (what < 8)
                timer_heap_cancel(&heap, timer);
            else if (heap.n > 0) {
                actor_timer *taken = timer_heap_take_due(&heap, first);
                assert_non_null(taken);
                assert_int_equal(taken->due_ns, 0);
            }
        }
        timer_heap_clear(&heap);
        assert_true(earliest(timers, COUNT(timers)) == INT64_MAX); /* clearing unsets them */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_come_by_due_time),
        cmocka_unit_test(cancelling_what_is_not_set_does_nothing),
        cmocka_unit_test(random_sets_moves_and_cancels_keep_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
