/* What http_server.c, http_conn.c and http_reply.c share: the server, its connections, and their states.
 *
 *   HANDSHAKE ─▶ HEAD ─▶ BODY ─▶ WAITING ─▶ STREAMING
 *                 ▲ └──────┴────────┴──────────┤          (an answer, or a refusal, is complete)
 *                 │                            ▼
 *               IDLE ◀── keep-alive ─────── FLUSHING ── close ─▶ LINGERING
 *
 * Every state leads to DYING, by http_conn_die alone. A dying connection is freed by the server's reap event, in the
 * same turn of the loop but outside every callback of libevent and every call of the layer above. */
#ifndef TROUPE_GATEWAY_HTTP_CONN_H
#define TROUPE_GATEWAY_HTTP_CONN_H

#include "base/metric.h"
#include "services/gateway/http_peers.h"
#include "services/gateway/http_server.h"
#include "services/gateway/http_tls.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/queue.h>

typedef enum {
    CONN_FREE,
    CONN_HANDSHAKE,
    CONN_IDLE,
    CONN_HEAD,
    CONN_BODY,
    CONN_WAITING,
    CONN_STREAMING,
    CONN_FLUSHING,
    CONN_LINGERING,
    CONN_DYING
} conn_state;

typedef struct http_conn {
    http_server        *server;
    uint32_t            slot;
    conn_state          state;
    int                 fd;
    struct bufferevent *bev;
    struct event        closed;   /* the peer's FIN, seen even while nothing is read */
    struct event        deadline; /* of the state */
    struct event        ping;
    uint32_t            peer; /* number in server->peers */
    char                peer_name[56];

    http_handle handle; /* of the request in WAITING or STREAMING */
    void       *owner;
    http_parser parser;
    char       *memory; /* of the request being received: head, then body */
    size_t      memory_bytes;
    size_t      memory_used;
    int64_t     head_done_ns;

    struct evbuffer *turn;        /* stream bytes of this turn of the loop, not yet in a chunk */
    int64_t          written_ns;  /* the stream last said something */
    int64_t          progress_ns; /* the client last took something, or had nothing to take */

    bool      close_after; /* no further request on this connection */
    bool      peer_closed; /* its sending side, at least */
    bool      head_only;   /* the request is HEAD */
    bool      chunked;     /* the stream is */
    bool      events;      /* the stream is text/event-stream */
    bool      said_full;   /* on_writable is due */
    bool      report_gone; /* on_gone is due */
    bool      to_flush;    /* in server->flush_list */
    http_gone why;

    SLIST_ENTRY(http_conn) next; /* unused or dying */
    SLIST_ENTRY(http_conn) next_to_flush;
} http_conn;

SLIST_HEAD(conn_list, http_conn);

enum { HTTP_CLASSES = 4 }; /* 2xx to 5xx */

typedef struct {
    metric *connections, *connections_total, *at_limit, *peer_refused, *accept_failed, *timed_out_silent;
    metric *received_bytes, *sent_bytes;
    metric *requests[HTTP_CLASSES];
    metric *refused[N_HTTP_REFUSALS];
    metric *gone[N_HTTP_GONE];
} http_metrics;

/* Equal waits of thousands of connections, kept by libevent in queues instead of a heap. */
typedef struct {
    struct timeval handshake, head, body, idle, stall, ping, linger;
} http_waits;

struct http_server {
    struct event_base     *base;
    http_server_options    options;
    http_handler           handler;
    struct evconnlistener *listener; /* NULL once draining */
    SSL_CTX               *tls;      /* NULL: plain */
    http_peers            *peers;
    http_conn             *conns; /* options.connections of them */
    struct conn_list       unused, dying, flush_list;
    struct event          *reap, *flush, *retry_accept;
    uint32_t               n_connections;
    uint64_t               n_requests; /* ever; the upper part of a handle */
    uint64_t               request_memory_used;
    uint16_t               port;
    bool                   closing; /* each response is its connection's last */
    bool                   draining;
    void (*on_drained)(void *context);
    void        *drained_context;
    http_waits   waits;
    http_metrics metrics;
    int64_t      date_s; /* the second that `date` shows */
    char         date[64];
};

int64_t http_now_ns(void);

/* http_conn.c */
void http_conn_open(http_conn *c); /* bev, fd and peer are set: begins with HANDSHAKE or HEAD */
void http_conn_die(http_conn *c, http_gone why);
void http_conn_close(http_conn *c); /* frees what a connection holds; the slot is the server's */
void http_conn_start_flushing(http_conn *c);

/* http_reply.c */
void   http_reply_refusal(http_conn *c, http_refusal refusal);
void   http_reply_flush_turn(http_conn *c);
void   http_reply_ping(http_conn *c);
size_t http_reply_backlog(const http_conn *c);

enum { HTTP_FRAMING_BYTES = 4096 }; /* heads, chunk sizes and pings on top of what the layer above wrote */

#endif
