/* The drafter as an actor: what it remembers, says that it remembers, and forgets. The scheduler is played by the test.
 */
#include "actor/simulation.h"
#include "base/log.h"
#include "drafter/drafter.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

typedef struct {
    actor   *actor;
    uint32_t n_replies, choice, length, known, n_drafts, drafts[16];
} asker;

static void *create(actor *a, const void *options, error *err)
{
    asker *s = (asker *)(uintptr_t)options;
    (void)err;
    s->actor = a;
    return s;
}

static void destroy(void *self)
{
    (void)self;
}

static void on_draft_reply(void *self, const message *m)
{
    asker             *s     = self;
    const draft_reply *reply = m->body;
    s->n_replies++;
    s->choice   = reply->choice;
    s->length   = reply->length;
    s->known    = reply->known;
    s->n_drafts = reply->n_tokens;
    for (uint32_t i = 0; i < reply->n_tokens; i++)
        s->drafts[i] = reply->tokens[i];
}

static const actor_route routes[] = {
    {MSG_DRAFT_REPLY, on_draft_reply}, {MSG_EXECUTOR_READY, actor_ignore}, {MSG_EXECUTOR_LEAVE, actor_ignore},
    {MSG_STEP_RESULT, actor_ignore},   {MSG_KV_LOADED, actor_ignore},      {MSG_GEN_REQUEST, actor_ignore},
    {MSG_STATUS_GET, actor_ignore},    {MSG_GEN_CANCEL, actor_ignore},     {MSG_GEN_FIND, actor_ignore}};
static const actor_class asker_class = {.name     = "scheduler",
                                        .role     = ROLE_SCHEDULER,
                                        .routes   = routes,
                                        .n_routes = COUNT(routes),
                                        .create   = create,
                                        .destroy  = destroy};

typedef struct {
    simulation     *sim;
    drafter_options options;
    asker           asker;
    uint32_t        n_asked;
} stage;

static peer *drafter_of(stage *t)
{
    return actor_pick_peer(t->asker.actor, ROLE_DRAFTER, NULL);
}

static bool has_drafter(void *arg)
{
    return drafter_of(arg) != NULL;
}

static void stage_start(stage *t, uint64_t max_num_seqs, uint64_t max_model_len)
{
    *t                    = (stage){.options = {.max_num_seqs = max_num_seqs, .max_model_len = max_model_len}};
    t->sim                = simulation_new(1, NULL);
    actor_options bound   = {.bind = {"inproc://scheduler"}, .credits = 4};
    actor_options calling = {.connect = {"inproc://scheduler"}, .credits = 4};
    assert_non_null(simulation_add(t->sim, &asker_class, &t->asker, &bound, NULL));
    assert_non_null(simulation_add(t->sim, &drafter_class, &t->options, &calling, NULL));
    assert_true(simulation_run_until(t->sim, has_drafter, t, 30 * NS_PER_S));
}

static envelope request_named(char name)
{
    return (envelope){.request = {{(uint8_t)name}}};
}

static bool is_answered(void *arg)
{
    stage *t = arg;
    return t->asker.n_replies == t->n_asked && drafter_of(t)->credits == 4;
}

/* Tells the drafter tokens[index, index + n) of a sequence, asks for up to four drafts and waits for the answer. */
static const asker *ask(stage *t, char request, uint32_t choice, uint32_t index, const uint32_t *tokens, uint32_t n)
{
    envelope      e    = request_named(request);
    draft_request body = {.choice = choice, .index = index, .tokens = tokens + index, .n_tokens = n, .n = 4};
    assert_true(actor_send(t->asker.actor, drafter_of(t), MSG_DRAFT_REQUEST, &body, &e, NULL));
    t->n_asked++;
    assert_true(simulation_run_until(t->sim, is_answered, t, 10 * NS_PER_S));
    assert_int_equal(choice, t->asker.choice);
    assert_int_equal(index + n, t->asker.length);
    return &t->asker;
}

static void forget(stage *t, char request, uint32_t choice, bool all)
{
    envelope     e    = request_named(request);
    draft_forget body = {.choice = choice, .all = all};
    assert_true(actor_send(t->asker.actor, drafter_of(t), MSG_DRAFT_FORGET, &body, &e, NULL));
}

/* Counts to six, again and again. */
static const uint32_t song[] = {1, 2, 3, 4, 5, 6, 1, 2, 3, 4};

static void assert_continues(const asker *a, uint32_t known)
{
    assert_int_equal(known, a->known);
    assert_int_equal(4, a->n_drafts);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal((known + i) % 6 + 1, a->drafts[i]);
}

static void it_guesses_what_followed_the_last_time(void **state)
{
    (void)state;
    stage t;
    stage_start(&t, 4, 64);
    assert_int_equal(0, ask(&t, 'a', 0, 0, song, 6)->n_drafts); /* nothing stood here twice */
    assert_continues(ask(&t, 'a', 0, 6, song, 2), 8);           /* only what is new travels */
    assert_continues(ask(&t, 'a', 0, 8, song, 1), 9);
    assert_continues(ask(&t, 'a', 0, 8, song, 2), 10); /* position 8 once more: the draft there was wrong */
    simulation_free(&t.sim);
}

static void told_of_a_place_it_does_not_know_it_says_what_it_knows(void **state)
{
    (void)state;
    stage t;
    stage_start(&t, 4, 64);
    const asker *a = ask(&t, 'a', 0, 6, song, 2);
    assert_int_equal(0, a->known);
    assert_int_equal(0, a->n_drafts);
    ask(&t, 'a', 0, 0, song, 4);
    a = ask(&t, 'a', 0, 6, song, 2);
    assert_int_equal(4, a->known);
    assert_int_equal(0, a->n_drafts);
    assert_continues(ask(&t, 'a', 0, 4, song, 4), 8);
    simulation_free(&t.sim);
}

static void choices_and_requests_are_sequences_of_their_own(void **state)
{
    (void)state;
    stage t;
    stage_start(&t, 4, 64);
    ask(&t, 'a', 0, 0, song, 8);
    assert_int_equal(0, ask(&t, 'a', 1, 8, song, 1)->known);
    assert_int_equal(0, ask(&t, 'b', 0, 8, song, 1)->known);
    assert_continues(ask(&t, 'a', 0, 8, song, 1), 9);
    simulation_free(&t.sim);
}

static void it_forgets_what_it_is_told_to_forget(void **state)
{
    (void)state;
    stage t;
    stage_start(&t, 8, 64);
    for (char request = 'a'; request <= 'b'; request++)
        for (uint32_t choice = 0; choice < 2; choice++)
            ask(&t, request, choice, 0, song, 8);
    forget(&t, 'a', 1, false);
    assert_int_equal(0, ask(&t, 'a', 1, 8, song, 1)->known);
    assert_int_equal(9, ask(&t, 'a', 0, 8, song, 1)->known);
    forget(&t, 'a', 0, true);
    assert_int_equal(0, ask(&t, 'a', 0, 9, song, 1)->known);
    assert_int_equal(0, ask(&t, 'a', 1, 9, song, 1)->known);
    assert_int_equal(9, ask(&t, 'b', 0, 8, song, 1)->known);
    assert_int_equal(9, ask(&t, 'b', 1, 8, song, 1)->known);
    forget(&t, 'z', 0, true); /* never heard of */
    assert_int_equal(10, ask(&t, 'b', 1, 9, song, 1)->known);
    simulation_free(&t.sim);
}

static void the_least_recently_used_sequence_makes_room(void **state)
{
    (void)state;
    stage t;
    stage_start(&t, 2, 64);
    ask(&t, 'a', 0, 0, song, 8);
    ask(&t, 'b', 0, 0, song, 8);
    assert_int_equal(9, ask(&t, 'a', 0, 8, song, 1)->known); /* b is the oldest now */
    ask(&t, 'c', 0, 0, song, 8);
    assert_int_equal(10, ask(&t, 'a', 0, 9, song, 1)->known);
    assert_int_equal(0, ask(&t, 'b', 0, 8, song, 1)->known); /* it takes the place of c */
    assert_int_equal(0, ask(&t, 'c', 0, 8, song, 1)->known);
    simulation_free(&t.sim);
}

static void a_sequence_too_long_for_it_gets_no_drafts_and_harms_no_other(void **state)
{
    (void)state;
    stage    t;
    uint32_t many[40] = {0};
    stage_start(&t, 2, 16);
    const asker *a = ask(&t, 'a', 0, 0, many, 40);
    assert_int_equal(0, a->n_drafts);
    assert_int_equal(0, a->known);
    assert_continues(ask(&t, 'b', 0, 0, song, 8), 8);
    simulation_free(&t.sim);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_guesses_what_followed_the_last_time),
        cmocka_unit_test(told_of_a_place_it_does_not_know_it_says_what_it_knows),
        cmocka_unit_test(choices_and_requests_are_sequences_of_their_own),
        cmocka_unit_test(it_forgets_what_it_is_told_to_forget),
        cmocka_unit_test(the_least_recently_used_sequence_makes_room),
        cmocka_unit_test(a_sequence_too_long_for_it_gets_no_drafts_and_harms_no_other),
    };
    return cmocka_run_group_tests_name("drafter/drafter", tests, NULL, NULL);
}
