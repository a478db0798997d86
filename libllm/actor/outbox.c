/* What goes out: envelopes, credits and refusals. */
#include "actor/runtime.h"
#include "base/log.h"

#include <assert.h>

bool actor_send_raw(actor *a, uint32_t link, span identity, uint32_t protocol, uint64_t sequence, uint16_t type,
                    const void *body, const envelope *regarding, error *err)
{
    envelope e = {.type        = type,
                  .protocol    = (uint16_t)protocol,
                  .incarnation = a->incarnation,
                  .epoch       = a->epoch,
                  .sequence    = sequence};
    if (regarding) {
        e.request          = regarding->request;
        e.attempt          = regarding->attempt;
        e.deadline_unix_ms = regarding->deadline_unix_ms;
        memcpy(e.trace, regarding->trace, sizeof e.trace);
    }
    uint8_t     frame[ENVELOPE_BYTES];
    wire_writer out = {.data = a->send_buffer, .capacity = BUS_MESSAGE_BYTES_MAX};
    if (!message_encode(type, body, &out, err)) {
        metric_add(a->metrics->send_failures, 1);
        return false;
    }
    envelope_encode(&e, frame);
    span head = {(const char *)frame, sizeof frame}, rest = {(const char *)out.data, out.size};
    bool ok = transport_send(a->links[link].mailbox, link, identity, head, rest, err);
    if (ok && a->options.recorder) {
        const peer_entry *to = peer_table_at(&a->peers, link, identity);
        recorder_take(a->options.recorder, RECORD_OUT, a->name, to ? to->name : "", head, rest);
    }
    metric_add(ok ? a->metrics->sent : a->metrics->send_failures, 1);
    return ok;
}

bool actor_send_entry(actor *a, peer_entry *to, uint16_t type, const void *body, const envelope *regarding, error *err)
{
    error why;
    if (to->gone)
        return error_set(err, ERR_GONE, "%s left", to->name);
    if (actor_send_raw(a, to->link, (span){to->identity, to->identity_bytes}, to->protocol, to->sequence_out + 1, type,
                       body, regarding, &why)) {
        to->sequence_out++;
        return true;
    }
    if (why.code == ERR_GONE || why.code == ERR_NOT_READY) {
        to->public.died = true;
        actor_mark_gone(a, to, "its connection closed");
        return error_set(err, ERR_GONE, "%s left: %s", to->name, why.text);
    }
    return error_set(err, why.code, "%s", why.text);
}

bool actor_send(actor *a, peer *to, uint16_t type, const void *body, const envelope *regarding, error *err)
{
    const message_info *info = message_info_find(type);
    if (!info || !(info->from >> a->class->role & 1) || !(info->to >> to->role & 1))
        return error_set(err, ERR_INTERNAL, "the schema lets no %s send %s (%u) to a %s", role_name(a->class->role),
                         info ? info->name : "unknown", type, role_name(to->role));
    if (info->costs_credit && to->credits == 0 && !entry_of(to)->gone)
        return error_set(err, ERR_OVERLOADED, "%s has no credit left for %s", to->name, info->name);
    if (!actor_send_entry(a, entry_of(to), type, body, regarding, err))
        return false;
    to->credits -= info->costs_credit;
    return true;
}

/* ---- credits ---- */

void actor_owe(actor *a, peer_entry *to, uint32_t n)
{
    if (to->gone || n == 0)
        return;
    a->n_owing += to->owed == 0;
    to->owed += n;
    assert(to->owed >= n);
}

void actor_grant(actor *a, peer *to, uint32_t n)
{
    actor_owe(a, entry_of(to), n);
}

void actor_pay_credits(actor *a)
{
    enum { CREDIT_MESSAGE_MAX = 1 << 20 }; /* node.credit's own limit */
    for (uint32_t i = 0; i < a->peers.n && a->n_owing > 0; i++) {
        peer_entry *entry = a->peers.all[i];
        while (entry->owed > 0 && !entry->gone) {
            node_credit grant = {.n = entry->owed < CREDIT_MESSAGE_MAX ? entry->owed : CREDIT_MESSAGE_MAX};
            error       err;
            if (!actor_send_entry(a, entry, MSG_NODE_CREDIT, &grant, NULL, &err))
                break; /* gone, or its mailbox is full: tried again next turn */
            entry->owed -= grant.n;
            entry->spendable += grant.n;
            metric_add(a->metrics->credits_spent, -(double)grant.n);
            a->n_owing -= entry->owed == 0;
        }
    }
}

/* ---- refusals ---- */

void actor_refuse(actor *a, const transport_message *t, peer_entry *from, const envelope *regarding,
                  refusal_cause cause, const error *why)
{
    metric_add(a->metrics->refused[cause], 1);
    uint16_t            type = regarding ? regarding->type : 0;
    const message_info *info = message_info_find(type);
    log_warn("refused a message", "type=%s type_id=%u code=%s peer=\"%s\" reason=\"%s\"", info ? info->name : "unknown",
             type, error_name(why->code), from ? from->name : "", why->text);
    if (type == MSG_NODE_REFUSED || type == MSG_NODE_BYE)
        return; /* an answer to these could go back and forth for ever */
    node_refused refused = {.type = type, .code = why->code, .text = span_of(why->text)};
    error        err;
    bool         sent = from ? actor_send_entry(a, from, MSG_NODE_REFUSED, &refused, regarding, &err)
                             : actor_send_raw(a, t->link, t->identity, a->options.protocol_min, 0, MSG_NODE_REFUSED, &refused,
                                              regarding, &err);
    if (!sent)
        log_debug("could not say why a message was refused", "reason=\"%s\"", err.text);
}

/* ---- finding peers ---- */

peer *actor_find_peer(const actor *a, span name)
{
    peer_entry *entry = peer_table_named(&a->peers, name);
    return entry && !entry->gone ? &entry->public : NULL;
}

/* Messages that cost a credit and whose work is not done yet. */
static uint64_t n_in_hand(const peer_entry *entry)
{
    return entry->credits_first > entry->public.credits ? entry->credits_first - entry->public.credits : 0;
}

static bool is_better(const peer_entry *candidate, const peer_entry *best)
{
    const peer *c = &candidate->public, *b = &best->public;
    uint64_t    c_share = n_in_hand(candidate) * b->capacity, b_share = n_in_hand(best) * c->capacity;
    uint64_t    c_load = (uint64_t)c->load * b->capacity, b_load = (uint64_t)b->load * c->capacity;
    if (c_share != b_share)
        return c_share < b_share;
    if (c->credits != b->credits)
        return c->credits > b->credits;
    if (c_load != b_load)
        return c_load < b_load;
    return strcmp(c->name, b->name) < 0;
}

peer *actor_pick_peer(const actor *a, role wanted, uint32_t *n_ready)
{
    peer_entry *best = NULL;
    uint32_t    n    = 0;
    for (uint32_t i = 0; i < a->peers.n; i++) {
        peer_entry *p = a->peers.all[i];
        if (p->public.role != wanted || !p->public.ready || p->gone)
            continue;
        n++;
        if (p->public.credits > 0 && (!best || is_better(p, best)))
            best = p;
    }
    if (n_ready)
        *n_ready = n;
    return best ? &best->public : NULL;
}

void actor_each_peer(const actor *a, role wanted, void (*visit)(void *arg, peer *p), void *arg)
{
    for (uint32_t i = 0; i < a->peers.n; i++) {
        peer_entry *entry = a->peers.all[i];
        if (!entry->gone && (wanted == ROLE_UNKNOWN || entry->public.role == wanted))
            visit(arg, &entry->public);
    }
}
