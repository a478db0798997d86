/* One connection: reading requests within their deadlines, and noticing that the client left. */
#include "services/gateway/http_conn.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Reading stops when this much waits behind the request being served. */
enum { READ_AHEAD_BYTES = 64 * 1024 };

static void on_read(struct bufferevent *bev, void *arg);
static void on_write(struct bufferevent *bev, void *arg);
static void on_event(struct bufferevent *bev, short what, void *arg);
static void on_closed(evutil_socket_t fd, short what, void *arg);
static void on_deadline(evutil_socket_t fd, short what, void *arg);
static void on_ping(evutil_socket_t fd, short what, void *arg);
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg);
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg);
static void advance(http_conn *c);

static void enter(http_conn *c, conn_state state, const struct timeval *deadline)
{
    c->state = state;
    if (deadline)
        event_add(&c->deadline, deadline);
    else
        event_del(&c->deadline);
}

static void begin_head(http_conn *c)
{
    http_parser_init(&c->parser, &c->server->options.limits);
    enter(c, CONN_HEAD, &c->server->waits.head);
}

void http_conn_open(http_conn *c)
{
    http_server *s = c->server;
    event_assign(&c->closed, s->base, c->fd, EV_CLOSED, on_closed, c);
    evtimer_assign(&c->deadline, s->base, on_deadline, c);
    evtimer_assign(&c->ping, s->base, on_ping, c);
    evbuffer_add_cb(bufferevent_get_input(c->bev), on_input, c);
    evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    if (s->options.half_close_is_gone)
        event_add(&c->closed, NULL);
    if (s->tls)
        enter(c, CONN_HANDSHAKE, &s->waits.handshake);
    else
        begin_head(c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void release_memory(http_conn *c)
{
    c->server->request_memory_used -= c->memory_bytes;
    free(c->memory);
    c->memory       = NULL;
    c->memory_bytes = c->memory_used = 0;
}

void http_conn_close(http_conn *c)
{
    event_del(&c->closed);
    event_del(&c->deadline);
    event_del(&c->ping);
    evbuffer_remove_cb(bufferevent_get_input(c->bev), on_input, c);
    evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output, c);
    bufferevent_free(c->bev);
    c->bev = NULL;
    if (c->turn)
        evbuffer_free(c->turn);
    c->turn = NULL;
    release_memory(c);
}

void http_conn_die(http_conn *c, http_gone why)
{
    if (c->state == CONN_DYING)
        return;
    c->report_gone = c->state == CONN_WAITING || c->state == CONN_STREAMING;
    c->why         = why;
    enter(c, CONN_DYING, NULL);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    SLIST_INSERT_HEAD(&c->server->dying, c, next);
    event_active(c->server->reap, EV_TIMEOUT, 0);
}

static void refuse(http_conn *c, http_refusal refusal)
{
    metric_add(c->server->metrics.refused[refusal], 1);
    log_debug("refused a request", "peer=%s status=%d cause=%s", c->peer_name, http_refusal_status(refusal),
              http_refusal_cause(refusal));
    release_memory(c);
    http_reply_refusal(c, refusal);
}

/* Room for n more bytes of the request. It grows as they come: what is only announced costs nothing. */
static bool make_room(http_conn *c, size_t n)
{
    http_server *s      = c->server;
    size_t       needed = c->memory_used + n, whole = c->parser.head_bytes + c->parser.body_bytes;
    if (needed <= c->memory_bytes)
        return true;
    size_t grown = needed + needed / 2;
    if (!c->parser.chunked && grown > whole)
        grown = whole;
    uint64_t used  = s->request_memory_used - c->memory_bytes + grown;
    char    *moved = used <= s->options.request_memory_bytes ? realloc(c->memory, grown) : NULL;
    if (!moved)
        return false;
    s->request_memory_used = used;
    c->memory              = moved;
    c->memory_bytes        = grown;
    return true;
}

static bool keep(http_conn *c, span bytes)
{
    if (!make_room(c, bytes.size))
        return false;
    if (bytes.size > 0)
        memcpy(c->memory + c->memory_used, bytes.data, bytes.size);
    c->memory_used += bytes.size;
    return true;
}

/* Hands the request to the layer above, which may answer at once. */
static void deliver(http_conn *c)
{
    http_server *s = c->server;
    if (c->peer_closed && s->options.half_close_is_gone) {
        metric_add(s->metrics.gone[HTTP_GONE_LEFT], 1);
        http_conn_die(c, HTTP_GONE_LEFT);
        return;
    }
    size_t head_bytes = c->parser.head_bytes;
    c->handle         = ++s->n_requests << 20 | c->slot;
    c->owner          = NULL;
    c->head_only      = c->parser.method == HTTP_HEAD;
    c->close_after    = c->parser.close;
    enter(c, CONN_WAITING, NULL);
    http_request request = {
        .handle = c->handle,
        .method = c->parser.method,
        .path   = http_parser_path(&c->parser, c->memory),
        .query  = http_parser_query(&c->parser, c->memory),
        .body   = {c->memory + head_bytes, c->memory_used - head_bytes},
        .peer   = c->peer_name,
        .tls    = s->tls != NULL,
        .parser = &c->parser,
        .head   = c->memory,
    };
    s->handler.on_request(s->handler.context, &request);
    release_memory(c);
}

static void read_head(http_conn *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    size_t           size  = evbuffer_get_length(input);
    const char      *data  = (const char *)evbuffer_pullup(input, (ev_ssize_t)size);
    http_progress    got   = data ? http_parser_head(&c->parser, data, size) : HTTP_REFUSED;
    if (got == HTTP_MORE)
        return;
    http_refusal refusal = got == HTTP_REFUSED ? c->parser.refusal : HTTP_REFUSED_NONE;
    if (!data || (!refusal && !keep(c, (span){data, c->parser.head_bytes})))
        refusal = HTTP_REFUSED_NO_MEMORY;
    if (refusal) {
        refuse(c, refusal);
        return;
    }
    evbuffer_drain(input, c->parser.head_bytes);
    c->head_done_ns = http_now_ns();
    enter(c, CONN_BODY, &c->server->waits.body);
    if (c->parser.expects_continue && evbuffer_get_length(input) == 0)
        evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
}

static void read_body(http_conn *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    http_progress    got   = HTTP_MORE;
    size_t           n_used;
    do {
        span        piece;
        size_t      size = evbuffer_get_contiguous_space(input);
        const char *data = size > 0 ? (const char *)evbuffer_pullup(input, (ev_ssize_t)size) : "";
        got              = http_parser_body(&c->parser, data, size, &n_used, &piece);
        if (!keep(c, piece)) {
            refuse(c, HTTP_REFUSED_NO_MEMORY);
            return;
        }
        evbuffer_drain(input, n_used);
    } while (got == HTTP_MORE && n_used > 0);
    if (got == HTTP_REFUSED)
        refuse(c, c->parser.refusal);
    else if (got == HTTP_DONE)
        deliver(c);
}

/* Goes as far as the bytes that are here allow: one request at a time. */
static void advance(http_conn *c)
{
    struct evbuffer *input = bufferevent_get_input(c->bev);
    if (c->state == CONN_IDLE && evbuffer_get_length(input) > 0)
        begin_head(c);
    if (c->state == CONN_HEAD && evbuffer_get_length(input) > 0)
        read_head(c);
    if (c->state == CONN_BODY)
        read_body(c);
    if (c->state == CONN_LINGERING)
        evbuffer_drain(input, evbuffer_get_length(input));
    /* Not by a read watermark: libevent 2.1 calls on_read again and again while the input is at its high mark. */
    if (evbuffer_get_length(input) >= READ_AHEAD_BYTES)
        bufferevent_disable(c->bev, EV_READ);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    advance(arg);
}

/* Tells the client that no more will come and reads on for a moment: closing with unread bytes would reset the
 * connection, and the reset could overtake the response (RFC 9112 §9.6). */
static void linger(http_conn *c)
{
    if (c->peer_closed) {
        http_conn_die(c, HTTP_GONE_LEFT);
        return;
    }
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl) {
        SSL_shutdown(ssl);
        ERR_clear_error(); /* libevent's next SSL_get_error must not see ours */
    }
    shutdown(c->fd, SHUT_WR);
    enter(c, CONN_LINGERING, &c->server->waits.linger);
    bufferevent_enable(c->bev, EV_READ);
    advance(c);
}

static void finish_response(http_conn *c)
{
    if (c->close_after || c->server->closing || (c->peer_closed && c->server->options.half_close_is_gone)) {
        linger(c);
        return;
    }
    bool more = evbuffer_get_length(bufferevent_get_input(c->bev)) > 0;
    if (!more && c->peer_closed) {
        http_conn_die(c, HTTP_GONE_LEFT);
        return;
    }
    enter(c, CONN_IDLE, &c->server->waits.idle);
    bufferevent_enable(c->bev, EV_READ);
    advance(c);
}

void http_conn_start_flushing(http_conn *c)
{
    c->handle = 0;
    c->owner  = NULL;
    event_del(&c->ping);
    bufferevent_setwatermark(c->bev, EV_WRITE, 0, 0);
    enter(c, CONN_FLUSHING, &c->server->waits.stall);
    c->progress_ns = http_now_ns();
    if (evbuffer_get_length(bufferevent_get_output(c->bev)) == 0) {
        assert(c->close_after); /* or the next request would be handed out from inside a call of the layer above */
        linger(c);
    }
}

static void on_write(struct bufferevent *bev, void *arg)
{
    http_conn *c       = arg;
    size_t     backlog = evbuffer_get_length(bufferevent_get_output(bev));
    if (c->state == CONN_FLUSHING && backlog == 0)
        finish_response(c);
    else if (c->state == CONN_STREAMING && c->said_full &&
             backlog + evbuffer_get_length(c->turn) <= c->server->options.backlog_full_bytes / 2) {
        c->said_full = false;
        c->server->handler.on_writable(c->server->handler.context, c->handle, c->owner);
    }
}

/* The client will send nothing more, which for HTTP clients means that it left. */
static void peer_closed(http_conn *c)
{
    c->peer_closed = true;
    bool waits     = c->state == CONN_WAITING || c->state == CONN_STREAMING;
    if (waits && c->server->options.half_close_is_gone)
        http_conn_die(c, HTTP_GONE_LEFT);
}

/* What came before the FIN is still to be read: on_event decides about the other states once that is done. */
static void on_closed(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    peer_closed(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    http_conn *c = arg;
    if (what & BEV_EVENT_CONNECTED) {
        begin_head(c);
        return;
    }
    if (what & BEV_EVENT_ERROR) {
        http_conn_die(c, HTTP_GONE_LEFT);
        return;
    }
    if (!(what & BEV_EVENT_EOF))
        return;
    peer_closed(c);
    if (c->state != CONN_WAITING && c->state != CONN_STREAMING && c->state != CONN_FLUSHING)
        http_conn_die(c, HTTP_GONE_LEFT);
}

static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    (void)input;
    http_conn *c = arg;
    metric_add(c->server->metrics.received_bytes, (double)info->n_added);
}

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    (void)output;
    http_conn *c = arg;
    metric_add(c->server->metrics.sent_bytes, (double)info->n_deleted);
    if (info->n_deleted > 0 || info->orig_size == 0)
        c->progress_ns = http_now_ns();
}

static void wait_more(struct event *event, int64_t ns)
{
    int64_t        us   = ns / 1000 + 1; /* never early */
    struct timeval rest = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    event_add(event, &rest);
}

static void judge_stall(http_conn *c)
{
    bool    pending = evbuffer_get_length(bufferevent_get_output(c->bev)) > 0;
    int64_t allowed = c->server->options.stall_ms * NS_PER_MS;
    int64_t silent  = pending ? http_now_ns() - c->progress_ns : 0;
    if (silent >= allowed)
        http_conn_die(c, HTTP_GONE_STALLED);
    else
        wait_more(&c->deadline, allowed - silent);
}

/* The body's time grows with what came of it, so a slow honest upload passes and a drip does not. */
static void judge_body(http_conn *c)
{
    const http_server_options *o        = &c->server->options;
    int64_t                    received = (int64_t)(c->memory_used - c->parser.head_bytes);
    int64_t                    allowed  = o->body_ms * NS_PER_MS + received * NS_PER_S / o->body_bytes_per_s;
    int64_t                    taken    = http_now_ns() - c->head_done_ns;
    if (taken >= allowed)
        refuse(c, HTTP_REFUSED_BODY_TIMEOUT);
    else
        wait_more(&c->deadline, allowed - taken);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    http_conn *c = arg;
    switch (c->state) {
    case CONN_HEAD:
        if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0) {
            refuse(c, HTTP_REFUSED_HEAD_TIMEOUT);
            break;
        }
        __attribute__((fallthrough)); /* a client that never spoke is not answered */
    case CONN_HANDSHAKE:
    case CONN_IDLE:
        metric_add(c->server->metrics.timed_out_silent, 1);
        http_conn_die(c, HTTP_GONE_STALLED);
        break;
    case CONN_BODY:
        judge_body(c);
        break;
    case CONN_STREAMING:
    case CONN_FLUSHING:
        judge_stall(c);
        break;
    default:
        http_conn_die(c, HTTP_GONE_LEFT);
    }
}

static void on_ping(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    http_conn *c      = arg;
    int64_t    period = c->server->options.ping_ms * NS_PER_MS;
    int64_t    silent = http_now_ns() - c->written_ns;
    if (c->state != CONN_STREAMING)
        return;
    if (silent >= period) {
        http_reply_ping(c);
        silent = 0;
    }
    wait_more(&c->ping, period - silent);
}
