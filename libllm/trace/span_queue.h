/* A ring of spans that many threads fill and one or more empty, without locks.
 *
 * Each place has a number that says whose turn it is: a writer's, or a reader's. Source: D. Vyukov's bounded MPMC
 * queue, https://www.1024cores.net/home/lock-free-algorithms/queues/bounded-mpmc-queue */
#ifndef TROUPE_TRACE_SPAN_QUEUE_H
#define TROUPE_TRACE_SPAN_QUEUE_H

#include "trace/trace.h"

typedef struct span_queue span_queue;

/* Room for n spans, a power of two of at least 2. All memory is taken here. */
span_queue *span_queue_new(uint32_t n, error *err);
void        span_queue_free(span_queue **q);

/* Copies *t in; false when the ring is full. */
bool span_queue_put(span_queue *q, const trace_span *t);

/* Copies the oldest out; false when there is none. */
bool span_queue_take(span_queue *q, trace_span *t);

#endif
