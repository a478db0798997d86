/* The exporter of spans against a collector of a few lines: what it sends, what it counts, and that it ends in time. */
#include "troupe/span_exporter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "trace/trace.h"

#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Answers one request with `reply`, or never; keeps what was asked. */
typedef struct {
    int         listener;
    uint16_t    port;
    const char *reply; /* NULL: it hangs */
    char        asked[32 * 1024];
    size_t      n_asked;
    pthread_t   thread;
} collector;

static bool is_whole(const collector *c)
{
    const char *body   = strstr(c->asked, "\r\n\r\n");
    const char *length = strstr(c->asked, "Content-Length: ");
    size_t      bytes  = 0;
    if (!body || !length || sscanf(length, "Content-Length: %zu", &bytes) != 1)
        return false;
    return c->n_asked >= (size_t)(body + 4 - c->asked) + bytes;
}

static void *serve(void *arg)
{
    collector *c  = arg;
    int        fd = accept(c->listener, NULL, NULL);
    ssize_t    n;
    while (fd >= 0 && !is_whole(c) && (n = read(fd, c->asked + c->n_asked, sizeof c->asked - 1 - c->n_asked)) > 0)
        c->n_asked += (size_t)n;
    if (fd >= 0 && c->reply && write(fd, c->reply, strlen(c->reply)) < 0)
        c->n_asked = 0;
    char rest;
    while (fd >= 0 && read(fd, &rest, 1) > 0) /* until the exporter closes */
        ;
    close(fd);
    return NULL;
}

static void start(collector *c, const char *reply)
{
    struct sockaddr_in at   = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t          size = sizeof at;
    *c                      = (collector){.listener = socket(AF_INET, SOCK_STREAM, 0), .reply = reply};
    assert_int_equal(bind(c->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(c->listener, 4), 0);
    assert_int_equal(getsockname(c->listener, (struct sockaddr *)&at, &size), 0);
    c->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&c->thread, NULL, serve, c), 0);
}

static void stop(collector *c)
{
    pthread_join(c->thread, NULL);
    close(c->listener);
}

static span_exporter *exporter_to(uint16_t port, const char *path)
{
    char  endpoint[64];
    error err;
    snprintf(endpoint, sizeof endpoint, "http://localhost:%u%s", port, path);
    span_exporter *e = span_exporter_new(endpoint, 1, &err);
    if (!e)
        fail_msg("%s", err.text);
    return e;
}

static void record(int n)
{
    uint8_t context[TRACE_CONTEXT_BYTES];
    error   err;
    for (int i = 0; i < n; i++) {
        assert_true(trace_draw(context, &err));
        trace_span t = trace_span_under(context, "gateway", "chat", i, i + 1);
        trace_record(&t);
    }
}

static double value(const char *name)
{
    const metric *m = metric_find(name, "");
    return m ? metric_value(m) : 0;
}

static void an_endpoint_is_an_http_address(void **state)
{
    static const char *const bad[] = {
        "",           "localhost",         "localhost:4318",     "https://localhost:4318", "grpc://localhost",
        "http://",    "http://:4318",      "http://host:0",      "http://host:99999",      "http://host:port",
        "http://a b", "http://host:4318?", "http://u:p@host:43", "http://host/#x",         "/v1/traces",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        error err = {0};
        if (span_exporter_new(bad[i], 1, &err))
            fail_msg("%s was taken", bad[i]);
        assert_non_null(strstr(err.text, "--otlp-endpoint "));
        assert_non_null(strstr(err.text, bad[i]));
    }
}

static void what_is_left_is_sent_at_the_end(void **state)
{
    static collector c;
    double           exported = value("troupe_spans_exported_total"), dropped = value("troupe_spans_dropped_total");
    (void)state;
    start(&c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    span_exporter *e = exporter_to(c.port, "/base/");
    record(3);
    span_exporter_free(&e);
    assert_null(e);
    stop(&c);
    assert_true(strncmp(c.asked, "POST /base/v1/traces HTTP/1.1\r\n", 31) == 0);
    assert_non_null(strstr(c.asked, "Content-Type: application/json\r\n"));
    assert_non_null(strstr(c.asked, "{\"resourceSpans\":["));
    assert_true(value("troupe_spans_exported_total") == exported + 3);
    assert_true(value("troupe_spans_dropped_total") == dropped);
}

static void what_the_collector_refuses_is_dropped_and_counted(void **state)
{
    static collector c;
    double           exported = value("troupe_spans_exported_total"), dropped = value("troupe_spans_dropped_total");
    (void)state;
    start(&c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    span_exporter *e = exporter_to(c.port, "");
    record(70); /* two batches, and the second isn't tried any more */
    span_exporter_free(&e);
    stop(&c);
    assert_true(value("troupe_spans_exported_total") == exported);
    assert_true(value("troupe_spans_dropped_total") == dropped + 70);
}

static void nobody_waits_long_for_a_collector_that_hangs_or_is_not_there(void **state)
{
    (void)state;
    for (int hangs = 0; hangs < 2; hangs++) {
        static collector c;
        double           dropped = value("troupe_spans_dropped_total");
        start(&c, NULL);
        if (!hangs) {
            shutdown(c.listener, SHUT_RDWR);
            stop(&c);
        }
        int64_t        begun_ns = clock_now_ns(clock_system());
        span_exporter *e        = exporter_to(c.port, "");
        record(5000); /* the queue holds fewer, and nobody waits for room */
        span_exporter_free(&e);
        assert_true(clock_now_ns(clock_system()) - begun_ns < 60 * NS_PER_S); /* it ended at all */
        assert_true(value("troupe_spans_dropped_total") == dropped + 5000);
        if (hangs)
            stop(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endpoint_is_an_http_address),
        cmocka_unit_test(what_is_left_is_sent_at_the_end),
        cmocka_unit_test(what_the_collector_refuses_is_dropped_and_counted),
        cmocka_unit_test(nobody_waits_long_for_a_collector_that_hangs_or_is_not_there),
    };
    log_set_level(LOG_OFF);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
