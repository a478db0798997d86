/* Mailboxes over libzmq 4.3.4: a ROUTER for each bound link, a DEALER for each connected one.
 *
 * What the options below guard against was measured on this version:
 *
 *  - ZMTP heartbeats abort the process when a receive queue is full, so they are never set: the actor's own heartbeats
 * do that job. High-water marks are 0 for the same reason, and because a ROUTER drops or blocks at them; credits bound
 * what is in flight.
 *  - A ROUTER drops messages to unknown peers in silence unless MANDATORY is set. Its error comes on the identity
 * frame, and then nothing more of the message may be sent.
 *  - A DEALER that reconnects by itself keeps its identity, and the ROUTER ignores a second connection of one identity.
 * So each connect of a link is a new socket with a new identity, and the runtime connects anew when it hears nothing.
 *  - User-Id is lost on the first frame: it is read on the second.
 *  - A ZMQ_FD only tells of commands that arrived since ZMQ_EVENTS was read: see transport_class.pending. */
#include "bus/process.h"
#include "bus/zap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

enum {
    LINGER_MS          = 1000,
    RECONNECT_MS       = 100,
    RECONNECT_MAX_MS   = 500, /* requests wait for a server that comes back */
    CONNECT_TIMEOUT_MS = 5000,
    TCP_DEAD_MS = 15000, /* unacknowledged for so long: the kernel drops the connection, and what is queued for it */
    BACKLOG     = 1024,
};

typedef struct {
    void *socket; /* NULL: unused, or an inproc link whose server has not bound yet */
    bool  bound;
    char  endpoint[BUS_ENDPOINT_BYTES];
} zmq_link;

typedef struct {
    transport base;
    bus      *bus;
    void     *context;
    int       epoll_fd;
    uint32_t  n_links, next_link; /* highest link + 1; where receive goes on, so that no link starves another */
    uint64_t  n_connects;
    char      name[BUS_NAME_BYTES];
    zmq_link  links[TRANSPORT_LINKS_MAX];
    zmq_msg_t frames[3]; /* the message handed out: identity, envelope, body */
    char      key[TRANSPORT_KEY_BYTES + 1];
} zmq_transport;

static bool zmq_failed(error *err, error_code code, const char *what, const char *endpoint)
{
    return error_set(err, code, "%s: %s: %s", endpoint, what, zmq_strerror(zmq_errno()));
}

/* ---- sockets ---- */

static bool set_integers(void *socket, bool bound)
{
    const struct {
        int option, value;
        int only; /* 0: both kinds, 1: bound, 2: connected */
    } table[] = {
        {ZMQ_SNDHWM, 0, 0},
        {ZMQ_RCVHWM, 0, 0},
        {ZMQ_LINGER, LINGER_MS, 0},
        {ZMQ_TCP_KEEPALIVE, 1, 0},
        {ZMQ_TCP_KEEPALIVE_IDLE, 10, 0},
        {ZMQ_TCP_KEEPALIVE_INTVL, 5, 0},
        {ZMQ_TCP_KEEPALIVE_CNT, 3, 0},
        {ZMQ_TCP_MAXRT, TCP_DEAD_MS, 0},
        {ZMQ_ROUTER_MANDATORY, 1, 1},
        {ZMQ_BACKLOG, BACKLOG, 1},
        {ZMQ_IMMEDIATE, 1, 2},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS, 2},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS, 2},
        {ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS, 2},
    };
    int64_t message_bytes = BUS_MESSAGE_BYTES_MAX;
    for (size_t i = 0; i < COUNT(table); i++)
        if ((table[i].only == 0 || (table[i].only == 1) == bound) &&
            zmq_setsockopt(socket, table[i].option, &table[i].value, sizeof table[i].value) != 0)
            return false;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &message_bytes, sizeof message_bytes) == 0;
}

static bool set_text(void *socket, int option, const char *text)
{
    return zmq_setsockopt(socket, option, text, strlen(text)) == 0;
}

/* The public key of the server at an endpoint to connect to: behind its #, or the one that this process was told. */
static const char *server_key_of(const bus *b, const char *endpoint)
{
    const char *named = strchr(endpoint, '#');
    return named ? named + 1 : b->keys.server_key;
}

static bool is_armed(const bus *b, bool bound, const char *endpoint)
{
    return b->keys.secret_key[0] && (bound ? b->keys.n_peers > 0 : server_key_of(b, endpoint)[0] != '\0');
}

/* A tcp endpoint without keys is refused unless the process was told to be insecure. */
static bool may_open(const bus *b, bool bound, const char *endpoint, error *err)
{
    return strncmp(endpoint, "tcp://", 6) != 0 || is_armed(b, bound, endpoint) || b->options.insecure ||
           error_set(err, ERR_UNAUTHORIZED,
                     "%s: a tcp endpoint needs %s; on loopback or a closed network --bus-insecure goes "
                     "without keys",
                     endpoint,
                     !b->keys.secret_key[0] ? "a secret key file (--bus-secret-key)"
                     : bound                ? "a file of the keys that may connect (--bus-peers)"
                                            : "the servers' public key (--bus-server-key)");
}

bool bus_may_connect(const bus *b, const char *endpoint, error *err)
{
    return may_open(b, false, endpoint, err);
}

/* CURVE on tcp. */
static bool secure(const bus *b, void *socket, bool bound, const char *endpoint, error *err)
{
    const bus_keys *keys = &b->keys;
    if (strncmp(endpoint, "tcp://", 6) != 0 || !is_armed(b, bound, endpoint))
        return may_open(b, bound, endpoint, err);
    int  on = 1;
    bool ok = bound ? set_text(socket, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN) && /* without a domain the handler is not asked */
                          zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof on) == 0 &&
                          set_text(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key)
                    : set_text(socket, ZMQ_CURVE_SERVERKEY, server_key_of(b, endpoint)) &&
                          set_text(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key) &&
                          set_text(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key);
    return ok || zmq_failed(err, ERR_UNSUPPORTED, "CURVE", endpoint);
}

static bool watch_socket(zmq_transport *z, void *socket, int operation)
{
    int                fd;
    size_t             fd_bytes = sizeof fd;
    struct epoll_event event    = {.events = EPOLLIN};
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &fd_bytes) == 0 && epoll_ctl(z->epoll_fd, operation, fd, &event) == 0;
}

static void close_socket(zmq_transport *z, zmq_link *link, int linger_ms)
{
    if (!link->socket)
        return;
    watch_socket(z, link->socket, EPOLL_CTL_DEL);
    zmq_setsockopt(link->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(link->socket);
    link->socket = NULL;
}

/* A socket of the right kind with every option set, not yet bound or connected. */
static void *open_socket(zmq_transport *z, bool bound, const char *endpoint, error *err)
{
    char  identity[TRANSPORT_IDENTITY_BYTES_MAX];
    void *socket = zmq_socket(z->context, bound ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!socket) {
        zmq_failed(err, ERR_IO, "no socket", endpoint);
        return NULL;
    }
    snprintf(identity, sizeof identity, "%s.%llu", z->name, (unsigned long long)++z->n_connects);
    bool ok = set_integers(socket, bound) && (bound || set_text(socket, ZMQ_ROUTING_ID, identity));
    if (!ok)
        zmq_failed(err, ERR_INTERNAL, "a socket option was refused", endpoint);
    if (ok && secure(z->bus, socket, bound, endpoint, err))
        return socket;
    zmq_close(socket);
    return NULL;
}

static bool is_inproc(const char *endpoint)
{
    return strncmp(endpoint, "inproc://", 9) == 0;
}

static zmq_link *prepare_link(zmq_transport *z, uint32_t number, const char *endpoint, error *err)
{
    zmq_link *link = &z->links[number];
    if (strlen(endpoint) >= sizeof link->endpoint) {
        error_set(err, ERR_TOO_LARGE, "%s: an endpoint has at most %zu bytes", endpoint, sizeof link->endpoint - 1);
        return NULL;
    }
    if (endpoint != link->endpoint)
        memcpy(link->endpoint, endpoint, strlen(endpoint) + 1);
    z->n_links = number >= z->n_links ? number + 1 : z->n_links;
    return link;
}

static bool zmqt_bind(transport *t, uint32_t number, const char *endpoint, error *err)
{
    zmq_transport *z    = (zmq_transport *)t;
    zmq_link      *link = prepare_link(z, number, endpoint, err);
    if (!link || !(link->socket = open_socket(z, true, endpoint, err)))
        return false;
    link->bound = true;
    bool ok     = (zmq_bind(link->socket, endpoint) == 0 && watch_socket(z, link->socket, EPOLL_CTL_ADD)) ||
              zmq_failed(err, ERR_INVALID, "cannot be bound", endpoint);
    ok = ok && (!is_inproc(endpoint) || bus_inproc_add(z->bus, endpoint, err));
    if (!ok) {
        zmq_close(link->socket);
        link->socket = NULL;
    }
    return ok;
}

/* Opens the socket of a connected link; an inproc one stays closed until its server is there. */
static bool open_connection(zmq_transport *z, zmq_link *link, error *err)
{
    char address[BUS_ENDPOINT_BYTES];
    if (is_inproc(link->endpoint) && !bus_inproc_exists(z->bus, link->endpoint))
        return true;
    link->socket = open_socket(z, false, link->endpoint, err);
    if (!link->socket)
        return false;
    snprintf(address, sizeof address, "%.*s", (int)strcspn(link->endpoint, "#"), link->endpoint);
    if (zmq_connect(link->socket, address) == 0 && watch_socket(z, link->socket, EPOLL_CTL_ADD))
        return true;
    zmq_failed(err, ERR_INVALID, "cannot be connected", link->endpoint);
    zmq_close(link->socket);
    link->socket = NULL;
    return false;
}

static bool zmqt_connect(transport *t, uint32_t number, const char *endpoint, error *err)
{
    zmq_transport *z = (zmq_transport *)t;
    if (!endpoint) {
        close_socket(z, &z->links[number], 0);
        return true;
    }
    zmq_link *link = prepare_link(z, number, endpoint, err);
    if (!link)
        return false;
    close_socket(z, link, 0);
    return open_connection(z, link, err);
}

/* ---- messages ---- */

static bool send_frame(void *socket, span frame, int flags)
{
    int rc;
    do
        rc = zmq_send(socket, frame.data, frame.size, flags | ZMQ_DONTWAIT);
    while (rc < 0 && zmq_errno() == EINTR);
    return rc >= 0;
}

static bool zmqt_send(transport *t, uint32_t number, span identity, span envelope_frame, span body, error *err)
{
    zmq_transport *z    = (zmq_transport *)t;
    zmq_link      *link = &z->links[number];
    if (body.size > BUS_MESSAGE_BYTES_MAX)
        return error_set(err, ERR_TOO_LARGE, "a message of %zu bytes; at most %d fit", body.size,
                         BUS_MESSAGE_BYTES_MAX);
    if (!link->socket && !link->bound && !open_connection(z, link, err))
        return false;
    if (!link->socket)
        return error_set(err, ERR_NOT_READY, "nobody listens at %s", link->endpoint);
    if (link->bound && !send_frame(link->socket, identity, ZMQ_SNDMORE))
        return zmq_failed(err, ERR_GONE, "the peer left", link->endpoint);
    if (!send_frame(link->socket, envelope_frame, ZMQ_SNDMORE)) {
        zmq_failed(err, link->bound ? ERR_GONE : ERR_NOT_READY, "not connected", link->endpoint);
        if (!link->bound && is_inproc(link->endpoint))
            close_socket(z, link, 0); /* its server closed, and an inproc socket does not look for another */
        return false;
    }
    return send_frame(link->socket, body, 0) || zmq_failed(err, ERR_GONE, "the peer left", link->endpoint);
}

static span frame_span(zmq_msg_t *frame)
{
    return (span){zmq_msg_data(frame), zmq_msg_size(frame)};
}

static bool receive_frame(void *socket, zmq_msg_t *frame)
{
    int rc;
    do
        rc = zmq_msg_recv(frame, socket, ZMQ_DONTWAIT);
    while (rc < 0 && zmq_errno() == EINTR);
    return rc >= 0;
}

/* Takes one whole message from a socket; frames beyond the third are counted and dropped. */
static bool receive_from(zmq_transport *z, zmq_link *link, transport_message *m)
{
    uint32_t at = link->bound ? 0 : 1; /* a DEALER has no identity frame */
    if (!receive_frame(link->socket, &z->frames[at]))
        return false;
    zmq_msg_t *last = &z->frames[at++];
    zmq_msg_t  spare;
    zmq_msg_init(&spare);
    uint32_t n_frames = at;
    while (zmq_msg_more(last)) {
        last = at < COUNT(z->frames) ? &z->frames[at++] : &spare;
        if (!receive_frame(link->socket, last))
            break;
        n_frames++;
    }
    zmq_msg_close(&spare);
    *m = (transport_message){.link = (uint32_t)(link - z->links), .n_frames = n_frames - 1};
    if (link->bound)
        m->identity = frame_span(&z->frames[0]);
    if (n_frames > 1)
        m->envelope = frame_span(&z->frames[1]);
    if (n_frames > 2)
        m->body = frame_span(&z->frames[2]);
    if (link->bound && n_frames > 1 && strncmp(link->endpoint, "tcp://", 6) == 0) {
        const char *key = zmq_msg_gets(&z->frames[1], "User-Id");
        if (key && strlen(key) == TRANSPORT_KEY_BYTES)
            m->key = (span){memcpy(z->key, key, sizeof z->key), TRANSPORT_KEY_BYTES};
    }
    return true;
}

static bool zmqt_receive(transport *t, transport_message *m)
{
    zmq_transport *z = (zmq_transport *)t;
    for (uint32_t i = 0; i < z->n_links; i++) {
        zmq_link *link = &z->links[z->next_link];
        z->next_link   = (z->next_link + 1) % z->n_links;
        if (link->socket && receive_from(z, link, m))
            return true;
    }
    return false;
}

static bool zmqt_pending(transport *t)
{
    zmq_transport *z = (zmq_transport *)t;
    for (uint32_t i = 0; i < z->n_links; i++) {
        int    events       = 0;
        size_t events_bytes = sizeof events;
        if (z->links[i].socket && zmq_getsockopt(z->links[i].socket, ZMQ_EVENTS, &events, &events_bytes) == 0 &&
            (events & ZMQ_POLLIN))
            return true;
    }
    return false;
}

static int zmqt_fd(const transport *t)
{
    return ((const zmq_transport *)t)->epoll_fd;
}

static bool zmqt_endpoint(transport *t, uint32_t number, char *text, size_t text_bytes)
{
    zmq_link *link       = &((zmq_transport *)t)->links[number];
    size_t    size       = text_bytes;
    int       encrypting = 0;
    size_t    int_bytes  = sizeof encrypting;
    if (!link->socket || zmq_getsockopt(link->socket, ZMQ_LAST_ENDPOINT, text, &size) != 0 ||
        zmq_getsockopt(link->socket, ZMQ_CURVE_SERVER, &encrypting, &int_bytes) != 0)
        return false;
    size = strlen(text);
    return !encrypting ||
           (size_t)snprintf(text + size, text_bytes - size, "#%s", t->keys->public_key) < text_bytes - size;
}

static void zmqt_free(transport *t)
{
    zmq_transport *z = (zmq_transport *)t;
    for (uint32_t i = 0; i < z->n_links; i++) {
        if (z->links[i].bound && z->links[i].socket && is_inproc(z->links[i].endpoint)) {
            bus_inproc_remove(z->bus, z->links[i].endpoint);
            zmq_unbind(z->links[i].socket, z->links[i].endpoint); /* now: closing gives the name back only later */
        }
        close_socket(z, &z->links[i], LINGER_MS);
    }
    for (size_t i = 0; i < COUNT(z->frames); i++)
        zmq_msg_close(&z->frames[i]);
    close(z->epoll_fd);
    free(z);
}

static const transport_class zmq_class = {
    .bind     = zmqt_bind,
    .connect  = zmqt_connect,
    .send     = zmqt_send,
    .receive  = zmqt_receive,
    .pending  = zmqt_pending,
    .fd       = zmqt_fd,
    .endpoint = zmqt_endpoint,
    .free     = zmqt_free,
};

transport *transport_zmq_new(bus *b, const char *name, error *err)
{
    void *context = bus_zmq_context(b, err);
    if (!context)
        return NULL;
    zmq_transport *z = calloc(1, sizeof *z);
    if (!z) {
        error_set(err, ERR_NO_MEMORY, "no memory for a mailbox");
        return NULL;
    }
    z->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (z->epoll_fd < 0) {
        error_set(err, ERR_IO, "no epoll descriptor for a mailbox: %s", strerror(errno));
        free(z);
        return NULL;
    }
    z->base.class = &zmq_class;
    z->bus        = b;
    z->context    = context;
    snprintf(z->name, sizeof z->name, "%s", name);
    for (size_t i = 0; i < COUNT(z->frames); i++)
        zmq_msg_init(&z->frames[i]);
    return &z->base;
}
