/* The registry of metrics: an array that only grows, so that readers and writers need no lock.
 *
 * Registration takes a mutex and publishes the new length last; whoever sees the length sees the metric. A double is
 * added by compare-and-swap on its bits. */
#include "base/metric.h"

#include "base/json_out.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } metric_kind;

struct metric {
    const char          *name, *labels, *help;
    metric_kind          kind;
    uint32_t             family; /* index of the first metric of this name */
    uint32_t             n_bounds;
    const double        *bounds;
    _Atomic uint64_t     value_bits; /* a double: the value, or a histogram's sum */
    atomic_uint_fast64_t buckets[METRIC_BUCKETS_MAX + 1];
};

static metric           metrics[METRICS_MAX];
static _Atomic uint32_t n_metrics;
static pthread_mutex_t  register_lock = PTHREAD_MUTEX_INITIALIZER;

const double   metric_seconds_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                          0.5,   1,      2.5,   5,    10,    20,   30,  60};
const uint32_t n_metric_seconds_bounds = COUNT(metric_seconds_bounds);
const double   metric_count_bounds[]   = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
const uint32_t n_metric_count_bounds   = COUNT(metric_count_bounds);

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static bool is_metric_name(const char *name)
{
    if (!isalpha((unsigned char)*name) && *name != '_' && *name != ':')
        return false;
    for (const char *c = name; *c; c++) {
        if (!isalnum((unsigned char)*c) && *c != '_' && *c != ':')
            return false;
    }
    return true;
}

metric *metric_find(const char *name, const char *labels)
{
    uint32_t n = atomic_load_explicit(&n_metrics, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(metrics[i].name, name) == 0 && strcmp(metrics[i].labels, labels) == 0)
            return &metrics[i];
    }
    return NULL;
}

static metric *registered(metric_kind kind, const char *name, const char *labels, const char *help,
                          const double *bounds, uint32_t n_bounds)
{
    assert(is_metric_name(name) && n_bounds <= METRIC_BUCKETS_MAX);
    pthread_mutex_lock(&register_lock);
    metric *m = metric_find(name, labels);
    if (!m) {
        uint32_t n = atomic_load_explicit(&n_metrics, memory_order_relaxed);
        assert(n < METRICS_MAX);
        uint32_t family = 0;
        while (family < n && strcmp(metrics[family].name, name) != 0)
            family++;
        assert(family == n || metrics[family].kind == kind);
        m           = &metrics[n];
        m->name     = name;
        m->labels   = labels;
        m->help     = help;
        m->kind     = kind;
        m->family   = family;
        m->bounds   = bounds;
        m->n_bounds = n_bounds;
        atomic_store_explicit(&n_metrics, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&register_lock);
    assert(m->kind == kind);
    return m;
}

metric *metric_counter(const char *name, const char *labels, const char *help)
{
    return registered(METRIC_COUNTER, name, labels, help, NULL, 0);
}

metric *metric_gauge(const char *name, const char *labels, const char *help)
{
    return registered(METRIC_GAUGE, name, labels, help, NULL, 0);
}

metric *metric_histogram(const char *name, const char *labels, const char *help, const double *bounds,
                         uint32_t n_bounds)
{
    for (uint32_t i = 1; i < n_bounds; i++)
        assert(bounds[i - 1] < bounds[i]);
    return registered(METRIC_HISTOGRAM, name, labels, help, bounds, n_bounds);
}

static void add_to_value(metric *m, double amount)
{
    uint64_t old = atomic_load_explicit(&m->value_bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&m->value_bits, &old, bits_of(double_of(old) + amount),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void metric_add(metric *m, double amount)
{
    assert(m->kind == METRIC_GAUGE || (m->kind == METRIC_COUNTER && amount >= 0));
    add_to_value(m, amount);
}

void metric_set(metric *m, double value)
{
    assert(m->kind == METRIC_GAUGE);
    atomic_store_explicit(&m->value_bits, bits_of(value), memory_order_relaxed);
}

void metric_observe(metric *m, double value)
{
    assert(m->kind == METRIC_HISTOGRAM);
    uint32_t bucket = 0;
    while (bucket < m->n_bounds && !(value <= m->bounds[bucket]))
        bucket++;
    atomic_fetch_add_explicit(&m->buckets[bucket], 1, memory_order_relaxed);
    add_to_value(m, value);
}

double metric_value(const metric *m)
{
    if (m->kind != METRIC_HISTOGRAM)
        return double_of(atomic_load_explicit(&m->value_bits, memory_order_relaxed));
    uint64_t count = 0;
    for (uint32_t b = 0; b <= m->n_bounds; b++)
        count += atomic_load_explicit(&m->buckets[b], memory_order_relaxed);
    return (double)count;
}

/* -------------------------------------------------------------------------------------------------- printing */

typedef struct {
    char  *out;
    size_t capacity, needed;
} text_out;

static void __attribute__((format(printf, 2, 3))) print(text_out *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = t->needed < t->capacity ? t->capacity - t->needed : 0;
    int    n    = vsnprintf(room ? t->out + t->needed : NULL, room, format, args);
    va_end(args);
    t->needed += n > 0 ? (size_t)n : 0;
}

/* A number as the format wants it: the shortest decimal, or one of its three words. */
static const char *number(double value, char text[JSON_NUMBER_BYTES])
{
    if (isnan(value))
        return "NaN";
    if (isinf(value))
        return value > 0 ? "+Inf" : "-Inf";
    json_number(value, text);
    return text;
}

static void print_help(text_out *t, const metric *m)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    print(t, "# HELP %s ", m->name);
    for (const char *c = m->help; *c; c++) {
        bool is_special = *c == '\n' || *c == '\\';
        print(t, "%s%c", is_special ? "\\" : "", *c == '\n' ? 'n' : *c);
    }
    print(t, "\n# TYPE %s %s\n", m->name, kinds[m->kind]);
}

/* `_count` and the +Inf bucket come from one pass over the buckets, so that they agree while others observe. */
static void print_histogram(text_out *t, const metric *m)
{
    char        text[JSON_NUMBER_BYTES];
    const char *comma = *m->labels ? "," : "";
    uint64_t    count = 0;
    for (uint32_t b = 0; b <= m->n_bounds; b++) {
        count += atomic_load_explicit(&m->buckets[b], memory_order_relaxed);
        print(t, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", m->name, m->labels, comma,
              number(b < m->n_bounds ? m->bounds[b] : INFINITY, text), count);
    }
    const char *open = *m->labels ? "{" : "", *close = *m->labels ? "}" : "";
    double      sum = double_of(atomic_load_explicit(&m->value_bits, memory_order_relaxed));
    print(t, "%s_sum%s%s%s %s\n", m->name, open, m->labels, close, number(sum, text));
    print(t, "%s_count%s%s%s %" PRIu64 "\n", m->name, open, m->labels, close, count);
}

static void print_series(text_out *t, const metric *m)
{
    char text[JSON_NUMBER_BYTES];
    if (m->kind == METRIC_HISTOGRAM)
        print_histogram(t, m);
    else if (*m->labels)
        print(t, "%s{%s} %s\n", m->name, m->labels, number(metric_value(m), text));
    else
        print(t, "%s %s\n", m->name, number(metric_value(m), text));
}

size_t metric_print(char *out, size_t out_bytes)
{
    text_out t = {.out = out, .capacity = out_bytes};
    if (out_bytes)
        out[0] = '\0';
    uint32_t n = atomic_load_explicit(&n_metrics, memory_order_acquire);
    for (uint32_t family = 0; family < n; family++) {
        if (metrics[family].family != family)
            continue;
        print_help(&t, &metrics[family]);
        for (uint32_t i = family; i < n; i++) {
            if (metrics[i].family == family)
                print_series(&t, &metrics[i]);
        }
    }
    return t.needed;
}
