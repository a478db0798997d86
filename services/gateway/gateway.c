/* The gateway as an actor: its options, its loop, its peers. state.h says where the rest is. */
#include "services/gateway/reply_log.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { TICK_MS = 1000 };
static const size_t out_bytes = 64 << 20; /* the largest text.delta with every byte escaped; touched as it is used */

const option_row gateway_option_rows[] = {
    OPTION_STRING(gateway_options, host, "--host", "ADDRESS", "127.0.0.1", "Address to listen on for HTTP."),
    OPTION_UINT(gateway_options, port, "--port", "N", 8080, 0, 65535, "TCP port for HTTP; 0 takes a free one."),
    OPTION_STRING(gateway_options, served_model_name, "--served-model-name", "NAME", NULL,
                  "Name of the model in the API; requests for another name get 404. Without it any name is taken."),
    OPTION_STRING(gateway_options, api_key_file, "--api-key-file", "FILE", NULL,
                  "Lines `key [tenant] [requests-per-minute=N] [tokens-per-minute=N] [concurrent-requests=N]`: who may "
                  "ask, and how often. Read again on SIGHUP. Without it everybody may."),
    OPTION_STRING(gateway_options, tls_cert, "--tls-cert", "FILE", NULL, "PEM certificate chain: serve HTTPS."),
    OPTION_STRING(gateway_options, tls_key, "--tls-key", "FILE", NULL, "PEM key of --tls-cert."),
    OPTION_STRING(gateway_options, front_rules, "--front-rules", "FILE", NULL,
                  "YAML file of canned answers, given before the model is asked. Read again when it changes."),
    OPTION_DOUBLE(gateway_options, request_timeout_s, "--request-timeout", "SECONDS", 600, 0.01, 1e6,
                  "Deadline of a request; its own field `timeout` may shorten it."),
    OPTION_DOUBLE(gateway_options, stream_ping_s, "--stream-ping", "SECONDS", 15, 0, 3600,
                  "A stream that was silent for so long says `: ping`, also before its first text; 0: never."),
    OPTION_DOUBLE(gateway_options, resume_wait_s, "--resume-wait", "SECONDS", 10, 0, 1e6,
                  "How long accepted requests wait for a part of the system that went away."),
    OPTION_UINT(gateway_options, max_requests, "--max-requests", "N", 4096, 1, 1 << 20,
                "Requests in hand; more are refused with 429."),
    OPTION_UINT(gateway_options, max_waiting, "--max-waiting", "N", 1024, 1, 1 << 20,
                "Prompts that wait for a tokenizer; more are refused with 429."),
    OPTION_BYTES(gateway_options, request_memory_bytes, "--request-memory", 64 << 20, 1 << 20, 4096.0 * (1 << 20),
                 "Memory of one request at most: its body, and its answer unless it streams."),
    OPTION_BYTES(gateway_options, kept_request_bytes, "--kept-request-memory", 1 << 30, 1 << 20, 1e15,
                 "Memory of the bodies of all requests in hand; more are refused with 429."),
    OPTION_BYTES(gateway_options, max_body_bytes, "--max-body", 4 << 20, 1024, 16 << 20,
                 "Size of an HTTP request body."),
    OPTION_UINT(gateway_options, max_connections, "--max-connections", "N", 8192, 1, 1 << 20, "HTTP connections."),
    OPTION_UINT(gateway_options, max_connections_per_peer, "--max-connections-per-peer", "N", 1024, 0, 1 << 20,
                "HTTP connections of one address; 0: no limit."),
    OPTION_STRING(gateway_options, store_url, "--store-url", "URL", "memory:",
                  "Where replies to requests with an Idempotency-Key are kept: memory:, redis://host:port/db or "
                  "unix:/path."),
    OPTION_STRING(gateway_options, store_password_file, "--store-password-file", "FILE", NULL,
                  "Password of the store."),
    OPTION_DOUBLE(gateway_options, idempotency_ttl_s, "--idempotency-ttl", "SECONDS", 600, 1, 86400,
                  "How long such a reply is kept after its last text."),
    OPTION_DOUBLE(gateway_options, drain_delay_s, "--drain-delay", "SECONDS", 0, 0, 3600,
                  "After SIGTERM /ready says no at once, and requests are taken for so long still: give it what your "
                  "load balancer takes to notice."),
    OPTION_BOOL(gateway_options, pages, "--pages", true,
                "Serve pages for people: a chat at /, and the status at /status and /status.json."),
};
const size_t n_gateway_option_rows = COUNT(gateway_option_rows);

/* ---- metrics ---- */

static void register_metrics(gateway_metrics *m)
{
    static const double      first_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,
                                               0.75,  1.0,   2.5,  5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0};
    static const double      inter_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,
                                               0.3,   0.4,    0.5,   0.75, 1.0,   2.5,  5.0,   10.0, 20.0, 40.0};
    static const double      e2e_bounds[]   = {0.3,  0.5,  0.8,  1.0,  1.5,  2.0,   2.5,   5.0,   10.0, 15.0,
                                               20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0};
    static const char *const statuses[]     = {"status=\"2xx\"", "status=\"3xx\"", "status=\"4xx\"", "status=\"5xx\"",
                                               "status=\"client_gone\""};
    static const char *const finishes[N_FINISHES] = {
        "finished_reason=\"none\"",    "finished_reason=\"stop\"",      "finished_reason=\"length\"",
        "finished_reason=\"abort\"",   "finished_reason=\"error\"",     "finished_reason=\"content_filter\"",
        "finished_reason=\"timeout\"", "finished_reason=\"repetition\""};
    m->received    = metric_counter("troupe_gateway_requests_total", "", "Requests taken in, from HTTP and the bus.");
    m->in_hand     = metric_gauge("troupe_num_requests_in_hand", "", "Requests the gateway owns.");
    m->waiting     = metric_gauge("troupe_gateway_prompts_waiting", "", "Prompts that wait for a tokenizer's credit.");
    m->retries     = metric_counter("troupe_gateway_retries_total", "", "Requests sent again after a part died.");
    m->client_gone = metric_counter("troupe_gateway_clients_gone_total", "", "Requests whose client left.");
    m->overloaded  = metric_counter("troupe_gateway_overloaded_total", "", "Requests refused for lack of capacity.");
    m->rate_limited =
        metric_counter("troupe_gateway_rate_limited_total", "", "Requests refused for the limits of their key.");
    m->retry_exhausted =
        metric_counter("troupe_gateway_retries_exhausted_total", "", "Requests that failed after the last attempt.");
    m->deltas_dropped =
        metric_counter("troupe_gateway_deltas_dropped_total", "", "Pieces of text that were late, double or unknown.");
    m->first_token = metric_histogram("troupe_time_to_first_token_seconds", "", "From the request to its first token.",
                                      first_bounds, COUNT(first_bounds));
    m->inter_token = metric_histogram("troupe_inter_token_latency_seconds", "", "Between two tokens of a request.",
                                      inter_bounds, COUNT(inter_bounds));
    m->elapsed     = metric_histogram("troupe_e2e_request_latency_seconds", "", "From the request to its last byte.",
                                      e2e_bounds, COUNT(e2e_bounds));
    m->prompt_tokens         = metric_counter("troupe_prompt_tokens_total", "", "Tokens of answered prompts.");
    m->request_prompt_tokens = metric_histogram("troupe_request_prompt_tokens", "", "Prompt tokens of a request.",
                                                metric_count_bounds, n_metric_count_bounds);
    m->request_generation_tokens =
        metric_histogram("troupe_request_generation_tokens", "", "Tokens a request generated.", metric_count_bounds,
                         n_metric_count_bounds);
    for (size_t i = 0; i < COUNT(statuses); i++)
        m->status[i] = metric_counter("troupe_gateway_answers_total", statuses[i], "Requests answered, by status.");
    for (size_t i = 0; i < N_FINISHES; i++)
        m->finished[i] =
            metric_counter("troupe_request_success_total", finishes[i], "Requests answered, by how they finished.");
}

/* ---- what is there ---- */

/* Generating needs all three; tokenizing, the first alone. */
static const char *first_lacking(const gateway *g, size_t n_needs)
{
    static const struct {
        role        role;
        const char *missing;
    } needs[] = {{ROLE_TOKENIZER, "no tokenizer is ready"},
                 {ROLE_SCHEDULER, "no scheduler with an executor is ready"},
                 {ROLE_POSTPROCESSOR, "no postprocessor is ready"}};
    for (size_t i = 0; i < COUNT(needs) && i < n_needs; i++) {
        uint32_t n_ready;
        actor_pick_peer(g->actor, needs[i].role, &n_ready);
        if (n_ready == 0)
            return needs[i].missing;
    }
    return NULL;
}

const char *gateway_lacks_parts(const gateway *g)
{
    return first_lacking(g, SIZE_MAX);
}

const char *gateway_lacks(const gateway *g)
{
    if (actor_is_draining(g->actor))
        return "this gateway is shutting down";
    return first_lacking(g, SIZE_MAX);
}

bool gateway_was_ready(const gateway *g)
{
    return g->ready_ns > 0 && (double)(gateway_now_ns(g) - g->ready_ns) / 1e9 <= g->options->resume_wait_s;
}

bool gateway_is_leaving(const gateway *g)
{
    return g->drain_ns != 0 && gateway_now_ns(g) >= g->drain_ns;
}

/* The share of a request's time that those before it may take: estimates are rough. */
static const double share_expected = 0.5;

static bool has_time_for(const gateway *g, const answer *a, uint32_t *retry_after_ms, error *err)
{
    double left_s     = (double)(a->deadline_unix_ms - clock_unix_ms(actor_clock(g->actor))) / 1e3;
    double expected_s = throughput_expect_s(&g->throughput, g->n_generating);
    double over_s     = expected_s - share_expected * left_s;
    if (!a->sums || over_s <= 0)
        return true;
    *retry_after_ms = over_s < 60 ? (uint32_t)(over_s * 1e3) : 60000;
    return error_set(err, ERR_OVERLOADED,
                     "%u requests are in hand: this one would take about %.0f s, over its deadline", g->n_generating,
                     expected_s + 1);
}

bool gateway_may_take(gateway *g, const answer *a, uint32_t *retry_after_ms, error *err)
{
    bool        leaves = gateway_is_leaving(g);
    const char *lacks  = leaves ? gateway_lacks(g) : first_lacking(g, a->sums ? SIZE_MAX : 1);
    *retry_after_ms    = 1000;
    if (!lacks && a->sums)
        g->ready_ns = gateway_now_ns(g);
    if (lacks && (leaves || !gateway_was_ready(g)))
        return error_set(err, ERR_NOT_READY, "%s; try again shortly", lacks);
    if (g->n_answers > g->options->max_requests)
        return error_set(err, ERR_OVERLOADED, "this gateway has %u requests in hand already", g->n_answers - 1);
    uint32_t n_runs = a->pooled && a->n_runs > RUNS_AT_ONCE ? RUNS_AT_ONCE : a->n_runs;
    if (g->n_waiting + n_runs > g->options->max_waiting)
        return error_set(err, ERR_OVERLOADED, "%u prompts are waiting already", g->n_waiting);
    if (g->kept_bytes > g->options->kept_request_bytes)
        return error_set(err, ERR_OVERLOADED, "the requests in hand take %zu bytes already", g->kept_bytes);
    throughput_pass(&g->throughput, gateway_now_ns(g), g->n_generating > 0);
    return has_time_for(g, a, retry_after_ms, err);
}

int64_t gateway_now_ns(const gateway *g)
{
    return clock_now_ns(actor_clock(g->actor));
}

void gateway_timer_set(gateway *g, actor_timer *timer, int64_t delay_ns, void (*fire)(void *, actor_timer *))
{
    actor_timer_set(g->actor, timer, delay_ns + gateway_now_ns(g) - actor_now_ns(g->actor), fire);
}

/* ---- reading files again ---- */

static void reload_rules(gateway *g, bool force)
{
    error err;
    bool  changed = false;
    if (!g->rules)
        return;
    if (!front_rules_reload(g->rules, force, &changed, &err))
        log_error("front rules stay as they were", "reason=\"%s\"", err.text);
    else if (changed)
        log_info("front rules read", "rules=%zu", front_rules_count(g->rules));
}

static void on_reload(void *self)
{
    gateway *g = self;
    error    err;
    reload_rules(g, true);
    if (g->options->api_key_file) {
        api_keys *keys = api_keys_load(g->options->api_key_file, g->keys, &err);
        if (keys) {
            api_keys_free(&g->keys);
            g->keys = keys;
            log_info("API keys read", "keys=%zu", api_keys_count(keys));
        } else {
            log_error("API keys stay as they were", "reason=\"%s\"", err.text);
        }
    }
    if (g->options->tls_cert && !http_server_reload(g->http, &err))
        log_error("the certificate stays as it was", "reason=\"%s\"", err.text);
}

/* ---- the loop ---- */

static void on_tick(void *self, actor_timer *timer)
{
    gateway *g = self;
    reload_rules(g, false);
    if (!gateway_lacks_parts(g))
        g->ready_ns = gateway_now_ns(g);
    else if (!gateway_was_ready(g))
        runs_expire_waiting(g);
    actor_timer_set(g->actor, timer, TICK_MS * NS_PER_MS, on_tick);
}

static void on_start(void *self)
{
    gateway *g = self;
    actor_timer_set(g->actor, &g->tick, TICK_MS * NS_PER_MS, on_tick);
    run_search_start(g);
    reply_logs_start(g);
    log_info("listens", "host=%s port=%u tls=%d", g->options->host, http_server_port(g->http),
             g->options->tls_cert != NULL);
}

static void on_drained(void *context)
{
    (void)context; /* on_turn looks */
}

/* The last answer is given: whoever still asks is better served elsewhere. */
static void leave(gateway *g)
{
    if (!g->is_closed)
        http_server_drain(g->http, on_drained, g);
    g->is_closed = true;
    if (http_server_n_connections(g->http) == 0)
        actor_finish(g->actor);
}

static void on_turn(void *self)
{
    gateway *g = self;
    reply_logs_turn(g);
    runs_pump(g);
    if (gateway_is_leaving(g) && g->n_answers == 0)
        leave(g);
}

static void nothing(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg; /* that the loop came back is all that was wanted */
}

/* One turn of libevent's loop, which also watches the actor's own descriptor. */
static void wait_for_events(void *self, int fd, int64_t timeout_ns)
{
    gateway *g = self;
    if (g->wake_fd != fd) {
        if (g->wake)
            event_free(g->wake);
        g->wake    = event_new(g->base, fd, EV_READ | EV_PERSIST, nothing, NULL);
        g->wake_fd = fd;
        if (!g->wake || event_add(g->wake, NULL) != 0)
            log_error("the bus can't be watched", "fd=%d", fd);
    }
    if (timeout_ns > 0) {
        struct timeval t = {timeout_ns / NS_PER_S, timeout_ns % NS_PER_S / 1000 + 1};
        t.tv_sec += t.tv_usec / 1000000;
        t.tv_usec %= 1000000;
        evtimer_add(g->until, &t);
    }
    /* ONCE in both cases: NONBLOCK alone goes on while anything is ready, and the bus stays so until our next turn. */
    event_base_loop(g->base, EVLOOP_ONCE | (timeout_ns == 0 ? EVLOOP_NONBLOCK : 0));
    evtimer_del(g->until);
}

static void on_delay_over(void *self, actor_timer *timer)
{
    (void)self, (void)timer; /* on_turn looks */
}

/* It goes on listening until it leaves: a refusal that says when to try again serves a client better than a closed
 * port.
 */
static void on_drain(void *self)
{
    gateway *g     = self;
    int64_t  delay = (int64_t)(g->options->drain_delay_s * 1e9);
    g->drain_ns    = gateway_now_ns(g) + delay;
    http_server_close_soon(g->http);
    gateway_timer_set(g, &g->leave, delay, on_delay_over);
}

/* ---- peers and messages ---- */

static void on_peer_down(void *self, peer *p)
{
    gateway *g = self;
    if (p->role == ROLE_CLIENT)
        bus_client_down(g, p);
    else {
        status_peer_down(g, p);
        run_search_peer_down(g);
        runs_peer_down(g, p);
    }
}

static void on_refused_message(void *self, const message *m)
{
    const node_refused *body = m->body;
    text_refused why = {.code = body->code == ERR_OVERLOADED ? ERR_OVERLOADED : ERR_INTERNAL, .text = body->text};
    if (body->type == MSG_TEXT_REQUEST || body->type == MSG_TEXT_ENCODE || body->type == MSG_TEXT_DECODE)
        runs_on_refused(self, m, &why);
    else if (body->type == MSG_STATUS_GET)
        status_refused(self, m->from);
}

static void on_text_delta(void *self, const message *m)
{
    runs_on_delta(self, m);
}

static void on_text_refused(void *self, const message *m)
{
    runs_on_refused(self, m, m->body);
}

/* An answer to text.encode or text.decode. */
static answer *answer_of(gateway *g, const message *m, uint16_t type)
{
    run *r = run_find(g, &m->envelope->request);
    if (!r || r->type != type || r->state != RUN_SENT || r->attempt != m->envelope->attempt)
        return NULL;
    r->state = RUN_DONE;
    return r->answer;
}

static void on_text_encoded(void *self, const message *m)
{
    answer *a = answer_of(self, m, MSG_TEXT_ENCODE);
    if (a) {
        a->sink->encoded(a, m->body);
        answer_finish(a);
    }
}

static void on_gen_found(void *self, const message *m)
{
    run_search_found(self, m->body);
}

static void on_status_report(void *self, const message *m)
{
    status_on_report(self, m->from, m->body);
}

static void on_text_decoded(void *self, const message *m)
{
    answer *a = answer_of(self, m, MSG_TEXT_DECODE);
    if (a) {
        a->sink->decoded(a, m->body);
        answer_finish(a);
    }
}

/* ---- life ---- */

/* Connections past the limit wait unseen in the system's queue: better told at the start than looked for later. */
static void warn_of_few_files(uint64_t connections)
{
    enum { OTHER_FILES = 256 }; /* the bus, logs, files that are read again */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < connections + OTHER_FILES)
        log_warn("the limit of open files is too low for all connections",
                 "limit=%llu max_connections=%llu needed=%llu", (unsigned long long)files.rlim_cur,
                 (unsigned long long)connections, (unsigned long long)connections + OTHER_FILES);
}

static bool open_http(gateway *g, error *err)
{
    const gateway_options *o       = g->options;
    http_server_options    options = http_server_options_default();
    http_handler           handler = {.on_request  = endpoints_on_request,
                                      .on_gone     = endpoints_on_gone,
                                      .on_writable = endpoints_on_writable,
                                      .context     = g};
    options.address                = o->host;
    options.port                   = (uint16_t)o->port;
    options.cert_file              = o->tls_cert;
    options.key_file               = o->tls_key;
    options.connections            = (uint32_t)o->max_connections;
    options.connections_per_peer   = (uint32_t)o->max_connections_per_peer;
    options.limits.body_bytes      = o->max_body_bytes;
    options.ping_ms                = (uint32_t)(o->stream_ping_s * 1e3);
    if (!o->tls_cert != !o->tls_key)
        return error_set(err, ERR_INVALID, "--tls-cert and --tls-key need each other");
    warn_of_few_files(o->max_connections);
    g->http = http_server_new(g->base, &options, &handler, err);
    return g->http != NULL;
}

static bool open_all(gateway *g, error *err)
{
    const gateway_options *o = g->options;
    g->out_bytes             = out_bytes;
    g->out                   = malloc(out_bytes);
    g->base                  = event_base_new();
    g->until                 = g->base ? evtimer_new(g->base, nothing, NULL) : NULL;
    if (!g->out || !g->until)
        return error_set(err, ERR_NO_MEMORY, "no memory for the gateway's buffers and its event loop");
    if (o->api_key_file && !(g->keys = api_keys_load(o->api_key_file, NULL, err)))
        return false;
    if (o->front_rules && !(g->rules = front_rules_load(o->front_rules, err)))
        return false;
    if (!reply_logs_open(g, err))
        return false;
    return open_http(g, err);
}

static void destroy(void *self)
{
    gateway *g = self;
    http_server_free(&g->http); /* reports its requests gone */
    while (g->answers)
        answer_abandon(g->answers);
    reply_logs_free(g);
    status_free(g);
    actor_timer_cancel(g->actor, &g->tick);
    actor_timer_cancel(g->actor, &g->leave);
    if (g->wake)
        event_free(g->wake);
    if (g->until)
        event_free(g->until);
    if (g->base)
        event_base_free(g->base);
    api_keys_free(&g->keys);
    front_rules_free(&g->rules);
    free(g->out);
    free(g);
}

static void *create(actor *a, const void *options, error *err)
{
    gateway *g = calloc(1, sizeof *g);
    if (!g) {
        error_set(err, ERR_NO_MEMORY, "no memory for the gateway");
        return NULL;
    }
    g->actor     = a;
    g->options   = options;
    g->wake_fd   = -1;
    g->model     = g->options->served_model_name ? span_of(g->options->served_model_name) : SPAN("troupe");
    g->created_s = clock_unix_ms(actor_clock(a)) / 1000;
    register_metrics(&g->metrics);
    if (open_all(g, err))
        return g;
    destroy(g);
    return NULL;
}

uint16_t gateway_port(const actor *a)
{
    const gateway *g = actor_self(a);
    return http_server_port(g->http);
}

static uint32_t load(const void *self)
{
    return ((const gateway *)self)->n_answers;
}

/* The queue, the table and the counters must tell one story. */
static void check(const void *self)
{
    const gateway *g         = self;
    uint32_t       n_answers = 0, n_waiting = 0, n_runs_waiting = 0;
    for (const run *r = g->waiting_first; r; r = r->next) {
        assert(r->state == RUN_WAITING && (!r->next || r->next->previous == r));
        n_waiting++;
    }
    for (const answer *a = g->answers; a; a = a->next) {
        n_answers++;
        for (uint32_t i = 0; i < a->n_runs; i++) {
            uint32_t n_open = 0;
            for (uint32_t c = 0; c < a->runs[i].n_choices; c++)
                n_open += !a->runs[i].choices[c].finished;
            assert(n_open == a->runs[i].n_open);
            n_runs_waiting += a->runs[i].state == RUN_WAITING;
        }
    }
    assert(n_answers == g->n_answers && n_waiting == g->n_waiting && n_runs_waiting == n_waiting);
}

static void dump(const void *self)
{
    const gateway *g     = self;
    const char    *lacks = gateway_lacks(g);
    fprintf(stderr, "gateway: %u requests in hand, %u prompts waiting, %zu bytes kept, %s\n", g->n_answers,
            g->n_waiting, g->kept_bytes, lacks ? lacks : "ready");
    for (const answer *a = g->answers; a; a = a->next)
        for (uint32_t i = 0; i < a->n_runs; i++) {
            char id[33];
            request_id_print(&a->runs[i].id, id);
            fprintf(stderr, "  %s %s attempt %u state %d, %u of %u choices open, %u tokens of the first\n", a->what, id,
                    a->runs[i].attempt, a->runs[i].state, a->runs[i].n_open, a->runs[i].n_choices,
                    a->runs[i].n_choices ? a->runs[i].choices[0].n_tokens : 0);
        }
}

static const actor_route routes[] = {
    {MSG_TEXT_REQUEST, bus_on_request},  /* a client on the bus asks */
    {MSG_TEXT_CANCEL, bus_on_cancel},    /* ... and leaves */
    {MSG_TEXT_ENCODE, bus_on_encode},    /* ... wants token ids */
    {MSG_TEXT_DECODE, bus_on_decode},    /* ... wants text */
    {MSG_TEXT_DELTA, on_text_delta},     /* text from a postprocessor */
    {MSG_TEXT_REFUSED, on_text_refused}, /* somebody downstream can't do it */
    {MSG_TEXT_ENCODED, on_text_encoded}, /* a tokenizer's answers */
    {MSG_TEXT_DECODED, on_text_decoded},
    {MSG_GEN_FOUND, on_gen_found},         /* what somebody has of the runs that are silent */
    {MSG_STATUS_REPORT, on_status_report}, /* what a scheduler has in hand */
};

const actor_class gateway_class = {
    .name         = "gateway",
    .role         = ROLE_GATEWAY,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_start,
    .on_turn      = on_turn,
    .on_peer_down = on_peer_down,
    .on_refused   = on_refused_message,
    .on_reload    = on_reload,
    .on_drain     = on_drain,
    .load         = load,
    .wait         = wait_for_events,
    .check        = check,
    .dump         = dump,
};
