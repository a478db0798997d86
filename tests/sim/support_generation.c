/* See support_generation.h. */
#include "support_generation.h"

#include "base/metric.h"
#include "base/option.h"
#include "scheduler/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N_VOCAB_USED = 60, EXECUTOR_CREDITS = 2 };

/* ---- the gateway, the tokenizer and the collector ---- */

static generation *find_generation(deployment *d, const request_id *id)
{
    uint32_t index;
    memcpy(&index, id->bytes, sizeof index);
    return index > 0 && index <= d->n_generations ? &d->generations[index - 1] : NULL;
}

static envelope envelope_of(const deployment *d, const generation *g)
{
    envelope e     = {.attempt = g->attempt};
    uint32_t index = (uint32_t)(g - d->generations) + 1;
    memcpy(e.request.bytes, &index, sizeof index);
    return e;
}

typedef struct {
    actor      *actor;
    deployment *deployment;
} test_actor;

static void *create(actor *a, const void *options, error *err)
{
    test_actor *t = calloc(1, sizeof *t);
    (void)err;
    assert_non_null(t);
    t->actor      = a;
    t->deployment = (deployment *)(uintptr_t)options;
    return t;
}

static void on_text_refused(void *self, const message *m)
{
    test_actor *t = self;
    generation *g = find_generation(t->deployment, &m->envelope->request);
    assert_non_null(g);
    assert_int_equal(0, g->refused);
    g->refused = ((const text_refused *)m->body)->code;
}

static const actor_route gateway_routes[] = {
    {MSG_TEXT_REQUEST, actor_ignore},  {MSG_TEXT_CANCEL, actor_ignore},  {MSG_TEXT_ENCODE, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},   {MSG_TEXT_DELTA, actor_ignore},   {MSG_TEXT_REFUSED, on_text_refused},
    {MSG_TEXT_ENCODED, actor_ignore},  {MSG_TEXT_DECODED, actor_ignore}, {MSG_GEN_FOUND, actor_ignore},
    {MSG_STATUS_REPORT, actor_ignore},
};

static const actor_class gateway_class = {.name     = "gateway",
                                          .role     = ROLE_GATEWAY,
                                          .routes   = gateway_routes,
                                          .n_routes = COUNT(gateway_routes),
                                          .create   = create,
                                          .destroy  = free};

static const actor_route tokenizer_routes[] = {{MSG_TEXT_REQUEST, actor_ignore},
                                               {MSG_TEXT_ENCODE, actor_ignore},
                                               {MSG_TEXT_DECODE, actor_ignore},
                                               {MSG_GEN_FIND, actor_ignore}};

static const actor_class tokenizer_class = {.name     = "tokenizer",
                                            .role     = ROLE_TOKENIZER,
                                            .routes   = tokenizer_routes,
                                            .n_routes = COUNT(tokenizer_routes),
                                            .create   = create,
                                            .destroy  = free};

static void on_gen_open(void *self, const message *m)
{
    test_actor *t = self;
    generation *g = find_generation(t->deployment, &m->envelope->request);
    assert_non_null(g);
    g->n_opens++;
}

static void end_choice(test_actor *t, generation *g, uint32_t choice, finish_reason finish, peer *from)
{
    assert_int_equal(FINISH_REASON_NONE, g->finish[choice]);
    g->finish[choice] = finish;
    if (++g->n_ends == g->body.n)
        actor_grant(t->actor, from, 1);
}

static void on_gen_tokens(void *self, const message *m)
{
    test_actor       *t    = self;
    const gen_tokens *body = m->body;
    generation       *g    = find_generation(t->deployment, &m->envelope->request);
    assert_non_null(g);
    uint32_t c = body->choice;
    if (g->finish[c] != FINISH_REASON_NONE)
        return;                                    /* what was on its way when the choice was cancelled */
    assert_int_equal(g->n_tokens[c], body->index); /* in order, none twice, none missing */
    for (uint32_t i = 0; i < body->n_tokens; i++) {
        if (body->n_logprobs > 0) {
            assert_int_equal(body->tokens[i], body->logprobs[i].token);
            g->logprobs[c][g->n_tokens[c]] = body->logprobs[i].logprob;
            g->n_top_logprobs[c]           = body->logprobs[i].n_top_tokens;
        }
        g->tokens[c][g->n_tokens[c]++] = body->tokens[i];
    }
    g->n_cached   = body->cached_tokens;
    g->n_drafted  = body->drafted_tokens;
    g->n_accepted = body->accepted_tokens;
    if (body->finish != FINISH_REASON_NONE) {
        end_choice(t, g, c, body->finish, m->from);
    } else if (g->cancel_at > 0 && c == 0 && g->n_tokens[0] >= g->cancel_at && !g->cancelled) {
        envelope   e      = envelope_of(t->deployment, g);
        gen_cancel cancel = {.choice = 0, .reason = CANCEL_REASON_STOP_STRING};
        assert_true(actor_send(t->actor, m->from, MSG_GEN_CANCEL, &cancel, &e, NULL));
        g->cancelled = true;
        end_choice(t, g, 0, FINISH_REASON_STOP, m->from);
    }
}

static void on_gen_prompt(void *self, const message *m)
{
    test_actor       *t    = self;
    const gen_prompt *body = m->body;
    generation       *g    = find_generation(t->deployment, &m->envelope->request);
    assert_non_null(g);
    assert_in_range(body->index, 1, g->n_prompt_logprobs + 1);
    for (uint32_t i = 0; i < body->n_logprobs; i++) {
        uint32_t place = body->index - 1 + i;
        if (place == g->n_prompt_logprobs)
            g->prompt_logprobs[g->n_prompt_logprobs++] = body->logprobs[i].logprob;
        else /* scored again, after it gave way */
            assert_memory_equal(&g->prompt_logprobs[place], &body->logprobs[i].logprob, sizeof(float));
    }
}

static const actor_route collector_routes[] = {{MSG_GEN_OPEN, on_gen_open},
                                               {MSG_GEN_TOKENS, on_gen_tokens},
                                               {MSG_GEN_PROMPT, on_gen_prompt},
                                               {MSG_GEN_CANCEL, actor_ignore},
                                               {MSG_GEN_FIND, actor_ignore}};

static const actor_class collector_class = {.name     = "collector",
                                            .role     = ROLE_POSTPROCESSOR,
                                            .routes   = collector_routes,
                                            .n_routes = COUNT(collector_routes),
                                            .create   = create,
                                            .destroy  = free};

/* ---- the deployment ---- */

void deployment_init(deployment *d)
{
    *d                     = (deployment){0};
    error        err       = {0};
    option_group groups[3] = {
        {"scheduler", scheduler_option_rows, n_scheduler_option_rows, &d->scheduler_options},
        {"executor", executor_option_rows, n_executor_option_rows, &d->executor_options},
        {"drafter", drafter_option_rows, n_drafter_option_rows, &d->drafter_options},
    };
    if (!option_parse(groups, 3, 0, NULL, NULL, &err))
        fail_msg("%s", err.text);
    d->scheduler_options.hash_seed             = 7;
    d->scheduler_options.draft_wait_ms         = 1000;
    d->executor_options.model                  = TESTS_DIR "/data/models/gqa_tied.gguf";
    d->executor_options.weight_cache           = "off"; /* leaves no file beside the test's data */
    d->executor_options.backend                = "cpu";
    d->executor_options.n_threads              = 1;
    d->executor_options.compute_inline         = true;
    d->executor_options.kv_cache_memory        = 4 << 20;
    d->executor_options.max_num_batched_tokens = 128;
    d->drafter_options.max_model_len           = 1024;
    d->generations                             = calloc(GENERATION_REQUESTS_MAX, sizeof *d->generations);
    assert_non_null(d->generations);
}

static actor *add(deployment *d, const actor_class *class, const void *options, const actor_options *where)
{
    error  err = {0};
    actor *a   = simulation_add(d->sim, class, options, where, &err);
    if (!a)
        fail_msg("%s: %s", class->name, err.text);
    return a;
}

static bool is_ready(void *arg)
{
    const deployment *d = arg;
    const scheduler  *s = actor_self(d->scheduler);
    uint32_t          n = 0, n_postprocessors, n_drafters, wanted = 0, drafters = 0;
    for (const executor_link *x = s->executors; x; x = x->next)
        n++;
    for (uint32_t i = 0; i < GENERATION_EXECUTORS_MAX; i++)
        wanted += d->executors[i] != NULL;
    for (uint32_t i = 0; i < COUNT(d->drafters); i++)
        drafters += d->drafters[i] != NULL;
    (void)actor_pick_peer(d->scheduler, ROLE_POSTPROCESSOR, &n_postprocessors);
    (void)actor_pick_peer(d->scheduler, ROLE_DRAFTER, &n_drafters);
    return n == wanted && n_postprocessors == 1 && n_drafters == drafters &&
           actor_find_peer(d->scheduler, span_of(actor_name(d->gateway))) &&
           actor_find_peer(d->gateway, span_of(actor_name(d->scheduler))) &&
           actor_find_peer(d->tokenizer, span_of(actor_name(d->scheduler)));
}

void deployment_add_executor(deployment *d, uint32_t i)
{
    actor_options     calling = {.connect = {"inproc://scheduler"}, .credits = EXECUTOR_CREDITS};
    executor_options *o       = &d->options_of[i];
    *o                        = d->executor_options;
    o->serves                 = d->roles[i];
    snprintf(d->binds[i], sizeof d->binds[i], "inproc://executor-%u", i);
    if (d->kv_bind)
        calling.bind[0] = o->kv_bind = d->binds[i];
    d->executors[i] = add(d, &executor_class, o, &calling);
}

void deployment_start(deployment *d, uint64_t seed, uint32_t n_executors, uint32_t n_drafters)
{
    d->sim                = simulation_new(seed, NULL);
    actor_options bound   = {.bind = {"inproc://scheduler"}, .credits = GENERATION_REQUESTS_MAX};
    actor_options patient = {.connect = {"inproc://scheduler"}, .credits = GENERATION_REQUESTS_MAX};
    d->scheduler          = add(d, &scheduler_class, &d->scheduler_options, &bound);
    for (uint32_t i = 0; i < n_executors; i++)
        deployment_add_executor(d, i);
    for (uint32_t i = 0; i < n_drafters; i++)
        d->drafters[i] = add(d, &drafter_class, &d->drafter_options, &patient);
    d->collector = add(d, &collector_class, d, &patient);
    d->gateway   = add(d, &gateway_class, d, &patient);
    d->tokenizer = add(d, &tokenizer_class, d, &patient);
    if (!simulation_run_until(d->sim, is_ready, d, 10 * NS_PER_S))
        fail_msg("the deployment did not come up in 10 s of virtual time");
}

void deployment_end(deployment *d)
{
    simulation_free(&d->sim);
    free(d->generations);
    d->generations = NULL;
}

generation *deployment_add(deployment *d, uint64_t prompt_seed, uint32_t n_prompt, uint32_t max_tokens)
{
    assert_true(d->n_generations < GENERATION_REQUESTS_MAX && n_prompt <= GENERATION_TOKENS_MAX &&
                max_tokens <= GENERATION_TOKENS_MAX);
    generation   *g   = &d->generations[d->n_generations++];
    random_seeded rng = random_from_seed(prompt_seed);
    for (uint32_t i = 0; i < n_prompt; i++)
        g->prompt[i] = (uint32_t)random_below(&rng, N_VOCAB_USED);
    g->body            = gen_request_defaults;
    g->body.prompt     = g->prompt;
    g->body.n_prompt   = n_prompt;
    g->body.max_tokens = max_tokens;
    return g;
}

void deployment_send(deployment *d, generation *g)
{
    error    err;
    envelope e       = envelope_of(d, g);
    peer    *to      = actor_find_peer(d->tokenizer, span_of(actor_name(d->scheduler)));
    g->body.reply_to = span_of(actor_name(d->gateway));
    assert_non_null(to);
    if (!actor_send(d->tokenizer, to, MSG_GEN_REQUEST, &g->body, &e, &err))
        fail_msg("request not sent: %s", err.text);
}

void deployment_cancel(deployment *d, generation *g)
{
    error      err;
    envelope   e      = envelope_of(d, g);
    gen_cancel cancel = {.all = true, .reason = CANCEL_REASON_CLIENT_LEFT};
    peer      *to     = actor_find_peer(d->gateway, span_of(actor_name(d->scheduler)));
    g->cancelled      = true;
    if (!actor_send(d->gateway, to, MSG_GEN_CANCEL, &cancel, &e, &err))
        fail_msg("cancel not sent: %s", err.text);
}

/* A request that was cancelled before it was opened ends without a word to anybody. */
bool generation_ended(const generation *g)
{
    if (g->refused > 0 || (g->cancelled && g->n_opens == 0))
        return true;
    return g->n_opens > 0 && g->n_ends == g->body.n;
}

static bool all_ended(void *arg)
{
    deployment      *d = arg;
    const scheduler *s = actor_self(d->scheduler);
    if (s->n_requests > 0)
        return false;
    for (uint32_t i = 0; i < d->n_generations; i++)
        if (!generation_ended(&d->generations[i]))
            return false;
    return true;
}

static bool one_ended(void *arg)
{
    return generation_ended(arg);
}

void deployment_run_one(deployment *d, generation *g, double max_s)
{
    if (!simulation_run_until(d->sim, one_ended, g, (int64_t)(max_s * 1e9)))
        fail_msg("request %td has not ended after %g s of virtual time", g - d->generations, max_s);
}

void deployment_run(deployment *d, double max_s)
{
    if (simulation_run_until(d->sim, all_ended, d, (int64_t)(max_s * 1e9)))
        return;
    scheduler_class.dump(actor_self(d->scheduler));
    for (uint32_t i = 0; i < d->n_generations; i++)
        if (!generation_ended(&d->generations[i]))
            fail_msg("request %u has not ended after %g s of virtual time", i, max_s);
    fail_msg("the scheduler still holds requests after %g s of virtual time", max_s);
}

typedef struct {
    uint32_t n;
    bool    *all;
} credits_wanted;

static void has_credits(void *arg, peer *p)
{
    const credits_wanted *wanted = arg;
    *wanted->all                 = *wanted->all && p->credits == wanted->n;
}

static bool credits_are_back(void *arg)
{
    deployment      *d = arg;
    const scheduler *s = actor_self(d->scheduler);
    for (const executor_link *x = s->executors; x; x = x->next)
        if (x->n_plans > 0)
            return false;
    bool all = true;
    actor_each_peer(d->scheduler, ROLE_EXECUTOR, has_credits, &(credits_wanted){EXECUTOR_CREDITS, &all});
    actor_each_peer(d->scheduler, ROLE_DRAFTER, has_credits, &(credits_wanted){GENERATION_REQUESTS_MAX, &all});
    actor_each_peer(d->scheduler, ROLE_POSTPROCESSOR, has_credits, &(credits_wanted){GENERATION_REQUESTS_MAX, &all});
    actor_each_peer(d->tokenizer, ROLE_SCHEDULER, has_credits, &(credits_wanted){GENERATION_REQUESTS_MAX, &all});
    return all;
}

void deployment_check_idle(deployment *d)
{
    const scheduler *s = actor_self(d->scheduler);
    if (!simulation_run_until(d->sim, credits_are_back, d, NS_PER_S))
        fail_msg("credits did not come back");
    assert_true(metric_of("troupe_sequences_running") == 0);
    assert_true(metric_of("troupe_sequences_waiting") == 0);
    assert_true(metric_of("troupe_kv_blocks_used") == 0);
    assert_int_equal(0, s->n_requests);
    assert_int_equal(0, s->n_waiting);
    assert_int_equal(0, s->n_waiting_tokens);
    for (const executor_link *x = s->executors; x; x = x->next) {
        assert_int_equal(0, x->n_running);
        assert_int_equal(0, x->n_plans);
        assert_int_equal(kv_pool_n_blocks(x->pool), kv_pool_n_available(x->pool));
        assert_int_equal(x->about.n_slots, x->n_free_slots + x->n_pending_closes);
    }
    scheduler_class.check(s);
}

double metric_of(const char *name)
{
    const metric *m = metric_find(name, "");
    assert_non_null(m);
    return metric_value(m);
}
