/* The server: listening, accepting within the limits, freeing what died, draining. */
#include "services/gateway/http_server.h"

#include "base/clock.h"
#include "base/log.h"
#include "services/gateway/http_conn.h"

#include <assert.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1 << 20 /* a slot number in a handle */, RETRY_ACCEPT_MS = 100 };

http_server_options http_server_options_default(void)
{
    return (http_server_options){
        .address              = "127.0.0.1",
        .port                 = 8080,
        .limits               = http_limits_default(),
        .connections          = 8192,
        .connections_per_peer = 1024,
        .request_memory_bytes = 256 << 20,
        .backlog_full_bytes   = 64 << 10,
        .backlog_cap_bytes    = 256 << 10,
        .handshake_ms         = 10000,
        .head_ms              = 10000,
        .body_ms              = 30000,
        .body_bytes_per_s     = 16 << 10,
        .idle_ms              = 60000,
        .stall_ms             = 30000,
        .ping_ms              = 15000,
        .linger_ms            = 1000,
        .half_close_is_gone   = true,
    };
}

int64_t http_now_ns(void)
{
    return clock_now_ns(clock_system());
}

uint16_t http_server_port(const http_server *server)
{
    return server->port;
}

uint32_t http_server_n_connections(const http_server *server)
{
    return server->n_connections;
}

static bool check_options(const http_server_options *o, error *err)
{
    if (o->connections == 0 || o->connections > CONNECTIONS_MAX)
        return error_set(err, ERR_INVALID, "HTTP connections: %u is not between 1 and %d", o->connections,
                         CONNECTIONS_MAX);
    if (!o->cert_file != !o->key_file)
        return error_set(err, ERR_INVALID, "TLS needs both a certificate file and a key file, and only one was given");
    if (o->limits.n_headers > HTTP_HEADERS_MAX)
        return error_set(err, ERR_INVALID, "HTTP headers: at most %d can be allowed, not %u", HTTP_HEADERS_MAX,
                         o->limits.n_headers);
    if ((uint64_t)o->limits.request_line_bytes + o->limits.headers_bytes > HTTP_HEAD_BYTES_MAX)
        return error_set(err, ERR_INVALID, "HTTP request line and headers: at most %d bytes can be allowed together",
                         HTTP_HEAD_BYTES_MAX);
    if (o->backlog_full_bytes > o->backlog_cap_bytes || o->body_bytes_per_s == 0)
        return error_set(err, ERR_INVALID,
                         "HTTP backlog: 'full' must not be over the cap, and the body rate must not be 0");
    return true;
}

static void register_metrics(http_metrics *m)
{
    static const char *const classes[] = {"class=\"2xx\"", "class=\"3xx\"", "class=\"4xx\"", "class=\"5xx\""};
    static const char *const gone[]    = {"cause=\"left\"", "cause=\"stalled\"", "cause=\"backlog\"",
                                          "cause=\"shutdown\""};
    static const char *const causes[]  = {
#define X(name, status, cause, sentence) "cause=\"" cause "\"",
        HTTP_REFUSALS(X)
#undef X
    };
    m->connections       = metric_gauge("troupe_http_connections", "", "Open HTTP connections.");
    m->connections_total = metric_counter("troupe_http_connections_total", "", "HTTP connections accepted.");
    m->at_limit = metric_counter("troupe_http_accept_paused_total", "cause=\"limit\"", "Times that accepting stopped.");
    m->accept_failed =
        metric_counter("troupe_http_accept_paused_total", "cause=\"system\"", "Times that accepting stopped.");
    m->peer_refused =
        metric_counter("troupe_http_peer_refused_total", "", "Connections closed because their peer had too many.");
    m->timed_out_silent = metric_counter("troupe_http_timed_out_total", "",
                                         "Connections closed for being silent in a handshake or between requests.");
    m->received_bytes   = metric_counter("troupe_http_received_bytes_total", "", "Bytes of requests, after TLS.");
    m->sent_bytes       = metric_counter("troupe_http_sent_bytes_total", "", "Bytes of responses, before TLS.");
    for (size_t i = 0; i < COUNT(classes); i++)
        m->requests[i] = metric_counter("troupe_http_requests_total", classes[i], "Responses begun, by status class.");
    for (size_t i = 1; i < COUNT(causes); i++)
        m->refused[i] =
            metric_counter("troupe_http_refused_total", causes[i], "Requests refused before the API saw them.");
    for (size_t i = 0; i < COUNT(gone); i++)
        m->gone[i] = metric_counter("troupe_http_gone_total", gone[i], "Requests that ended before their response.");
}

/* The queue that libevent keeps for waits of this length; a plain timeval where it has no queue left. */
static struct timeval wait_of(struct event_base *base, uint32_t ms)
{
    struct timeval        plain  = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    const struct timeval *common = event_base_init_common_timeout(base, &plain);
    return common ? *common : plain;
}

static void make_waits(http_server *s)
{
    const http_server_options *o = &s->options;
    s->waits                     = (http_waits){
                            .handshake = wait_of(s->base, o->handshake_ms),
                            .head      = wait_of(s->base, o->head_ms),
                            .body      = wait_of(s->base, o->body_ms),
                            .idle      = wait_of(s->base, o->idle_ms),
                            .stall     = wait_of(s->base, o->stall_ms),
                            .ping      = wait_of(s->base, o->ping_ms),
                            .linger    = wait_of(s->base, o->linger_ms),
    };
}

/* Accepts again after the connection limit or a failure of accept() had stopped it. */
static void resume_accepting(http_server *s)
{
    if (s->listener && s->n_connections < s->options.connections && !evtimer_pending(s->retry_accept, NULL))
        evconnlistener_enable(s->listener);
}

static void on_retry_accept(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    resume_accepting(arg);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    http_server *s = arg;
    log_warn("accepting connections failed; pausing", "error=\"%s\"", strerror(errno));
    metric_add(s->metrics.accept_failed, 1);
    evconnlistener_disable(listener);
    event_add(s->retry_accept, &(struct timeval){0, RETRY_ACCEPT_MS * 1000});
}

static struct bufferevent *make_bufferevent(http_server *s, int fd)
{
    if (!s->tls)
        return bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = SSL_new(s->tls);
    if (!ssl)
        return NULL;
    struct bufferevent *bev = /* which frees ssl, also when it fails */
        bufferevent_openssl_socket_new(s->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (bev)
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static void name_peer(http_conn *c, const struct sockaddr *address, int address_bytes)
{
    char host[48], port[8];
    if (getnameinfo(address, (socklen_t)address_bytes, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(host, sizeof host, "?"), snprintf(port, sizeof port, "0");
    snprintf(c->peer_name, sizeof c->peer_name, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* Events leave at once, and what waits for the client waits here, where it is counted, not in the kernel. */
static void tune_socket(int fd)
{
    int one = 1, unsent = 32 << 10;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int address_bytes,
                      void *arg)
{
    http_server *s    = arg;
    uint32_t     peer = HTTP_NO_PEER;
    http_conn   *c    = SLIST_FIRST(&s->unused);
    if (c)
        peer = http_peers_add(s->peers, address, s->options.connections_per_peer);
    struct bufferevent *bev = peer != HTTP_NO_PEER ? make_bufferevent(s, fd) : NULL;
    if (!bev) {
        if (c && peer == HTTP_NO_PEER)
            metric_add(s->metrics.peer_refused, 1);
        if (peer != HTTP_NO_PEER)
            http_peers_drop(s->peers, peer);
        close(fd);
        return;
    }
    SLIST_REMOVE_HEAD(&s->unused, next);
    uint32_t slot = c->slot;
    memset(c, 0, sizeof *c);
    c->server = s;
    c->slot   = slot;
    c->fd     = fd;
    c->bev    = bev;
    c->peer   = peer;
    name_peer(c, address, address_bytes);
    tune_socket(fd);

    metric_add(s->metrics.connections_total, 1);
    metric_add(s->metrics.connections, 1);
    if (++s->n_connections == s->options.connections) {
        metric_add(s->metrics.at_limit, 1);
        evconnlistener_disable(listener);
    }
    http_conn_open(c);
}

static void release(http_conn *c)
{
    http_server *s = c->server;
    http_conn_close(c);
    if (c->to_flush)
        SLIST_REMOVE(&s->flush_list, c, http_conn, next_to_flush);
    http_peers_drop(s->peers, c->peer);
    c->state  = CONN_FREE;
    c->handle = 0;
    SLIST_INSERT_HEAD(&s->unused, c, next);
    s->n_connections--;
    metric_add(s->metrics.connections, -1);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    http_server *s = arg;
    http_conn   *c;
    while ((c = SLIST_FIRST(&s->dying))) {
        SLIST_REMOVE_HEAD(&s->dying, next);
        bool        report = c->report_gone;
        http_handle handle = c->handle;
        void       *owner  = c->owner;
        http_gone   why    = c->why;
        release(c);
        if (report) {
            metric_add(s->metrics.gone[why], 1);
            s->handler.on_gone(s->handler.context, handle, owner, why);
        }
    }
    resume_accepting(s);
    if (s->draining && s->n_connections == 0 && s->on_drained) {
        void (*on_drained)(void *) = s->on_drained;
        s->on_drained              = NULL;
        on_drained(s->drained_context);
    }
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    http_server *s = arg;
    http_conn   *c;
    while ((c = SLIST_FIRST(&s->flush_list))) {
        SLIST_REMOVE_HEAD(&s->flush_list, next_to_flush);
        c->to_flush = false;
        if (c->state == CONN_STREAMING)
            http_reply_flush_turn(c);
    }
}

static bool listen_on(http_server *s, error *err)
{
    const http_server_options *o = &s->options;
    struct addrinfo  hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char             port[8];
    snprintf(port, sizeof port, "%u", o->port);
    if (!o->address || getaddrinfo(o->address, port, &hints, &found) != 0)
        return error_set(err, ERR_INVALID, "\"%s\" is not an IPv4 or IPv6 address to listen on",
                         o->address ? o->address : "");
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE |
                     (o->reuse_port ? LEV_OPT_REUSEABLE_PORT : 0);
    s->listener =
        evconnlistener_new_bind(s->base, on_accept, s, flags, SOMAXCONN, found->ai_addr, (int)found->ai_addrlen);
    int cause = errno;
    freeaddrinfo(found);
    if (!s->listener)
        return error_set(err, ERR_IO, "can't listen on %s port %u: %s", o->address, o->port, strerror(cause));
    evconnlistener_set_error_cb(s->listener, on_accept_error);

    struct sockaddr_storage bound;
    socklen_t               bound_bytes = sizeof bound;
    if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&bound, &bound_bytes) != 0)
        return error_set(err, ERR_IO, "%s port %u: %s", o->address, o->port, strerror(errno));
    s->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
    return true;
}

static bool start(http_server *s, error *err)
{
    uint32_t n      = s->options.connections;
    s->conns        = calloc(n, sizeof *s->conns); /* touched only as connections come */
    s->reap         = event_new(s->base, -1, 0, on_reap, s);
    s->flush        = event_new(s->base, -1, 0, on_flush, s);
    s->retry_accept = evtimer_new(s->base, on_retry_accept, s);
    if (!s->conns || !s->reap || !s->flush || !s->retry_accept)
        return error_set(err, ERR_NO_MEMORY, "no memory for %u HTTP connections", n);
    s->peers = http_peers_new(n, err);
    if (!s->peers || (s->options.cert_file && !http_server_reload(s, err)))
        return false;
    for (uint32_t i = n; i-- > 0;) {
        s->conns[i].slot = i;
        SLIST_INSERT_HEAD(&s->unused, &s->conns[i], next);
    }
    make_waits(s);
    register_metrics(&s->metrics);
    return listen_on(s, err);
}

http_server *http_server_new(struct event_base *base, const http_server_options *options, const http_handler *handler,
                             error *err)
{
    if (!check_options(options, err))
        return NULL;
    http_server *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, ERR_NO_MEMORY, "no memory for an HTTP server");
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN); /* writing to a client that left is an error value here */
    s->base    = base;
    s->options = *options;
    s->handler = *handler;
    s->date_s  = -1;
    if (!start(s, err))
        http_server_free(&s);
    return s;
}

bool http_server_reload(http_server *s, error *err)
{
    if (!s->options.cert_file)
        return true;
    SSL_CTX *fresh = http_tls_context(s->options.cert_file, s->options.key_file, err);
    if (!fresh)
        return false;
    SSL_CTX_free(s->tls); /* open connections hold their own reference */
    s->tls = fresh;
    return true;
}

static void stop_listening(http_server *s)
{
    if (s->listener)
        evconnlistener_free(s->listener);
    s->listener = NULL;
}

void http_server_close_soon(http_server *s)
{
    s->closing = true;
}

void http_server_drain(http_server *s, void (*on_drained)(void *context), void *context)
{
    stop_listening(s);
    s->closing         = true;
    s->draining        = true;
    s->on_drained      = on_drained;
    s->drained_context = context;
    for (uint32_t i = 0; i < s->options.connections; i++) {
        http_conn *c      = &s->conns[i];
        bool       silent = c->state == CONN_HEAD && evbuffer_get_length(bufferevent_get_input(c->bev)) == 0;
        if (silent || c->state == CONN_HANDSHAKE || c->state == CONN_IDLE)
            http_conn_die(c, HTTP_GONE_SHUTDOWN);
    }
    event_active(s->reap, EV_TIMEOUT, 0);
}

void http_server_check(const http_server *s)
{
    uint32_t         n_open = 0, n_unused = 0, n_dying = 0, n_listed = 0;
    uint64_t         memory = 0;
    const http_conn *c;
    for (uint32_t i = 0; i < s->options.connections; i++) {
        c         = &s->conns[i];
        bool open = c->state != CONN_FREE;
        n_open += open;
        n_dying += c->state == CONN_DYING;
        memory += c->memory_bytes;
        assert(c->memory_used <= c->memory_bytes);
        assert(open == (c->bev != NULL));
        assert((c->state != CONN_WAITING && c->state != CONN_STREAMING) || (c->handle & (CONNECTIONS_MAX - 1)) == i);
        assert(c->state != CONN_STREAMING ||
               http_reply_backlog(c) <= s->options.backlog_cap_bytes + HTTP_FRAMING_BYTES);
    }
    SLIST_FOREACH(c, &s->unused, next) n_unused++;
    SLIST_FOREACH(c, &s->dying, next) n_listed++;
    assert(n_open == s->n_connections && n_open + n_unused == s->options.connections);
    assert(n_dying == n_listed);
    assert(memory == s->request_memory_used && memory <= s->options.request_memory_bytes);
}

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

void http_server_free(http_server **server)
{
    http_server *s = *server;
    if (!s)
        return;
    stop_listening(s);
    for (uint32_t i = 0; s->conns && i < s->options.connections; i++)
        if (s->conns[i].state != CONN_FREE)
            http_conn_die(&s->conns[i], HTTP_GONE_SHUTDOWN);
    if (s->reap)
        on_reap(-1, 0, s);
    free_event(s->reap);
    free_event(s->flush);
    free_event(s->retry_accept);
    SSL_CTX_free(s->tls);
    http_peers_free(&s->peers);
    free(s->conns);
    free(s);
    *server = NULL; /* not before: on_gone may look at it */
}
