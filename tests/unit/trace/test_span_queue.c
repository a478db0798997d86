/* The ring of spans: in order, bounded, and whole under many writers. */
#include "trace/span_queue.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

enum { N_WRITERS = 4, N_READERS = 2, N_EACH = 5000 };

static void spans_come_out_as_they_went_in_and_a_full_ring_takes_none(void **state)
{
    error       err;
    span_queue *q = span_queue_new(4, &err);
    trace_span  t = {0};
    (void)state;
    assert_non_null(q);
    for (int round = 0; round < 5; round++) {
        assert_false(span_queue_take(q, &t));
        for (int i = 0; i < 4; i++)
            assert_true(span_queue_put(q, &(trace_span){.start_ns = 10 * round + i}));
        assert_false(span_queue_put(q, &(trace_span){.start_ns = 99}));
        for (int i = 0; i < 4; i++) {
            assert_true(span_queue_take(q, &t));
            assert_int_equal(t.start_ns, 10 * round + i);
        }
    }
    span_queue_free(&q);
    assert_null(q);
}

typedef struct {
    span_queue          *queue;
    atomic_uint_fast32_t n_seen[N_WRITERS * N_EACH], n_taken, n_torn;
} scene;

static scene shared;

typedef struct {
    uint32_t first;
} writer;

/* Every field that is looked at says the same number. */
static void *write_all(void *arg)
{
    uint32_t first = ((writer *)arg)->first;
    for (uint32_t i = first; i < first + N_EACH; i++) {
        trace_span t = {.start_ns = i, .end_ns = i, .n_text = i};
        memcpy(t.text + TRACE_TEXT_BYTES - sizeof i, &i, sizeof i);
        while (!span_queue_put(shared.queue, &t))
            sched_yield();
    }
    return NULL;
}

static void *read_all(void *arg)
{
    trace_span t;
    while (atomic_load(&shared.n_taken) < N_WRITERS * N_EACH) {
        uint32_t last;
        if (!span_queue_take(shared.queue, &t)) {
            sched_yield();
            continue;
        }
        memcpy(&last, t.text + TRACE_TEXT_BYTES - sizeof last, sizeof last);
        if (t.start_ns != t.end_ns || t.start_ns != t.n_text || t.start_ns != last)
            atomic_fetch_add(&shared.n_torn, 1);
        else
            atomic_fetch_add(&shared.n_seen[t.start_ns], 1);
        atomic_fetch_add(&shared.n_taken, 1);
    }
    return arg;
}

static void every_span_of_many_writers_is_read_once(void **state)
{
    error     err;
    pthread_t threads[N_WRITERS + N_READERS];
    writer    writers[N_WRITERS];
    (void)state;
    shared.queue = span_queue_new(8, &err);
    assert_non_null(shared.queue);
    for (uint32_t i = 0; i < N_WRITERS; i++) {
        writers[i].first = i * N_EACH;
        assert_int_equal(pthread_create(&threads[i], NULL, write_all, &writers[i]), 0);
    }
    for (int i = 0; i < N_READERS; i++)
        assert_int_equal(pthread_create(&threads[N_WRITERS + i], NULL, read_all, NULL), 0);
    for (int i = 0; i < N_WRITERS + N_READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared.n_torn), 0);
    for (int i = 0; i < N_WRITERS * N_EACH; i++)
        assert_int_equal(atomic_load(&shared.n_seen[i]), 1);
    span_queue_free(&shared.queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_come_out_as_they_went_in_and_a_full_ring_takes_none),
        cmocka_unit_test(every_span_of_many_writers_is_read_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
