/* See support_stage.h. */
#include "support_stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

uint32_t stage_token(uint32_t position)
{
    return (position * 7 + 3) % STAGE_VOCAB;
}

static void ignore_destroy(void *self)
{
    (void)self;
}

/* ---- the executors ---- */

static void *create_executor(actor *a, const void *options, error *err)
{
    stage_executor *x = (stage_executor *)(uintptr_t)options;
    x->actor          = a;
    x->memory         = arena_new(1 << 20, err);
    return x->memory ? x : NULL;
}

static void destroy_executor(void *self)
{
    arena_free(&((stage_executor *)self)->memory);
}

static void on_scheduler_up(void *self, peer *p)
{
    stage_executor *x = self;
    x->scheduler      = p;
    assert_true(actor_send(x->actor, p, MSG_EXECUTOR_READY, &x->stage->about, NULL, NULL));
}

static void write_down(stage_executor *x, const step_plan *plan)
{
    if (plan->n_entries == 0)
        return;
    assert_true(x->n_plans < STAGE_PLANS);
    x->entries[x->n_plans]         = plan->n_entries;
    x->opens[x->n_plans]           = plan->n_opens;
    x->first_positions[x->n_plans] = plan->entries[0].position;
    for (uint32_t i = 0; i < plan->n_opens; i++)
        x->tokens_opened[x->n_plans] += plan->opens[i].n_tokens;
    x->at_ms[x->n_plans++] = actor_now_ns(x->actor) / NS_PER_MS;
}

static uint32_t *one_token(arena *memory, uint32_t token)
{
    uint32_t *tokens = arena_take(memory, sizeof *tokens);
    assert_non_null(tokens);
    *tokens = token;
    return tokens;
}

/* Two likely tokens, for beams. */
static token_logprob *likely(arena *memory, uint32_t position)
{
    token_logprob *l        = arena_take(memory, sizeof *l);
    uint32_t      *tokens   = arena_take_array(memory, 2, sizeof *tokens);
    float         *logprobs = arena_take_array(memory, 2, sizeof *logprobs);
    assert_true(l && tokens && logprobs);
    tokens[0]   = stage_token(position);
    tokens[1]   = (tokens[0] + 1) % STAGE_VOCAB;
    logprobs[0] = -0.5f, logprobs[1] = -1;
    *l = (token_logprob){.token          = tokens[0],
                         .logprob        = -0.5f,
                         .top_tokens     = tokens,
                         .n_top_tokens   = 2,
                         .top_logprobs   = logprobs,
                         .n_top_logprobs = 2};
    return l;
}

static float *pooled(const stage_executor *x, uint32_t n_tokens)
{
    float *numbers = arena_take_array(x->memory, STAGE_POOLED, sizeof *numbers);
    assert_non_null(numbers);
    numbers[0] = (float)n_tokens;
    numbers[1] = (float)x->n_plans;
    return numbers;
}

static void on_step_plan(void *self, const message *m)
{
    stage_executor  *x    = self;
    const step_plan *plan = m->body;
    arena_reset(x->memory);
    step_output *outputs = arena_take_array(x->memory, plan->n_entries + 2, sizeof *outputs);
    step_result  result  = {.step = plan->step, .outputs = outputs};
    assert_non_null(outputs);
    write_down(x, plan);
    if (x->hangs) {
        x->hangs_in = x->hangs_in ? x->hangs_in : plan->step;
        return;
    }
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const step_entry *e = &plan->entries[i];
        assert_true(e->slot < x->stage->about.n_slots && e->n_drafts == 0);
        uint32_t next = e->position + e->n_tokens;
        if (e->logits == LOGITS_WANTED_NONE)
            continue;
        step_output *o = &outputs[result.n_outputs++];
        *o             = (step_output){.slot = e->slot, .position = next};
        if (e->logits == LOGITS_WANTED_POOLED) {
            assert_true(e->position == 0 && e->no_sample);
            o->pooled   = pooled(x, e->n_tokens);
            o->n_pooled = x->stage->about.n_pooled;
        } else if (e->no_sample) {
            o->logprobs   = likely(x->memory, next);
            o->n_logprobs = 1;
        } else {
            o->tokens   = one_token(x->memory, stage_token(next));
            o->n_tokens = 1;
        }
    }
    if (x->lie && plan->n_entries > 0)
        x->lie(&result, outputs, x->memory);
    assert_true(actor_send(x->actor, m->from, MSG_STEP_RESULT, &result, NULL, NULL));
    actor_grant(x->actor, m->from, 1);
}

void stage_end_load(stage_executor *x, uint32_t n_blocks)
{
    kv_loaded end = {.load       = x->load,
                     .n_blocks   = n_blocks,
                     .elapsed_us = 100,
                     .error      = n_blocks < x->n_load_blocks ? SPAN("the rest did not come") : (span){0}};
    assert_true(actor_send(x->actor, x->scheduler, MSG_KV_LOADED, &end, NULL, NULL));
}

static void on_kv_load(void *self, const message *m)
{
    stage_executor *x    = self;
    const kv_load  *body = m->body;
    assert_int_equal(body->n_from, body->n_to);
    x->n_loads++;
    x->load          = body->load;
    x->n_load_blocks = body->n_to;
    if (!x->keeps_loads)
        stage_end_load(x, body->n_to < x->n_loaded_max ? body->n_to : x->n_loaded_max);
}

static const actor_route executor_routes[] = {{MSG_EXECUTOR_RESET, actor_ignore},
                                              {MSG_STEP_PLAN, on_step_plan},
                                              {MSG_KV_LOAD, on_kv_load},
                                              {MSG_KV_FETCH, actor_ignore},
                                              {MSG_KV_BLOCKS, actor_ignore}};
static const actor_class executor_class    = {.name       = "executor",
                                              .role       = ROLE_EXECUTOR,
                                              .routes     = executor_routes,
                                              .n_routes   = COUNT(executor_routes),
                                              .create     = create_executor,
                                              .destroy    = destroy_executor,
                                              .on_peer_up = on_scheduler_up};

/* ---- the reader, the gateway and the tokenizer ---- */

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return (void *)(uintptr_t)options;
}

static stage_request *find(stage *t, const envelope *e)
{
    uint32_t index;
    memcpy(&index, e->request.bytes, sizeof index);
    assert_true(index >= 1 && index <= t->n_requests);
    return &t->requests[index - 1];
}

static void on_gen_open(void *self, const message *m)
{
    stage         *t = self;
    stage_request *q = find(t, m->envelope);
    q->n_opens++;
    q->n_tokens = m->envelope->attempt > 0 && q->body.n_resume ? q->body.resume[0].n_tokens : 0;
    actor_grant(t->postprocessor, m->from, 1);
}

static void on_gen_tokens(void *self, const message *m)
{
    stage_request    *q    = find(self, m->envelope);
    const gen_tokens *body = m->body;
    if (body->choice > 0 || m->envelope->attempt < q->attempt)
        return;
    assert_int_equal(q->n_tokens, body->index);
    for (uint32_t i = 0; i < body->n_tokens; i++)
        q->tokens[q->n_tokens++] = body->tokens[i];
    q->n_cached = body->cached_tokens;
    q->finish   = body->finish;
    snprintf(q->why, sizeof q->why, "%.*s", SPAN_ARG(body->error));
}

static const actor_route reader_routes[] = {{MSG_GEN_OPEN, on_gen_open},
                                            {MSG_GEN_TOKENS, on_gen_tokens},
                                            {MSG_GEN_PROMPT, actor_ignore},
                                            {MSG_GEN_CANCEL, actor_ignore},
                                            {MSG_GEN_FIND, actor_ignore}};
static const actor_class reader_class    = {.name     = "postprocessor",
                                            .role     = ROLE_POSTPROCESSOR,
                                            .routes   = reader_routes,
                                            .n_routes = COUNT(reader_routes),
                                            .create   = create,
                                            .destroy  = ignore_destroy};

static void on_text_refused(void *self, const message *m)
{
    stage_request      *q    = find(self, m->envelope);
    const text_refused *body = m->body;
    q->n_refusals++;
    q->refused = body->code;
    snprintf(q->why, sizeof q->why, "%.*s", SPAN_ARG(body->text));
    snprintf(q->field, sizeof q->field, "%.*s", SPAN_ARG(body->field));
}

static void on_text_delta(void *self, const message *m)
{
    stage_request    *q    = find(self, m->envelope);
    const text_delta *body = m->body;
    assert_int_equal(STAGE_POOLED, body->n_pooled);
    assert_int_equal(q->body.n_prompt, body->usage.prompt_tokens);
    memcpy(q->pooled, body->pooled, sizeof q->pooled);
    q->n_answers++;
    q->finish = body->finish;
}

static void on_status_report(void *self, const message *m)
{
    stage *t  = self;
    t->report = *(const status_report *)m->body;
    if (t->report.n_executors > 0)
        t->report_executor = t->report.executors[0];
    t->n_reports++;
}

static const actor_route gateway_routes[] = {
    {MSG_TEXT_REQUEST, actor_ignore},      {MSG_TEXT_CANCEL, actor_ignore},  {MSG_TEXT_ENCODE, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},       {MSG_TEXT_DELTA, on_text_delta},  {MSG_TEXT_REFUSED, on_text_refused},
    {MSG_TEXT_ENCODED, actor_ignore},      {MSG_TEXT_DECODED, actor_ignore}, {MSG_GEN_FOUND, actor_ignore},
    {MSG_STATUS_REPORT, on_status_report},
};
static const actor_class gateway_class = {.name     = "gateway",
                                          .role     = ROLE_GATEWAY,
                                          .routes   = gateway_routes,
                                          .n_routes = COUNT(gateway_routes),
                                          .create   = create,
                                          .destroy  = ignore_destroy};

static const actor_route tokenizer_routes[] = {{MSG_TEXT_REQUEST, actor_ignore},
                                               {MSG_TEXT_ENCODE, actor_ignore},
                                               {MSG_TEXT_DECODE, actor_ignore},
                                               {MSG_GEN_FIND, actor_ignore}};
static const actor_class tokenizer_class    = {.name     = "tokenizer",
                                               .role     = ROLE_TOKENIZER,
                                               .routes   = tokenizer_routes,
                                               .n_routes = COUNT(tokenizer_routes),
                                               .create   = create,
                                               .destroy  = ignore_destroy};

/* ---- the stage ---- */

void stage_init(stage *t)
{
    *t                 = (stage){0};
    error        err   = {0};
    option_group group = {"scheduler", scheduler_option_rows, n_scheduler_option_rows, &t->options};
    if (!option_parse(&group, 1, 0, NULL, NULL, &err))
        fail_msg("%s", err.text);
    t->options.hash_seed = 7;
    t->about             = (executor_ready){.model            = SPAN("stage"),
                                            .n_kv_blocks      = STAGE_BLOCKS,
                                            .kv_block_tokens  = KV_BLOCK_TOKENS,
                                            .n_slots          = STAGE_SLOTS,
                                            .n_tokens_max     = 256,
                                            .n_vocab          = STAGE_VOCAB,
                                            .max_model_len    = 512,
                                            .n_logit_rows_max = 64};
}

static actor *add(stage *t, const actor_class *class, const void *options, const actor_options *where)
{
    error  err = {0};
    actor *a   = simulation_add(t->sim, class, options, where, &err);
    if (!a)
        fail_msg("%s: %s", class->name, err.text);
    return a;
}

static bool is_connected(void *arg)
{
    stage *t = arg;
    return actor_find_peer(t->gateway, span_of(actor_name(t->scheduler))) &&
           actor_find_peer(t->tokenizer, span_of(actor_name(t->scheduler))) &&
           actor_find_peer(t->postprocessor, span_of(actor_name(t->scheduler)));
}

void stage_start(stage *t, uint64_t seed)
{
    actor_options bound   = {.bind = {"inproc://scheduler"}, .credits = STAGE_CREDITS};
    actor_options calling = {.connect = {"inproc://scheduler"}, .credits = STAGE_CREDITS};
    t->sim                = simulation_new(seed, NULL);
    t->scheduler          = add(t, &scheduler_class, &t->options, &bound);
    t->postprocessor      = add(t, &reader_class, t, &calling);
    t->gateway            = add(t, &gateway_class, t, &calling);
    t->tokenizer          = add(t, &tokenizer_class, t, &calling);
    assert_true(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

void stage_end(stage *t)
{
    simulation_free(&t->sim);
}

static bool has_joined(void *arg)
{
    const stage_executor *x = arg;
    return x->scheduler && actor_find_peer(x->stage->scheduler, span_of(actor_name(x->actor))) &&
           executors_find(stage_scheduler(x->stage),
                          actor_find_peer(x->stage->scheduler, span_of(actor_name(x->actor))));
}

stage_executor *stage_add_executor(stage *t, stage_lie *lie)
{
    actor_options   calling = {.connect = {"inproc://scheduler"}, .credits = 2};
    stage_executor *x       = t->executors[0].actor ? &t->executors[1] : &t->executors[0];
    *x                      = (stage_executor){.stage = t, .lie = lie, .n_loaded_max = UINT32_MAX};
    add(t, &executor_class, x, &calling);
    assert_true(simulation_run_until(t->sim, has_joined, x, 30 * NS_PER_S));
    return x;
}

stage_request *stage_add(stage *t, uint32_t n_prompt, uint32_t max_tokens)
{
    assert_true(t->n_requests < COUNT(t->requests));
    stage_request *q = &t->requests[t->n_requests++];
    for (uint32_t i = 0; i < n_prompt; i++)
        q->prompt[i] = (t->n_requests + i) % STAGE_VOCAB;
    q->body            = gen_request_defaults;
    q->body.prompt     = q->prompt;
    q->body.n_prompt   = n_prompt;
    q->body.max_tokens = max_tokens;
    return q;
}

void stage_send(stage *t, stage_request *q, uint32_t attempt)
{
    envelope e       = {.attempt = attempt, .deadline_unix_ms = q->deadline_unix_ms};
    uint32_t index   = (uint32_t)(q - t->requests) + 1;
    peer    *to      = actor_find_peer(t->tokenizer, span_of(actor_name(t->scheduler)));
    error    err     = {0};
    q->body.reply_to = span_of(actor_name(t->gateway));
    memcpy(e.request.bytes, &index, sizeof index);
    memcpy(e.trace, q->trace, sizeof e.trace);
    q->attempt = attempt > q->attempt ? attempt : q->attempt;
    if (!to || !actor_send(t->tokenizer, to, MSG_GEN_REQUEST, &q->body, &e, &err))
        fail_msg("not sent: %s", err.text);
}

bool stage_has_ended(const stage_request *q)
{
    return q->finish != FINISH_REASON_NONE || q->n_refusals > 0;
}

void stage_wake(stage_executor *x)
{
    step_result late = {.step = x->hangs_in, .error = SPAN("it took long")};
    assert_true(x->hangs && x->hangs_in > 0);
    assert_true(actor_send(x->actor, x->scheduler, MSG_STEP_RESULT, &late, NULL, NULL));
    x->hangs    = false;
    x->hangs_in = 0;
}

static bool all_ended(void *arg)
{
    stage *t = arg;
    for (uint32_t i = 0; i < t->n_requests; i++)
        if (!stage_has_ended(&t->requests[i]))
            return false;
    return true;
}

void stage_run(stage *t, double max_s)
{
    if (!simulation_run_until(t->sim, all_ended, t, (int64_t)(max_s * 1e9))) {
        scheduler_class.dump(stage_scheduler(t));
        fail_msg("requests have not ended after %g s of virtual time", max_s);
    }
    scheduler_class.check(stage_scheduler(t));
}

void stage_wait_ms(stage *t, int64_t ms)
{
    simulation_run_until(t->sim, NULL, NULL, ms * NS_PER_MS);
}

void stage_check_tokens(const stage_request *q, uint32_t first, uint32_t n)
{
    assert_int_equal(first + n, q->n_tokens);
    for (uint32_t i = first; i < first + n; i++)
        assert_int_equal(stage_token(q->body.n_prompt + i), q->tokens[i]);
}

scheduler *stage_scheduler(const stage *t)
{
    return actor_self(t->scheduler);
}
