/* Thousands of random acts of clients and of the layer above, in an order that a seed decides: whatever happens, each
 * request ends exactly once, nothing leaks, and the server's own books agree. */
#include "services/gateway/http_server.h"

#include "base/error.h"
#include "base/metric.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
// cmocka needs the headers above
#include <cmocka.h>

enum { CLIENTS = 24, REQUESTS = 256, ACTS = 30000 };

typedef struct {
    http_handle handle;
    bool        streaming;
} open_request;

typedef struct {
    uint64_t           seed;
    struct event_base *base;
    http_server       *server;
    int                fds[CLIENTS]; /* -1: not connected */
    open_request       open[REQUESTS];
    uint32_t           n_open;
    uint32_t           n_requests, n_answered, n_gone;
} storm;

/* splitmix64 (Steele, Lea, Flood, 2014) */
static uint32_t draw(storm *s, uint32_t below)
{
    uint64_t z = s->seed += 0x9e3779b97f4a7c15u;
    z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z          = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % below;
}

static void on_request(void *context, const http_request *request)
{
    storm *s = context;
    s->n_requests++;
    assert_true(s->n_open < REQUESTS);
    s->open[s->n_open++] = (open_request){request->handle, false};
    assert_true(http_attach(s->server, request->handle, s));
}

static void forget(storm *s, http_handle handle)
{
    uint32_t i = 0;
    while (i < s->n_open && s->open[i].handle != handle)
        i++;
    assert_true(i < s->n_open); /* each request ends once */
    s->open[i] = s->open[--s->n_open];
}

static void on_gone(void *context, http_handle handle, void *owner, http_gone why)
{
    storm *s = context;
    (void)why;
    assert_ptr_equal(s, owner);
    forget(s, handle);
    s->n_gone++;
}

static void on_writable(void *context, http_handle handle, void *owner)
{
    (void)handle;
    assert_ptr_equal(context, owner);
}

static void answer_something(storm *s)
{
    if (s->n_open == 0)
        return;
    static char      bytes[3000];
    open_request    *r     = &s->open[draw(s, s->n_open)];
    http_handle      h     = r->handle;
    const http_reply plain = {.status = 200, .content_type = "text/plain", .body = {bytes, draw(s, sizeof bytes)}};
    const http_reply sse   = {.status = 200, .content_type = "text/event-stream"};
    bool             over  = false;
    switch (draw(s, 6)) {
    case 0:
        if (!r->streaming)
            over = http_respond(s->server, h, &plain);
        break;
    case 1:
        over = http_stream_abort(s->server, h);
        break;
    case 2:
        if (r->streaming)
            over = http_stream_end(s->server, h);
        break;
    default:
        if (r->streaming)
            http_stream_write(s->server, h, (span){bytes, draw(s, sizeof bytes)});
        else
            r->streaming = http_stream_begin(s->server, h, &sse);
    }
    if (over) {
        forget(s, h);
        s->n_answered++;
        assert_false(http_stream_end(s->server, h));
    }
}

static void client_connect(storm *s, int *fd)
{
    struct sockaddr_in address = {.sin_family      = AF_INET,
                                  .sin_port        = htons(http_server_port(s->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                small   = 4096;
    *fd                        = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*fd >= 0);
    setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(0, connect(*fd, (struct sockaddr *)&address, sizeof address));
    fcntl(*fd, F_SETFL, O_NONBLOCK);
}

static void client_acts(storm *s)
{
    static const char *const said[] = {
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nHEAD /c HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "no such thing\r\n\r\n",
        "\x16\x03\x01",
    };
    static char   sink[20000];
    int          *fd    = &s->fds[draw(s, CLIENTS)];
    const char   *text  = said[draw(s, COUNT(said))];
    struct linger reset = {1, 0};
    if (*fd < 0) {
        client_connect(s, fd);
        return;
    }
    switch (draw(s, 16)) {
    case 0: /* resets */
        setsockopt(*fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        __attribute__((fallthrough));
    case 1:
        close(*fd);
        *fd = -1;
        break;
    case 2:
        shutdown(*fd, SHUT_WR);
        break;
    case 3: /* says part of something */
        send(*fd, text, draw(s, (uint32_t)strlen(text)), MSG_NOSIGNAL);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        send(*fd, text, strlen(text), MSG_NOSIGNAL);
        break;
    default:
        (void)!recv(*fd, sink, draw(s, sizeof sink), 0);
    }
}

static void weather(uint64_t seed, bool half_close_is_gone)
{
    storm               s       = {.seed = seed, .base = event_base_new()};
    http_server_options options = http_server_options_default();
    http_handler        handler = {on_request, on_gone, on_writable, &s};
    error               err;
    options.port        = 0;
    options.connections = CLIENTS - 4; /* so that some wait for a place */
    options.head_ms = options.idle_ms = options.body_ms = options.stall_ms = 30;
    options.ping_ms = options.linger_ms = 10;
    options.request_memory_bytes        = 20000;
    options.backlog_full_bytes          = 8000;
    options.backlog_cap_bytes           = 16000;
    options.half_close_is_gone          = half_close_is_gone;
    s.server                            = http_server_new(s.base, &options, &handler, &err);
    assert_non_null(s.server);
    for (int i = 0; i < CLIENTS; i++)
        s.fds[i] = -1;
    for (int act = 0; act < ACTS; act++) {
        client_acts(&s);
        if (act % 8 == 0)
            answer_something(&s);
        event_base_loop(s.base, EVLOOP_NONBLOCK);
        http_server_check(s.server);
    }
    for (int i = 0; i < CLIENTS; i++)
        if (s.fds[i] >= 0)
            close(s.fds[i]);
    assert_true(s.n_requests > 300 && s.n_answered > 100 && s.n_gone > 20); /* the weather was bad enough */
    http_server_free(&s.server);
    event_base_free(s.base);
    assert_int_equal(0, s.n_open);
    assert_int_equal(s.n_requests, s.n_answered + s.n_gone);
    assert_true(metric_value(metric_find("troupe_http_connections", "")) == 0);
}

static void every_request_ends_once_whatever_happens(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        weather(seed, true);
}

static void the_same_when_half_closed_clients_are_served(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 13; seed++)
        weather(seed, false);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_ends_once_whatever_happens),
        cmocka_unit_test(the_same_when_half_closed_clients_are_served),
    };
    return cmocka_run_group_tests_name("http_storm", tests, NULL, NULL);
}
