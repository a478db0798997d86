#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/thread_pool.h"

enum { SLICES_MAX = 300 };

typedef struct {
    uint32_t times[SLICES_MAX]; /* plain: a slice that ran on two threads would be a race */
    uint32_t by_worker[8];
    uint32_t value;
} record;

static void note(void *job, uint32_t slice, uint32_t worker)
{
    record *r = job;
    r->times[slice] += r->value;
    r->by_worker[worker]++;
}

static void runs_every_slice_once(void **state)
{
    (void)state;
    static const uint32_t slices[] = {0, 1, 2, 3, 7, 64, SLICES_MAX};
    for (uint32_t n_threads = 1; n_threads <= 5; n_threads++) {
        thread_pool *pool = thread_pool_new(n_threads);
        assert_non_null(pool);
        assert_int_equal(thread_pool_n_threads(pool), n_threads);
        for (uint32_t i = 0; i < sizeof slices / sizeof slices[0]; i++) {
            record r = {.value = 1};
            thread_pool_run(pool, note, &r, slices[i]);
            uint32_t total = 0;
            for (uint32_t s = 0; s < SLICES_MAX; s++) {
                assert_int_equal(r.times[s], s < slices[i]);
            }
            for (uint32_t w = 0; w < 8; w++) {
                assert_true(w < n_threads || r.by_worker[w] == 0);
                total += r.by_worker[w];
            }
            assert_int_equal(total, slices[i]);
        }
        thread_pool_free(&pool);
        assert_null(pool);
    }
}

/* Jobs back to back, and after pauses long enough for workers to fall asleep: none is lost, none runs with another's
 * data. */
static void trains_of_jobs_do_not_mix(void **state)
{
    (void)state;
    thread_pool *pool = thread_pool_new(3);
    record       r    = {0};
    uint64_t     sum  = 0;
    for (uint32_t job = 1; job <= 3000; job++) {
        r.value = job;
        thread_pool_run(pool, note, &r, 1 + job % 9);
        sum += (uint64_t)job * (1 + job % 9);
        if (job % 500 == 0) {
            usleep(3000);
        }
    }
    for (uint32_t s = 0; s < SLICES_MAX; s++) {
        sum -= r.times[s];
    }
    assert_int_equal(sum, 0);
    thread_pool_free(&pool);
}

static void stops_while_its_workers_sleep(void **state)
{
    (void)state;
    thread_pool *pool = thread_pool_new(4);
    usleep(5000);
    thread_pool_free(&pool);
    thread_pool_free(&pool);
    assert_null(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_every_slice_once),
        cmocka_unit_test(trains_of_jobs_do_not_mix),
        cmocka_unit_test(stops_while_its_workers_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
