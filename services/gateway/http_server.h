/* An HTTP/1.1 server for thousands of event streams, over libevent and a strict parser.
 *
 * It hands complete requests to the layer above and sends what that layer answers: one response, or a stream of server-
 * sent events. It watches a connection while its request waits and while it streams, so that nobody computes for a
 * client that left. Deadlines are absolute, so a client that drips bytes gains nothing; connections, request memory and
 * output are bounded, and what was refused is counted (metrics troupe_http_*).
 *
 * Everything runs on the thread of one event_base and nothing here locks. Several servers may share a base; a server
 * per thread with `reuse_port` shares a port. A request is named by a handle that is never used twice, so a call for
 * one that is over does nothing and says so; there is no pointer to dangle. */
#ifndef TROUPE_GATEWAY_HTTP_SERVER_H
#define TROUPE_GATEWAY_HTTP_SERVER_H

#include "base/error.h"
#include "base/span.h"
#include "services/gateway/http_parser.h"

struct event_base;

typedef struct http_server http_server;
typedef uint64_t           http_handle; /* names one request for ever; 0 names none */

typedef struct {
    const char *address;              /* IPv4 or IPv6 address to listen on */
    uint16_t    port;                 /* 0: any free one, see http_server_port */
    bool        reuse_port;           /* several servers share the port (SO_REUSEPORT) */
    const char *cert_file, *key_file; /* PEM chain and key; both NULL: plain HTTP */
    http_limits limits;               /* of one request */
    uint32_t    connections;          /* in all; at the limit the kernel's queue holds new ones back */
    uint32_t    connections_per_peer; /* of one IPv4 address or IPv6 /64; 0: no limit (behind a proxy) */
    uint64_t    request_memory_bytes; /* requests being received, together; more is 503 */
    uint32_t    backlog_full_bytes;   /* unsent bytes at which http_stream_write says HTTP_WRITE_FULL */
    uint32_t    backlog_cap_bytes;    /* unsent bytes at which a stream is cancelled */
    uint32_t    handshake_ms;         /* TLS */
    uint32_t    head_ms;              /* from the first byte (or the connection) to the end of the head */
    uint32_t    body_ms;              /* from the end of the head to the end of the body, and ... */
    uint32_t    body_bytes_per_s;     /* ... a second more for each of these many bytes that came */
    uint32_t    idle_ms;              /* between two requests */
    uint32_t    stall_ms;             /* unsent bytes and none taken by the client */
    uint32_t    ping_ms;              /* a silent event stream says ": ping"; 0: never */
    uint32_t    linger_ms;            /* a closing connection still reads, so that its last response isn't reset */
    bool        half_close_is_gone;   /* a client that shut down its sending side counts as gone */
} http_server_options;

/* 127.0.0.1:8080, plain; 8192 connections, 1024 a peer; 256 MiB of requests; 64 and 256 KiB backlog; 10 s, 10 s, 30 s +
 * 1 s for 16 KiB, 60 s, 30 s; ping 15 s; linger 1 s; a half-close is gone. */
http_server_options http_server_options_default(void);

/* A complete request. Everything in it lives until on_request returns. */
typedef struct {
    http_handle        handle;
    http_method        method;
    span               path;  /* as sent: percent-encoded, starts with '/' */
    span               query; /* without '?'; take it apart with http_query_next */
    span               body;
    const char        *peer; /* "192.0.2.1:5123" or "[2001:db8::1]:5123" */
    bool               tls;
    const http_parser *parser; /* for http_request_header; use http_parser_header_at to go through all */
    const char        *head;
} http_request;

/* The first header of that name, compared without case. */
bool http_request_header(const http_request *request, const char *name, span *value);

typedef enum {
    HTTP_GONE_LEFT,     /* the client closed, or the network did */
    HTTP_GONE_STALLED,  /* it took no byte for stall_ms */
    HTTP_GONE_BACKLOG,  /* it read slower than was written, up to backlog_cap_bytes */
    HTTP_GONE_SHUTDOWN, /* the server is being freed */
    N_HTTP_GONE
} http_gone;

/* The layer above. Callbacks come from the event loop, never from inside a call of this header (except
 * http_server_free, which calls on_gone). They may call everything here but http_server_free. */
typedef struct {
    /* A request to be answered, now or later, by http_respond or http_stream_begin. */
    void (*on_request)(void *context, const http_request *request);
    /* The request ended otherwise than by http_respond, http_stream_end or http_stream_abort: release what belongs to
     * it. Called once; the handle is dead already. */
    void (*on_gone)(void *context, http_handle handle, void *owner, http_gone why);
    /* After HTTP_WRITE_FULL: half of backlog_full_bytes or less is unsent now. */
    void (*on_writable)(void *context, http_handle handle, void *owner);
    void *context;
} http_handler;

/* Listens at once. `base` and the strings of `options` are borrowed until http_server_free; the rest is copied. Fails,
 * with the address or file at fault, when it can't listen or the certificate can't be used. SIGPIPE is ignored from
 * here on, in the whole process. */
http_server *http_server_new(struct event_base *base, const http_server_options *options, const http_handler *handler,
                             error *err);

/* Closes all connections at once, calling on_gone for each request still open. Not from inside a callback. */
void http_server_free(http_server **server);

uint16_t http_server_port(const http_server *server);
uint32_t http_server_n_connections(const http_server *server);

/* Reads certificate and key again, for connections to come. On failure the old ones stay in use. */
bool http_server_reload(http_server *server, error *err);

/* From now on each response is the last of its connection, and says so. Connections are still taken. */
void http_server_close_soon(http_server *server);

/* Stops listening, closes connections without a request, and every other one after its response. on_drained (may be
 * NULL) is called from the loop when no connection is left. */
void http_server_drain(http_server *server, void (*on_drained)(void *context), void *context);

/* Asserts the server's invariants: connections, memory and lists agree. For tests. */
void http_server_check(const http_server *server);

typedef struct {
    const char *name;
    span        value;
} http_field;

/* A response. Date, Content-Length or Transfer-Encoding, and Connection are added here. A field with control characters
 * in it (or a name that's no token) turns the response into a 500: a header must not be forged through a value. */
typedef struct {
    int               status;
    const char       *content_type; /* NULL: none */
    const http_field *fields;
    size_t            n_fields;
    span              body; /* copied; not sent to HEAD, nor with 204 and 304; unused by http_stream_begin */
} http_reply;

/* All calls below return false (or HTTP_WRITE_GONE, or 0) and do nothing when the request is over. */

/* Remembers `owner`, given back by on_gone and on_writable. */
bool http_attach(http_server *server, http_handle handle, void *owner);

/* Answers and ends the request. Not after http_stream_begin (asserted). */
bool http_respond(http_server *server, http_handle handle, const http_reply *reply);

/* Begins a stream: the head goes out now. With content_type "text/event-stream" it carries Cache-Control: no-cache and
 * X-Accel-Buffering: no, and pings are sent while it is silent. Chunked; to HTTP/1.0, until the connection closes.
 * False also after an unclean field: the 500 was sent and the request is over. */
bool http_stream_begin(http_server *server, http_handle handle, const http_reply *reply);

typedef enum {
    HTTP_WRITE_OK,
    HTTP_WRITE_FULL, /* taken, but stop until on_writable */
    HTTP_WRITE_GONE  /* the request is over; if this very write was too much, on_gone will follow */
} http_write;

/* Adds whole events (a ping may be put between two writes); copied. What is written in one turn of the loop leaves as
 * one chunk. */
http_write http_stream_write(http_server *server, http_handle handle, span bytes);

/* Ends a stream and the request. */
bool http_stream_end(http_server *server, http_handle handle);

/* Ends the request but not the stream: sends what was written, then closes without the terminating chunk, so that the
 * client can tell a broken stream from a whole one. Also cancels a request not yet answered. */
bool http_stream_abort(http_server *server, http_handle handle);

/* Bytes written but not yet taken by the kernel. */
size_t http_backlog(http_server *server, http_handle handle);

#endif
