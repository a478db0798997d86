/* Registration of the runtime's metrics. Labels must live for ever, so they are kept in static memory. */
#include "actor/actor_metrics.h"

#include <pthread.h>
#include <stdio.h>

enum { N_ROLES = ROLE_CLIENT + 1, LABEL_BYTES = 64 };

static actor_metrics sets[N_ROLES];
static char          labels[N_ROLES][1 + N_REFUSAL_CAUSES + N_DROP_CAUSES][LABEL_BYTES];

static const char *const refusal_labels[] = {
#define X(name, label) label,
    REFUSAL_CAUSES(X)
#undef X
};

static const char *const drop_labels[] = {
#define X(name, label) label,
    DROP_CAUSES(X)
#undef X
};

static metric *counter_by_cause(role r, uint32_t slot, const char *name, const char *cause, const char *help)
{
    snprintf(labels[r][slot], LABEL_BYTES, "service=\"%s\",cause=\"%s\"", role_name(r), cause);
    return metric_counter(name, labels[r][slot], help);
}

static void register_set(role r)
{
    actor_metrics *m     = &sets[r];
    char          *label = labels[r][0];
    snprintf(label, LABEL_BYTES, "service=\"%s\"", role_name(r));
    m->sent = metric_counter("troupe_bus_messages_sent_total", label, "Messages sent on the bus.");
    m->received =
        metric_counter("troupe_bus_messages_received_total", label, "Messages received from the bus, good or bad.");
    m->send_failures = metric_counter("troupe_bus_send_failures_total", label, "Messages that could not be sent.");
    m->missing       = metric_counter("troupe_bus_messages_missing_total", label,
                                      "Messages lost on the way: holes in a peer's sequence.");
    m->peers         = metric_gauge("troupe_bus_peers", label, "Peers connected now.");
    m->peers_lost    = metric_counter("troupe_bus_peers_lost_total", label, "Peers that went without a bye.");
    m->credits_spent = metric_gauge("troupe_bus_credits_spent", label,
                                    "Credits that peers have spent on this service and not got back: its work.");
    for (uint32_t i = 0; i < N_REFUSAL_CAUSES; i++)
        m->refused[i] = counter_by_cause(r, 1 + i, "troupe_bus_messages_refused_total", refusal_labels[i],
                                         "Messages answered with node.refused, by cause.");
    for (uint32_t i = 0; i < N_DROP_CAUSES; i++)
        m->dropped[i] = counter_by_cause(r, 1 + N_REFUSAL_CAUSES + i, "troupe_bus_messages_dropped_total",
                                         drop_labels[i], "Messages dropped without an answer, by cause.");
}

const actor_metrics *actor_metrics_of(role r)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!sets[r].sent)
        register_set(r);
    pthread_mutex_unlock(&lock);
    return &sets[r];
}
