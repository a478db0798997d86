/* Spans: what happened to a request, when, and under which span; recorded by services, taken by an exporter.
 *
 * A service fills a trace_span on its stack when a phase is over and hands it to trace_record, which copies it into the
 * process's queue: a ring of fixed size without locks. When the ring is full the span is dropped and counted
 * (troupe_spans_dropped_total). While nobody exports, trace_wants is false and nothing else costs anything.
 *
 *   if (trace_wants(e->trace)) {
 *       trace_span t = trace_span_under(e->trace, "tokenizer", "tokenize", started_ns, ended_ns);
 *       trace_add_number(&t, "gen_ai.usage.input_tokens", n);
 *       trace_record(&t);
 *   }
 *
 * Never put a prompt or generated text into a span. Thread-safe, but for trace_open and trace_close. */
#ifndef TROUPE_TRACE_TRACE_H
#define TROUPE_TRACE_TRACE_H

#include "base/error.h"
#include "trace/trace_context.h"

enum { TRACE_ATTRIBUTES_MAX = 16, TRACE_EVENTS_MAX = 16, TRACE_TEXT_BYTES = 256 };

typedef enum { TRACE_NUMBER, TRACE_TEXT, TRACE_LIST } trace_kind;

typedef struct {
    const char *key; /* a literal */
    trace_kind  kind;
    uint16_t    at, size; /* TEXT and LIST: in trace_span.text */
    int64_t     number;
} trace_attribute;

typedef struct {
    const char *name; /* a literal */
    int64_t     at_ns;
} trace_event;

typedef struct {
    uint8_t         trace_id[TRACE_ID_BYTES], span_id[TRACE_SPAN_ID_BYTES];
    uint8_t         parent_id[TRACE_SPAN_ID_BYTES]; /* all zero: none */
    const char     *service, *name;                 /* literals, or of the same life */
    bool            is_server;                      /* the side of a call that answers; else internal */
    bool            failed;
    int64_t         start_ns, end_ns; /* of the system's monotonic clock */
    uint32_t        n_attributes, n_events, n_text;
    uint32_t        n_dropped_attributes, n_dropped_events;
    trace_attribute attributes[TRACE_ATTRIBUTES_MAX];
    trace_event     events[TRACE_EVENTS_MAX];
    char            text[TRACE_TEXT_BYTES];
} trace_span;

/* Begins to take spans, up to n_spans (a power of two) at a time. `sample_ratio` of new traces are recorded, 0 to 1.
 * Before any service starts. */
bool trace_open(uint32_t n_spans, double sample_ratio, error *err) MUST_CHECK;

/* Forgets what was not taken. After every service has ended. */
void trace_close(void);

/* Draws a trace and the id of its first span, sampled or not. */
bool trace_draw(uint8_t context[TRACE_CONTEXT_BYTES], error *err) MUST_CHECK;

/* True when a span of this context would be exported: it is sampled, and the process exports. */
bool trace_wants(const uint8_t context[TRACE_CONTEXT_BYTES]);

/* An id that no other span has. */
void trace_new_span_id(uint8_t id[TRACE_SPAN_ID_BYTES]);

/* A span with an id of its own, under the span that `context` names. */
trace_span trace_span_under(const uint8_t context[TRACE_CONTEXT_BYTES], const char *service, const char *name,
                            int64_t start_ns, int64_t end_ns);

/* What doesn't fit any more is counted and left out; texts are never cut. `list` has its values between commas. */
void trace_add_number(trace_span *t, const char *key, int64_t value);
void trace_add_text(trace_span *t, const char *key, span value);
void trace_add_list(trace_span *t, const char *key, span list);
void trace_add_event(trace_span *t, const char *name, int64_t at_ns);

void trace_record(const trace_span *t);

/* The exporter's side: takes the oldest span; false when there is none. */
bool trace_take(trace_span *t);

/* Counts spans that were taken, and lost after all. */
void trace_count_dropped(uint32_t n);

#endif
