/* KV blocks from one executor to another: two real ones over a tiny model, and beside them a scheduler and an executor
 * that the test plays, and that may say anything. */
#include "support_engine.h"

#include "actor/simulation.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FROM = 3, TO = 7 }; /* blocks */

/* A scheduler or an executor that writes down what it hears. */
typedef struct {
    actor         *actor;
    peer          *executors[2]; /* a scheduler's: who said executor.ready */
    executor_ready abouts[2];
    char           endpoints[2][BUS_ENDPOINT_BYTES];
    uint32_t       n_results, n_loaded, n_blocks, n_answers, last_token;
    kv_loaded      loaded;
    kv_blocks      answer, *lie; /* of a played source: what it answers to kv.fetch */
    char           why[ERROR_TEXT_BYTES];
} player;

static void *create(actor *a, const void *options, error *err)
{
    player *p = (player *)(uintptr_t)options;
    (void)err;
    p->actor = a;
    return p;
}

static void destroy(void *self)
{
    (void)self;
}

static void on_ready(void *self, const message *m)
{
    player               *p    = self;
    const executor_ready *said = m->body;
    uint32_t              i    = said->n_slots == 2 * TINY_SLOTS; /* the target has more */
    executor_reset        r    = {.epoch = 1, .term = said->term};
    p->executors[i]            = m->from;
    p->abouts[i]               = *said;
    snprintf(p->endpoints[i], sizeof p->endpoints[i], "%.*s", SPAN_ARG(said->kv_endpoint));
    assert_true(actor_send(p->actor, m->from, MSG_EXECUTOR_RESET, &r, NULL, NULL));
}

static void on_result(void *self, const message *m)
{
    player            *p = self;
    const step_result *r = m->body;
    assert_int_equal(0, r->error.size);
    p->last_token = r->n_outputs ? r->outputs[0].tokens[0] : UINT32_MAX;
    p->n_results++;
}

static void on_loaded(void *self, const message *m)
{
    player *p = self;
    p->loaded = *(const kv_loaded *)m->body;
    p->n_loaded++;
    snprintf(p->why, sizeof p->why, "%.*s", SPAN_ARG(p->loaded.error));
}

static void on_blocks(void *self, const message *m)
{
    player *p = self;
    p->answer = *(const kv_blocks *)m->body;
    p->n_answers++;
    snprintf(p->why, sizeof p->why, "%.*s", SPAN_ARG(p->answer.error));
    actor_grant(p->actor, m->from, 1);
}

static void on_fetch(void *self, const message *m)
{
    player         *p      = self;
    const kv_fetch *f      = m->body;
    kv_blocks       answer = *p->lie;
    answer.fetch           = f->fetch;
    assert_true(actor_send(p->actor, m->from, MSG_KV_BLOCKS, &answer, NULL, NULL));
    actor_grant(p->actor, m->from, 1);
}

static const actor_route scheduler_routes[] = {
    {MSG_EXECUTOR_READY, on_ready}, {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, on_result},
    {MSG_KV_LOADED, on_loaded},     {MSG_GEN_REQUEST, actor_ignore},    {MSG_GEN_CANCEL, actor_ignore},
    {MSG_GEN_FIND, actor_ignore},   {MSG_DRAFT_REPLY, actor_ignore},    {MSG_STATUS_GET, actor_ignore}};
static const actor_route executor_routes[]   = {{MSG_EXECUTOR_RESET, actor_ignore},
                                                {MSG_STEP_PLAN, actor_ignore},
                                                {MSG_KV_LOAD, actor_ignore},
                                                {MSG_KV_FETCH, on_fetch},
                                                {MSG_KV_BLOCKS, on_blocks}};
static const actor_class player_as_scheduler = {.name     = "scheduler",
                                                .role     = ROLE_SCHEDULER,
                                                .routes   = scheduler_routes,
                                                .n_routes = COUNT(scheduler_routes),
                                                .create   = create,
                                                .destroy  = destroy};
static const actor_class player_as_executor  = {.name     = "executor",
                                                .role     = ROLE_EXECUTOR,
                                                .routes   = executor_routes,
                                                .n_routes = COUNT(executor_routes),
                                                .create   = create,
                                                .destroy  = destroy};

typedef struct {
    simulation      *sim;
    executor_options options[2];
    actor           *executors[2]; /* source and target */
    player           scheduler, other;
} stage;

static bool both_are_ready(void *arg)
{
    const player *p = arg;
    return p->executors[0] && p->executors[1];
}

static bool has_result(void *arg)
{
    return ((player *)arg)->n_results > 0;
}

static bool has_loaded(void *arg)
{
    return ((player *)arg)->n_loaded > 0;
}

static bool has_answer(void *arg)
{
    return ((player *)arg)->n_answers > 0;
}

static void wait_until(stage *t, bool (*done)(void *), void *arg)
{
    assert_true(simulation_run_until(t->sim, done, arg, 30 * NS_PER_S));
}

/* The source has computed the prompt into block FROM, and sampled a token after it. */
static uint32_t start(stage *t, uint64_t seed)
{
    static const char *const places[] = {"inproc://source", "inproc://target"};
    *t                                = (stage){.sim = simulation_new(seed, NULL)};
    actor_options where               = {.bind = {"inproc://scheduler"}, .credits = 64};
    assert_non_null(simulation_add(t->sim, &player_as_scheduler, &t->scheduler, &where, NULL));
    for (uint32_t i = 0; i < 2; i++) {
        t->options[i]                = tiny_options();
        t->options[i].compute_inline = true;
        t->options[i].kv_bind        = places[i];
        t->options[i].max_num_seqs *= i + 1;
        where           = (actor_options){.bind = {places[i]}, .connect = {"inproc://scheduler"}, .credits = 2};
        t->executors[i] = simulation_add(t->sim, &executor_class, &t->options[i], &where, NULL);
        assert_non_null(t->executors[i]);
    }
    wait_until(t, both_are_ready, &t->scheduler);
    step_plan plan = {.step = 1,
                      OPEN(.tokens = known, .n_tokens = 5, .n_prompt_tokens = 5, .sampling = greedy()),
                      ENTRY(.n_tokens = 5, .blocks = U32S(FROM), .n_blocks = 1, .logits = LOGITS_WANTED_LAST)};
    assert_true(actor_send(t->scheduler.actor, t->scheduler.executors[0], MSG_STEP_PLAN, &plan, NULL, NULL));
    wait_until(t, has_result, &t->scheduler);
    t->scheduler.n_results = 0;
    return t->scheduler.last_token;
}

static void send_load(stage *t, const kv_load *l)
{
    t->scheduler.n_loaded = 0;
    assert_true(actor_send(t->scheduler.actor, t->scheduler.executors[1], MSG_KV_LOAD, l, NULL, NULL));
    wait_until(t, has_loaded, &t->scheduler);
    assert_int_equal(l->load, t->scheduler.loaded.load);
}

static kv_load good_load(const stage *t)
{
    static const uint32_t from[] = {FROM}, to[] = {TO};
    return (kv_load){.load     = 5,
                     .source   = span_of(actor_name(t->executors[0])),
                     .endpoint = span_of(t->scheduler.endpoints[0]),
                     .term     = t->scheduler.abouts[0].term,
                     .from     = from,
                     .n_from   = 1,
                     .to       = to,
                     .n_to     = 1};
}

/* The token that `x` samples at position 6, after the prompt in `block` and the token `sampled`. */
static uint32_t second_token(stage *t, uint32_t x, uint32_t block, uint32_t sampled)
{
    uint32_t tokens[6];
    memcpy(tokens, known, 5 * sizeof *tokens);
    tokens[5]      = sampled;
    step_plan plan = {
        .step     = 9,
        .closes   = U32S(3), /* of the last time */
        .n_closes = 1,
        OPEN(.slot = 3, .tokens = tokens, .n_tokens = 6, .n_prompt_tokens = 5, .sampling = greedy()),
        ENTRY(.slot = 3, .position = 5, .n_tokens = 1, .blocks = &block, .n_blocks = 1, .logits = LOGITS_WANTED_LAST)};
    t->scheduler.n_results = 0;
    assert_true(actor_send(t->scheduler.actor, t->scheduler.executors[x], MSG_STEP_PLAN, &plan, NULL, NULL));
    wait_until(t, has_result, &t->scheduler);
    return t->scheduler.last_token;
}

static void a_sequence_goes_on_from_blocks_of_another_executor(void **state)
{
    (void)state;
    stage    t;
    uint32_t sampled = start(&t, 1), without = second_token(&t, 1, TO, sampled);
    kv_load  l = good_load(&t);
    assert_string_equal("inproc://source", t.scheduler.endpoints[0]);
    send_load(&t, &l);
    assert_string_equal("", t.scheduler.why);
    assert_int_equal(1, t.scheduler.loaded.n_blocks);
    uint32_t there = second_token(&t, 0, FROM, sampled);
    assert_int_equal(there, second_token(&t, 1, TO, sampled));
    assert_int_not_equal(there, without); /* the block mattered */
    simulation_free(&t.sim);
}

static void many_blocks_come_a_few_a_message(void **state)
{
    (void)state;
    enum { N = 40 };
    stage    t;
    uint32_t from[N], to[N];
    start(&t, 2);
    for (uint32_t i = 0; i < N; i++) {
        from[i] = i;
        to[i]   = N - 1 - i;
    }
    kv_load l = good_load(&t);
    l.from = from, l.to = to, l.n_from = l.n_to = N;
    send_load(&t, &l);
    assert_string_equal("", t.scheduler.why);
    assert_int_equal(N, t.scheduler.loaded.n_blocks);
    simulation_free(&t.sim);
}

/* What is wrong with a load is told; nothing is written, and the next one goes well. */
static void a_load_that_cannot_be_done_is_answered_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *what, *complaint;
    } table[] = {{"no blocks", "another number of blocks"}, {"more there", "another number of blocks"},
                 {"block here", "no such block"},           {"block there", "no such block"},
                 {"an old term", "of another scheduler"},   {"nobody's name", "does not answer"},
                 {"nobody's place", "does not answer"}};
    stage t;
    start(&t, 3);
    for (uint32_t i = 0; i <= COUNT(table); i++) {
        kv_load l = good_load(&t);
        l.n_from  = i == 0 ? 0 : i == 1 ? 2 : 1;
        l.n_to    = i == 0 ? 0 : 1;
        l.from    = i == 1 ? U32S(1, 2) : i == 3 ? U32S(TINY_BLOCKS) : l.from;
        l.to      = i == 2 ? U32S(TINY_BLOCKS) : l.to;
        l.term += i == 4;
        l.source   = i == 5 ? SPAN("executor-0000000000000001") : l.source;
        l.endpoint = i >= 5 && i < COUNT(table) ? SPAN("inproc://nowhere") : l.endpoint;
        if (i == 6) /* it is connected already, unless it goes first */
            l.source = SPAN("executor-0000000000000002");
        send_load(&t, &l);
        if (i == COUNT(table))
            assert_string_equal("", t.scheduler.why);
        else if (!strstr(t.scheduler.why, table[i].complaint))
            fail_msg("%s: %s", table[i].what, t.scheduler.why);
        assert_int_equal(i == COUNT(table), t.scheduler.loaded.n_blocks);
    }
    simulation_free(&t.sim);
}

static bool knows_source(void *arg)
{
    const stage *t = arg;
    return actor_find_peer(t->other.actor, span_of(actor_name(t->executors[0]))) != NULL;
}

static void blocks_are_given_to_those_alone_who_know_what_they_ask_for(void **state)
{
    (void)state;
    stage t;
    start(&t, 4);
    actor_options where = {.connect = {"inproc://source"}, .credits = 2};
    assert_non_null(simulation_add(t.sim, &player_as_executor, &t.other, &where, NULL));
    wait_until(&t, knows_source, &t);
    peer *source = actor_find_peer(t.other.actor, span_of(actor_name(t.executors[0])));
    for (uint32_t i = 0; i < 6; i++) {
        static const uint32_t many[20];
        kv_fetch              f = {.fetch       = 1 + i,
                                   .term        = t.scheduler.abouts[0].term + (i == 0),
                                   .fingerprint = t.scheduler.abouts[0].fingerprint + (i == 1),
                                   .blocks      = i == 2   ? U32S(TINY_BLOCKS)
                                                  : i == 3 ? many
                                                           : U32S(FROM),
                                   .n_blocks    = i == 3   ? 20
                                                  : i == 4 ? 0
                                                           : 1};
        t.other.n_answers       = 0;
        assert_true(actor_send(t.other.actor, source, MSG_KV_FETCH, &f, NULL, NULL));
        wait_until(&t, has_answer, &t.other);
        assert_int_equal(i < 5, t.other.why[0] != '\0');
        assert_int_equal(i == 5, t.other.answer.n_blocks);
        assert_int_equal(i == 5 ? t.scheduler.abouts[0].kv_block_bytes : 0, t.other.answer.data.size);
    }
    simulation_free(&t.sim);
}

/* A source that answers something else than it was asked for. */
static void what_a_source_says_is_checked(void **state)
{
    (void)state;
    static char      bytes[1 << 16];
    static kv_blocks lies[] = {
        {.n_blocks = 1, .data = {bytes, 10}},
        {.n_blocks = 2, .data = {bytes, 10}},
        {.n_blocks = 0},
        {.first = 1, .n_blocks = 1},
        {.error = SPAN("not today")},
        {.n_blocks = 1}, /* the right size is filled in: it goes well */
    };
    stage t;
    start(&t, 5);
    actor_options where = {.bind = {"inproc://liar"}, .credits = 2};
    assert_non_null(simulation_add(t.sim, &player_as_executor, &t.other, &where, NULL));
    assert_true(t.scheduler.abouts[0].kv_block_bytes <= sizeof bytes);
    lies[COUNT(lies) - 1].data = (span){bytes, t.scheduler.abouts[0].kv_block_bytes};
    for (uint32_t i = 0; i < COUNT(lies); i++) {
        kv_load l   = good_load(&t);
        t.other.lie = &lies[i];
        l.source    = span_of(actor_name(t.other.actor));
        l.endpoint  = SPAN("inproc://liar");
        send_load(&t, &l);
        assert_int_equal(i + 1 < COUNT(lies), t.scheduler.why[0] != '\0');
    }
    simulation_free(&t.sim);
}

static void a_source_that_dies_ends_the_load(void **state)
{
    (void)state;
    stage t;
    char  name[BUS_NAME_BYTES + 1];
    start(&t, 6);
    kv_load l = good_load(&t);
    snprintf(name, sizeof name, "%s", actor_name(t.executors[0]));
    l.source = span_of(name); /* it outlives the executor */
    send_load(&t, &l);
    simulation_kill(t.sim, t.executors[0]);
    l.load = 6;
    send_load(&t, &l);
    assert_int_equal(0, t.scheduler.loaded.n_blocks);
    assert_true(t.scheduler.why[0] != '\0');
    simulation_free(&t.sim);
}

static void a_role_needs_a_place_where_blocks_are_fetched(void **state)
{
    (void)state;
    error            err     = {0};
    executor_options options = tiny_options();
    actor_options    where   = {.connect = {"inproc://scheduler"}, .credits = 2};
    simulation      *sim     = simulation_new(7, NULL);
    options.serves           = EXECUTOR_ROLE_PREFILL;
    assert_null(simulation_add(sim, &executor_class, &options, &where, &err));
    assert_non_null(strstr(err.text, "--kv-bind"));
    simulation_free(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_goes_on_from_blocks_of_another_executor),
        cmocka_unit_test(many_blocks_come_a_few_a_message),
        cmocka_unit_test(a_load_that_cannot_be_done_is_answered_with_the_reason),
        cmocka_unit_test(blocks_are_given_to_those_alone_who_know_what_they_ask_for),
        cmocka_unit_test(what_a_source_says_is_checked),
        cmocka_unit_test(a_source_that_dies_ends_the_load),
        cmocka_unit_test(a_role_needs_a_place_where_blocks_are_fetched),
    };
    log_set_level(LOG_OFF);
    return cmocka_run_group_tests_name("executor/kv_transfer", tests, NULL, NULL);
}
