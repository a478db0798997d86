/* What goes out: responses, streams of events, and the errors that the server answers by itself. */
#include "base/clock.h"
#include "base/log.h"
#include "services/gateway/http_conn.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

static const char *phrase_of(int status)
{
    static const struct {
        int         status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < COUNT(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Status"; /* the phrase has no meaning to a program (RFC 9112 §4) */
}

/* RFC 9110 §5.6.7, in English whatever the locale. */
static const char *date_now(http_server *s)
{
    static const char days[]   = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t            now      = (time_t)(clock_unix_ms(clock_system()) / 1000);
    if (now != s->date_s) {
        struct tm t;
        gmtime_r(&now, &t);
        snprintf(s->date, sizeof s->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * t.tm_wday,
                 t.tm_mday % 100, months + 3 * t.tm_mon, (t.tm_year + 1900) % 10000, t.tm_hour % 100, t.tm_min % 100,
                 t.tm_sec % 100);
        s->date_s = now;
    }
    return s->date;
}

static http_conn *conn_of(http_server *s, http_handle handle)
{
    uint32_t slot = (uint32_t)handle & ((1u << 20) - 1);
    if (handle == 0 || slot >= s->options.connections)
        return NULL;
    http_conn *c    = &s->conns[slot];
    bool       open = c->state == CONN_WAITING || c->state == CONN_STREAMING;
    return open && c->handle == handle ? c : NULL;
}

static bool fields_are_clean(const http_reply *reply)
{
    for (size_t i = 0; i < reply->n_fields; i++)
        if (!http_field_is_clean(span_of(reply->fields[i].name), reply->fields[i].value))
            return false;
    return !reply->content_type || http_field_is_clean(SPAN("Content-Type"), span_of(reply->content_type));
}

/* Everything up to the fields that say how long the body is. */
static void put_head(http_conn *c, const http_reply *reply)
{
    assert(reply->status >= 200 && reply->status <= 599);
    http_server     *s   = c->server;
    struct evbuffer *out = bufferevent_get_output(c->bev);
    metric_add(s->metrics.requests[reply->status / 100 - 2], 1);
    evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", reply->status, phrase_of(reply->status), date_now(s));
    if (reply->content_type)
        evbuffer_add_printf(out, "Content-Type: %s\r\n", reply->content_type);
    for (size_t i = 0; i < reply->n_fields; i++)
        evbuffer_add_printf(out, "%s: %.*s\r\n", reply->fields[i].name, SPAN_ARG(reply->fields[i].value));
    if (c->close_after)
        evbuffer_add_printf(out, "Connection: close\r\n");
}

static void put_response(http_conn *c, const http_reply *reply)
{
    struct evbuffer *out      = bufferevent_get_output(c->bev);
    bool             bodiless = reply->status == 204 || reply->status == 304;
    c->close_after |= c->server->closing;
    put_head(c, reply);
    if (!bodiless)
        evbuffer_add_printf(out, "Content-Length: %zu\r\n", reply->body.size);
    evbuffer_add(out, "\r\n", 2);
    if (!bodiless && !c->head_only)
        evbuffer_add(out, reply->body.data, reply->body.size);
    http_conn_start_flushing(c);
}

/* The shape of the API's own errors, so that its clients show the sentence. */
static void put_error(http_conn *c, int status, const char *sentence)
{
    char       body[512];
    http_field retry = {"Retry-After", SPAN("1")};
    int        length =
        snprintf(body, sizeof body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}\n",
                 sentence, status < 500 || status == 501 || status == 505 ? "invalid_request_error" : "server_error");
    put_response(c, &(http_reply){.status       = status,
                                  .content_type = "application/json",
                                  .fields       = &retry,
                                  .n_fields     = status == 503,
                                  .body         = {body, (size_t)length}});
}

void http_reply_refusal(http_conn *c, http_refusal refusal)
{
    c->close_after = true; /* where the next request would begin is unknown */
    c->head_only   = false;
    put_error(c, http_refusal_status(refusal), http_refusal_sentence(refusal));
}

/* A connection that died and was not reported yet is one still: its owner may leave first. */
bool http_attach(http_server *server, http_handle handle, void *owner)
{
    uint32_t   slot = (uint32_t)handle & ((1u << 20) - 1);
    http_conn *c    = handle != 0 && slot < server->options.connections ? &server->conns[slot] : NULL;
    if (!c || c->handle != handle)
        return false;
    c->owner = owner;
    return true;
}

bool http_request_header(const http_request *request, const char *name, span *value)
{
    return http_parser_header(request->parser, request->head, name, value);
}

static bool refuse_unclean(http_conn *c, const http_reply *reply)
{
    if (fields_are_clean(reply))
        return false;
    log_error("a response had a header with control characters and was not sent", "status=%d", reply->status);
    put_error(c, 500, "The response could not be sent.");
    return true;
}

bool http_respond(http_server *server, http_handle handle, const http_reply *reply)
{
    http_conn *c = conn_of(server, handle);
    if (!c)
        return false;
    assert(c->state == CONN_WAITING);
    if (!refuse_unclean(c, reply))
        put_response(c, reply);
    return true;
}

bool http_stream_begin(http_server *server, http_handle handle, const http_reply *reply)
{
    static const char events[] = "text/event-stream";
    http_conn        *c        = conn_of(server, handle);
    if (!c)
        return false;
    assert(c->state == CONN_WAITING);
    if (refuse_unclean(c, reply))
        return false;
    c->turn = c->turn ? c->turn : evbuffer_new();
    if (!c->turn) {
        put_error(c, 503, http_refusal_sentence(HTTP_REFUSED_NO_MEMORY));
        return false;
    }
    struct evbuffer *out = bufferevent_get_output(c->bev);
    c->chunked           = c->parser.minor == 1;
    c->events            = reply->content_type && strncasecmp(reply->content_type, events, sizeof events - 1) == 0;
    c->said_full         = false;
    c->close_after |= !c->chunked || server->closing;
    put_head(c, reply);
    if (c->events)
        evbuffer_add_printf(out, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    evbuffer_add_printf(out, c->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");

    c->state       = CONN_STREAMING;
    c->progress_ns = c->written_ns = http_now_ns();
    bufferevent_setwatermark(c->bev, EV_WRITE, server->options.backlog_full_bytes / 2, 0);
    event_add(&c->deadline, &server->waits.stall);
    if (c->events && !c->head_only && server->options.ping_ms > 0)
        event_add(&c->ping, &server->waits.ping);
    return true;
}

size_t http_reply_backlog(const http_conn *c)
{
    size_t waiting = c->turn ? evbuffer_get_length(c->turn) : 0;
    return waiting + evbuffer_get_length(bufferevent_get_output(c->bev));
}

size_t http_backlog(http_server *server, http_handle handle)
{
    http_conn *c = conn_of(server, handle);
    return c ? http_reply_backlog(c) : 0;
}

http_write http_stream_write(http_server *server, http_handle handle, span bytes)
{
    http_conn *c = conn_of(server, handle);
    if (!c)
        return HTTP_WRITE_GONE;
    assert(c->state == CONN_STREAMING);
    if (c->head_only || bytes.size == 0)
        return HTTP_WRITE_OK;
    if (http_reply_backlog(c) + bytes.size > server->options.backlog_cap_bytes ||
        evbuffer_add(c->turn, bytes.data, bytes.size) != 0) {
        http_conn_die(c, HTTP_GONE_BACKLOG);
        return HTTP_WRITE_GONE;
    }
    c->written_ns = http_now_ns();
    if (!c->to_flush) {
        c->to_flush = true;
        SLIST_INSERT_HEAD(&server->flush_list, c, next_to_flush);
        event_active(server->flush, EV_TIMEOUT, 0);
    }
    c->said_full |= http_reply_backlog(c) >= server->options.backlog_full_bytes;
    return c->said_full ? HTTP_WRITE_FULL : HTTP_WRITE_OK;
}

void http_reply_flush_turn(http_conn *c)
{
    struct evbuffer *out  = bufferevent_get_output(c->bev);
    size_t           size = evbuffer_get_length(c->turn);
    if (size == 0)
        return;
    if (c->chunked)
        evbuffer_add_printf(out, "%zx\r\n", size);
    evbuffer_add_buffer(out, c->turn);
    if (c->chunked)
        evbuffer_add(out, "\r\n", 2);
}

void http_reply_ping(http_conn *c)
{
    static const char ping[] = ": ping\n\n";
    evbuffer_add(c->turn, ping, sizeof ping - 1);
    http_reply_flush_turn(c);
    c->written_ns = http_now_ns();
}

bool http_stream_end(http_server *server, http_handle handle)
{
    http_conn *c = conn_of(server, handle);
    if (!c)
        return false;
    assert(c->state == CONN_STREAMING);
    http_reply_flush_turn(c);
    if (c->chunked && !c->head_only)
        evbuffer_add(bufferevent_get_output(c->bev), "0\r\n\r\n", 5);
    c->close_after |= c->head_only; /* the head alone may have left already: nothing to wait for */
    http_conn_start_flushing(c);
    return true;
}

bool http_stream_abort(http_server *server, http_handle handle)
{
    http_conn *c = conn_of(server, handle);
    if (!c)
        return false;
    c->close_after = true;
    if (c->state == CONN_STREAMING)
        http_reply_flush_turn(c);
    http_conn_start_flushing(c);
    return true;
}
