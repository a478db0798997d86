/* The simulated network: a table of connections, each with two queues of messages that have a time of arrival. */
#include "bus/transport_sim.h"
#include "base/random.h"
#include "bus/process.h"

#include <assert.h>
#include <stdlib.h>

enum { SIM_CUTS_MAX = 64, SIM_BINDS_MAX = 256 };

typedef struct sim_message {
    struct sim_message *next;
    int64_t             due_ns;
    size_t              envelope_bytes, body_bytes;
    char                bytes[];
} sim_message;

typedef struct {
    sim_message *first, *last;
} sim_queue;

typedef struct sim_mailbox sim_mailbox;
typedef enum { TO_SERVER, TO_CLIENT } direction;

typedef struct {
    uint64_t     id;
    sim_mailbox *ends[2]; /* by the direction that leads there: server, client; NULL when it left */
    uint32_t     links[2];
    bool         silent; /* an end vanished and the other cannot tell */
    sim_queue    queues[2];
} sim_connection;

struct sim_network {
    const clock_source *clock;
    random_seeded       random;
    sim_network_options options;
    uint64_t            last_id;
    uint32_t            n_connections, connections_capacity;
    sim_connection     *connections;
    struct {
        char         endpoint[BUS_ENDPOINT_BYTES];
        sim_mailbox *box;
        uint32_t     link;
    } binds[SIM_BINDS_MAX];
    struct {
        char a[BUS_NAME_BYTES], b[BUS_NAME_BYTES];
    } cuts[SIM_CUTS_MAX];
    uint32_t next_cut;
};

struct sim_mailbox {
    transport    base;
    sim_network *network;
    char         name[BUS_NAME_BYTES];
    bool         crashed;
    sim_message *delivered; /* the message handed out last */
    uint64_t     delivered_id;
    struct {
        bool     bound;
        uint64_t connection; /* id; 0: none */
        char     endpoint[BUS_ENDPOINT_BYTES];
    } links[TRANSPORT_LINKS_MAX];
};

sim_network *sim_network_new(uint64_t seed, const clock_source *clock, error *err)
{
    sim_network *n = calloc(1, sizeof *n);
    if (!n) {
        error_set(err, ERR_NO_MEMORY, "no memory for a simulated network");
        return NULL;
    }
    n->clock   = clock;
    n->random  = random_from_seed(seed);
    n->options = (sim_network_options){.delay_min_ns = 10000, .delay_max_ns = 2 * NS_PER_MS};
    return n;
}

static void queue_clear(sim_queue *q)
{
    for (sim_message *m = q->first, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    *q = (sim_queue){0};
}

void sim_network_free(sim_network **n)
{
    if (!*n)
        return;
    for (uint32_t i = 0; i < (*n)->n_connections; i++)
        for (direction d = TO_SERVER; d <= TO_CLIENT; d++)
            queue_clear(&(*n)->connections[i].queues[d]);
    free((*n)->connections);
    free(*n);
    *n = NULL;
}

void sim_network_attach(sim_network *n, bus *b)
{
    b->network = n;
}

void sim_network_set(sim_network *n, const sim_network_options *options)
{
    assert(options->delay_min_ns >= 0 && options->delay_min_ns <= options->delay_max_ns);
    n->options = *options;
}

static bool cut_matches(const sim_network *n, uint32_t i, const char *a, const char *b)
{
    return (strcmp(n->cuts[i].a, a) == 0 && strcmp(n->cuts[i].b, b) == 0) ||
           (strcmp(n->cuts[i].a, b) == 0 && strcmp(n->cuts[i].b, a) == 0);
}

void sim_network_cut(sim_network *n, const char *name_a, const char *name_b, bool cut)
{
    for (uint32_t i = 0; i < SIM_CUTS_MAX; i++)
        if (cut_matches(n, i, name_a, name_b))
            n->cuts[i].a[0] = n->cuts[i].b[0] = '\0';
    if (!cut)
        return;
    uint32_t i = n->next_cut++ % SIM_CUTS_MAX;
    strncpy(n->cuts[i].a, name_a, BUS_NAME_BYTES - 1);
    strncpy(n->cuts[i].b, name_b, BUS_NAME_BYTES - 1);
}

void sim_network_heal(sim_network *n)
{
    memset(n->cuts, 0, sizeof n->cuts);
}

static bool is_cut(const sim_network *n, const char *a, const char *b)
{
    for (uint32_t i = 0; i < SIM_CUTS_MAX; i++)
        if (cut_matches(n, i, a, b))
            return true;
    return false;
}

void sim_network_crash(sim_network *n, transport *t)
{
    (void)n;
    ((sim_mailbox *)t)->crashed = true;
}

int64_t sim_network_next_due_ns(const sim_network *n)
{
    int64_t due = INT64_MAX, now_ns = clock_now_ns(n->clock);
    for (uint32_t i = 0; i < n->n_connections; i++)
        for (direction d = TO_SERVER; d <= TO_CLIENT; d++) {
            const sim_message *first = n->connections[i].queues[d].first;
            if (first && n->connections[i].ends[d] && first->due_ns > now_ns && first->due_ns < due)
                due = first->due_ns;
        }
    return due;
}

/* ---- connections ---- */

static sim_connection *find_connection(sim_network *n, uint64_t id)
{
    for (uint32_t i = 0; i < n->n_connections; i++)
        if (n->connections[i].id == id)
            return &n->connections[i];
    return NULL;
}

/* Forgets connections that can deliver nothing any more. */
static void sweep(sim_network *n)
{
    for (uint32_t i = n->n_connections; i-- > 0;) {
        sim_connection *c    = &n->connections[i];
        bool            live = false;
        for (direction d = TO_SERVER; d <= TO_CLIENT; d++) {
            if (!c->ends[d])
                queue_clear(&c->queues[d]);
            live = live || c->queues[d].first;
        }
        bool left      = !c->ends[TO_SERVER] || !c->ends[TO_CLIENT];
        bool abandoned = !c->ends[TO_SERVER] && !c->ends[TO_CLIENT];
        if (!live && (abandoned || (left && !c->silent)))
            n->connections[i] = n->connections[--n->n_connections];
    }
}

static sim_connection *add_connection(sim_network *n, const char *endpoint, sim_mailbox *client, uint32_t client_link)
{
    uint32_t b = 0;
    while (b < SIM_BINDS_MAX && !(n->binds[b].box && strcmp(n->binds[b].endpoint, endpoint) == 0))
        b++;
    if (b == SIM_BINDS_MAX)
        return NULL;
    sweep(n);
    if (n->n_connections == n->connections_capacity) {
        uint32_t        capacity = n->connections_capacity ? 2 * n->connections_capacity : 16;
        sim_connection *grown    = realloc(n->connections, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        n->connections          = grown;
        n->connections_capacity = capacity;
    }
    sim_connection *c   = &n->connections[n->n_connections++];
    *c                  = (sim_connection){.id = ++n->last_id};
    c->ends[TO_SERVER]  = n->binds[b].box;
    c->links[TO_SERVER] = n->binds[b].link;
    c->ends[TO_CLIENT]  = client;
    c->links[TO_CLIENT] = client_link;
    return c;
}

/* One end leaves. What it sent still arrives, unless it crashed and chance has it otherwise. */
static void leave(sim_network *n, sim_connection *c, direction towards_leaver, bool crashed)
{
    c->ends[towards_leaver] = NULL;
    queue_clear(&c->queues[towards_leaver]);
    if (!crashed)
        return;
    c->silent = random_below(&n->random, 2) == 0;
    if (random_below(&n->random, 2) == 0)
        queue_clear(&c->queues[!towards_leaver]);
}

/* ---- the transport ---- */

static bool sim_bind(transport *t, uint32_t link, const char *endpoint, error *err)
{
    sim_mailbox *box    = (sim_mailbox *)t;
    sim_network *n      = box->network;
    uint32_t     unused = SIM_BINDS_MAX;
    for (uint32_t i = SIM_BINDS_MAX; i-- > 0;)
        if (!n->binds[i].box)
            unused = i;
        else if (strcmp(n->binds[i].endpoint, endpoint) == 0)
            return error_set(err, ERR_INVALID, "%s is bound already", endpoint);
    if (unused == SIM_BINDS_MAX || strlen(endpoint) >= BUS_ENDPOINT_BYTES)
        return error_set(err, ERR_TOO_LARGE, "%s: the name is too long, or %d are bound", endpoint, SIM_BINDS_MAX);
    memcpy(n->binds[unused].endpoint, endpoint, strlen(endpoint) + 1);
    memcpy(box->links[link].endpoint, endpoint, strlen(endpoint) + 1);
    n->binds[unused].box   = box;
    n->binds[unused].link  = link;
    box->links[link].bound = true;
    return true;
}

static bool sim_connect(transport *t, uint32_t link, const char *endpoint, error *err)
{
    sim_mailbox *box = (sim_mailbox *)t;
    if (endpoint && strlen(endpoint) >= BUS_ENDPOINT_BYTES)
        return error_set(err, ERR_TOO_LARGE, "%s: an endpoint has at most %d bytes", endpoint, BUS_ENDPOINT_BYTES - 1);
    sim_connection *old = find_connection(box->network, box->links[link].connection);
    if (box->links[link].connection && old)
        leave(box->network, old, TO_CLIENT, false);
    if (endpoint && box->links[link].endpoint != endpoint)
        memcpy(box->links[link].endpoint, endpoint, strlen(endpoint) + 1);
    box->links[link].connection = 0;
    return true;
}

static bool enqueue(sim_network *n, sim_queue *q, span envelope_frame, span body, error *err)
{
    sim_message *m = malloc(sizeof *m + envelope_frame.size + body.size);
    if (!m)
        return error_set(err, ERR_NO_MEMORY, "no memory for a simulated message");
    uint64_t spread = (uint64_t)(n->options.delay_max_ns - n->options.delay_min_ns) + 1;
    m->due_ns       = clock_now_ns(n->clock) + n->options.delay_min_ns + (int64_t)random_below(&n->random, spread);
    if (q->last && q->last->due_ns > m->due_ns)
        m->due_ns = q->last->due_ns; /* a connection keeps its order */
    m->next           = NULL;
    m->envelope_bytes = envelope_frame.size;
    m->body_bytes     = body.size;
    memcpy(m->bytes, envelope_frame.data, envelope_frame.size);
    if (body.size)
        memcpy(m->bytes + envelope_frame.size, body.data, body.size);
    *(q->last ? &q->last->next : &q->first) = m;
    q->last                                 = m;
    return true;
}

static bool sim_send(transport *t, uint32_t link, span identity, span envelope_frame, span body, error *err)
{
    sim_mailbox    *box = (sim_mailbox *)t;
    sim_network    *n   = box->network;
    bool            out = !box->links[link].bound;
    uint64_t        id  = out ? box->links[link].connection : 0;
    sim_connection *c   = NULL;
    if (body.size > BUS_MESSAGE_BYTES_MAX)
        return error_set(err, ERR_TOO_LARGE, "a message of %zu bytes; at most %d fit", body.size,
                         BUS_MESSAGE_BYTES_MAX);
    if (!out && identity.size == sizeof id)
        memcpy(&id, identity.data, sizeof id);
    if (id)
        c = find_connection(n, id);
    if (out && !id && (c = add_connection(n, box->links[link].endpoint, box, link)))
        box->links[link].connection = c->id;
    direction towards = out ? TO_SERVER : TO_CLIENT;
    if (c && !c->ends[towards] && c->silent)
        return true; /* sent to a dead host: nobody says so */
    if (!c || !c->ends[towards])
        return error_set(err, out ? ERR_NOT_READY : ERR_GONE, "%s: the other end is not there",
                         box->links[link].endpoint);
    if (is_cut(n, box->name, c->ends[towards]->name) ||
        (n->options.lose > 0 && random_unit(&n->random) < n->options.lose))
        return true;
    return enqueue(n, &c->queues[towards], envelope_frame, body, err) &&
           (random_unit(&n->random) >= n->options.duplicate ||
            enqueue(n, &c->queues[towards], envelope_frame, body, err));
}

/* One of the queues with a message that is due at this mailbox, each as likely; NULL when there is none. */
static sim_queue *pick_queue(sim_mailbox *box, sim_connection **from, bool draw)
{
    sim_network *n      = box->network;
    int64_t      now_ns = clock_now_ns(n->clock);
    sim_queue   *picked = NULL;
    uint64_t     n_due  = 0;
    for (uint32_t i = 0; i < n->n_connections; i++)
        for (direction d = TO_SERVER; d <= TO_CLIENT; d++) {
            sim_connection *c = &n->connections[i];
            if (c->ends[d] != box || !c->queues[d].first || c->queues[d].first->due_ns > now_ns)
                continue;
            n_due++;
            if (!draw || random_below(&n->random, n_due) == 0) {
                picked = &c->queues[d];
                *from  = c;
            }
        }
    return picked;
}

static bool sim_receive(transport *t, transport_message *m)
{
    sim_mailbox    *box = (sim_mailbox *)t;
    sim_connection *c   = NULL;
    sim_queue      *q   = pick_queue(box, &c, true);
    if (!q)
        return false;
    free(box->delivered);
    box->delivered    = q->first;
    box->delivered_id = c->id;
    q->first          = q->first->next;
    q->last           = q->first ? q->last : NULL;
    direction d       = q == &c->queues[TO_SERVER] ? TO_SERVER : TO_CLIENT;
    *m                = (transport_message){.link = c->links[d], .n_frames = 2};
    if (d == TO_SERVER)
        m->identity = (span){(const char *)&box->delivered_id, sizeof box->delivered_id};
    m->envelope = (span){box->delivered->bytes, box->delivered->envelope_bytes};
    m->body     = (span){box->delivered->bytes + box->delivered->envelope_bytes, box->delivered->body_bytes};
    return true;
}

static bool sim_pending(transport *t)
{
    sim_connection *c;
    return pick_queue((sim_mailbox *)t, &c, false) != NULL;
}

static int sim_fd(const transport *t)
{
    (void)t;
    return -1;
}

static bool sim_endpoint(transport *t, uint32_t link, char *text, size_t text_bytes)
{
    const char *endpoint = ((sim_mailbox *)t)->links[link].endpoint;
    if (strlen(endpoint) >= text_bytes)
        return false;
    memcpy(text, endpoint, strlen(endpoint) + 1);
    return true;
}

static void sim_free(transport *t)
{
    sim_mailbox *box = (sim_mailbox *)t;
    sim_network *n   = box->network;
    for (uint32_t i = 0; i < SIM_BINDS_MAX; i++)
        if (n->binds[i].box == box)
            n->binds[i].box = NULL;
    for (uint32_t i = 0; i < n->n_connections; i++)
        for (direction d = TO_SERVER; d <= TO_CLIENT; d++)
            if (n->connections[i].ends[d] == box)
                leave(n, &n->connections[i], d, box->crashed);
    sweep(n);
    free(box->delivered);
    free(box);
}

static const transport_class sim_class = {
    .bind     = sim_bind,
    .connect  = sim_connect,
    .send     = sim_send,
    .receive  = sim_receive,
    .pending  = sim_pending,
    .fd       = sim_fd,
    .endpoint = sim_endpoint,
    .free     = sim_free,
};

transport *transport_sim_new(bus *b, const char *name, error *err)
{
    sim_mailbox *box = calloc(1, sizeof *box);
    if (!box) {
        error_set(err, ERR_NO_MEMORY, "no memory for a mailbox");
        return NULL;
    }
    box->base.class = &sim_class;
    box->network    = b->network;
    strncpy(box->name, name, sizeof box->name - 1);
    return &box->base;
}
