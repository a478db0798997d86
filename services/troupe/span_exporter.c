/* See span_exporter.h. One batch is in hand at a time, as the text that is sent: it is made once and sent until it is
 * taken or given up. */
#include "troupe/span_exporter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "trace/otlp_json.h"

#include <assert.h>
#include <event2/buffer.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/thread.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum {
    QUEUE_SPANS  = 2048,
    BATCH_SPANS  = 64,
    PAUSE_MS     = 500, /* between looks into the queue */
    ANSWER_MS    = 5000,
    RETRY_MS     = 1000, /* doubled at every try */
    TRIES_MAX    = 5,
    FLUSH_MS     = 2000,
    ANSWER_BYTES = 64 * 1024,
    PORT_DEFAULT = 4318,
    BODY_BYTES   = BATCH_SPANS * (OTLP_SPAN_BYTES_MAX + OTLP_RESOURCE_BYTES_MAX)
};

struct span_exporter {
    struct evhttp_uri        *uri;
    char                     *path;
    const char               *host;
    uint16_t                  port;
    struct event_base        *base;
    struct evdns_base        *dns;
    struct event             *look, *tried, *stop;
    struct evhttp_connection *connection;
    struct evhttp_request    *request; /* that is not answered */
    trace_span               *spans;   /* BATCH_SPANS */
    char                     *body;
    span                      text; /* of the batch in hand; empty: none */
    uint32_t                  n_spans, n_tries;
    otlp_process              process;
    char                      host_name[65];
    int                       status;  /* of the answer; 0: none */
    bool                      trying;  /* a batch is on its way */
    bool                      is_well; /* the last batch was taken */
    bool                      ending;  /* the process ends: no second try */
    metric                   *exported;
    pthread_t                 thread;
    bool                      running;
};

static void wait_ms(struct event *timer, int ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_add(timer, &delay);
}

/* ---- batches ---- */

static int64_t unix_less_mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec - clock_now_ns(clock_system());
}

/* Makes the next batch of what is in the queue; false when nothing is. */
static bool next_batch(span_exporter *e)
{
    error err;
    e->n_spans = 0;
    while (e->n_spans < BATCH_SPANS && trace_take(&e->spans[e->n_spans]))
        e->n_spans++;
    if (e->n_spans == 0)
        return false;
    e->n_tries                   = 0;
    e->process.unix_less_mono_ns = unix_less_mono_ns();
    bool fits                    = otlp_print(&e->process, e->spans, e->n_spans, e->body, BODY_BYTES, &e->text, &err);
    assert(fits);
    return true;
}

/* A change of state is worth a line; every failure is not. */
static void say_state(span_exporter *e, bool is_well, int status)
{
    if (is_well != e->is_well && is_well)
        log_info("the collector takes spans", "host=%s port=%u", e->host, e->port);
    else if (is_well != e->is_well)
        log_warn("the collector takes no spans", "host=%s port=%u status=%d", e->host, e->port, status);
    e->is_well = is_well;
}

static void send_batch(span_exporter *e);

static void go_on(span_exporter *e)
{
    if (next_batch(e))
        send_batch(e);
    else if (e->ending)
        event_base_loopbreak(e->base);
    else
        wait_ms(e->look, PAUSE_MS);
}

static bool may_pass(int status)
{
    return status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
}

/* The end of a try; status 0: no answer. */
static void batch_tried(span_exporter *e, int status)
{
    bool taken = status >= 200 && status < 300;
    e->n_tries++;
    say_state(e, taken, status);
    if (!taken && may_pass(status) && e->n_tries < TRIES_MAX && !e->ending) {
        wait_ms(e->look, RETRY_MS << (e->n_tries - 1));
        return;
    }
    if (taken)
        metric_add(e->exported, e->n_spans);
    else
        trace_count_dropped(e->n_spans);
    e->text = (span){0};
    if (!taken && e->ending)
        event_base_loopbreak(e->base); /* it would not take the others either */
    else
        go_on(e);
}

/* ---- HTTP ---- */

/* libevent is not done with the connection yet, so the rest is left to the loop. */
static void on_answer(struct evhttp_request *request, void *arg)
{
    span_exporter *e = arg;
    e->request       = NULL; /* libevent frees it */
    e->status        = request ? evhttp_request_get_response_code(request) : 0;
    wait_ms(e->tried, 0);
}

/* There was an answer, or the time for one is over. */
static void on_tried(evutil_socket_t fd, short events, void *arg)
{
    span_exporter *e = arg;
    (void)fd, (void)events;
    if (e->request)
        evhttp_cancel_request(e->request); /* calls nobody */
    e->request = NULL;
    e->trying  = false;
    batch_tried(e, e->status);
}

/* A connection a batch: there is at most a handful a second, and none that the collector has closed meanwhile. */
static bool begin_request(span_exporter *e)
{
    char host[300];
    if (e->connection)
        evhttp_connection_free(e->connection);
    e->connection = evhttp_connection_base_new(e->base, e->dns, e->host, e->port);
    e->request    = e->connection ? evhttp_request_new(on_answer, e) : NULL;
    if (!e->request)
        return false;
    evhttp_connection_set_max_body_size(e->connection, ANSWER_BYTES);
    evhttp_connection_set_max_headers_size(e->connection, ANSWER_BYTES);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(e->request);
    bool              is_v6   = strchr(e->host, ':') != NULL;
    snprintf(host, sizeof host, "%s%s%s:%u", is_v6 ? "[" : "", e->host, is_v6 ? "]" : "", e->port);
    evhttp_add_header(headers, "Host", host);
    evhttp_add_header(headers, "Content-Type", "application/json");
    evhttp_add_header(headers, "Connection", "close");
    evbuffer_add(evhttp_request_get_output_buffer(e->request), e->text.data, e->text.size);
    return evhttp_make_request(e->connection, e->request, EVHTTP_REQ_POST, e->path) == 0;
}

static void send_batch(span_exporter *e)
{
    e->status = 0;
    e->trying = true;
    wait_ms(e->tried, ANSWER_MS);
    if (!begin_request(e)) {
        e->request = NULL; /* libevent frees a request that can't be made */
        wait_ms(e->tried, 0);
    }
}

/* ---- the thread ---- */

static void on_look(evutil_socket_t fd, short events, void *arg)
{
    span_exporter *e = arg;
    (void)fd, (void)events;
    if (e->text.size > 0)
        send_batch(e);
    else
        go_on(e);
}

static void on_stop(evutil_socket_t fd, short events, void *arg)
{
    span_exporter *e = arg;
    (void)fd;
    if (events & EV_TIMEOUT) { /* two seconds are over */
        event_base_loopbreak(e->base);
        return;
    }
    e->ending = true;
    wait_ms(e->stop, FLUSH_MS);
    if (!e->trying)
        wait_ms(e->look, 0);
}

static void *run(void *arg)
{
    span_exporter *e = arg;
    log_set_thread_service("exporter");
    wait_ms(e->look, PAUSE_MS);
    event_base_loop(e->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* ---- the beginning and the end ---- */

static bool read_endpoint(span_exporter *e, const char *endpoint, error *err)
{
    e->uri             = evhttp_uri_parse(endpoint);
    const char *scheme = e->uri ? evhttp_uri_get_scheme(e->uri) : NULL;
    const char *host   = e->uri ? evhttp_uri_get_host(e->uri) : NULL;
    int         port   = e->uri ? evhttp_uri_get_port(e->uri) : 0;
    if (!scheme || strcasecmp(scheme, "http") != 0 || !host || !*host || port == 0 || port > 65535 ||
        evhttp_uri_get_userinfo(e->uri) || evhttp_uri_get_query(e->uri) || evhttp_uri_get_fragment(e->uri))
        return error_set(err, ERR_INVALID, "--otlp-endpoint %s: expected http://host:port of a collector", endpoint);
    const char *path   = evhttp_uri_get_path(e->uri);
    size_t      length = path ? strlen(path) : 0;
    while (length > 0 && path[length - 1] == '/')
        length--;
    size_t bytes = length + sizeof "/v1/traces";
    e->host      = host;
    e->port      = port < 0 ? PORT_DEFAULT : (uint16_t)port;
    e->path      = malloc(bytes);
    if (e->path)
        snprintf(e->path, bytes, "%.*s/v1/traces", (int)length, path ? path : "");
    return e->path || error_set(err, ERR_NO_MEMORY, "no memory for the exporter of spans");
}

/* Instead of lines on standard error that nobody can parse. */
static void on_resolver_says(int is_warning, const char *text)
{
    (void)is_warning;
    log_debug("the resolver of the collector's name", "says=\"%s\"", text);
}

static bool make_loop(span_exporter *e, error *err)
{
    e->spans = calloc(BATCH_SPANS, sizeof *e->spans);
    e->body  = malloc(BODY_BYTES);
    e->base  = evthread_use_pthreads() == 0 ? event_base_new() : NULL;
    if (e->spans && e->body && e->base) {
        evdns_set_log_fn(on_resolver_says);
        e->dns   = evdns_base_new(e->base, EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        e->look  = evtimer_new(e->base, on_look, e);
        e->tried = evtimer_new(e->base, on_tried, e);
        e->stop  = event_new(e->base, -1, 0, on_stop, e);
    }
    return (e->look && e->tried && e->stop) || error_set(err, ERR_NO_MEMORY, "no memory for the exporter of spans");
}

span_exporter *span_exporter_new(const char *endpoint, double sample_ratio, error *err)
{
    span_exporter *e = calloc(1, sizeof *e);
    if (!e) {
        error_set(err, ERR_NO_MEMORY, "no memory for the exporter of spans");
        return NULL;
    }
    gethostname(e->host_name, sizeof e->host_name - 1);
    e->process  = (otlp_process){.host = e->host_name, .pid = getpid()};
    e->is_well  = true;
    e->exported = metric_counter("troupe_spans_exported_total", "", "Spans that the collector took.");
    bool ok     = read_endpoint(e, endpoint, err) && make_loop(e, err) && trace_open(QUEUE_SPANS, sample_ratio, err);
    if (ok && pthread_create(&e->thread, NULL, run, e) != 0)
        ok = error_set(err, ERR_NO_MEMORY, "no thread for the exporter of spans");
    e->running = ok;
    if (!ok)
        span_exporter_free(&e);
    return e;
}

static void free_loop(span_exporter *e)
{
    struct event *events[] = {e->look, e->tried, e->stop};
    if (e->request)
        evhttp_cancel_request(e->request);
    if (e->connection)
        evhttp_connection_free(e->connection);
    for (size_t i = 0; i < COUNT(events); i++)
        if (events[i])
            event_free(events[i]);
    if (e->dns)
        evdns_base_free(e->dns, 0);
    if (e->base)
        event_base_free(e->base);
}

static void count_lost(span_exporter *e)
{
    uint32_t n = e->text.size > 0 ? e->n_spans : 0;
    while (trace_take(e->spans))
        n++;
    if (n > 0) {
        trace_count_dropped(n);
        log_warn("spans were not sent before the end", "spans=%u", n);
    }
}

void span_exporter_free(span_exporter **exporter)
{
    span_exporter *e = *exporter;
    if (!e)
        return;
    if (e->running) {
        event_active(e->stop, EV_WRITE, 0);
        pthread_join(e->thread, NULL);
        count_lost(e);
    }
    trace_close();
    free_loop(e);
    if (e->uri)
        evhttp_uri_free(e->uri);
    free(e->path);
    free(e->spans);
    free(e->body);
    free(e);
    *exporter = NULL;
}
