/* See trace.h. What a process has of tracing is one queue and a few numbers, set before its services start. */
#include "trace/trace.h"

#include "base/metric.h"
#include "base/random.h"
#include "trace/span_queue.h"

#include <stdatomic.h>

static struct {
    _Atomic(span_queue *) queue;        /* NULL: nobody exports */
    uint64_t              sample_below; /* traces whose last 56 bits are lower are recorded */
    atomic_uint_fast64_t  n_ids;
    uint64_t              first_id; /* random */
    metric               *recorded, *dropped;
} tracing;

bool trace_open(uint32_t n_spans, double sample_ratio, error *err)
{
    span_queue *queue = span_queue_new(n_spans, err);
    if (!queue || !random_bytes(&tracing.first_id, sizeof tracing.first_id, err)) {
        span_queue_free(&queue);
        return false;
    }
    tracing.sample_below = (uint64_t)(sample_ratio * (double)(UINT64_C(1) << 56));
    tracing.recorded     = metric_counter("troupe_spans_recorded_total", "", "Spans of traces that were recorded.");
    tracing.dropped      = metric_counter("troupe_spans_dropped_total", "",
                                          "Spans lost because the collector was too slow, or not there.");
    atomic_store(&tracing.queue, queue);
    return true;
}

void trace_close(void)
{
    span_queue *queue = atomic_exchange(&tracing.queue, NULL);
    span_queue_free(&queue);
}

static uint64_t read_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* As OpenTelemetry's TraceIdRatioBased sampler: a function of the id alone, so that everybody decides alike. */
bool trace_draw(uint8_t context[TRACE_CONTEXT_BYTES], error *err)
{
    memset(context, 0, TRACE_CONTEXT_BYTES);
    if (!random_bytes(context, TRACE_ID_BYTES + TRACE_SPAN_ID_BYTES, err))
        return false;
    uint64_t low = read_u64(context + TRACE_ID_BYTES - 8) & ((UINT64_C(1) << 56) - 1);
    if (atomic_load_explicit(&tracing.queue, memory_order_acquire) && low < tracing.sample_below)
        context[TRACE_CONTEXT_BYTES - 1] = TRACE_SAMPLED;
    return true;
}

bool trace_wants(const uint8_t context[TRACE_CONTEXT_BYTES])
{
    return (context[TRACE_CONTEXT_BYTES - 1] & TRACE_SAMPLED) &&
           atomic_load_explicit(&tracing.queue, memory_order_acquire) != NULL;
}

/* A count from a random start, mixed by a bijection: ids of a process differ, those of two hardly meet. */
void trace_new_span_id(uint8_t id[TRACE_SPAN_ID_BYTES])
{
    uint64_t x;
    do {
        uint64_t at = tracing.first_id + atomic_fetch_add_explicit(&tracing.n_ids, 1, memory_order_relaxed);
        x           = random_splitmix64(&at);
    } while (x == 0);
    memcpy(id, &x, sizeof x);
}

trace_span trace_span_under(const uint8_t context[TRACE_CONTEXT_BYTES], const char *service, const char *name,
                            int64_t start_ns, int64_t end_ns)
{
    trace_span t = {.service = service, .name = name, .start_ns = start_ns, .end_ns = end_ns};
    memcpy(t.trace_id, context, TRACE_ID_BYTES);
    memcpy(t.parent_id, context + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    trace_new_span_id(t.span_id);
    return t;
}

static trace_attribute *new_attribute(trace_span *t, const char *key, trace_kind kind, size_t bytes)
{
    if (t->n_attributes == TRACE_ATTRIBUTES_MAX || bytes > TRACE_TEXT_BYTES - t->n_text) {
        t->n_dropped_attributes++;
        return NULL;
    }
    trace_attribute *a = &t->attributes[t->n_attributes++];
    *a                 = (trace_attribute){.key = key, .kind = kind};
    return a;
}

static void add_text(trace_span *t, const char *key, trace_kind kind, span value)
{
    trace_attribute *a = new_attribute(t, key, kind, value.size);
    if (!a)
        return;
    a->at   = (uint16_t)t->n_text;
    a->size = (uint16_t)value.size;
    if (value.size > 0)
        memcpy(t->text + t->n_text, value.data, value.size);
    t->n_text += (uint32_t)value.size;
}

void trace_add_number(trace_span *t, const char *key, int64_t value)
{
    trace_attribute *a = new_attribute(t, key, TRACE_NUMBER, 0);
    if (a)
        a->number = value;
}

void trace_add_text(trace_span *t, const char *key, span value)
{
    add_text(t, key, TRACE_TEXT, value);
}

void trace_add_list(trace_span *t, const char *key, span list)
{
    add_text(t, key, TRACE_LIST, list);
}

void trace_add_event(trace_span *t, const char *name, int64_t at_ns)
{
    if (t->n_events < TRACE_EVENTS_MAX)
        t->events[t->n_events++] = (trace_event){.name = name, .at_ns = at_ns};
    else
        t->n_dropped_events++;
}

void trace_record(const trace_span *t)
{
    span_queue *queue = atomic_load_explicit(&tracing.queue, memory_order_acquire);
    if (!queue)
        return;
    metric_add(tracing.recorded, 1);
    if (!span_queue_put(queue, t))
        metric_add(tracing.dropped, 1);
}

bool trace_take(trace_span *t)
{
    span_queue *queue = atomic_load_explicit(&tracing.queue, memory_order_acquire);
    return queue && span_queue_take(queue, t);
}

void trace_count_dropped(uint32_t n)
{
    metric_add(tracing.dropped, n);
}
