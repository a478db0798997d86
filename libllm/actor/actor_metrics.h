/* What an actor counts. One set of series a role, shared by the actors of that role in one process. */
#ifndef TROUPE_ACTOR_ACTOR_METRICS_H
#define TROUPE_ACTOR_ACTOR_METRICS_H

#include "base/metric.h"
#include "bus/messages.h"

/* Why a message was answered with node.refused. */
#define REFUSAL_CAUSES(X)                                                                                              \
    X(MALFORMED, "malformed")                                                                                          \
    X(UNKNOWN, "unknown_type") X(ROLE, "role") X(CREDIT, "credit") X(STRANGER, "no_session") X(HELLO, "hello")

/* Why a message was dropped without an answer. */
#define DROP_CAUSES(X)                                                                                                 \
    X(EPOCH, "stale_epoch") X(INCARNATION, "stale_incarnation") X(DUPLICATE, "duplicate") X(SESSION, "no_session")

typedef enum {
#define X(name, label) REFUSED_##name,
    REFUSAL_CAUSES(X)
#undef X
        N_REFUSAL_CAUSES
} refusal_cause;

typedef enum {
#define X(name, label) DROPPED_##name,
    DROP_CAUSES(X)
#undef X
        N_DROP_CAUSES
} drop_cause;

typedef struct {
    metric *sent, *received, *send_failures, *missing, *peers, *peers_lost, *credits_spent;
    metric *refused[N_REFUSAL_CAUSES];
    metric *dropped[N_DROP_CAUSES];
} actor_metrics;

/* The set of a role, registered on the first call. */
const actor_metrics *actor_metrics_of(role r);

#endif
