/* Mailboxes within one process: bytes appended under a mutex, read without it.
 *
 * A mailbox is two byte buffers. Senders append to `incoming` under its lock; the owner reads `outgoing`, and swaps the
 * two when that is empty: so a message costs two copies and no allocation once the buffers have grown. The hub knows
 * what is bound and which connections stand. Locks are taken in the order hub, mailbox. A sleeping owner is woken
 * through an eventfd; one that is awake is not, so a busy pair makes no system calls. */
#include "bus/process.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    QUEUE_CONNECTIONS_MAX = 4096,
    QUEUE_BINDS_MAX       = 256,
    QUEUE_ALIGN           = 16,
    QUEUE_KEEP_BYTES      = 4 << 20, /* an empty buffer over this is given back */
};
static const size_t queue_bytes_max = (size_t)512 << 20; /* of one mailbox; a sender is told "overloaded" beyond */

typedef struct {
    char  *data;
    size_t size, capacity, cursor;
} byte_buffer;

typedef struct {
    pthread_mutex_t lock;
    byte_buffer     incoming;
    uint32_t        references; /* the transport, and senders in the middle of an append */
    bool            sleeps;     /* the owner waits, or is about to: wake it */
    bool            closed;
    int             wake_fd;
    uint64_t        n_wakes, n_wakes_taken; /* written to wake_fd (or about to be), and read from it */
} mailbox;

/* What names a connection: its place in the hub's table and how often that was used. */
typedef struct {
    uint32_t index, generation;
} connection_id;

typedef struct {
    mailbox *client, *server; /* NULL client: free */
    uint32_t client_link, server_link, generation;
} connection;

struct queue_hub {
    pthread_mutex_t lock;
    struct {
        char     endpoint[BUS_ENDPOINT_BYTES];
        mailbox *box; /* NULL: free */
        uint32_t link;
    } binds[QUEUE_BINDS_MAX];
    uint32_t   n_connections; /* ever used; those beyond were never */
    connection connections[QUEUE_CONNECTIONS_MAX];
};

typedef enum { LINK_UNUSED, LINK_BOUND, LINK_CONNECTED } link_kind;

typedef struct {
    transport   base;
    queue_hub  *hub;
    mailbox    *box;
    byte_buffer outgoing;
    struct {
        link_kind     kind;
        bool          open; /* connected: `id` names a connection */
        connection_id id;
        char          endpoint[BUS_ENDPOINT_BYTES];
    } links[TRANSPORT_LINKS_MAX];
} queue_transport;

/* Before each message in a buffer; envelope and body follow, then padding. */
typedef struct {
    uint32_t      link, envelope_bytes, body_bytes;
    bool          has_identity;
    connection_id identity;
} record;

queue_hub *queue_hub_new(error *err)
{
    queue_hub *hub = calloc(1, sizeof *hub);
    if (hub)
        pthread_mutex_init(&hub->lock, NULL);
    else
        error_set(err, ERR_NO_MEMORY, "no memory for the in-process queues");
    return hub;
}

void queue_hub_free(queue_hub **hub)
{
    if (!*hub)
        return;
    pthread_mutex_destroy(&(*hub)->lock);
    free(*hub);
    *hub = NULL;
}

/* ---- mailboxes ---- */

static mailbox *mailbox_new(error *err)
{
    mailbox *box = calloc(1, sizeof *box);
    if (!box) {
        error_set(err, ERR_NO_MEMORY, "no memory for a mailbox");
        return NULL;
    }
    box->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (box->wake_fd < 0) {
        error_set(err, ERR_IO, "no eventfd for a mailbox: %s", strerror(errno));
        free(box);
        return NULL;
    }
    pthread_mutex_init(&box->lock, NULL);
    box->references = 1;
    return box;
}

static void mailbox_hold(mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->references++;
    pthread_mutex_unlock(&box->lock);
}

static void mailbox_release(mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    bool last = --box->references == 0;
    pthread_mutex_unlock(&box->lock);
    if (!last)
        return;
    close(box->wake_fd);
    free(box->incoming.data);
    pthread_mutex_destroy(&box->lock);
    free(box);
}

/* Room for `bytes` more, or NULL when the buffer is at its bound or the system has no memory. */
static char *buffer_extend(byte_buffer *buffer, size_t bytes)
{
    size_t wanted = buffer->size + bytes;
    if (wanted > queue_bytes_max)
        return NULL;
    if (wanted > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : 4096;
        while (capacity < wanted)
            capacity *= 2;
        char *data = realloc(buffer->data, capacity);
        if (!data)
            return NULL;
        buffer->data     = data;
        buffer->capacity = capacity;
    }
    char *room   = buffer->data + buffer->size;
    buffer->size = wanted;
    return room;
}

static size_t record_bytes(const record *r)
{
    size_t bytes = sizeof *r + r->envelope_bytes + r->body_bytes;
    return (bytes + QUEUE_ALIGN - 1) & ~(size_t)(QUEUE_ALIGN - 1);
}

static bool mailbox_append(mailbox *box, const record *head, span envelope_frame, span body, error *err)
{
    bool wake = false, ok = false;
    pthread_mutex_lock(&box->lock);
    char *at = box->closed ? NULL : buffer_extend(&box->incoming, record_bytes(head));
    if (at) {
        memcpy(at, head, sizeof *head);
        memcpy(at + sizeof *head, envelope_frame.data, envelope_frame.size);
        if (body.size)
            memcpy(at + sizeof *head + envelope_frame.size, body.data, body.size);
        wake = box->sleeps;
        box->n_wakes += wake;
        box->sleeps = false;
        ok          = true;
    } else if (box->closed)
        error_set(err, ERR_GONE, "the peer closed its mailbox");
    else
        error_set(err, ERR_OVERLOADED, "the peer's mailbox holds %zu MiB that it has not read", queue_bytes_max >> 20);
    pthread_mutex_unlock(&box->lock);
    if (wake)
        (void)!write(box->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    return ok;
}

/* ---- connections ---- */

/* Makes a connection to a bound endpoint. The hub's lock is held. */
static bool hub_connect(queue_hub *hub, const char *endpoint, mailbox *client, uint32_t client_link, connection_id *id)
{
    uint32_t b = 0, c = 0;
    while (b < QUEUE_BINDS_MAX && !(hub->binds[b].box && strcmp(hub->binds[b].endpoint, endpoint) == 0))
        b++;
    while (c < hub->n_connections && hub->connections[c].client)
        c++;
    if (b == QUEUE_BINDS_MAX || c == QUEUE_CONNECTIONS_MAX)
        return false;
    if (c == hub->n_connections)
        hub->n_connections++;
    connection *made = &hub->connections[c];
    *made            = (connection){client, hub->binds[b].box, client_link, hub->binds[b].link, made->generation + 1};
    *id              = (connection_id){c, made->generation};
    return true;
}

static connection *hub_find(queue_hub *hub, connection_id id)
{
    connection *c = id.index < hub->n_connections ? &hub->connections[id.index] : NULL;
    return c && c->client && c->generation == id.generation ? c : NULL;
}

/* ---- the transport ---- */

static bool queue_bind(transport *t, uint32_t link, const char *endpoint, error *err)
{
    queue_transport *q      = (queue_transport *)t;
    uint32_t         unused = QUEUE_BINDS_MAX;
    bool             ok     = true;
    pthread_mutex_lock(&q->hub->lock);
    for (uint32_t i = QUEUE_BINDS_MAX; i-- > 0;)
        if (!q->hub->binds[i].box)
            unused = i;
        else if (strcmp(q->hub->binds[i].endpoint, endpoint) == 0)
            ok = error_set(err, ERR_INVALID, "%s is bound already", endpoint);
    if (ok && (unused == QUEUE_BINDS_MAX || strlen(endpoint) >= BUS_ENDPOINT_BYTES))
        ok = error_set(err, ERR_TOO_LARGE, "%s: the name is too long, or %d queues are bound", endpoint,
                       QUEUE_BINDS_MAX);
    if (ok) {
        memcpy(q->hub->binds[unused].endpoint, endpoint, strlen(endpoint) + 1);
        memcpy(q->links[link].endpoint, endpoint, strlen(endpoint) + 1);
        q->hub->binds[unused].box  = q->box;
        q->hub->binds[unused].link = link;
        q->links[link].kind        = LINK_BOUND;
    }
    pthread_mutex_unlock(&q->hub->lock);
    return ok;
}

static void disconnect(queue_transport *q, uint32_t link)
{
    if (!q->links[link].open)
        return;
    pthread_mutex_lock(&q->hub->lock);
    connection *c = hub_find(q->hub, q->links[link].id);
    if (c)
        c->client = NULL;
    pthread_mutex_unlock(&q->hub->lock);
    q->links[link].open = false;
}

static bool queue_connect(transport *t, uint32_t link, const char *endpoint, error *err)
{
    queue_transport *q = (queue_transport *)t;
    if (endpoint && strlen(endpoint) >= BUS_ENDPOINT_BYTES)
        return error_set(err, ERR_TOO_LARGE, "%s: the name of a queue has at most %d bytes", endpoint,
                         BUS_ENDPOINT_BYTES - 1);
    disconnect(q, link);
    if (!endpoint) {
        q->links[link].kind = LINK_UNUSED;
        return true;
    }
    if (q->links[link].kind == LINK_UNUSED)
        memcpy(q->links[link].endpoint, endpoint, strlen(endpoint) + 1);
    q->links[link].kind = LINK_CONNECTED;
    return true;
}

/* The mailbox at the other end, held, and the head of a record for it; NULL with *err set when there is none. */
static mailbox *find_receiver(queue_transport *q, uint32_t link, span identity, record *head, error *err)
{
    mailbox    *box = NULL;
    connection *c   = NULL;
    pthread_mutex_lock(&q->hub->lock);
    if (q->links[link].kind == LINK_BOUND) {
        connection_id id = {UINT32_MAX, 0};
        if (identity.size == sizeof id)
            memcpy(&id, identity.data, sizeof id);
        c = hub_find(q->hub, id);
        if (c && c->server == q->box) {
            box        = c->client;
            head->link = c->client_link;
        } else
            error_set(err, ERR_GONE, "the peer left %s", q->links[link].endpoint);
    } else {
        if (!q->links[link].open)
            q->links[link].open = hub_connect(q->hub, q->links[link].endpoint, q->box, link, &q->links[link].id);
        c = q->links[link].open ? hub_find(q->hub, q->links[link].id) : NULL;
        if (c) {
            box                = c->server;
            head->link         = c->server_link;
            head->identity     = q->links[link].id;
            head->has_identity = true;
        } else
            error_set(err, ERR_NOT_READY, "nobody listens at %s", q->links[link].endpoint);
    }
    if (box)
        mailbox_hold(box);
    pthread_mutex_unlock(&q->hub->lock);
    return box;
}

static bool queue_send(transport *t, uint32_t link, span identity, span envelope_frame, span body, error *err)
{
    queue_transport *q    = (queue_transport *)t;
    record           head = {.envelope_bytes = (uint32_t)envelope_frame.size, .body_bytes = (uint32_t)body.size};
    if (body.size > BUS_MESSAGE_BYTES_MAX)
        return error_set(err, ERR_TOO_LARGE, "a message of %zu bytes; at most %d fit", body.size,
                         BUS_MESSAGE_BYTES_MAX);
    mailbox *box = find_receiver(q, link, identity, &head, err);
    if (!box)
        return false;
    bool ok = mailbox_append(box, &head, envelope_frame, body, err);
    mailbox_release(box);
    return ok;
}

/* Gives the read buffer to the senders and takes what they wrote. */
static void swap_buffers(queue_transport *q)
{
    byte_buffer emptied = q->outgoing;
    emptied.size = emptied.cursor = 0;
    if (emptied.capacity > QUEUE_KEEP_BYTES) {
        free(emptied.data);
        emptied = (byte_buffer){0};
    }
    pthread_mutex_lock(&q->box->lock);
    q->outgoing      = q->box->incoming;
    q->box->incoming = emptied;
    pthread_mutex_unlock(&q->box->lock);
}

static bool queue_receive(transport *t, transport_message *m)
{
    queue_transport *q = (queue_transport *)t;
    if (q->outgoing.cursor == q->outgoing.size)
        swap_buffers(q);
    if (q->outgoing.cursor == q->outgoing.size)
        return false;
    const char   *at   = q->outgoing.data + q->outgoing.cursor;
    const record *head = (const record *)at;
    q->outgoing.cursor += record_bytes(head);
    *m = (transport_message){.link = head->link, .n_frames = 2};
    if (head->has_identity)
        m->identity = (span){(const char *)&head->identity, sizeof head->identity};
    m->envelope = (span){at + sizeof *head, head->envelope_bytes};
    m->body     = (span){at + sizeof *head + head->envelope_bytes, head->body_bytes};
    return true;
}

static bool queue_pending(transport *t)
{
    queue_transport *q   = (queue_transport *)t;
    mailbox         *box = q->box;
    uint64_t         n;
    if (q->outgoing.cursor < q->outgoing.size)
        return true;
    pthread_mutex_lock(&box->lock);
    /* A wake may be counted and not yet written: then it is read another time. */
    if (box->n_wakes != box->n_wakes_taken && read(box->wake_fd, &n, sizeof n) == sizeof n)
        box->n_wakes_taken += n;
    box->sleeps  = box->incoming.size == 0;
    bool pending = !box->sleeps;
    pthread_mutex_unlock(&box->lock);
    return pending;
}

static int queue_fd(const transport *t)
{
    return ((const queue_transport *)t)->box->wake_fd;
}

static bool queue_endpoint(transport *t, uint32_t link, char *text, size_t text_bytes)
{
    const char *endpoint = ((queue_transport *)t)->links[link].endpoint;
    if (strlen(endpoint) >= text_bytes)
        return false;
    memcpy(text, endpoint, strlen(endpoint) + 1);
    return true;
}

static void queue_free(transport *t)
{
    queue_transport *q = (queue_transport *)t;
    pthread_mutex_lock(&q->hub->lock);
    for (uint32_t i = 0; i < QUEUE_BINDS_MAX; i++)
        if (q->hub->binds[i].box == q->box)
            q->hub->binds[i].box = NULL;
    for (uint32_t i = 0; i < q->hub->n_connections; i++)
        if (q->hub->connections[i].client == q->box || q->hub->connections[i].server == q->box)
            q->hub->connections[i].client = NULL;
    pthread_mutex_unlock(&q->hub->lock);
    pthread_mutex_lock(&q->box->lock);
    q->box->closed = true;
    pthread_mutex_unlock(&q->box->lock);
    mailbox_release(q->box);
    free(q->outgoing.data);
    free(q);
}

static const transport_class queue_class = {
    .bind     = queue_bind,
    .connect  = queue_connect,
    .send     = queue_send,
    .receive  = queue_receive,
    .pending  = queue_pending,
    .fd       = queue_fd,
    .endpoint = queue_endpoint,
    .free     = queue_free,
};

transport *transport_queue_new(bus *b, error *err)
{
    queue_transport *q = calloc(1, sizeof *q);
    if (!q) {
        error_set(err, ERR_NO_MEMORY, "no memory for a mailbox");
        return NULL;
    }
    q->base.class = &queue_class;
    q->hub        = b->queues;
    q->box        = mailbox_new(err);
    if (!q->box) {
        free(q);
        return NULL;
    }
    return &q->base;
}
