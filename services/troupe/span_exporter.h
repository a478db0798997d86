/* Sends the process's spans to an OpenTelemetry collector: OTLP over HTTP, in JSON, on a thread of its own.
 *
 * Nothing waits for it. Spans that come faster than the collector takes them are dropped and counted; a batch that
 * fails for a reason that may pass (no connection, no answer in time, 429, 502, 503, 504) is sent again after a pause
 * that doubles, a few times at most.
 *
 * Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp */
#ifndef TROUPE_TROUPE_SPAN_EXPORTER_H
#define TROUPE_TROUPE_SPAN_EXPORTER_H

#include "base/error.h"
#include <stdint.h>

typedef struct span_exporter span_exporter;

/* Opens the process's tracing (trace/trace.h) for `endpoint`, http://host[:port][/path], to whose path /v1/traces is
 * appended; the port is 4318 if none is named. Before any service starts. The collector need not be there. */
span_exporter *span_exporter_new(const char *endpoint, double sample_ratio, error *err);

/* Sends what is left, for up to two seconds, and closes tracing. After every service has ended. */
void span_exporter_free(span_exporter **e);

#endif
