/* See span_queue.h. A place whose turn is its position waits for the writer of that position; position + 1 for its
 * reader; position + n for the writer of the next round. */
#include "trace/span_queue.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    atomic_uint_fast64_t turn;
    trace_span           span;
} place;

struct span_queue {
    place               *places;
    uint32_t             mask;
    atomic_uint_fast64_t head, tail; /* the next position to write, to read */
};

span_queue *span_queue_new(uint32_t n, error *err)
{
    assert(n >= 2 && (n & (n - 1)) == 0);
    span_queue *q = calloc(1, sizeof *q);
    if (q)
        q->places = calloc(n, sizeof *q->places);
    if (!q || !q->places) {
        free(q);
        error_set(err, ERR_NO_MEMORY, "no memory for %u spans", n);
        return NULL;
    }
    q->mask = n - 1;
    for (uint32_t i = 0; i < n; i++)
        atomic_init(&q->places[i].turn, i);
    return q;
}

void span_queue_free(span_queue **queue)
{
    if (*queue)
        free((*queue)->places);
    free(*queue);
    *queue = NULL;
}

/* Claims the position whose place has the turn position + ahead; NULL when there is none. */
static place *claim(span_queue *q, atomic_uint_fast64_t *counter, uint32_t ahead, uint_fast64_t *position)
{
    *position = atomic_load_explicit(counter, memory_order_relaxed);
    for (;;) {
        place        *p    = &q->places[*position & q->mask];
        uint_fast64_t turn = atomic_load_explicit(&p->turn, memory_order_acquire);
        int64_t       late = (int64_t)(turn - (*position + ahead));
        if (late < 0)
            return NULL;
        if (late > 0)
            *position = atomic_load_explicit(counter, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(counter, position, *position + 1, memory_order_relaxed,
                                                       memory_order_relaxed))
            return p;
    }
}

bool span_queue_put(span_queue *q, const trace_span *t)
{
    uint_fast64_t position;
    place        *p = claim(q, &q->head, 0, &position);
    if (!p)
        return false;
    p->span = *t;
    atomic_store_explicit(&p->turn, position + 1, memory_order_release);
    return true;
}

bool span_queue_take(span_queue *q, trace_span *t)
{
    uint_fast64_t position;
    place        *p = claim(q, &q->tail, 1, &position);
    if (!p)
        return false;
    *t = p->span;
    atomic_store_explicit(&p->turn, position + q->mask + 1, memory_order_release);
    return true;
}
