/* See admin.h. */
#include "troupe/admin.h"

#include "base/log.h"
#include "base/metric.h"
#include "gateway/http_server.h"

#include <event2/event.h>
#include <event2/thread.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct admin {
    struct event_base *base;
    http_server       *server;
    pthread_t          thread;
    bool               running;
};

static void respond(admin *a, http_handle handle, int status, span body)
{
    http_respond(
        a->server, handle,
        &(http_reply){.status = status, .content_type = "text/plain; version=0.0.4; charset=utf-8", .body = body});
}

static void respond_metrics(admin *a, http_handle handle)
{
    size_t room = metric_print(NULL, 0) + 4096; /* a series may be registered meanwhile */
    char  *text = malloc(room);
    size_t size = text ? metric_print(text, room) : 0;
    if (text && size < room)
        respond(a, handle, 200, (span){text, size});
    else
        respond(a, handle, 503, SPAN("no memory for the metrics\n"));
    free(text);
}

static void on_request(void *context, const http_request *request)
{
    admin *a = context;
    if (request->method != HTTP_GET)
        respond(a, request->handle, 405, SPAN("only GET\n"));
    else if (span_is(request->path, "/health"))
        respond(a, request->handle, 200, SPAN("ok\n"));
    else if (span_is(request->path, "/metrics"))
        respond_metrics(a, request->handle);
    else
        respond(a, request->handle, 404, SPAN("/health and /metrics are here\n"));
}

static void on_gone(void *context, http_handle handle, void *owner, http_gone why)
{
    (void)context, (void)handle, (void)owner, (void)why;
}

static void on_writable(void *context, http_handle handle, void *owner)
{
    (void)context, (void)handle, (void)owner;
}

static void *run(void *arg)
{
    admin *a = arg;
    log_set_thread_service("admin");
    event_base_loop(a->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

admin *admin_new(const char *host, uint16_t port, error *err)
{
    admin *a = calloc(1, sizeof *a);
    if (!a || evthread_use_pthreads() != 0 || !(a->base = event_base_new())) {
        free(a);
        error_set(err, ERR_NO_MEMORY, "no memory for the admin port");
        return NULL;
    }
    http_server_options options = http_server_options_default();
    options.address             = host;
    options.port                = port;
    options.connections         = 64;
    http_handler handler = {.on_request = on_request, .on_gone = on_gone, .on_writable = on_writable, .context = a};
    a->server            = http_server_new(a->base, &options, &handler, err);
    if (!a->server || pthread_create(&a->thread, NULL, run, a) != 0) {
        if (a->server)
            error_set(err, ERR_NO_MEMORY, "no thread for the admin port");
        admin_free(&a);
        return NULL;
    }
    a->running = true;
    return a;
}

void admin_free(admin **admin_to_free)
{
    admin *a = *admin_to_free;
    if (!a)
        return;
    if (a->running) {
        event_base_loopbreak(a->base);
        pthread_join(a->thread, NULL);
    }
    if (a->server)
        http_server_free(&a->server);
    event_base_free(a->base);
    free(a);
    *admin_to_free = NULL;
}

/* ---- the other side ---- */

static int connect_to(const char *host, uint16_t port, error *err)
{
    char            service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    struct timeval  limit = {.tv_sec = 2};
    snprintf(service, sizeof service, "%u", port);
    int failed = getaddrinfo(host, service, &hints, &found);
    if (failed) {
        error_set(err, ERR_IO, "%s: %s", host, gai_strerror(failed));
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0)
        error_set(err, ERR_IO, "%s:%u: nobody listens", host, port);
    return fd;
}

bool admin_get(const char *host, uint16_t port, const char *path, error *err)
{
    char request[512], reply[64] = "";
    bool is_v6 = strchr(host, ':') != NULL;
    int  fd    = connect_to(host, port, err);
    if (fd < 0)
        return false;
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s%s%s\r\nConnection: close\r\n\r\n", path,
                        is_v6 ? "[" : "", host, is_v6 ? "]" : "");
    ssize_t got = write(fd, request, (size_t)size) == size ? read(fd, reply, sizeof reply - 1) : -1;
    close(fd);
    if (got <= 0)
        return error_set(err, ERR_TIMEOUT, "%s:%u%s: no answer within 2 s", host, port, path);
    reply[got]                    = '\0';
    reply[strcspn(reply, "\r\n")] = '\0';
    if (strncmp(reply, "HTTP/1.1 200 ", 13) != 0)
        return error_set(err, ERR_NOT_READY, "%s:%u%s: %s", host, port, path, reply);
    return true;
}
