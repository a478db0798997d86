/* The scheduler actor: handlers change the queue; on_turn plans. See state.h for what it knows. */
#include "scheduler/state.h"

#include "actor/find.h"
#include "base/log.h"
#include "base/random.h"

#include <assert.h>
#include <stdlib.h>

const option_row scheduler_option_rows[] = {
    OPTION_CHOICE(scheduler_options, policy, "--scheduling-policy", "continuous|dynamic|static", POLICY_CONTINUOUS,
                  "When waiting requests join the batch: at every step, or only into an empty batch (to compare)."),
    OPTION_UINT(scheduler_options, max_num_seqs, "--max-num-seqs", "N", 64, 1, 4096,
                "Sequences that run at once on one executor."),
    OPTION_UINT(scheduler_options, max_num_batched_tokens, "--max-num-batched-tokens", "N", 0, 0, 65536,
                "Tokens of one step, decode and prefill together; 0: what the executor takes."),
    OPTION_UINT(scheduler_options, max_prefill_chunk, "--long-prefill-token-threshold", "N", 0, 0, 65536,
                "Tokens of one prompt in one step; 0: bounded by the step alone."),
    OPTION_UINT(scheduler_options, max_queue, "--max-num-queued-reqs", "N", 512, 1, 65536,
                "Requests that wait; more are refused with 429."),
    OPTION_UINT(scheduler_options, max_queued_tokens, "--max-num-queued-tokens", "N", 1 << 20, 1, 1 << 28,
                "Prompt tokens that wait; more are refused with 429."),
    OPTION_UINT(scheduler_options, batch_wait_ms, "--batch-wait-ms", "N", 50, 0, 60000,
                "Policies dynamic and static: how long the first request waits for others."),
    OPTION_UINT(scheduler_options, batch_size, "--batch-size", "N", 8, 1, 4096,
                "Policy static: start when so many wait."),
    OPTION_DOUBLE(
        scheduler_options, priority_aging_s, "--priority-aging-seconds", "S", 10, 0.001, 1e6,
        "A level of priority is worth S seconds: a request goes before those of the next level that came up to "
        "S seconds earlier, and before those of its own that came later."),
    OPTION_UINT(scheduler_options, step_timeout_ms, "--step-timeout-ms", "N", 120000, 0, 86400000,
                "An executor that gives no result for so long is given up, and its requests go on elsewhere; more than "
                "the longest step takes. 0: never."),
    OPTION_UINT(scheduler_options, draft_wait_ms, "--draft-wait-ms", "N", 10, 0, 1000,
                "Speculative decoding: a step goes on without drafts that are later than this."),
    OPTION_BOOL(scheduler_options, prefix_caching, "--enable-prefix-caching", true,
                "Requests with the same beginning share its keys and values."),
    OPTION_STRING(scheduler_options, store_url, "--store-url", "URL",
                  "memory:", "Where leases and session hints are shared: memory:, redis://host:port/db or unix:/path."),
    OPTION_STRING(scheduler_options, store_password_file, "--store-password-file", "FILE", NULL,
                  "Password of the store."),
};
const size_t n_scheduler_option_rows = COUNT(scheduler_option_rows);

static void register_metrics(scheduler *s)
{
    static const double step_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5};
    s->metrics.running                = metric_gauge("troupe_sequences_running", "", "Sequences in the batch.");
    s->metrics.waiting                = metric_gauge("troupe_sequences_waiting", "", "Sequences in the queue.");
    s->metrics.blocks_used            = metric_gauge("troupe_kv_blocks_used", "", "KV blocks that sequences hold.");
    s->metrics.blocks_cached =
        metric_gauge("troupe_kv_blocks_cached", "", "KV blocks kept for later requests with the same prefix.");
    s->metrics.prompt_tokens =
        metric_counter("troupe_prefix_cache_queries_total", "", "Tokens looked up in the prefix cache.");
    s->metrics.cached_tokens =
        metric_counter("troupe_prefix_cache_hits_total", "", "Tokens found in the prefix cache.");
    s->metrics.offload_hits =
        metric_counter("troupe_kv_offload_hits_total", "", "Tokens of prompts that came back from offload slots.");
    s->metrics.offload_used = metric_gauge("troupe_kv_offload_slots_used", "", "Offload slots that hold a KV block.");
    s->metrics.generated    = metric_counter("troupe_generation_tokens_total", "", "Tokens generated.");
    s->metrics.drafted      = metric_counter("troupe_draft_tokens_total", "", "Drafted tokens that were verified.");
    s->metrics.accepted  = metric_counter("troupe_draft_tokens_accepted_total", "", "Drafted tokens that were right.");
    s->metrics.preempted = metric_counter("troupe_preemptions_total", "",
                                          "Sequences that gave their blocks back and were computed again.");
    s->metrics.refused   = metric_counter("troupe_requests_refused_total", "", "Requests refused by the scheduler.");
    s->metrics.finished =
        metric_counter("troupe_requests_finished_total", "", "Requests that ended, for whatever reason.");
    s->metrics.steps = metric_counter("troupe_steps_total", "", "Step plans sent to executors.");
    s->metrics.queue_wait =
        metric_histogram("troupe_queue_wait_seconds", "", "Time in the queue before the first step.",
                         metric_seconds_bounds, n_metric_seconds_bounds);
    s->metrics.step_time = metric_histogram("troupe_step_seconds", "", "Time an executor took for a step.", step_bounds,
                                            COUNT(step_bounds));
    kv_moves_register_metrics(s);
}

static void *create(actor *a, const void *options, error *err)
{
    scheduler *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, ERR_NO_MEMORY, "no memory for the scheduler");
        return NULL;
    }
    s->actor   = a;
    s->options = options;
    s->key     = (hash_key){s->options->hash_seed, s->options->hash_seed};
    if (s->options->hash_seed == 0 && !random_bytes(&s->key, sizeof s->key, err)) {
        free(s);
        return NULL;
    }
    if (!metadata_new(s, err)) {
        metadata_free(s);
        free(s);
        return NULL;
    }
    register_metrics(s);
    s->deadline_unix_ms = INT64_MAX;
    s->measured_ns      = actor_now_ns(a);
    return s;
}

static void destroy(void *self)
{
    scheduler *s = self;
    while (s->requests) {
        request *r    = s->requests;
        s->requests   = r->next;
        arena *memory = r->memory;
        arena_free(&memory);
    }
    for (executor_link *x = s->executors; x; x = x->next)
        x->running_first = x->running_last = NULL, x->n_running = 0, x->n_plans = 0;
    while (s->executors)
        executors_lost(s, s->executors, "the scheduler ends", false);
    metadata_free(s);
    free(s);
}

static void on_gen_request(void *self, const message *m)
{
    scheduler         *s     = self;
    const gen_request *body  = m->body;
    span               field = {0};
    error              err;
    if (actor_is_draining(s->actor))
        error_set(&err, ERR_NOT_READY, "the scheduler is leaving");
    else if (request_admit(s, m, &err, &field))
        return;
    request_refuse(s, m->envelope, body->reply_to, &err, field);
    actor_grant(s->actor, m->from, 1);
}

static void on_gen_cancel(void *self, const message *m)
{
    scheduler        *s    = self;
    const gen_cancel *body = m->body;
    request          *r    = request_find(s, &m->envelope->request);
    if (!r || m->envelope->attempt != r->envelope.attempt)
        return;
    if (body->all || r->beam) {
        request_end_all(s, r, FINISH_REASON_CANCELLED, NULL);
    } else if (body->choice < r->n_sequences) {
        sequence_end(s, &r->sequences[body->choice]);
        request_settle(s, r);
    }
}

static bool has_request(void *self, const request_id *id, uint32_t attempt)
{
    const request *r = request_find(self, id);
    return r && r->envelope.attempt == attempt;
}

static void on_gen_find(void *self, const message *m)
{
    actor_answer_find(((scheduler *)self)->actor, m, has_request, self);
}

static void on_status_get(void *self, const message *m)
{
    status_answer(self, m);
}

static void on_executor_ready(void *self, const message *m)
{
    executors_add(self, m->from, m->body);
}

static void on_executor_leave(void *self, const message *m)
{
    executor_link *x = executors_find(self, m->from);
    if (x)
        executors_lost(self, x, "it works for another scheduler, or ends", false);
}

static void on_step_result(void *self, const message *m)
{
    executor_link *x = executors_find(self, m->from);
    if (x)
        results_apply(self, x, m->body);
    else
        executors_late_result(self, m->from);
}

static void on_kv_loaded(void *self, const message *m)
{
    executor_link *x = executors_find(self, m->from);
    if (x)
        kv_moves_loaded(self, x, m->body);
}

static void on_draft_reply(void *self, const message *m)
{
    speculate_reply(self, m->envelope, m->body);
}

static void on_peer_down(void *self, peer *p)
{
    scheduler     *s = self;
    executor_link *x = executors_find(s, p);
    if (x)
        executors_lost(s, x, "it left, or missed its heartbeats", p->died);
    for (request *r = s->requests, *next; r; r = next) {
        next = r->next;
        if (r->tokenizer == p)
            r->tokenizer = NULL;
        if (r->postprocessor == p) {
            error err;
            error_set(&err, ERR_GONE, "the postprocessor of this request left");
            request_refuse(s, &r->envelope, r->reply_to, &err, (span){0});
            r->postprocessor = NULL;
            request_end_all(s, r, FINISH_REASON_CANCELLED, NULL);
        } else if (p->role == ROLE_GATEWAY && span_is(r->reply_to, p->name)) {
            request_end_all(s, r, FINISH_REASON_CANCELLED, NULL);
        }
    }
}

/* ---- time ---- */

static void end_late_requests(scheduler *s)
{
    int64_t now_ms = clock_unix_ms(actor_clock(s->actor));
    if (now_ms <= s->deadline_unix_ms)
        return;
    s->deadline_unix_ms = INT64_MAX;
    for (request *r = s->requests, *next; r; r = next) {
        next = r->next;
        if (r->n_live > 0 && r->envelope.deadline_unix_ms > 0 && now_ms > r->envelope.deadline_unix_ms)
            request_end_all(s, r, FINISH_REASON_TIMEOUT, "the deadline passed");
        else if (r->n_live > 0)
            request_note_deadline(s, r);
    }
}

static void add_to_rate(double *tokens_per_s, uint64_t *n_tokens, int64_t elapsed_ns)
{
    *tokens_per_s = 0.5 * *tokens_per_s + 0.5 * (double)*n_tokens / ((double)elapsed_ns / 1e9);
    *n_tokens     = 0;
}

/* Retry-After is told from it, and the status. */
static void measure_speed(scheduler *s)
{
    int64_t elapsed_ns = actor_now_ns(s->actor) - s->measured_ns;
    if (elapsed_ns < NS_PER_S)
        return;
    add_to_rate(&s->tokens_per_s, &s->n_tokens_since_measured, elapsed_ns);
    for (executor_link *x = s->executors; x; x = x->next)
        add_to_rate(&x->tokens_per_s, &x->n_tokens_since_measured, elapsed_ns);
    s->measured_ns = actor_now_ns(s->actor);
}

static void on_tick(void *self, actor_timer *timer)
{
    (void)timer; /* the turn that follows sets it again */
    end_late_requests(self);
    executors_check_timeouts(self);
    measure_speed(self);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When a deadline passes, an executor hangs, drafts are late, a batch has waited enough, or the speed is measured next.
 * What is past already waits for something else than time. */
static int64_t next_due_ns(const scheduler *s)
{
    int64_t now_ns = actor_now_ns(s->actor), now_ms = clock_unix_ms(actor_clock(s->actor));
    int64_t due_ns = s->measured_ns + NS_PER_S, batch_ns = policy_due_ns(s);
    due_ns = earlier(due_ns, executors_hand_back_due_ns(s));
    if (s->deadline_unix_ms < INT64_MAX)
        due_ns = earlier(due_ns, now_ns + (s->deadline_unix_ms + 1 - now_ms) * NS_PER_MS);
    for (const executor_link *x = s->executors; x; x = x->next) {
        if (x->n_plans > 0 && s->options->step_timeout_ms > 0)
            due_ns = earlier(due_ns, x->oldest_since_ns + (int64_t)s->options->step_timeout_ms * NS_PER_MS);
        due_ns = earlier(due_ns, speculate_due_ns(s, x));
    }
    return batch_ns > now_ns ? earlier(due_ns, batch_ns) : due_ns;
}

static void set_tick(scheduler *s)
{
    int64_t delay_ns = next_due_ns(s) - actor_now_ns(s->actor);
    actor_timer_set(s->actor, &s->tick, delay_ns > 0 ? delay_ns : 0, on_tick);
}

static void on_start(void *self)
{
    scheduler *s = self;
    set_tick(s);
    metadata_start(s);
}

static void update_gauges(const scheduler *s)
{
    uint32_t running = 0, used = 0, cached = 0, offloaded = 0;
    for (const executor_link *x = s->executors; x; x = x->next) {
        running += x->n_running;
        used += kv_pool_n_blocks(x->pool) - kv_pool_n_available(x->pool);
        cached += kv_pool_n_cached(x->pool);
        offloaded += x->offload.index ? kv_offload_index_n_used(x->offload.index) : 0;
    }
    metric_set(s->metrics.offload_used, offloaded);
    metric_set(s->metrics.running, running);
    metric_set(s->metrics.waiting, s->n_waiting);
    metric_set(s->metrics.blocks_used, used);
    metric_set(s->metrics.blocks_cached, cached);
}

static uint32_t n_executors(const scheduler *s)
{
    uint32_t n = 0;
    for (const executor_link *x = s->executors; x; x = x->next)
        n++;
    return n;
}

static void on_turn(void *self)
{
    scheduler *s = self;
    metadata_turn(s);
    kv_moves_hand_over(s);
    speculate_turn(s);
    for (executor_link *x = s->executors, *next; x; x = next) {
        next = x->next;
        while (x->n_plans < PLANS_IN_FLIGHT_MAX && x->peer->ready && x->peer->credits > 0 && batch_plan(s, x))
            ;
    }
    executors_hand_back(s);
    update_gauges(s);
    set_tick(s);
    actor_set_capacity(s->actor, n_executors(s));
    actor_set_ready(s->actor, s->executors && !actor_is_draining(s->actor));
    if (actor_is_draining(s->actor) && s->n_requests == 0 && metadata_leave(s))
        actor_finish(s->actor);
}

static void on_drain(void *self)
{
    (void)self; /* on_turn leaves when the last request has ended */
}

static uint32_t load(const void *self)
{
    return ((const scheduler *)self)->n_requests;
}

/* The pool, the lists and the counters must tell one story. */
static void check(const void *self)
{
    const scheduler *s         = self;
    uint32_t         n_waiting = 0, n_live = 0, n_held = 0;
    for (const sequence *q = s->waiting_first; q; q = q->next) {
        assert(q->state == SEQUENCE_WAITING && q->n_blocks == 0);
        n_waiting++;
    }
    assert(n_waiting == s->n_waiting);
    for (const executor_link *x = s->executors; x; x = x->next) {
        uint32_t n_running = 0;
        for (const sequence *q = x->running_first; q; q = q->next) {
            assert(q->state == SEQUENCE_RUNNING && q->executor == x);
            assert(q->n_computed <= q->n_planned && q->n_planned <= q->n_tokens + q->n_pending + q->n_drafts);
            n_running++;
            n_held += q->n_blocks;
        }
        assert(n_running == x->n_running);
        assert(x->n_free_slots + x->n_pending_closes + n_running == x->about.n_slots);
        offload_check(x);
        assert(n_running > 0 || kv_moves_hold_blocks(s, x) || x->offload.n_loads > 0 ||
               kv_pool_n_available(x->pool) == kv_pool_n_blocks(x->pool));
        kv_pool_check(x->pool);
        n_live += n_running;
    }
    for (const request *r = s->requests; r; r = r->next) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < r->n_sequences; i++)
            n += r->sequences[i].state != SEQUENCE_ENDED;
        assert(n == r->n_live);
        n_live -= n < n_live ? n : n_live;
    }
    (void)n_live, (void)n_held;
}

static void dump(const void *self)
{
    const scheduler *s = self;
    fprintf(stderr, "scheduler: %u requests, %u sequences waiting\n", s->n_requests, s->n_waiting);
    for (const executor_link *x = s->executors; x; x = x->next)
        fprintf(stderr, "  %s: %u running, %u plans in flight, %u of %u KV blocks free\n", x->peer->name, x->n_running,
                x->n_plans, kv_pool_n_available(x->pool), kv_pool_n_blocks(x->pool));
    for (const request *r = s->requests; r; r = r->next) {
        char id[33];
        request_id_print(&r->envelope.request, id);
        fprintf(stderr, "  request %s attempt %u\n", id, r->envelope.attempt);
        for (uint32_t i = 0; i < r->n_sequences; i++) {
            const sequence *q = &r->sequences[i];
            fprintf(stderr, "    choice %u state %d: %u tokens, %u computed, %u planned, %u pending, %u in flight%s\n",
                    q->choice, q->state, q->n_tokens, q->n_computed, q->n_planned, q->n_pending, q->n_in_flight,
                    q->loading              ? ", loading"
                    : q->draft != DRAFT_OFF ? ", drafting"
                                            : "");
        }
    }
}

static const actor_route routes[] = {
    {MSG_GEN_REQUEST, on_gen_request},       /* a tokenised request to queue */
    {MSG_GEN_CANCEL, on_gen_cancel},         /* its client left, or its stop string came */
    {MSG_GEN_FIND, on_gen_find},             /* its gateway has heard nothing of it for a while */
    {MSG_EXECUTOR_READY, on_executor_ready}, /* an executor says what it holds */
    {MSG_EXECUTOR_LEAVE, on_executor_leave}, /* it works for another scheduler */
    {MSG_STEP_RESULT, on_step_result},       /* an executor finished a step */
    {MSG_KV_LOADED, on_kv_loaded},           /* an executor has KV blocks of another, or not */
    {MSG_DRAFT_REPLY, on_draft_reply},       /* a drafter's guess */
    {MSG_STATUS_GET, on_status_get},         /* somebody looks at the status page */
};

const actor_class scheduler_class = {
    .name         = "scheduler",
    .role         = ROLE_SCHEDULER,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_start,
    .on_turn      = on_turn,
    .on_peer_down = on_peer_down,
    .on_drain     = on_drain,
    .load         = load,
    .check        = check,
    .dump         = dump,
};
