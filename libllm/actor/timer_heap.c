/* The heap of timers. Each timer knows its place, so that moving one needs no search. */
#include "actor/timer_heap.h"

#include <assert.h>
#include <stdlib.h>

static void put(timer_heap *heap, uint32_t index, actor_timer *timer)
{
    heap->items[index] = timer;
    timer->heap_index  = index;
}

static void rise(timer_heap *heap, uint32_t index)
{
    actor_timer *timer = heap->items[index];
    while (index > 0 && heap->items[(index - 1) / 2]->due_ns > timer->due_ns) {
        put(heap, index, heap->items[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    put(heap, index, timer);
}

static void sink(timer_heap *heap, uint32_t index)
{
    actor_timer *timer = heap->items[index];
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= heap->n)
            break;
        if (child + 1 < heap->n && heap->items[child + 1]->due_ns < heap->items[child]->due_ns)
            child++;
        if (heap->items[child]->due_ns >= timer->due_ns)
            break;
        put(heap, index, heap->items[child]);
        index = child;
    }
    put(heap, index, timer);
}

static void reserve(timer_heap *heap)
{
    if (heap->n < heap->capacity)
        return;
    heap->capacity = heap->capacity ? 2 * heap->capacity : 64;
    heap->items    = realloc(heap->items, heap->capacity * sizeof *heap->items);
    assert(heap->items); /* a timer that is lost would be a hang later */
}

void timer_heap_set(timer_heap *heap, actor_timer *timer, int64_t due_ns)
{
    assert(due_ns > 0);
    timer_heap_cancel(heap, timer);
    reserve(heap);
    timer->due_ns = due_ns;
    put(heap, heap->n++, timer);
    rise(heap, timer->heap_index);
}

void timer_heap_cancel(timer_heap *heap, actor_timer *timer)
{
    if (timer->due_ns == 0)
        return;
    uint32_t index = timer->heap_index;
    assert(index < heap->n && heap->items[index] == timer);
    timer->due_ns     = 0;
    actor_timer *last = heap->items[--heap->n];
    if (last == timer)
        return;
    put(heap, index, last);
    rise(heap, index);
    sink(heap, last->heap_index);
}

actor_timer *timer_heap_take_due(timer_heap *heap, int64_t now_ns)
{
    if (heap->n == 0 || heap->items[0]->due_ns > now_ns)
        return NULL;
    actor_timer *first = heap->items[0];
    timer_heap_cancel(heap, first);
    return first;
}

int64_t timer_heap_next_ns(const timer_heap *heap)
{
    return heap->n > 0 ? heap->items[0]->due_ns : INT64_MAX;
}

void timer_heap_clear(timer_heap *heap)
{
    for (uint32_t i = 0; i < heap->n; i++)
        heap->items[i]->due_ns = 0;
    free(heap->items);
    *heap = (timer_heap){0};
}
