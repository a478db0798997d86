/* Spans as the body of an OTLP/HTTP request (POST /v1/traces) in JSON.
 *
 * Ids are hexadecimal and 64-bit integers are decimal strings, as the protocol's JSON mapping asks; spans of one
 * service share a resource, whose service.name is "troupe-" and the service.
 *
 * Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding, opentelemetry-proto v1 trace.proto */
#ifndef TROUPE_TRACE_OTLP_JSON_H
#define TROUPE_TRACE_OTLP_JSON_H

#include "trace/trace.h"

enum { OTLP_SPAN_BYTES_MAX = 12 * 1024, OTLP_RESOURCE_BYTES_MAX = 1024 };

/* What all spans of a process have in common. */
typedef struct {
    const char *host;              /* host.name, at most 64 bytes */
    int64_t     pid;               /* process.pid */
    int64_t     unix_less_mono_ns; /* what makes a monotonic time of theirs a Unix time */
} otlp_process;

/* Writes the body for spans[0..n_spans) into out, NUL-terminated. Fails with ERR_NO_MEMORY when it does not fit; room
 * for OTLP_SPAN_BYTES_MAX a span and OTLP_RESOURCE_BYTES_MAX a service is always enough. */
bool otlp_print(const otlp_process *process, const trace_span *spans, size_t n_spans, char *out, size_t out_bytes,
                span *body, error *err) MUST_CHECK;

#endif
