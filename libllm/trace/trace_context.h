/* W3C Trace Context: which trace a request belongs to, as its `traceparent` header says it and as envelopes carry it.
 *
 * In envelopes it is 25 bytes (`envelope.trace`): the trace id (16), the id of the span that is the parent of whatever
 * happens next (8), and the flags (1), of which one is defined: sampled. All zero means none.
 *
 * Source: Trace Context Level 1, https://www.w3.org/TR/trace-context-1/ */
#ifndef TROUPE_TRACE_TRACE_CONTEXT_H
#define TROUPE_TRACE_TRACE_CONTEXT_H

#include "base/span.h"

enum {
    TRACE_ID_BYTES      = 16,
    TRACE_SPAN_ID_BYTES = 8,
    TRACE_CONTEXT_BYTES = TRACE_ID_BYTES + TRACE_SPAN_ID_BYTES + 1,
    TRACE_ID_TEXT       = 2 * TRACE_ID_BYTES + 1, /* with its NUL */
    TRACE_SAMPLED       = 1
};

/* Reads the value of a traceparent header. False, and `context` untouched, for whatever the specification calls
 * invalid: capital digits, ids of zeroes, version ff, bytes behind version 00. Of later versions the fields of version
 * 00 are read, as it asks. Flags that are not defined are dropped. */
bool trace_context_parse(span header, uint8_t context[TRACE_CONTEXT_BYTES]);

/* True when both ids are there. What came in an envelope may be anything. */
bool trace_context_is_valid(const uint8_t context[TRACE_CONTEXT_BYTES]);

/* The trace id in 32 hexadecimal digits, for log lines; "-" when there is none. */
void trace_id_print(const uint8_t context[TRACE_CONTEXT_BYTES], char text[TRACE_ID_TEXT]);

#endif
