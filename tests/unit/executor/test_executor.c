/* The executor as an actor: for whom it works (its employer), what it answers, and what it owes. Schedulers are played
 * by the test. */
#include "support_engine.h"

#include "actor/simulation.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

/* ---- a scheduler that does what a test says ---- */

typedef struct {
    actor         *actor;
    peer          *executor; /* that said what it holds */
    executor_ready about;
    char           error[ERROR_TEXT_BYTES]; /* of the last result */
    uint64_t       last_step;
    uint32_t       last_token;
    atomic_uint    n_ready, n_results, n_down, n_left;
    uint64_t       epoch;
    bool           plans_at_once; /* resets and plans in the same turn that it hears of the executor */
} stage_scheduler;

static const uint32_t prompt[] = {3, 14, 15, 92, 65};

static void send_reset(stage_scheduler *s)
{
    executor_reset reset = {.epoch = s->epoch, .term = s->about.term};
    assert_true(actor_send(s->actor, s->executor, MSG_EXECUTOR_RESET, &reset, NULL, NULL));
}

static void send_step(stage_scheduler *s, const step_plan *plan)
{
    error err = {0};
    if (!actor_send(s->actor, s->executor, MSG_STEP_PLAN, plan, NULL, &err))
        fail_msg("%s", err.text);
}

/* Opens slot 0 with the prompt and samples one token. */
static void send_first_plan(stage_scheduler *s, uint64_t step)
{
    slot_open  open  = {.tokens = prompt, .n_tokens = COUNT(prompt), .n_prompt_tokens = 5, .sampling = greedy()};
    step_entry entry = {.n_tokens = COUNT(prompt), .blocks = prompt, .n_blocks = 1, .logits = LOGITS_WANTED_LAST};
    send_step(s, &(step_plan){.step = step, .opens = &open, .n_opens = 1, .entries = &entry, .n_entries = 1});
}

/* The token after the prompt and the one sampled first: of a slot that is open. */
static void send_second_plan(stage_scheduler *s, uint64_t step)
{
    step_entry entry = {.position = 5, .n_tokens = 1, .logits = LOGITS_WANTED_LAST};
    send_step(s, &(step_plan){.step = step, .entries = &entry, .n_entries = 1});
}

static void *create(actor *a, const void *options, error *err)
{
    stage_scheduler *s = (stage_scheduler *)(uintptr_t)options;
    (void)err;
    s->actor = a;
    if (s->epoch)
        actor_set_epoch(a, s->epoch);
    return s;
}

static void destroy(void *self)
{
    (void)self;
}

static void on_ready(void *self, const message *m)
{
    stage_scheduler *s = self;
    s->executor        = m->from;
    s->about           = *(const executor_ready *)m->body;
    s->about.model = s->about.device = (span){0};
    s->n_ready++;
    if (s->plans_at_once) {
        send_reset(s);
        send_first_plan(s, 1);
        send_second_plan(s, 2);
    }
}

static void on_result(void *self, const message *m)
{
    stage_scheduler   *s = self;
    const step_result *r = m->body;
    s->last_step         = r->step;
    snprintf(s->error, sizeof s->error, "%.*s", SPAN_ARG(r->error));
    s->last_token = r->n_outputs == 1 && r->outputs[0].n_tokens == 1 ? r->outputs[0].tokens[0] : UINT32_MAX;
    s->n_results++;
}

static void on_leave(void *self, const message *m)
{
    (void)m;
    ((stage_scheduler *)self)->n_left++;
}

static void on_down(void *self, peer *p)
{
    stage_scheduler *s = self;
    if (p == s->executor)
        s->executor = NULL;
    s->n_down++;
}

static const actor_route routes[] = {
    {MSG_EXECUTOR_READY, on_ready}, {MSG_EXECUTOR_LEAVE, on_leave},  {MSG_STEP_RESULT, on_result},
    {MSG_KV_LOADED, actor_ignore},  {MSG_GEN_REQUEST, actor_ignore}, {MSG_GEN_CANCEL, actor_ignore},
    {MSG_GEN_FIND, actor_ignore},   {MSG_DRAFT_REPLY, actor_ignore}, {MSG_STATUS_GET, actor_ignore}};
static const actor_class stage_scheduler_class = {.name         = "scheduler",
                                                  .role         = ROLE_SCHEDULER,
                                                  .routes       = routes,
                                                  .n_routes     = COUNT(routes),
                                                  .create       = create,
                                                  .destroy      = destroy,
                                                  .on_peer_down = on_down};

/* ---- the stage: one executor, up to two schedulers ---- */

typedef struct {
    simulation      *sim;
    executor_options options;
    actor           *executor;
    stage_scheduler  schedulers[3];
} stage;

static const char *const places[] = {"inproc://first", "inproc://second", "inproc://first"};

static void stage_init(stage *t, uint64_t seed)
{
    *t                        = (stage){.options = tiny_options()};
    t->options.compute_inline = true;
    t->sim                    = simulation_new(seed, NULL);
    actor_options where       = {.connect = {places[0], places[1]}, .credits = 2};
    error         err         = {0};
    t->executor               = simulation_add(t->sim, &executor_class, &t->options, &where, &err);
    if (!t->executor)
        fail_msg("%s", err.text);
}

static stage_scheduler *stage_add_scheduler(stage *t, uint32_t index, uint64_t epoch)
{
    actor_options    where = {.bind = {places[index]}, .credits = 2};
    stage_scheduler *s     = &t->schedulers[index];
    s->epoch               = epoch;
    assert_non_null(simulation_add(t->sim, &stage_scheduler_class, s, &where, NULL));
    return s;
}

static bool has_executor(void *arg)
{
    return ((stage_scheduler *)arg)->executor != NULL;
}

static bool has_credits(void *arg)
{
    const stage_scheduler *s = arg;
    return s->executor && s->executor->credits == 2;
}

static void wait_until(stage *t, bool (*done)(void *), void *arg)
{
    assert_true(simulation_run_until(t->sim, done, arg, 30 * NS_PER_S));
}

static void wait_a_second(stage *t)
{
    simulation_run_until(t->sim, NULL, NULL, NS_PER_S);
}

static uint32_t token_after(uint32_t n_plans)
{
    executor_options o      = tiny_options();
    engine          *e      = engine_of(&o);
    arena           *memory = arena_new(engine_result_bytes(e) + 4096, NULL);
    sampling_params  p      = greedy();
    uint32_t         token  = run_prompt(e, 0, 3, prompt, COUNT(prompt), &p, memory);
    step_entry       entry  = {.position = 5, .n_tokens = 1, .logits = LOGITS_WANTED_LAST};
    if (n_plans == 2)
        token = run_plan(e, &(step_plan){.entries = &entry, .n_entries = 1}, memory).outputs[0].tokens[0];
    arena_free(&memory);
    engine_free(&e);
    return token;
}

/* ---- tests ---- */

static void it_says_what_it_holds_and_runs_the_plans_of_the_one_that_reset_it(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 1);
    stage_scheduler *s = stage_add_scheduler(&t, 0, 5);
    wait_until(&t, has_executor, s);
    assert_int_equal(TINY_BLOCKS, s->about.n_kv_blocks);
    assert_int_equal(TINY_SLOTS, s->about.n_slots);
    assert_int_equal(TINY_POSITIONS, s->about.max_model_len);
    send_reset(s);
    send_first_plan(s, 1);
    send_second_plan(s, 2);
    error           err;
    const step_plan third = {.step = 3};
    assert_false(actor_send(s->actor, s->executor, MSG_STEP_PLAN, &third, NULL, &err));
    assert_int_equal(ERR_OVERLOADED, err.code); /* two plans in flight are all it takes */
    wait_until(&t, has_credits, s);
    assert_int_equal(2, s->n_results);
    assert_int_equal(2, s->last_step);
    assert_string_equal("", s->error);
    assert_int_equal(token_after(2), s->last_token);
    simulation_free(&t.sim);
}

static void a_plan_that_cannot_be_run_gives_an_error_and_the_credit_back(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 2);
    stage_scheduler *s = stage_add_scheduler(&t, 0, 5);
    wait_until(&t, has_executor, s);
    send_reset(s);
    send_second_plan(s, 1); /* its slot is not open */
    send_first_plan(s, 2);
    wait_until(&t, has_credits, s);
    assert_int_equal(2, s->n_results);
    assert_int_equal(token_after(1), s->last_token);
    send_reset(s);
    send_second_plan(s, 3); /* the reset closed it */
    wait_until(&t, has_credits, s);
    assert_string_equal("slot 0 is not open", s->error);
    simulation_free(&t.sim);
}

static bool is_taken(void *arg)
{
    stage *t = arg;
    return t->schedulers[0].executor || t->schedulers[1].executor;
}

/* The one of two schedulers that the executor offered itself to, and the other. */
static stage_scheduler *wait_for_offer(stage *t, stage_scheduler **other)
{
    wait_until(t, is_taken, t);
    bool first = t->schedulers[0].executor != NULL;
    *other     = &t->schedulers[first];
    return &t->schedulers[!first];
}

static void add_two_schedulers(stage *t)
{
    stage_add_scheduler(t, 0, 5);
    stage_add_scheduler(t, 1, 6);
    wait_a_second(t);
}

static void find_executor(void *arg, peer *p)
{
    ((stage_scheduler *)arg)->executor = p;
}

static void it_works_for_one_scheduler_and_a_plan_of_another_changes_nothing(void **state)
{
    (void)state;
    uint32_t n_first = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        stage            t;
        stage_scheduler *other;
        stage_init(&t, seed);
        add_two_schedulers(&t);
        stage_scheduler *s = wait_for_offer(&t, &other);
        send_reset(s);
        wait_a_second(&t);
        assert_int_equal(0, other->n_ready);
        actor_each_peer(other->actor, ROLE_EXECUTOR, find_executor, other);
        send_reset(other);
        send_first_plan(other, 1);
        send_first_plan(s, 1);
        wait_until(&t, has_credits, s);
        wait_until(&t, has_credits, other);
        assert_int_equal(0, other->n_results);
        assert_int_equal(token_after(1), s->last_token);
        n_first += s == &t.schedulers[0];
        simulation_free(&t.sim);
    }
    assert_in_range(n_first, 3, 17); /* of schedulers that hold equally many some choose the one, some the other */
}

/* A scheduler that gets the executor of another one: slot 0 is free again. */
static void begin_anew(stage *t, stage_scheduler *s)
{
    send_reset(s);
    send_first_plan(s, 1);
    send_second_plan(s, 2);
    wait_until(t, has_credits, s);
    assert_int_equal(token_after(2), s->last_token);
}

static void when_its_scheduler_dies_another_one_has_it(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        stage            t;
        stage_scheduler *other;
        stage_init(&t, seed);
        add_two_schedulers(&t);
        stage_scheduler *s = wait_for_offer(&t, &other);
        send_reset(s);
        send_first_plan(s, 1);
        simulation_run_until(t.sim, NULL, NULL, NS_PER_S);
        simulation_kill(t.sim, s->actor);
        assert_true(simulation_run_until(t.sim, has_executor, other, 3500 * NS_PER_MS));
        begin_anew(&t, other);
        simulation_free(&t.sim);
    }
}

static bool has_left(void *arg)
{
    return ((stage_scheduler *)arg)->n_left > 0;
}

static void it_moves_to_a_scheduler_that_holds_two_fewer(void **state)
{
    (void)state;
    stage            t;
    stage_scheduler *other;
    stage_init(&t, 4);
    add_two_schedulers(&t);
    stage_scheduler *s = wait_for_offer(&t, &other);
    send_reset(s);
    actor_set_capacity(other->actor, 1);
    actor_set_capacity(s->actor, 2);
    simulation_run_until(t.sim, NULL, NULL, 10 * NS_PER_S);
    assert_int_equal(0, s->n_left);
    actor_set_capacity(s->actor, 3);
    wait_until(&t, has_left, s);
    send_first_plan(s, 1); /* as one that has not heard it yet */
    wait_until(&t, has_executor, other);
    send_reset(other);
    send_first_plan(other, 1);
    wait_until(&t, has_credits, other);
    wait_until(&t, has_credits, s);
    assert_int_equal(0, s->n_results);
    assert_int_equal(token_after(1), other->last_token);
    simulation_free(&t.sim);
}

static void a_scheduler_that_does_not_take_it_is_passed_over(void **state)
{
    (void)state;
    stage            t;
    stage_scheduler *other;
    stage_init(&t, 5);
    add_two_schedulers(&t);
    stage_scheduler *s = wait_for_offer(&t, &other);
    wait_until(&t, has_executor, other);
    wait_until(&t, has_left, s);
    send_reset(s); /* too late */
    send_reset(other);
    wait_a_second(&t);
    send_first_plan(other, 1);
    wait_until(&t, has_credits, other);
    assert_int_equal(1, other->n_results);
    simulation_free(&t.sim);
}

static void alone_with_a_scheduler_that_does_not_take_it_it_asks_again(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 6);
    stage_scheduler *s = stage_add_scheduler(&t, 0, 5);
    simulation_run_until(t.sim, NULL, NULL, 7 * NS_PER_S);
    assert_in_range(s->n_ready, 3, 4);
    simulation_free(&t.sim);
}

static void a_scheduler_that_dies_and_comes_back_finds_it_ready_and_empty(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 5);
    stage_scheduler *first = stage_add_scheduler(&t, 0, 5);
    wait_until(&t, has_executor, first);
    send_reset(first);
    send_first_plan(first, 1);
    simulation_kill(t.sim, first->actor);
    wait_a_second(&t);
    stage_scheduler *again = stage_add_scheduler(&t, 2, 6); /* in the same place */
    wait_until(&t, has_executor, again);
    assert_int_equal(2, again->executor->credits);
    begin_anew(&t, again);
    simulation_free(&t.sim);
}

static bool is_cut_off(void *arg)
{
    return ((stage_scheduler *)arg)->n_down > 0;
}

static void a_link_that_breaks_and_heals_begins_a_new_session(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 6);
    stage_scheduler *s = stage_add_scheduler(&t, 0, 5);
    wait_until(&t, has_executor, s);
    send_reset(s);
    send_first_plan(s, 1);
    wait_until(&t, has_credits, s);
    simulation_cut(t.sim, s->actor, t.executor, true);
    send_second_plan(s, 2); /* lost */
    wait_until(&t, is_cut_off, s);
    simulation_cut(t.sim, s->actor, t.executor, false);
    wait_until(&t, has_executor, s);
    assert_int_equal(2, s->n_ready);
    send_reset(s);
    send_first_plan(s, 1);
    wait_until(&t, has_credits, s);
    assert_int_equal(2, s->n_results);
    assert_int_equal(token_after(1), s->last_token);
    simulation_free(&t.sim);
}

static void it_leaves_when_it_has_nothing_left_to_do(void **state)
{
    (void)state;
    stage t;
    stage_init(&t, 7);
    stage_scheduler *s = stage_add_scheduler(&t, 0, 5);
    wait_until(&t, has_executor, s);
    send_reset(s);
    send_first_plan(s, 1);
    send_second_plan(s, 2);
    wait_until(&t, has_credits, s);
    actor_drain(t.executor);
    wait_until(&t, is_cut_off, s);
    assert_int_equal(2, s->n_results);
    simulation_free(&t.sim);
}

static void without_a_model_it_says_which_flag_is_missing(void **state)
{
    (void)state;
    simulation      *sim   = simulation_new(1, NULL);
    executor_options o     = tiny_options();
    actor_options    where = {.connect = {places[0]}, .credits = 2};
    error            err   = {0};
    o.model                = NULL;
    assert_null(simulation_add(sim, &executor_class, &o, &where, &err));
    assert_non_null(strstr(err.text, "--model is missing"));
    simulation_free(&sim);
}

/* On real threads and queues: the compute thread hands its results over. */
static void it_computes_on_a_thread_of_its_own(void **state)
{
    (void)state;
    error            err = {0};
    stage_scheduler  s   = {.epoch = 5, .plans_at_once = true};
    executor_options o   = tiny_options();
    bus             *b   = bus_new(NULL, &err);
    assert_non_null(b);
    actor_options bound   = {.bind = {"queue://scheduler"}, .credits = 2, .bus = b};
    actor_options calling = {.connect = {"queue://scheduler"}, .credits = 2, .bus = b};
    actor        *first   = actor_new(&stage_scheduler_class, &s, &bound, &err);
    actor        *second  = actor_new(&executor_class, &o, &calling, &err);
    if (!first || !second || !actor_start(first, &err) || !actor_start(second, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < 1000 && s.n_results < 2; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10 * NS_PER_MS}, NULL);
    assert_int_equal(2, s.n_results);
    actor_drain(second);
    actor_join(second);
    actor_free(&second);
    actor_stop(first);
    actor_join(first);
    assert_int_equal(token_after(2), s.last_token);
    assert_string_equal("", s.error);
    actor_free(&first);
    bus_free(&b);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_holds_and_runs_the_plans_of_the_one_that_reset_it),
        cmocka_unit_test(a_plan_that_cannot_be_run_gives_an_error_and_the_credit_back),
        cmocka_unit_test(it_works_for_one_scheduler_and_a_plan_of_another_changes_nothing),
        cmocka_unit_test(when_its_scheduler_dies_another_one_has_it),
        cmocka_unit_test(it_moves_to_a_scheduler_that_holds_two_fewer),
        cmocka_unit_test(a_scheduler_that_does_not_take_it_is_passed_over),
        cmocka_unit_test(alone_with_a_scheduler_that_does_not_take_it_it_asks_again),
        cmocka_unit_test(a_scheduler_that_dies_and_comes_back_finds_it_ready_and_empty),
        cmocka_unit_test(a_link_that_breaks_and_heals_begins_a_new_session),
        cmocka_unit_test(it_leaves_when_it_has_nothing_left_to_do),
        cmocka_unit_test(without_a_model_it_says_which_flag_is_missing),
        cmocka_unit_test(it_computes_on_a_thread_of_its_own),
    };
    return cmocka_run_group_tests_name("executor/executor", tests, NULL, NULL);
}
