/* Counters, gauges and histograms, printed in Prometheus' text format 0.0.4.
 *
 * Metrics are registered at start-up and live for ever; updating one is a relaxed atomic add. Labels are constant
 * strings given at registration (`service="scheduler"`), never text from a user. The same name with other labels is
 * another series of one family. Thread-safe. */
#ifndef TROUPE_BASE_METRIC_H
#define TROUPE_BASE_METRIC_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

typedef struct metric metric;

enum { METRICS_MAX = 512, METRIC_BUCKETS_MAX = 20 };

/* `name` is a Prometheus name with its unit last (troupe_queue_wait_seconds), `labels` is "" or
 * "key=\"value\",..." as printed, `help` one sentence. All three are borrowed for ever (string literals, or memory
 * never freed). Registering the same name and labels again returns the same metric. Asserts when METRICS_MAX is passed.
 */
metric *metric_counter(const char *name, const char *labels, const char *help);
metric *metric_gauge(const char *name, const char *labels, const char *help);

/* `bounds` are the upper bounds of n_bounds buckets, rising, in the metric's unit; +Inf is implied. */
metric *metric_histogram(const char *name, const char *labels, const char *help, const double *bounds,
                         uint32_t n_bounds);

void   metric_add(metric *m, double amount);    /* counter: amount >= 0; gauge: any */
void   metric_set(metric *m, double value);     /* gauge */
void   metric_observe(metric *m, double value); /* histogram */
double metric_value(const metric *m);           /* counter, gauge; a histogram's count */

/* Finds a series by name and labels, or NULL. For tests and for the health check. */
metric *metric_find(const char *name, const char *labels);

/* Writes all families into `out`, NUL-terminated; returns the bytes that the whole text needs, as snprintf does. */
size_t metric_print(char *out, size_t out_bytes);

/* Bounds for times from 1 ms to 60 s, for counts from 1 to 8192. */
extern const double   metric_seconds_bounds[];
extern const uint32_t n_metric_seconds_bounds;
extern const double   metric_count_bounds[];
extern const uint32_t n_metric_count_bounds;

#endif
