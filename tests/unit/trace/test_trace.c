/* Recording: what is sampled and taken, what is dropped and counted. */
#include "trace/trace.h"

#include "base/metric.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t sampled[TRACE_CONTEXT_BYTES]   = {[0] = 1, [16] = 2, [24] = TRACE_SAMPLED};
static const uint8_t unsampled[TRACE_CONTEXT_BYTES] = {[0] = 1, [16] = 2};

static void nothing_is_wanted_while_nobody_exports(void **state)
{
    uint8_t    drawn[TRACE_CONTEXT_BYTES];
    trace_span t = trace_span_under(sampled, "s", "n", 1, 2);
    error      err;
    (void)state;
    assert_false(trace_wants(sampled));
    trace_record(&t);
    assert_false(trace_take(&t));
    assert_true(trace_draw(drawn, &err));
    assert_true(trace_context_is_valid(drawn));
    assert_int_equal(drawn[TRACE_CONTEXT_BYTES - 1], 0);
}

static void the_flag_of_a_trace_decides(void **state)
{
    error err;
    (void)state;
    assert_true(trace_open(2, 1, &err));
    assert_true(trace_wants(sampled));
    assert_false(trace_wants(unsampled));
    trace_close();
    assert_false(trace_wants(sampled));
}

static void as_many_new_traces_are_sampled_as_asked_for(void **state)
{
    enum { N = 4000 };
    static const struct {
        double   ratio;
        uint32_t least, most;
    } cases[] = {{0, 0, 0}, {1, N, N}, {0.25, N / 5, N * 3 / 10}}; /* 7 standard deviations */
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error    err;
        uint32_t n = 0;
        assert_true(trace_open(2, cases[i].ratio, &err));
        for (int k = 0; k < N; k++) {
            uint8_t drawn[TRACE_CONTEXT_BYTES];
            assert_true(trace_draw(drawn, &err));
            n += drawn[TRACE_CONTEXT_BYTES - 1];
        }
        trace_close();
        assert_in_range(n, cases[i].least, cases[i].most);
    }
}

static void what_does_not_fit_into_the_queue_is_counted(void **state)
{
    error err;
    (void)state;
    assert_true(trace_open(4, 1, &err));
    double     before = metric_value(metric_find("troupe_spans_dropped_total", ""));
    trace_span t;
    for (int i = 0; i < 7; i++) {
        t = trace_span_under(sampled, "s", "n", i, i);
        trace_record(&t);
    }
    assert_true(metric_value(metric_find("troupe_spans_dropped_total", "")) == before + 3);
    for (int i = 0; i < 4; i++) {
        assert_true(trace_take(&t));
        assert_int_equal(t.start_ns, i); /* the newest are dropped */
    }
    assert_false(trace_take(&t));
    trace_count_dropped(2);
    assert_true(metric_value(metric_find("troupe_spans_dropped_total", "")) == before + 5);
    trace_close();
}

static void a_span_is_under_its_parent_with_an_id_of_its_own(void **state)
{
    (void)state;
    trace_span a = trace_span_under(sampled, "s", "n", 1, 2), b = trace_span_under(sampled, "s", "n", 1, 2);
    assert_memory_equal(a.trace_id, sampled, TRACE_ID_BYTES);
    assert_memory_equal(a.parent_id, sampled + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    assert_memory_not_equal(a.span_id, b.span_id, TRACE_SPAN_ID_BYTES);
}

static void what_is_too_much_for_a_span_is_left_out_whole(void **state)
{
    char long_text[TRACE_TEXT_BYTES + 1];
    (void)state;
    memset(long_text, 'x', sizeof long_text);
    trace_span t = trace_span_under(sampled, "s", "n", 1, 2);
    trace_add_text(&t, "too long", (span){long_text, sizeof long_text});
    trace_add_text(&t, "just right", (span){long_text, TRACE_TEXT_BYTES});
    trace_add_text(&t, "no room", (span){long_text, 1});
    assert_int_equal(t.n_attributes, 1);
    assert_int_equal(t.n_dropped_attributes, 2);
    for (int i = 0; i < TRACE_ATTRIBUTES_MAX; i++)
        trace_add_number(&t, "number", i);
    assert_int_equal(t.n_attributes, TRACE_ATTRIBUTES_MAX);
    assert_int_equal(t.n_dropped_attributes, 3);
    for (int i = 0; i < TRACE_EVENTS_MAX + 2; i++)
        trace_add_event(&t, "event", i);
    assert_int_equal(t.n_events, TRACE_EVENTS_MAX);
    assert_int_equal(t.n_dropped_events, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_wanted_while_nobody_exports),
        cmocka_unit_test(the_flag_of_a_trace_decides),
        cmocka_unit_test(as_many_new_traces_are_sampled_as_asked_for),
        cmocka_unit_test(what_does_not_fit_into_the_queue_is_counted),
        cmocka_unit_test(a_span_is_under_its_parent_with_an_id_of_its_own),
        cmocka_unit_test(what_is_too_much_for_a_span_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
