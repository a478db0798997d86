/* Timers by due time: a binary heap of pointers to timers that their owners embed. O(log n) to set, move and cancel. */
#ifndef TROUPE_ACTOR_TIMER_HEAP_H
#define TROUPE_ACTOR_TIMER_HEAP_H

#include "actor/actor.h"

/* Zero-initialised is empty. */
typedef struct {
    actor_timer **items;
    uint32_t      n, capacity;
} timer_heap;

/* Sets or moves a timer. due_ns is at least 1. Aborts when the system has no memory for a pointer more. */
void timer_heap_set(timer_heap *heap, actor_timer *timer, int64_t due_ns);
void timer_heap_cancel(timer_heap *heap, actor_timer *timer); /* nothing happens when it is not set */

/* Takes the first timer out if it is due; NULL when none is. Timers of one time come in the heap's order, the same in
 * every run. */
actor_timer *timer_heap_take_due(timer_heap *heap, int64_t now_ns);
int64_t      timer_heap_next_ns(const timer_heap *heap); /* INT64_MAX when empty */
void         timer_heap_clear(timer_heap *heap);         /* forgets every timer and gives the memory back */

#endif
