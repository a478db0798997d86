/* The layer above and the client of the HTTP server's tests. */
#include "support_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int owner_of_all;

static const http_reply event_stream = {.status = 200, .content_type = "text/event-stream"};

static void on_request(void *context, const http_request *request)
{
    fixture *f = context;
    f->n_requests++;
    f->body_size = request->body.size < sizeof f->body ? request->body.size : sizeof f->body;
    if (f->body_size > 0)
        memcpy(f->body, request->body.data, f->body_size);
    if (span_is(request->path, "/wait") || span_is(request->path, "/stream")) {
        f->last = request->handle;
        assert_true(http_attach(f->server, f->last, &owner_of_all));
        if (span_is(request->path, "/stream"))
            assert_true(http_stream_begin(f->server, f->last, &event_stream));
        return;
    }
    if (span_is(request->path, "/unclean")) {
        http_field forged = {"X-A", SPAN("b\r\nSet-Cookie: c")};
        http_respond(f->server, request->handle, &(http_reply){.status = 200, .fields = &forged, .n_fields = 1});
        return;
    }
    /* everything else is told back: METHOD path?query [X-Tell] body */
    char text[4096];
    span tell;
    http_request_header(request, "x-tell", &tell);
    int        size  = snprintf(text, sizeof text, "%s %.*s?%.*s [%.*s] %.*s", http_method_name(request->method),
                                SPAN_ARG(request->path), SPAN_ARG(request->query), SPAN_ARG(tell),
                                (int)(request->body.size < 1024 ? request->body.size : 1024), request->body.data);
    http_field field = {"X-Peer", span_of(request->peer)};
    bool       done  = http_respond(f->server, request->handle,
                                    &(http_reply){.status       = 200,
                                                  .content_type = "text/plain",
                                                  .fields       = &field,
                                                  .n_fields     = 1,
                                                  .body         = {text, (size_t)size}});
    assert_true(done);
    assert_false(http_respond(f->server, request->handle, &event_stream)); /* it is over */
}

static void on_gone(void *context, http_handle handle, void *owner, http_gone why)
{
    fixture *f = context;
    f->n_gone++;
    f->gone_handle = handle;
    f->gone_owner  = owner;
    f->gone_why    = why;
    f->gone_at_ns  = clock_now_ns(clock_system());
    assert_false(http_stream_end(f->server, handle));
}

static void on_writable(void *context, http_handle handle, void *owner)
{
    fixture *f = context;
    assert_ptr_equal(&owner_of_all, owner);
    assert_int_equal(f->last, handle);
    f->n_writable++;
}

int connect_to(fixture *f)
{
    struct sockaddr_in address = {.sin_family      = AF_INET,
                                  .sin_port        = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    assert_true(fd >= 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    assert_int_equal(0, connect(fd, (struct sockaddr *)&address, sizeof address));
    assert_int_equal(0, fcntl(fd, F_SETFL, O_NONBLOCK));
    return fd;
}

client *client_new(fixture *f)
{
    client *c = calloc(1, sizeof *c);
    assert_non_null(c);
    c->fd = connect_to(f);
    return c;
}

void client_free(client *c)
{
    SSL_free(c->ssl);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

static void client_read(client *c)
{
    size_t room = sizeof c->in - 1 - c->in_size;
    if (!c || c->fd < 0 || c->closed || room == 0)
        return;
    ssize_t n;
    if (c->ssl) {
        n = SSL_read(c->ssl, c->in + c->in_size, (int)room);
        if (n <= 0)
            n = SSL_get_error(c->ssl, (int)n) == SSL_ERROR_ZERO_RETURN ? 0 : (errno = EAGAIN, -1);
    } else {
        n = recv(c->fd, c->in + c->in_size, room, 0);
    }
    if (n > 0)
        c->in_size += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->closed = true, c->reset = n < 0;
    c->in[c->in_size] = '\0';
}

void send_bytes(client *c, const char *bytes, size_t size)
{
    ssize_t sent = c->ssl ? SSL_write(c->ssl, bytes, (int)size) : send(c->fd, bytes, size, MSG_NOSIGNAL);
    assert_int_equal(size, sent);
}

void send_text(client *c, const char *text)
{
    send_bytes(c, text, strlen(text));
}

void turn(fixture *f, client *c)
{
    event_base_loop(f->base, EVLOOP_NONBLOCK);
    if (c)
        client_read(c);
}

void pump_for(fixture *f, client *c, int64_t ms)
{
    int64_t until_ns = clock_now_ns(clock_system()) + ms * NS_PER_MS;
    while (turn(f, c), clock_now_ns(clock_system()) < until_ns)
        usleep(200);
}

int64_t ms_since(int64_t ns)
{
    return (clock_now_ns(clock_system()) - ns) / NS_PER_MS;
}

bool has(const client *c, const char *text)
{
    return memmem(c->in, c->in_size, text, strlen(text)) != NULL;
}

uint32_t count_of(const client *c, const char *text)
{
    uint32_t n = 0;
    for (const char *at = c->in; (at = strstr(at, text)); at += strlen(text))
        n++;
    return n;
}

int prepare(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->base    = event_base_new();
    f->options = http_server_options_default();
    assert_non_null(f->base);
    f->options.port      = 0;
    f->options.linger_ms = 100;
    *state               = f;
    return 0;
}

http_handler handler_of(fixture *f)
{
    return (http_handler){on_request, on_gone, on_writable, f};
}

void start(fixture *f)
{
    error        err;
    http_handler handler = handler_of(f);
    f->server            = http_server_new(f->base, &f->options, &handler, &err);
    if (!f->server)
        fail_msg("%s", err.text);
}

int clean_up(void **state)
{
    fixture *f = *state;
    http_server_free(&f->server);
    event_base_free(f->base);
    free(f);
    assert_true(metric_value(metric_find("troupe_http_connections", "")) == 0);
    return 0;
}
