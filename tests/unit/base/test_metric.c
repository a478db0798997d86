/* Metrics: values, and a text that follows Prometheus' format 0.0.4 line by line. */
#include "base/metric.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char text[256 * 1024];

static void counters_gauges_and_histograms_hold_what_was_put_in(void **state)
{
    (void)state;
    static const double bounds[] = {0.1, 1, 10};
    metric             *c        = metric_counter("t_requests_total", "", "Requests.");
    metric             *g        = metric_gauge("t_queue_depth", "", "Depth.");
    metric             *h        = metric_histogram("t_wait_seconds", "", "Wait.", bounds, 3);
    metric_add(c, 1);
    metric_add(c, 2.5);
    metric_set(g, 7);
    metric_add(g, -9);
    metric_observe(h, 0.1); /* a bound belongs to its bucket */
    metric_observe(h, 0.11);
    metric_observe(h, 99);
    assert_true(metric_value(c) == 3.5);
    assert_true(metric_value(g) == -2);
    assert_true(metric_value(h) == 3);
    metric_print(text, sizeof text);
    assert_non_null(strstr(text, "# HELP t_wait_seconds Wait.\n# TYPE t_wait_seconds histogram\n"
                                 "t_wait_seconds_bucket{le=\"0.1\"} 1\n"
                                 "t_wait_seconds_bucket{le=\"1\"} 2\n"
                                 "t_wait_seconds_bucket{le=\"10\"} 2\n"
                                 "t_wait_seconds_bucket{le=\"+Inf\"} 3\n"
                                 "t_wait_seconds_sum 99.21\n"
                                 "t_wait_seconds_count 3\n"));
    assert_non_null(strstr(text, "# TYPE t_requests_total counter\nt_requests_total 3.5\n"));
    assert_non_null(strstr(text, "# TYPE t_queue_depth gauge\nt_queue_depth -2\n"));
}

static void registering_again_gives_the_same_metric(void **state)
{
    (void)state;
    metric *a = metric_counter("t_same_total", "role=\"a\"", "Same.");
    metric *b = metric_counter("t_same_total", "role=\"b\"", "Same.");
    assert_ptr_equal(a, metric_counter("t_same_total", "role=\"a\"", "Same."));
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(metric_find("t_same_total", "role=\"b\""), b);
    assert_null(metric_find("t_same_total", ""));
    assert_null(metric_find("t_unknown", ""));
}

static void series_of_one_name_stay_together_under_one_header(void **state)
{
    (void)state;
    metric_gauge("t_family", "role=\"a\"", "Text with \\ and\nnewline.");
    metric_gauge("t_between", "", "Between.");
    metric_set(metric_gauge("t_family", "role=\"b\"", "ignored"), NAN);
    metric_set(metric_gauge("t_family", "role=\"c\"", "ignored"), INFINITY);
    metric_set(metric_gauge("t_family", "role=\"d\"", "ignored"), -INFINITY);
    metric_print(text, sizeof text);
    assert_non_null(strstr(text, "# HELP t_family Text with \\\\ and\\nnewline.\n# TYPE t_family gauge\n"
                                 "t_family{role=\"a\"} 0\nt_family{role=\"b\"} NaN\nt_family{role=\"c\"} +Inf\n"
                                 "t_family{role=\"d\"} -Inf\n"));
}

static void a_small_buffer_gets_a_prefix_and_the_size_needed(void **state)
{
    (void)state;
    char   small[10] = "untouched";
    size_t whole     = metric_print(text, sizeof text);
    assert_int_equal(metric_print(NULL, 0), whole);
    assert_int_equal(strlen(text), whole);
    assert_int_equal(metric_print(small, sizeof small), whole);
    assert_memory_equal(small, text, sizeof small - 1);
    assert_int_equal(small[9], '\0');
}

static void *add_many(void *m)
{
    for (int i = 0; i < 20000; i++)
        metric_add(m, 1);
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    metric   *m = metric_counter("t_threads_total", "", "Threads.");
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_many, m);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(metric_value(m) == 80000);
}

/* -------------------------------------------------------------------------- a reader of the format, to check it */

static const char *take_name(const char *at)
{
    assert_true(isalpha((unsigned char)*at) || *at == '_');
    while (isalnum((unsigned char)*at) || *at == '_' || *at == ':')
        at++;
    return at;
}

static const char *take_labels(const char *at)
{
    if (*at != '{')
        return at;
    do {
        at = take_name(at + 1);
        assert_memory_equal(at, "=\"", 2);
        for (at += 2; *at != '"'; at++) {
            assert_true(*at && *at != '\n');
            if (*at == '\\')
                at++;
        }
        at++;
    } while (*at == ',');
    assert_int_equal(*at, '}');
    return at + 1;
}

static const char *take_number(const char *at)
{
    char *end;
    strtod(at, &end);
    assert_ptr_not_equal(end, at);
    return end;
}

/* Every sample follows the header of its family; each family has one; buckets never fall. */
static void the_whole_text_parses_as_the_exposition_format(void **state)
{
    (void)state;
    size_t size        = metric_print(text, sizeof text);
    char   family[128] = "", seen[8192] = "";
    double last_bucket = 0;
    assert_true(size < sizeof text);
    for (const char *line = text; *line;) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        if (*line == '#') {
            bool is_help = strncmp(line, "# HELP ", 7) == 0;
            assert_true(is_help || strncmp(line, "# TYPE ", 7) == 0);
            int length = (int)(take_name(line + 7) - (line + 7));
            if (is_help) {
                snprintf(family, sizeof family, "%.*s", length, line + 7);
                char mark[140];
                snprintf(mark, sizeof mark, "\n%s\n", family);
                assert_null(strstr(seen, mark));
                strcat(seen, mark);
            }
            assert_int_equal(strncmp(line + 7, family, (size_t)length), 0);
        } else {
            assert_int_equal(strncmp(line, family, strlen(family)), 0);
            const char *labels = take_name(line);
            const char *value  = take_labels(labels);
            assert_int_equal(*value, ' ');
            assert_ptr_equal(take_number(value + 1), end);
            bool is_bucket = strncmp(labels - 7, "_bucket", 7) == 0;
            bool is_lower  = is_bucket && strtod(value + 1, NULL) < last_bucket;
            assert_true(!is_lower || strstr(line, "le=\"0.001\"") || strstr(line, "le=\"1\""));
            last_bucket = is_bucket ? strtod(value + 1, NULL) : 0;
        }
        line = end + 1;
    }
}

static void register_labelled_histograms(void)
{
    metric *a = metric_histogram("t_step_seconds", "stage=\"prefill\"", "Step.", metric_seconds_bounds,
                                 n_metric_seconds_bounds);
    metric *b = metric_histogram("t_step_seconds", "stage=\"de\\\"code\"", "Step.", metric_seconds_bounds,
                                 n_metric_seconds_bounds);
    metric *c = metric_histogram("t_batch_size", "", "Batch.", metric_count_bounds, n_metric_count_bounds);
    for (int i = 0; i < 100; i++) {
        metric_observe(a, i * 0.7);
        metric_observe(b, 1e-9);
        metric_observe(c, i);
    }
}

int main(void)
{
    register_labelled_histograms();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_gauges_and_histograms_hold_what_was_put_in),
        cmocka_unit_test(registering_again_gives_the_same_metric),
        cmocka_unit_test(series_of_one_name_stay_together_under_one_header),
        cmocka_unit_test(a_small_buffer_gets_a_prefix_and_the_size_needed),
        cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(the_whole_text_parses_as_the_exposition_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
