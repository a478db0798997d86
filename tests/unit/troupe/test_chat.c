/* The terminal's client, with a gateway that the test plays: what it asks, and the status it ends with. */
#include "troupe/chat.h"

#include "actor/simulation.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { NOT_ENDED = -1 };

/* What the gateway answers, one after the other; the last again and again. */
typedef struct {
    bool          refuses;
    error_code    code;
    finish_reason finish;
} reply;

typedef struct {
    simulation  *sim;
    actor       *gateway, *client;
    const reply *replies;
    uint32_t     n_requests, n_messages, max_tokens;
    uint64_t     seed;
    float        temperature;
    char         roles[4][16], contents[4][64];
    int          status;
} scene;

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return *(scene *const *)options;
}

static void destroy(void *self)
{
    (void)self;
}

static void keep(scene *s, const text_request *r)
{
    s->n_messages  = r->n_messages;
    s->max_tokens  = r->max_tokens;
    s->seed        = r->sampling.seed;
    s->temperature = r->sampling.temperature;
    assert_true(r->n_messages <= COUNT(s->roles));
    for (uint32_t i = 0; i < r->n_messages; i++) {
        snprintf(s->roles[i], sizeof s->roles[i], "%.*s", SPAN_ARG(r->messages[i].role));
        snprintf(s->contents[i], sizeof s->contents[i], "%.*s", SPAN_ARG(r->messages[i].content));
    }
}

static void on_request(void *self, const message *m)
{
    scene       *s       = self;
    const reply *r       = s->replies;
    text_refused refused = {.code = r->code, .text = SPAN("not now")};
    text_delta   delta   = {.text = SPAN("hello"), .finish = r->finish, .error = SPAN("broken")};
    error        err;
    keep(s, m->body);
    s->n_requests++;
    if (r->refuses ? !actor_send(s->gateway, m->from, MSG_TEXT_REFUSED, &refused, m->envelope, &err)
                   : !actor_send(s->gateway, m->from, MSG_TEXT_DELTA, &delta, m->envelope, &err))
        fail_msg("%s", err.text);
    actor_grant(s->gateway, m->from, 1);
    s->replies += r[1].refuses || r[1].finish != FINISH_REASON_NONE;
}

static const actor_route routes[] = {
    {MSG_TEXT_REQUEST, on_request},    {MSG_TEXT_DELTA, actor_ignore},   {MSG_TEXT_REFUSED, actor_ignore},
    {MSG_TEXT_CANCEL, actor_ignore},   {MSG_TEXT_ENCODE, actor_ignore},  {MSG_TEXT_ENCODED, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},   {MSG_TEXT_DECODED, actor_ignore}, {MSG_GEN_FOUND, actor_ignore},
    {MSG_STATUS_REPORT, actor_ignore},
};
static const actor_class gateway_class = {.name     = "gateway",
                                          .role     = ROLE_GATEWAY,
                                          .routes   = routes,
                                          .n_routes = COUNT(routes),
                                          .create   = create,
                                          .destroy  = destroy};

static void on_end(void *arg, int status)
{
    scene *s = arg;
    assert_int_equal(NOT_ENDED, s->status); /* once */
    s->status = status;
}

static bool has_ended(void *arg)
{
    return ((scene *)arg)->status != NOT_ENDED;
}

/* Runs a conversation of one question to its end. `replies` end with a zero one. */
static void converse(scene *s, chat_options options, const reply *replies)
{
    *s              = (scene){.sim = simulation_new(3, NULL), .replies = replies, .status = NOT_ENDED};
    options.once    = "Why?";
    options.on_end  = on_end;
    options.end_arg = s;
    s->gateway =
        simulation_add(s->sim, &gateway_class, &s, &(actor_options){.bind = {"inproc://gateway"}, .credits = 16}, NULL);
    s->client = simulation_add(s->sim, &chat_class, &options,
                               &(actor_options){.connect = {"inproc://gateway"}, .credits = 16}, NULL);
    assert_true(s->gateway && s->client);
    assert_true(simulation_run_until(s->sim, has_ended, s, 120 * NS_PER_S));
    simulation_free(&s->sim);
}

static void a_question_carries_the_options(void **state)
{
    static const reply whole[] = {{.finish = FINISH_REASON_STOP}, {0}};
    chat_options       options = {.system = "Be brief.", .temperature = 0.5, .max_tokens = 77, .seed = 9};
    scene              s;
    (void)state;
    converse(&s, options, whole);
    assert_int_equal(0, s.status);
    assert_int_equal(1, s.n_requests);
    assert_int_equal(2, s.n_messages);
    assert_string_equal("system", s.roles[0]);
    assert_string_equal("Be brief.", s.contents[0]);
    assert_string_equal("user", s.roles[1]);
    assert_string_equal("Why?", s.contents[1]);
    assert_int_equal(77, s.max_tokens);
    assert_int_equal(9, s.seed);
    assert_true(s.temperature == 0.5f);
}

static void the_status_tells_whether_the_answer_was_whole(void **state)
{
    static const struct {
        const char *what;
        reply       replies[3];
        int         status;
        uint32_t    n_requests;
    } cases[] = {
        {"a stop", {{.finish = FINISH_REASON_STOP}}, 0, 1},
        {"the limit", {{.finish = FINISH_REASON_LENGTH}}, 0, 1},
        {"an error", {{.finish = FINISH_REASON_ERROR}}, 1, 1},
        {"a timeout", {{.finish = FINISH_REASON_TIMEOUT}}, 1, 1},
        {"a refusal for good", {{.refuses = true, .code = ERR_INVALID}}, 1, 1},
        {"not ready, then an answer", {{.refuses = true, .code = ERR_NOT_READY}, {.finish = FINISH_REASON_STOP}}, 0, 2},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        scene s;
        converse(&s, (chat_options){.max_tokens = 8}, cases[i].replies);
        if (s.status != cases[i].status || s.n_requests != cases[i].n_requests)
            fail_msg("%s: status %d after %u requests", cases[i].what, s.status, s.n_requests);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_carries_the_options),
        cmocka_unit_test(the_status_tells_whether_the_answer_was_whole),
    };
    log_set_level(LOG_OFF);
    return cmocka_run_group_tests_name("troupe/chat", tests, NULL, NULL);
}
