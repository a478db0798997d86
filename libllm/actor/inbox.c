/* What may come in. Every message passes the same checks in the same order before a handler sees it: who says it, in
 * what order, under which epoch, whether the schema lets this role say it, whether a credit covers it, whether the body
 * is well-formed. */
#include "actor/runtime.h"
#include "base/log.h"

static void drop(actor *a, drop_cause cause)
{
    metric_add(a->metrics->dropped[cause], 1);
}

void actor_ignore(void *self, const message *m)
{
    (void)self;
    (void)m;
}

static void on_heartbeat(peer_entry *from, const node_heartbeat *beat)
{
    from->public.ready    = beat->ready;
    from->public.load     = beat->load;
    from->public.capacity = beat->capacity;
    from->public.draining = beat->draining;
}

static void on_credit(actor *a, peer_entry *from, const node_credit *grant)
{
    uint32_t before      = from->public.credits;
    from->public.credits = before + grant->n < before ? UINT32_MAX : before + grant->n;
    if (before == 0 && a->class->on_credit)
        a->class->on_credit(a->self, &from->public);
}

static void on_refused(actor *a, peer_entry *from, const message *m)
{
    const node_refused *refused = m->body;
    const message_info *info    = message_info_find(refused->type);
    log_warn("a peer refused a message", "peer=%s type=%s code=%s reason=\"%.*s\"", from->name,
             info ? info->name : "unknown",
             error_name(refused->code < N_ERRORS ? (error_code)refused->code : ERR_INTERNAL), SPAN_ARG(refused->text));
    if (refused->code == ERR_GONE)
        actor_mark_gone(a, from, "it does not know this session any more");
    else if (a->class->on_refused)
        a->class->on_refused(a->self, m);
}

/* The bus's own messages, within a session. */
static void handle_node(actor *a, peer_entry *from, const message *m)
{
    switch (m->envelope->type) {
    case MSG_NODE_HEARTBEAT:
        on_heartbeat(from, m->body);
        break;
    case MSG_NODE_CREDIT:
        on_credit(a, from, m->body);
        break;
    case MSG_NODE_BYE: {
        const node_bye *bye = m->body;
        log_info("a peer said bye", "peer=%s reason=\"%.*s\"", from->name, SPAN_ARG(bye->reason));
        actor_mark_gone(a, from, NULL);
        break;
    }
    case MSG_NODE_REFUSED:
        on_refused(a, from, m);
        break;
    default: /* a hello or a welcome in the middle of a session: the other side lost count */
        actor_part(a, from, "it began anew within a session");
    }
}

/* Sequence, incarnation and epoch: false when the message must not be looked at. */
static bool is_current(actor *a, peer_entry *from, const envelope *e)
{
    if (e->incarnation != from->public.incarnation) {
        drop(a, DROPPED_INCARNATION);
        if (from->is_server) {
            from->public.died = true;
            actor_mark_gone(a, from, "it was started anew");
        }
        return false;
    }
    if (e->type == MSG_NODE_REFUSED && e->sequence == 0)
        return true; /* it has no session with us, and says so */
    if (e->sequence <= from->sequence_in) {
        drop(a, DROPPED_DUPLICATE);
        return false;
    }
    uint64_t n_missing = e->sequence - from->sequence_in - 1;
    if (n_missing > 0) {
        /* What was lost may have been a plan or a credit: only a new session is sound. */
        metric_add(a->metrics->missing, (double)n_missing);
        actor_part(a, from, "messages were lost on the way");
        return false;
    }
    from->sequence_in = e->sequence;
    from->heard_ns    = a->now_ns;
    return true;
}

/* False when the node held a newer lease before. */
static bool raise_epoch(peer_entry *from, const envelope *e)
{
    if (e->epoch < from->public.epoch)
        return false;
    from->public.epoch = e->epoch;
    return true;
}

static bool take_credit(actor *a, peer_entry *from)
{
    if (from->spendable == 0)
        return false;
    from->spendable--;
    metric_add(a->metrics->credits_spent, 1);
    return true;
}

/* Takes the credit of a message; false when the sender had none. */
static bool spend(actor *a, const transport_message *t, peer_entry *from, const envelope *e, const message_info *info)
{
    error why;
    if (!info->costs_credit || take_credit(a, from))
        return true;
    error_set(&why, ERR_OVERLOADED, "%s costs a credit, and %s has none left", info->name, from->name);
    actor_refuse(a, t, from, e, REFUSED_CREDIT, &why);
    return false;
}

static void deliver(actor *a, const transport_message *t, peer_entry *from, const envelope *e, const message_info *info)
{
    const void *body;
    error       why;
    if (!spend(a, t, from, e, info))
        return;
    arena_reset(a->decoded);
    if (!message_decode(e->type, t->body, a->decoded, &body, &why)) {
        actor_owe(a, from, info->costs_credit);
        actor_refuse(a, t, from, e, REFUSED_MALFORMED, &why);
        return;
    }
    message        m      = {.envelope = e, .from = &from->public, .body = body};
    actor_handler *handle = a->handlers[info - message_infos];
    if (e->type <= MSG_NODE_REFUSED)
        handle_node(a, from, &m);
    else if (handle == actor_ignore)
        actor_owe(a, from, info->costs_credit);
    else
        handle(a->self, &m);
}

/* A message within a session. */
static void take_from_peer(actor *a, const transport_message *t, peer_entry *from, const envelope *e)
{
    error why;
    if (from->gone) {
        drop(a, DROPPED_SESSION);
        return;
    }
    if (from->key[0] && !span_is(t->key, from->key)) {
        drop(a, DROPPED_SESSION); /* another connection under this one's identity */
        return;
    }
    if (!is_current(a, from, e))
        return;
    const message_info *info = message_info_find(e->type);
    if (!raise_epoch(from, e) && e->type > MSG_NODE_REFUSED) {
        drop(a, DROPPED_EPOCH);
        if (info && info->costs_credit && take_credit(a, from))
            actor_owe(a, from, 1);
        return;
    }
    if (e->protocol != from->protocol || !info) {
        error_set(&why, ERR_UNSUPPORTED, "no message of type %u in protocol %u; this session speaks protocol %u",
                  e->type, e->protocol, from->protocol);
        actor_refuse(a, t, from, e, REFUSED_UNKNOWN, &why);
    } else if (!(info->from >> from->public.role & 1) || !(info->to >> a->class->role & 1)) {
        error_set(&why, ERR_UNAUTHORIZED, "a %s may not send %s to a %s", role_name(from->public.role), info->name,
                  role_name(a->class->role));
        actor_refuse(a, t, from, e, REFUSED_ROLE, &why);
    } else
        deliver(a, t, from, e, info);
}

/* Decodes what a stranger says: a hello, or the answer to ours. */
static bool decode_handshake(actor *a, const transport_message *t, const envelope *e, message *m)
{
    error why;
    arena_reset(a->decoded);
    *m = (message){.envelope = e};
    if (message_decode(e->type, t->body, a->decoded, &m->body, &why))
        return true;
    actor_refuse(a, t, NULL, e, REFUSED_MALFORMED, &why);
    return false;
}

static void take_from_server(actor *a, const transport_message *t, const envelope *e)
{
    message m;
    if (a->links[t->link].state != LINK_ASKED || (e->type != MSG_NODE_WELCOME && e->type != MSG_NODE_REFUSED))
        drop(a, DROPPED_SESSION);
    else if (!decode_handshake(a, t, e, &m))
        return;
    else if (e->type == MSG_NODE_WELCOME)
        actor_on_welcome(a, t->link, &m);
    else
        actor_on_handshake_refused(a, t->link, m.body);
}

static void take_from_stranger(actor *a, const transport_message *t, const envelope *e)
{
    message m;
    error   why;
    if (e->type == MSG_NODE_HELLO) {
        if (decode_handshake(a, t, e, &m))
            actor_on_hello(a, t, &m);
    } else if (e->type == MSG_NODE_REFUSED || e->type == MSG_NODE_BYE)
        drop(a, DROPPED_SESSION);
    else {
        error_set(&why, ERR_GONE, "this node has no session with the sender: say node.hello first");
        actor_refuse(a, t, NULL, e, REFUSED_STRANGER, &why);
    }
}

void actor_take_in(actor *a, const transport_message *t)
{
    envelope    e;
    error       why;
    peer_entry *from = peer_table_at(&a->peers, t->link, t->identity);
    metric_add(a->metrics->received, 1);
    if (a->options.recorder)
        recorder_take(a->options.recorder, RECORD_IN, a->name, from ? from->name : "", t->envelope, t->body);
    if (t->n_frames != 2)
        error_set(&why, ERR_INVALID, "a message has two frames, envelope and body, not %u", t->n_frames);
    else if (t->body.size > BUS_MESSAGE_BYTES_MAX)
        error_set(&why, ERR_TOO_LARGE, "a body of %zu bytes; at most %d are taken", t->body.size,
                  BUS_MESSAGE_BYTES_MAX);
    else if (envelope_decode(t->envelope, &e, &why)) {
        if (from)
            take_from_peer(a, t, from, &e);
        else if (a->links[t->link].connects)
            take_from_server(a, t, &e);
        else
            take_from_stranger(a, t, &e);
        return;
    }
    actor_refuse(a, t, from && !from->gone ? from : NULL, NULL, REFUSED_MALFORMED, &why);
}
