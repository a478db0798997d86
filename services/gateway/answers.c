/* Answers: how they begin, how they end, what is said about them afterwards. */
#include "services/gateway/reply_log.h"

#include "base/log.h"
#include "base/random.h"
#include "trace/trace_context.h"

#include <assert.h>
#include <stdio.h>

answer *answer_new(gateway *g, arena *memory, const answer_sink *sink, uint32_t n_runs, uint32_t n_choices, error *err)
{
    answer *a    = arena_take(memory, sizeof *a);
    run    *runs = a ? arena_take_array(memory, n_runs, sizeof *runs) : NULL;
    for (uint32_t i = 0; runs && i < n_runs; i++) {
        runs[i] = (run){.answer = a, .index = i, .state = RUN_DONE, .n_choices = n_choices, .n_open = n_choices};
        runs[i].choices = arena_take_array(memory, n_choices, sizeof *runs[i].choices);
        if (!runs[i].choices)
            runs = NULL;
    }
    if (!runs) {
        error_set(err, ERR_TOO_LARGE, "the request needs more memory than this server gives to one");
        arena_free(&memory);
        return NULL;
    }
    *a            = (answer){.gateway    = g,
                             .sink       = sink,
                             .memory     = memory,
                             .n_runs     = n_runs,
                             .n_open     = n_runs * n_choices,
                             .runs       = runs,
                             .n_choices  = n_choices,
                             .arrived_ns = gateway_now_ns(g)};
    a->kept_bytes = arena_used(memory);
    g->kept_bytes += a->kept_bytes;
    a->next = g->answers;
    if (g->answers)
        g->answers->previous = a;
    g->answers = a;
    metric_set(g->metrics.in_hand, ++g->n_answers);
    metric_add(g->metrics.received, 1);
    return a;
}

/* Of an answer that was broken off only what was delivered is known. */
static uint64_t tokens_used(const answer *a)
{
    usage sum;
    answer_usage(a, &sum);
    uint64_t n = (uint64_t)sum.prompt_tokens + sum.completion_tokens;
    for (uint32_t i = 0; i < a->n_runs; i++)
        for (uint32_t c = 0; c < a->n_choices; c++)
            n += a->runs[i].choices[c].finished ? 0 : a->runs[i].choices[c].n_tokens;
    return n;
}

static void answer_free(answer *a, bool refused)
{
    gateway *g = a->gateway;
    reply_log_close(a, refused);
    for (uint32_t i = 0; i < a->n_runs; i++)
        run_forget(g, &a->runs[i]);
    actor_timer_cancel(g->actor, &a->deadline);
    actor_timer_cancel(g->actor, &a->silence);
    if (g->http)
        http_attach(g->http, a->handle, NULL);
    if (a->usage)
        key_usage_leave(a->usage, gateway_now_ns(g), tokens_used(a));
    key_usage_release(&a->usage);
    *(a->previous ? &a->previous->next : &g->answers) = a->next;
    if (a->next)
        a->next->previous = a->previous;
    g->kept_bytes -= a->kept_bytes;
    metric_set(g->metrics.in_hand, --g->n_answers);
    if (a->is_computed) {
        throughput_pass(&g->throughput, gateway_now_ns(g), true);
        g->n_generating--;
    }
    if (a->client && a->sums)
        actor_grant(g->actor, a->client, 1);
    arena *memory = a->memory;
    arena_free(&memory);
}

/* ---- the beginning ---- */

static void on_deadline(void *self, actor_timer *timer)
{
    answer *a = (answer *)((char *)timer - offsetof(answer, deadline));
    error   why;
    error_set(&why, ERR_TIMEOUT, "the deadline passed before the answer was complete");
    answer_refuse(a, &why, (span){0}, 0);
    (void)self;
}

/* Every choice of the run gets the rule's text. False: the answer is gone. */
static bool run_from_rule(run *r, const front_answer *rule)
{
    uint32_t   n_choices = r->n_choices;
    text_delta d         = text_delta_defaults;
    d.text               = rule->answer;
    d.finish             = rule->finish;
    d.stop_reason        = rule->finish == FINISH_REASON_CONTENT_FILTER ? span_of(rule->name) : (span){0};
    for (uint32_t c = 0; c < n_choices; c++) {
        d.choice = c;
        if (!r->choices[c].finished && !run_deliver(r, &d))
            return false;
    }
    return true;
}

/* What front rules look at: the last user message, or the prompt when it is text. */
static span question_of(const run *r)
{
    const text_request *body     = r->type == MSG_TEXT_REQUEST ? r->body : &text_request_defaults;
    span                question = body->kind == PROMPT_KIND_TEXT ? body->prompt : (span){0};
    if (body->task != REQUEST_TASK_GENERATE)
        return (span){0};
    for (uint32_t i = 0; body->kind == PROMPT_KIND_CHAT && i < body->n_messages; i++)
        if (span_is(body->messages[i].role, "user"))
            question = body->messages[i].content;
    return question;
}

/* found[i].name is NULL where no rule knows the question of run i. All rules are tried on all of them, so that nobody
 * slips past a rule in company; what would keep everybody waiting for too long is refused. */
static bool match_rules(const answer *a, front_answer *found, uint32_t *n_found, error *err)
{
    enum { MATCH_RUNS_MS = 200 };
    const gateway *g        = a->gateway;
    int64_t        until_ns = gateway_now_ns(g) + MATCH_RUNS_MS * NS_PER_MS;
    for (uint32_t i = 0; g->rules && i < a->n_runs; i++) {
        span question = question_of(&a->runs[i]);
        *n_found += question.size && front_rules_match(g->rules, question, &found[i]);
        if (i + 1 < a->n_runs && gateway_now_ns(g) > until_ns)
            return error_set(err, ERR_TOO_LARGE, "so many long prompts are not taken at once; send them one by one");
    }
    return true;
}

/* Front rules know no texts to embed or score, so that those may begin one by one. */
static uint32_t runs_at_first(const answer *a)
{
    return a->pooled && a->n_runs > RUNS_AT_ONCE ? RUNS_AT_ONCE : a->n_runs;
}

bool answer_begin_run(answer *a, error *err)
{
    run *r = &a->runs[a->n_begun];
    if (!run_new_id(a->gateway, r, err))
        return false;
    a->n_begun++;
    run_wait(a->gateway, r);
    return true;
}

/* Runs that a rule knows are answered, the others wait for a tokenizer. */
static void begin_runs(answer *a, const front_answer *found)
{
    gateway *g = a->gateway;
    error    err;
    for (uint32_t i = 0, n = runs_at_first(a); i < n; i++) {
        if (a->n_choices > 0 && a->runs[i].n_open == 0) {
            a->n_begun++;
            continue; /* its end was in a log */
        }
        if (found[i].name) {
            a->n_begun++;
            if (!run_from_rule(&a->runs[i], &found[i]))
                return;
        } else if (!answer_begin_run(a, &err)) {
            answer_refuse(a, &err, (span){0}, 0);
            return;
        }
    }
    runs_pump(g);
}

void answer_start(answer *a, double timeout_s)
{
    gateway *g     = a->gateway;
    double   limit = g->options->request_timeout_s;
    if (timeout_s > 0 && timeout_s < limit)
        limit = timeout_s;
    a->deadline_unix_ms = clock_unix_ms(actor_clock(g->actor)) + (int64_t)(limit * 1e3);
    gateway_timer_set(g, &a->deadline, (int64_t)(limit * 1e9), on_deadline);
    if (a->log)
        reply_log_open(a);
    else
        answer_begin(a, false);
}

void answer_begin(answer *a, bool is_promised)
{
    gateway      *g       = a->gateway;
    uint32_t      n_found = 0;
    front_answer *found   = arena_take_array(a->memory, a->n_runs, sizeof *found);
    error         err;
    bool          ok             = found ? match_rules(a, found, &n_found, &err)
                                         : error_set(&err, ERR_TOO_LARGE, "the request needs more memory than this server gives to one");
    uint32_t      retry_after_ms = 0;
    if (!ok || (!is_promised && n_found < a->n_runs && !gateway_may_take(g, a, &retry_after_ms, &err))) {
        answer_refuse(a, &err, (span){0}, retry_after_ms);
        return;
    }
    if (a->sums && n_found < a->n_runs) {
        throughput_pass(&g->throughput, gateway_now_ns(g), g->n_generating > 0);
        a->is_computed = true;
        g->n_generating++;
    }
    a->from_front_rule = n_found > 0;
    begin_runs(a, found);
}

bool answer_is_complete(const answer *a)
{
    for (uint32_t i = 0; i < a->n_runs; i++)
        if (a->runs[i].n_open > 0)
            return false;
    return true;
}

/* ---- what it cost ---- */

void answer_saw_tokens(answer *a, uint32_t n)
{
    int64_t now = gateway_now_ns(a->gateway);
    if (n == 0)
        return;
    if (a->first_ns == 0) {
        a->first_ns = now;
        metric_observe(a->gateway->metrics.first_token, (double)(now - a->arrived_ns) / 1e9);
    } else {
        metric_observe(a->gateway->metrics.inter_token, (double)(now - a->last_ns) / 1e9 / n);
    }
    a->last_ns = now;
}

/* A prompt is counted once, however many choices continue it. */
void answer_usage(const answer *a, usage *sum)
{
    *sum = (usage){0};
    for (uint32_t i = 0; i < a->n_runs; i++) {
        usage prompt = {0};
        for (uint32_t c = 0; c < a->n_choices; c++) {
            const usage *u = &a->runs[i].choices[c].usage;
            if (u->prompt_tokens > prompt.prompt_tokens)
                prompt.prompt_tokens = u->prompt_tokens;
            if (u->cached_tokens > prompt.cached_tokens && c == 0)
                prompt.cached_tokens = u->cached_tokens;
            sum->completion_tokens += a->score_only ? 0 : u->completion_tokens;
            sum->drafted_tokens += u->drafted_tokens;
            sum->accepted_tokens += u->accepted_tokens;
        }
        sum->prompt_tokens += prompt.prompt_tokens;
        sum->cached_tokens += prompt.cached_tokens;
    }
}

static void say(const answer *a, int status)
{
    const gateway_metrics *metrics = &a->gateway->metrics;
    int64_t                now     = gateway_now_ns(a->gateway);
    usage                  sum;
    char                   id[33]       = "", trace[TRACE_ID_TEXT];
    uint32_t               last_attempt = 0;
    answer_usage(a, &sum);
    request_id_print(&a->runs[0].id, id);
    trace_id_print(a->about.trace, trace);
    for (uint32_t i = 0; i < a->n_runs; i++)
        last_attempt = a->runs[i].attempt > last_attempt ? a->runs[i].attempt : last_attempt;
    metric_add(metrics->status[status == 499 ? 4 : status / 100 - 2], 1);
    if (a->sums && status == 200) {
        metric_add(metrics->finished[a->finish], 1);
        metric_add(metrics->prompt_tokens, sum.prompt_tokens);
        metric_observe(metrics->request_prompt_tokens, sum.prompt_tokens);
        metric_observe(metrics->request_generation_tokens, sum.completion_tokens);
        metric_observe(metrics->elapsed, (double)(now - a->arrived_ns) / 1e9);
    }
    log_info("request",
             "id=%.*s run=%s what=%s via=%s status=%d finish=%s stream=%d prompt_tokens=%u completion_tokens=%u "
             "cached_tokens=%u first_ms=%.1f total_ms=%.1f attempts=%u front_rule=%d trace=%s",
             a->head.id.size ? (int)a->head.id.size : 1, a->head.id.size ? a->head.id.data : "-", id,
             a->what ? a->what : "?", a->client ? "bus" : "http", status, finish_reason_name(a->finish), a->stream,
             sum.prompt_tokens, sum.completion_tokens, sum.cached_tokens,
             a->first_ns ? (double)(a->first_ns - a->arrived_ns) / 1e6 : 0.0, (double)(now - a->arrived_ns) / 1e6,
             last_attempt + 1, a->from_front_rule, trace);
    answer_trace_end(a, status, &sum, last_attempt + 1);
}

/* ---- the end ---- */

void answer_finish(answer *a)
{
    if (a->sums) /* the others have said it all */
        a->sink->done(a);
    if (a->is_computed)
        throughput_complete(&a->gateway->throughput);
    say(a, 200);
    answer_free(a, false);
}

void answer_refuse(answer *a, const error *why, span field, uint32_t retry_after_ms)
{
    error copy = *why;
    if (error_may_retry(copy.code) && copy.code != ERR_TIMEOUT && retry_after_ms == 0)
        retry_after_ms = 1000;
    if (copy.code == ERR_OVERLOADED)
        metric_add(a->gateway->metrics.overloaded, 1);
    a->finish = copy.code == ERR_TIMEOUT ? FINISH_REASON_TIMEOUT : FINISH_REASON_ERROR;
    a->sink->refused(a, &copy, field, retry_after_ms);
    say(a, error_http_status(copy.code));
    answer_free(a, true);
}

void answer_abandon(answer *a)
{
    a->finish = FINISH_REASON_CANCELLED;
    metric_add(a->gateway->metrics.client_gone, 1);
    say(a, 499);
    answer_free(a, false);
}
