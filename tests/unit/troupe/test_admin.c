/* The admin port as the health check and Prometheus see it. */
#include "troupe/admin.h"

#include "base/metric.h"
#include "base/span.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char host[] = "127.0.0.1";

/* A socket that listens on a free port, which nobody else can take meanwhile. */
static int listen_somewhere(uint16_t *port)
{
    struct sockaddr_in at   = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          size = sizeof at;
    int                fd   = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(0, bind(fd, (struct sockaddr *)&at, sizeof at));
    assert_int_equal(0, listen(fd, 1));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&at, &size));
    *port = ntohs(at.sin_port);
    return fd;
}

/* On a port that was free a moment ago; another one when somebody took it. */
static admin *start(uint16_t *port)
{
    admin *a = NULL;
    for (int i = 0; i < 10 && !a; i++) {
        close(listen_somewhere(port));
        a = admin_new(host, *port, NULL);
    }
    assert_non_null(a);
    return a;
}

static void a_check_tells_what_came_back(void **state)
{
    static const struct {
        const char *path, *says; /* NULL: well */
    } cases[] = {{"/health", NULL}, {"/metrics", NULL}, {"/", "404"}, {"/health/", "404"}, {"no-path", "400"}};
    uint16_t port;
    error    err;
    admin   *a = start(&port);
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool ok = admin_get(host, port, cases[i].path, &err);
        if (ok != !cases[i].says || (!ok && !strstr(err.text, cases[i].says)))
            fail_msg("%s: %s", cases[i].path, ok ? "200" : err.text);
    }
    admin_free(&a);
    assert_null(a);
    assert_false(admin_get(host, port, "/health", &err));
    assert_non_null(strstr(err.text, "nobody listens"));
}

static void who_listens_but_does_not_answer_is_not_well(void **state)
{
    uint16_t port;
    error    err;
    int      fd = listen_somewhere(&port); /* the system takes the connection; nobody reads it */
    (void)state;
    assert_false(admin_get(host, port, "/health", &err));
    assert_int_equal(ERR_TIMEOUT, err.code);
    close(fd);
}

static void a_port_that_is_taken_is_named(void **state)
{
    uint16_t port;
    char     text[8];
    error    err;
    int      fd = listen_somewhere(&port);
    (void)state;
    assert_null(admin_new(host, port, &err));
    snprintf(text, sizeof text, "%u", port);
    assert_non_null(strstr(err.text, text));
    close(fd);
}

static void read_all(uint16_t port, const char *request, char *reply, size_t reply_bytes)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t             size = 0;
    ssize_t            got  = 1;
    assert_int_equal(0, connect(fd, (struct sockaddr *)&to, sizeof to));
    assert_int_equal(strlen(request), write(fd, request, strlen(request)));
    while (size + 1 < reply_bytes && (got = read(fd, reply + size, reply_bytes - 1 - size)) > 0)
        size += (size_t)got;
    assert_int_equal(0, got);
    reply[size] = '\0';
    close(fd);
}

static void metrics_are_those_of_this_process(void **state)
{
    static char reply[1 << 16];
    uint16_t    port;
    metric_add(metric_counter("troupe_test_total", "", "Of this test."), 3);
    admin *a = start(&port);
    (void)state;
    read_all(port, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", reply, sizeof reply);
    assert_memory_equal(reply, "HTTP/1.1 200 ", 13);
    assert_non_null(strstr(reply, "text/plain; version=0.0.4"));
    assert_non_null(strstr(reply, "\ntroupe_test_total 3\n"));
    read_all(port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", reply,
             sizeof reply);
    assert_memory_equal(reply, "HTTP/1.1 405 ", 13);
    admin_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_check_tells_what_came_back),
        cmocka_unit_test(who_listens_but_does_not_answer_is_not_well),
        cmocka_unit_test(a_port_that_is_taken_is_named),
        cmocka_unit_test(metrics_are_those_of_this_process),
    };
    return cmocka_run_group_tests_name("troupe/admin", tests, NULL, NULL);
}
