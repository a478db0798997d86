// links: service_scheduler service_executor service_drafter
/* Scheduler, executors and drafters together, on a simulated network with a tiny real model: a request's tokens depend
 * on the request alone, and nothing leaks. */
#include "support_generation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { N_REQUESTS = 32, MAX_TOKENS = 24 };

/* The same 32 requests for every configuration: greedy and seeded, short and long prompts, shared prefixes, penalties.
 */
static void add_requests(deployment *d, bool speculate)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        generation *g = deployment_add(d, i / 4, 5 + 13 * (i % 8), MAX_TOKENS);
        if (i % 2) {
            g->body.sampling.temperature = 0.9f;
            g->body.sampling.top_p       = 0.95f;
            g->body.sampling.seed        = 1000 + i;
        } else {
            g->body.sampling.temperature = 0;
        }
        if (i % 8 == 3)
            g->body.sampling.repetition_penalty = 1.3f;
        if (i % 8 == 5)
            g->body.sampling.no_repeat_ngram = 3;
        g->body.draft_tokens = speculate ? 4 : 0;
    }
}

static uint32_t reference[N_REQUESTS][MAX_TOKENS];

/* One after the other on a machine that does nothing else. */
static void make_reference(void)
{
    deployment d;
    deployment_init(&d);
    d.scheduler_options.prefix_caching = false;
    deployment_start(&d, 1, 1, 0);
    add_requests(&d, false);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        deployment_send(&d, &d.generations[i]);
        deployment_run_one(&d, &d.generations[i], 60);
        assert_int_equal(MAX_TOKENS, d.generations[i].n_tokens[0]);
        memcpy(reference[i], d.generations[i].tokens[0], sizeof reference[i]);
    }
    deployment_check_idle(&d);
    deployment_end(&d);
}

static void assert_like_reference(const deployment *d, const char *what)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        const generation *g = &d->generations[i];
        assert_int_equal(0, g->refused);
        assert_int_equal(FINISH_REASON_LENGTH, g->finish[0]);
        for (uint32_t t = 0; t < MAX_TOKENS; t++)
            if (g->tokens[0][t] != reference[i][t])
                fail_msg("%s: request %u differs at token %u: %u, alone %u", what, i, t, g->tokens[0][t],
                         reference[i][t]);
    }
}

/* Circumstances that must not show in the tokens. */
typedef struct {
    bool     alone; /* one request after the other, or all 32 at once */
    uint64_t chunk;
    bool     prefix_hits; /* everything is asked twice */
    bool     speculation;
    uint32_t n_executors, policy;
    uint64_t budget, kv_memory;
} setup;

/* All requests once, or once more. */
static void ask_all(deployment *d, const setup *c, const char *what)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        generation *g = &d->generations[i];
        if (g->n_opens > 0) {
            memset(g->n_tokens, 0, sizeof g->n_tokens);
            memset(g->finish, 0, sizeof g->finish);
            g->n_opens = g->n_ends = g->n_cached = 0;
            g->attempt++;
        }
    }
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        deployment_send(d, &d->generations[i]);
        if (c->alone)
            deployment_run_one(d, &d->generations[i], 60);
    }
    deployment_run(d, 600);
    assert_like_reference(d, what);
}

static uint32_t sum_of(const deployment *d, size_t field)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        sum += *(const uint32_t *)((const char *)&d->generations[i] + field);
    return sum;
}

static void run_setup(const setup *c, uint64_t seed)
{
    static const char *const policies[] = {"continuous", "dynamic", "static"};
    char                     what[200];
    deployment               d;
    snprintf(what, sizeof what, "%s, %s batches, chunks of %u, %s prefix hits, %s drafts, %u executors, seed %u",
             c->alone ? "alone" : "32 at once", policies[c->policy], (unsigned)c->chunk, c->prefix_hits ? "with" : "no",
             c->speculation ? "with" : "no", c->n_executors, (unsigned)seed);
    deployment_init(&d);
    d.scheduler_options.policy                 = c->policy;
    d.scheduler_options.max_prefill_chunk      = c->chunk;
    d.scheduler_options.max_num_batched_tokens = c->budget;
    d.scheduler_options.prefix_caching         = c->prefix_hits;
    d.executor_options.kv_cache_memory         = c->kv_memory ? c->kv_memory : 4 << 20;
    deployment_start(&d, seed, c->n_executors, c->speculation);
    add_requests(&d, c->speculation);
    double preempted = metric_of("troupe_preemptions_total");
    ask_all(&d, c, what);
    if (c->prefix_hits) {
        ask_all(&d, c, what);
        assert_true(sum_of(&d, offsetof(generation, n_cached)) > 0);
    }
    uint32_t n_drafted = sum_of(&d, offsetof(generation, n_drafted));
    if (c->speculation)
        assert_in_range(sum_of(&d, offsetof(generation, n_accepted)), 1, n_drafted);
    if (c->kv_memory)
        assert_true(metric_of("troupe_preemptions_total") > preempted);
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* Every combination; each has greedy and seeded requests. */
static void tokens_depend_on_the_request_alone(void **state)
{
    (void)state;
    static const uint64_t chunks[] = {0, 1, 7};
    uint64_t              seed     = 0;
    make_reference();
    for (uint32_t bits = 0; bits < 16; bits++)
        for (uint32_t chunk = 0; chunk < COUNT(chunks); chunk++)
            for (uint32_t policy = POLICY_CONTINUOUS; policy <= POLICY_STATIC; policy++)
                run_setup(&(setup){.alone       = bits & 1,
                                   .prefix_hits = bits & 2,
                                   .speculation = bits & 4,
                                   .n_executors = bits & 8 ? 2 : 1,
                                   .chunk       = chunks[chunk],
                                   .policy      = policy},
                          ++seed);
}

/* A budget of fewer tokens than requests; so little memory that sequences give way. */
static const setup scarce[] = {
    {.n_executors = 1, .budget = 16, .prefix_hits = true},
    {.n_executors = 1, .budget = 16, .chunk = 5, .speculation = true},
    {.n_executors = 1, .kv_memory = 48 << 10},
    {.n_executors = 1, .kv_memory = 48 << 10, .speculation = true, .prefix_hits = true},
    {.n_executors = 2, .kv_memory = 48 << 10, .chunk = 7, .prefix_hits = true},
};

static void scarcity_changes_no_token(void **state)
{
    (void)state;
    make_reference();
    for (size_t i = 0; i < COUNT(scarce); i++)
        run_setup(&scarce[i], 1000 + i);
}

static void choices_draw_from_streams_of_their_own(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 21, 1, 0);
    generation *g                = deployment_add(&d, 3, 50, MAX_TOKENS);
    g->body.n                    = 3;
    g->body.sampling.seed        = 5;
    g->body.sampling.temperature = 1.5f;
    generation *one              = deployment_add(&d, 3, 50, MAX_TOKENS);
    one->body.sampling           = g->body.sampling;
    deployment_send(&d, g);
    deployment_send(&d, one);
    deployment_run(&d, 60);
    assert_memory_equal(g->tokens[0], one->tokens[0], MAX_TOKENS * sizeof(uint32_t));
    for (int c = 0; c < 3; c++)
        assert_int_equal(MAX_TOKENS, g->n_tokens[c]);
    assert_memory_not_equal(g->tokens[0], g->tokens[1], MAX_TOKENS * sizeof(uint32_t));
    assert_memory_not_equal(g->tokens[1], g->tokens[2], MAX_TOKENS * sizeof(uint32_t));
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* Prompt log probabilities do not depend on chunks, and agree with those of the tokens as they were generated. */
static void a_prompt_is_scored_as_it_would_be_generated(void **state)
{
    (void)state;
    for (uint64_t chunk = 0; chunk < 8; chunk += 7) {
        deployment d;
        deployment_init(&d);
        d.scheduler_options.max_prefill_chunk = chunk;
        deployment_start(&d, 31 + chunk, 1, 0);
        generation *g                = deployment_add(&d, 9, 20, 20);
        g->body.sampling.logprobs    = true;
        g->body.sampling.temperature = 0;
        deployment_send(&d, g);
        deployment_run(&d, 60);
        generation *scored = deployment_add(&d, 9, 20, 0);
        memcpy(scored->prompt + 20, g->tokens[0], 20 * sizeof(uint32_t));
        scored->body.n_prompt        = 40;
        scored->body.prompt_logprobs = true;
        deployment_send(&d, scored);
        deployment_run(&d, 60);
        assert_int_equal(39, scored->n_prompt_logprobs);
        assert_int_equal(0, scored->n_tokens[0]);
        assert_int_equal(FINISH_REASON_LENGTH, scored->finish[0]);
        for (int i = 0; i < 20; i++)
            assert_memory_equal(&g->logprobs[0][i], &scored->prompt_logprobs[19 + i], sizeof(float));
        deployment_check_idle(&d);
        deployment_end(&d);
    }
}

/* Tokens of an earlier attempt are computed like a prompt, and are none. */
static void only_the_prompt_of_a_resumed_request_is_scored(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 37, 1, 0);
    generation  *g          = deployment_add(&d, 9, 20, 20);
    resume_point delivered  = {.tokens = g->prompt, .n_tokens = 7};
    g->body.prompt_logprobs = true;
    g->body.resume          = &delivered;
    g->body.n_resume        = 1;
    g->n_tokens[0]          = 7;
    deployment_send(&d, g);
    deployment_run(&d, 60);
    assert_int_equal(19, g->n_prompt_logprobs);
    assert_int_equal(20, g->n_tokens[0]);
    deployment_check_idle(&d);
    deployment_end(&d);
}

static float score_of(const generation *scored, uint32_t n_prompt, uint32_t n_tokens)
{
    float sum = 0;
    for (uint32_t i = 0; i < n_tokens; i++)
        sum += scored->prompt_logprobs[n_prompt - 1 + i];
    return sum;
}

/* Every token stands in its prompt and none may come twice: it fails after its prompt, when its next row is planned
 * already, two plans deep. Nobody else may be computed again for that, let alone say something else. */
static void a_sequence_that_fails_alone_fails_nobody_else(void **state)
{
    (void)state;
    enum { N_VOCAB = 128 };
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 46, 1, 0);
    add_requests(&d, false);
    double n_preempted = metric_of("troupe_preemptions_total");
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        deployment_send(&d, &d.generations[i]);
    for (uint32_t i = 0; i < 3; i++) {
        generation *g                    = deployment_add(&d, 1, N_VOCAB, MAX_TOKENS);
        g->body.sampling.no_repeat_ngram = 1;
        for (uint32_t t = 0; t < N_VOCAB; t++)
            g->prompt[t] = (t + i) % N_VOCAB;
        deployment_send(&d, g);
    }
    deployment_run(&d, 60);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(FINISH_REASON_ERROR, d.generations[N_REQUESTS + i].finish[0]);
        assert_int_equal(0, d.generations[N_REQUESTS + i].n_tokens[0]);
    }
    assert_like_reference(&d, "beside sequences that fail");
    assert_true(metric_of("troupe_preemptions_total") == n_preempted);
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* A beam search of width 1 is greedy; a wider one finds something at least as likely. */
static void beams_are_at_least_as_likely_as_greedy(void **state)
{
    (void)state;
    enum { N_PROMPT = 21, N_OUTPUT = 12 };
    static const uint32_t widths[] = {0, 1, 2, 4, 8};
    float                 best[COUNT(widths)];
    deployment            d;
    deployment_init(&d);
    deployment_start(&d, 41, 1, 0);
    for (size_t w = 0; w < COUNT(widths); w++) {
        generation *g                = deployment_add(&d, 77, N_PROMPT, N_OUTPUT);
        g->body.sampling.temperature = 0;
        g->body.sampling.beam_width  = widths[w];
        g->body.n                    = widths[w] >= 2 ? 2 : 1;
        deployment_send(&d, g);
        deployment_run(&d, 60);
        assert_int_equal(N_OUTPUT, g->n_tokens[0]);
        if (widths[w] >= 2)
            assert_memory_not_equal(g->tokens[0], g->tokens[1], N_OUTPUT * sizeof(uint32_t));
        generation *scored = deployment_add(&d, 77, N_PROMPT, 0);
        memcpy(scored->prompt + N_PROMPT, g->tokens[0], N_OUTPUT * sizeof(uint32_t));
        scored->body.n_prompt        = N_PROMPT + N_OUTPUT;
        scored->body.prompt_logprobs = true;
        deployment_send(&d, scored);
        deployment_run(&d, 60);
        best[w] = score_of(scored, N_PROMPT, N_OUTPUT);
    }
    assert_true(best[0] == best[1]);
    assert_true(best[2] >= best[0] - 1e-4f && best[3] >= best[0] - 1e-4f && best[4] >= best[0] - 1e-4f);
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* What a request may wish for its logits, one wish at a time, then all. */
enum { N_WISHES = 7 };

static void wish(generation *g, uint32_t which)
{
    static const logit_bias bias[]  = {{.token = 3, .bias = 4}, {.token = 90, .bias = 3}, {.token = 17, .bias = -100}};
    static const uint32_t   stops[] = {3, 90, 17, 55};
    sampling_params        *p       = &g->body.sampling;
    bool                    all     = which == N_WISHES - 1;
    p->temperature                  = 0;
    p->repetition_penalty           = which == 0 || all ? 1.5f : 1;
    p->frequency_penalty            = which == 1 || all ? 0.8f : 0;
    p->presence_penalty             = which == 2 || all ? 0.8f : 0;
    p->no_repeat_ngram              = which == 3 ? 1 : all ? 2 : 0;
    p->n_logit_bias                 = which == 4 || which == 5 || all ? COUNT(bias) : 0;
    p->logit_bias                   = bias;
    p->min_tokens                   = which == 5 || all ? 7 : 0;
    g->body.stop_tokens             = stops;
    g->body.n_stop_tokens           = which == 5 || all ? COUNT(stops) : 0;
}

/* Penalties, bias and bans hold for beams as for anybody: a search of width 1 says what greedy decoding says. */
static void beams_do_what_a_request_wishes_for_its_logits(void **state)
{
    (void)state;
    enum { N_PROMPT = 21, N_OUTPUT = 20 };
    static const uint32_t widths[] = {0, 1, 4};
    uint32_t              unedited[N_OUTPUT];
    deployment            d;
    deployment_init(&d);
    deployment_start(&d, 47, 1, 0);
    for (uint32_t which = 0; which <= N_WISHES; which++) {
        generation *of[COUNT(widths)];
        for (size_t w = 0; w < COUNT(widths); w++) {
            of[w] = deployment_add(&d, 77, N_PROMPT, N_OUTPUT);
            wish(of[w], (which + N_WISHES) % (N_WISHES + 1)); /* first of all none */
            of[w]->body.sampling.beam_width = widths[w];
            deployment_send(&d, of[w]);
            deployment_run(&d, 60);
        }
        uint32_t n = of[0]->n_tokens[0];
        assert_int_equal(n, of[1]->n_tokens[0]);
        assert_memory_equal(of[0]->tokens[0], of[1]->tokens[0], n * sizeof(uint32_t));
        assert_int_equal(of[0]->finish[0], of[1]->finish[0]);
        assert_true(of[2]->n_tokens[0] > 7);
        if (which == 0)
            memcpy(unedited, of[0]->tokens[0], sizeof unedited);
        else
            assert_memory_not_equal(unedited, of[0]->tokens[0], n * sizeof(uint32_t));
        for (uint32_t i = 0; which == 4 && i < of[2]->n_tokens[0]; i++) /* nothing may come twice */
            for (uint32_t k = 0; k < i; k++)
                assert_int_not_equal(of[2]->tokens[0][i], of[2]->tokens[0][k]);
    }
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* The log probabilities of the beams that are handed out are those that scoring them as prompts gives. */
static void beams_come_with_their_log_probabilities(void **state)
{
    (void)state;
    enum { N_PROMPT = 21, N_OUTPUT = 24 };
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 48, 1, 0);
    generation *g                   = deployment_add(&d, 77, N_PROMPT, N_OUTPUT);
    g->body.n                       = 3;
    g->body.sampling.beam_width     = 4;
    g->body.sampling.logprobs       = true;
    g->body.sampling.n_top_logprobs = 5;
    deployment_send(&d, g);
    deployment_run(&d, 60);
    for (uint32_t c = 0; c < 3; c++) {
        assert_int_equal(N_OUTPUT, g->n_tokens[c]);
        generation *scored = deployment_add(&d, 77, N_PROMPT, 0);
        memcpy(scored->prompt + N_PROMPT, g->tokens[c], N_OUTPUT * sizeof(uint32_t));
        scored->body.n_prompt        = N_PROMPT + N_OUTPUT;
        scored->body.prompt_logprobs = true;
        deployment_send(&d, scored);
        deployment_run(&d, 60);
        for (uint32_t i = 0; i < N_OUTPUT; i++)
            assert_true(g->logprobs[c][i] == scored->prompt_logprobs[N_PROMPT - 1 + i]);
        assert_int_equal(5, g->n_top_logprobs[c]);
    }
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* An executor dies in the middle: another one, or its successor, continues, and says what it would have said. */
static void a_killed_executor_changes_no_token(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 51, 2, 0);
    add_requests(&d, false);
    for (uint32_t k = 0; k < N_REQUESTS; k++)
        deployment_send(&d, &d.generations[k]);
    simulation_run_until(d.sim, NULL, NULL, 20 * NS_PER_MS);
    simulation_kill(d.sim, d.executors[0]);
    deployment_run(&d, 600);
    assert_like_reference(&d, "a killed executor");
    deployment_check_idle(&d);
    deployment_end(&d);
}

static void the_queue_refuses_what_is_over_its_bounds(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    d.scheduler_options.max_queue         = 8;
    d.scheduler_options.max_num_seqs      = 2;
    d.scheduler_options.max_queued_tokens = 400;
    deployment_start(&d, 61, 1, 0);
    uint32_t n_refused = 0, n_served = 0;
    for (uint32_t i = 0; i < 40; i++)
        deployment_send(&d, deployment_add(&d, i, 60, 8));
    generation *too_long      = deployment_add(&d, 99, 10, 8);
    too_long->body.max_tokens = 1 << 20;
    deployment_send(&d, too_long);
    generation *empty    = deployment_add(&d, 99, 10, 8);
    empty->body.n_prompt = 0;
    deployment_send(&d, empty);
    deployment_run(&d, 60);
    for (uint32_t i = 0; i < 40; i++) {
        n_refused += d.generations[i].refused == ERR_OVERLOADED;
        n_served += d.generations[i].n_tokens[0] == 8;
    }
    assert_int_equal(40, n_refused + n_served);
    assert_true(n_refused > 0 && n_served > 0);
    assert_int_equal(ERR_INVALID, too_long->refused);
    assert_int_equal(ERR_INVALID, empty->refused);
    deployment_check_idle(&d);
    deployment_end(&d);
}

static void urgent_requests_overtake_and_old_ones_are_not_forgotten(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    d.scheduler_options.max_num_seqs = 2;
    deployment_start(&d, 71, 1, 0);
    for (uint32_t i = 0; i < 20; i++) {
        generation *g    = deployment_add(&d, i, 30, MAX_TOKENS);
        g->body.priority = 10;
        deployment_send(&d, g);
    }
    simulation_run_until(d.sim, NULL, NULL, 20 * NS_PER_MS);
    double      preempted = metric_of("troupe_preemptions_total");
    generation *urgent    = deployment_add(&d, 100, 30, MAX_TOKENS);
    urgent->body.priority = -10;
    deployment_send(&d, urgent);
    deployment_run_one(&d, urgent, 60);
    assert_true(metric_of("troupe_preemptions_total") == preempted + 1);
    uint32_t n_waiting = 0;
    for (uint32_t i = 0; i < 20; i++)
        n_waiting += !generation_ended(&d.generations[i]);
    assert_true(n_waiting >= 10);
    deployment_run(&d, 600);
    deployment_check_idle(&d);
    deployment_end(&d);
}

static void a_deadline_ends_what_waits_and_what_runs(void **state)
{
    (void)state;
    deployment d;
    deployment_init(&d);
    deployment_start(&d, 81, 0, 0); /* no executor: everything waits */
    generation *g     = deployment_add(&d, 1, 30, 8);
    envelope    e     = {.deadline_unix_ms = clock_unix_ms(simulation_clock(d.sim)) + 200};
    uint32_t    index = 1;
    memcpy(e.request.bytes, &index, sizeof index);
    peer *to         = actor_find_peer(d.tokenizer, span_of(actor_name(d.scheduler)));
    g->body.reply_to = span_of(actor_name(d.gateway));
    assert_true(actor_send(d.tokenizer, to, MSG_GEN_REQUEST, &g->body, &e, NULL));
    deployment_run(&d, 5);
    assert_int_equal(ERR_TIMEOUT, g->refused);
    deployment_check_idle(&d);
    deployment_end(&d);
}

/* ---- traffic ---- */

enum { BURST = 64 };

/* A request of any shape: lengths, choices, stops, drafts, scores, beams, and perhaps a cancel at some token. */
static void send_something(deployment *d)
{
    random_seeded *rng     = simulation_random(d->sim);
    uint32_t       stops[] = {(uint32_t)random_below(rng, 60)};
    generation    *g =
        deployment_add(d, random_below(rng, 20), 1 + (uint32_t)random_below(rng, 150), (uint32_t)random_below(rng, 60));
    g->body.n                    = random_below(rng, 5) == 0 ? 1 + (uint32_t)random_below(rng, 4) : 1;
    g->body.sampling.temperature = (float)random_below(rng, 3) / 2;
    g->body.sampling.seed        = random_u64(rng);
    g->body.draft_tokens         = random_below(rng, 3) == 0 ? 4 : 0;
    g->body.priority             = (int32_t)random_below(rng, 5);
    g->body.prompt_logprobs      = random_below(rng, 10) == 0;
    g->body.stop_tokens          = stops;
    g->body.n_stop_tokens        = random_below(rng, 2) ? 1 : 0;
    if (random_below(rng, 10) == 0 && g->body.max_tokens > 0 && !g->body.prompt_logprobs) {
        g->body.n                   = 1;
        g->body.sampling.beam_width = 2 + (uint32_t)random_below(rng, 3);
    } else if (random_below(rng, 4) == 0) {
        g->cancel_at = 1 + (uint32_t)random_below(rng, 10);
    }
    deployment_send(d, g);
    g->body.stop_tokens = NULL; /* it was on the stack */
}

/* 64 requests at once, of which clients leave at any time. Everything ends, and everything comes back. Returns how many
 * sequences ran at once. */
static double run_burst(deployment *d)
{
    random_seeded *rng   = simulation_random(d->sim);
    uint32_t       first = d->n_generations, n_left = (uint32_t)random_below(rng, BURST / 4);
    double         peak = 0;
    for (uint32_t i = 0; i < BURST; i++)
        send_something(d);
    while (n_left-- > 0) {
        simulation_run_until(d->sim, NULL, NULL, (int64_t)random_below(rng, 100) * NS_PER_MS);
        peak               = fmax(peak, metric_of("troupe_sequences_running"));
        generation *victim = &d->generations[first + random_below(rng, BURST)];
        if (!generation_ended(victim) && !victim->cancelled)
            deployment_cancel(d, victim);
    }
    deployment_run(d, 600);
    deployment_check_idle(d);
    return peak;
}

/* With little memory in every second world. */
static void sixty_four_streams_with_cancels_and_stops_all_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        deployment d;
        deployment_init(&d);
        d.executor_options.kv_cache_memory = seed % 2 ? 4 << 20 : 96 << 10;
        deployment_start(&d, seed, 1 + seed % 2, 1);
        run_burst(&d);
        deployment_end(&d);
    }
}

/* Bursts each three minutes, of which a step of a batch takes some tens of milliseconds of virtual time: that of its
 * messages. Memory is short now and then. */
static void an_hour_of_traffic_leaks_nothing(void **state)
{
    (void)state;
    enum { N_BURSTS = 20 };
    double     peak = 0, preempted = metric_of("troupe_preemptions_total");
    deployment d;
    deployment_init(&d);
    d.executor_options.kv_cache_memory = 512 << 10;
    d.scheduler_options.draft_wait_ms  = 30;
    deployment_start(&d, 100, 2, 1);
    simulation_set_network(d.sim,
                           &(sim_network_options){.delay_min_ns = 5 * NS_PER_MS, .delay_max_ns = 20 * NS_PER_MS});
    int64_t begin_ms = clock_unix_ms(simulation_clock(d.sim));
    for (uint32_t i = 0; i < N_BURSTS; i++) {
        peak = fmax(peak, run_burst(&d));
        simulation_run_until(d.sim, NULL, NULL, 180 * NS_PER_S);
    }
    assert_true(clock_unix_ms(simulation_clock(d.sim)) - begin_ms > 3600 * 1000);
    assert_true(peak >= BURST / 2);
    assert_true(metric_of("troupe_preemptions_total") > preempted);
    deployment_end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_depend_on_the_request_alone),
        cmocka_unit_test(scarcity_changes_no_token),
        cmocka_unit_test(choices_draw_from_streams_of_their_own),
        cmocka_unit_test(a_prompt_is_scored_as_it_would_be_generated),
        cmocka_unit_test(only_the_prompt_of_a_resumed_request_is_scored),
        cmocka_unit_test(a_sequence_that_fails_alone_fails_nobody_else),
        cmocka_unit_test(beams_are_at_least_as_likely_as_greedy),
        cmocka_unit_test(beams_do_what_a_request_wishes_for_its_logits),
        cmocka_unit_test(beams_come_with_their_log_probabilities),
        cmocka_unit_test(a_killed_executor_changes_no_token),
        cmocka_unit_test(the_queue_refuses_what_is_over_its_bounds),
        cmocka_unit_test(urgent_requests_overtake_and_old_ones_are_not_forgotten),
        cmocka_unit_test(a_deadline_ends_what_waits_and_what_runs),
        cmocka_unit_test(sixty_four_streams_with_cancels_and_stops_all_end),
        cmocka_unit_test(an_hour_of_traffic_leaks_nothing),
    };
    return cmocka_run_group_tests_name("sim/generation", tests, NULL, NULL);
}
