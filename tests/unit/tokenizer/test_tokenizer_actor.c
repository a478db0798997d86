/* The actor between a gateway and a scheduler that write down what they hear, in virtual time. */
#include "actor/simulation.h"
#include "base/log.h"
#include "tokenizer/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MODEL MODELS_DIR "/SmolLM2-135M-Instruct-Q4_1.gguf"

static const char gateway_at[] = "tcp://gateway:1", scheduler_at[] = "tcp://scheduler:1";

/* One of the two neighbours. */
typedef struct {
    actor   *actor;
    peer    *tokenizer; /* gateway: when it is there */
    uint32_t n_heard;
    uint16_t last_type;
    envelope last;
    uint32_t n_tokens, tokens[64];
    uint32_t max_tokens, code, retry_after_ms;
    char     reply_to[BUS_NAME_BYTES + 1], field[65], text[401];
} neighbour;

static void *create(actor *a, const void *options, error *err)
{
    (void)err;
    neighbour *n = (neighbour *)(uintptr_t)options;
    n->actor     = a;
    return n;
}

static void destroy(void *self)
{
    (void)self;
}

static void note(neighbour *n, const message *m)
{
    n->n_heard++;
    n->last      = *m->envelope;
    n->last_type = m->envelope->type;
}

static void note_tokens(neighbour *n, const uint32_t *tokens, uint32_t n_tokens)
{
    n->n_tokens = n_tokens;
    if (n_tokens > 0)
        memcpy(n->tokens, tokens, (n_tokens < COUNT(n->tokens) ? n_tokens : COUNT(n->tokens)) * sizeof *tokens);
}

static void on_gen_request(void *self, const message *m)
{
    neighbour         *n = self;
    const gen_request *g = m->body;
    note(n, m);
    note_tokens(n, g->prompt, g->n_prompt);
    n->max_tokens = g->max_tokens;
    snprintf(n->reply_to, sizeof n->reply_to, "%.*s", SPAN_ARG(g->reply_to));
}

static void on_text_refused(void *self, const message *m)
{
    neighbour          *n = self;
    const text_refused *r = m->body;
    note(n, m);
    n->code           = r->code;
    n->retry_after_ms = r->retry_after_ms;
    snprintf(n->field, sizeof n->field, "%.*s", SPAN_ARG(r->field));
    snprintf(n->text, sizeof n->text, "%.*s", SPAN_ARG(r->text));
}

static void on_text_encoded(void *self, const message *m)
{
    const text_encoded *e = m->body;
    note(self, m);
    note_tokens(self, e->tokens, e->n_tokens);
    ((neighbour *)self)->max_tokens = e->max_model_len;
}

static void on_text_decoded(void *self, const message *m)
{
    neighbour *n = self;
    note(n, m);
    snprintf(n->text, sizeof n->text, "%.*s", SPAN_ARG(((const text_decoded *)m->body)->text));
}

static void on_peer_up(void *self, peer *p)
{
    ((neighbour *)self)->tokenizer = p;
}

static void on_peer_down(void *self, peer *p)
{
    (void)p;
    ((neighbour *)self)->tokenizer = NULL;
}

static const actor_route gateway_routes[] = {
    {MSG_TEXT_REFUSED, on_text_refused}, {MSG_TEXT_ENCODED, on_text_encoded}, {MSG_TEXT_DECODED, on_text_decoded},
    {MSG_GEN_FOUND, actor_ignore},       {MSG_STATUS_REPORT, actor_ignore},   {MSG_TEXT_REQUEST, actor_ignore},
    {MSG_TEXT_DELTA, actor_ignore},      {MSG_TEXT_CANCEL, actor_ignore},     {MSG_TEXT_ENCODE, actor_ignore},
    {MSG_TEXT_DECODE, actor_ignore},
};

static const actor_route scheduler_routes[] = {
    {MSG_GEN_REQUEST, on_gen_request},  {MSG_GEN_CANCEL, actor_ignore},     {MSG_GEN_FIND, actor_ignore},
    {MSG_EXECUTOR_READY, actor_ignore}, {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, actor_ignore},
    {MSG_KV_LOADED, actor_ignore},      {MSG_DRAFT_REPLY, actor_ignore},    {MSG_STATUS_GET, actor_ignore},
};

static const actor_class gateway_class = {.name         = "gateway",
                                          .role         = ROLE_GATEWAY,
                                          .routes       = gateway_routes,
                                          .n_routes     = COUNT(gateway_routes),
                                          .create       = create,
                                          .destroy      = destroy,
                                          .on_peer_up   = on_peer_up,
                                          .on_peer_down = on_peer_down};

static const actor_class scheduler_class = {.name         = "scheduler",
                                            .role         = ROLE_SCHEDULER,
                                            .routes       = scheduler_routes,
                                            .n_routes     = COUNT(scheduler_routes),
                                            .create       = create,
                                            .destroy      = destroy,
                                            .on_peer_up   = on_peer_up,
                                            .on_peer_down = on_peer_down};

typedef struct {
    simulation       *sim;
    neighbour         gateway, scheduler;
    tokenizer_options options;
    actor            *tokenizer;
} world;

static bool all_are_up(void *arg)
{
    world *w = arg;
    return w->gateway.tokenizer && (!w->scheduler.actor || w->scheduler.tokenizer);
}

static void open_world(world *w, bool with_scheduler, uint32_t scheduler_credits)
{
    error err;
    *w      = (world){.sim = simulation_new(3, &err), .options = {.model = MODEL, .max_model_len = 64}};
    bool ok = simulation_add(w->sim, &gateway_class, &w->gateway, &(actor_options){.bind = {gateway_at}}, &err);
    if (ok && with_scheduler)
        ok = simulation_add(w->sim, &scheduler_class, &w->scheduler,
                            &(actor_options){.bind = {scheduler_at}, .credits = scheduler_credits}, &err);
    actor_options options = {.connect = {gateway_at, with_scheduler ? scheduler_at : NULL}, .credits = 2};
    w->tokenizer          = ok ? simulation_add(w->sim, &tokenizer_class, &w->options, &options, &err) : NULL;
    if (!w->tokenizer)
        fail_msg("%s (./dev test fetches the demo model)", err.text);
    assert_true(simulation_run_until(w->sim, all_are_up, w, 10 * NS_PER_S));
}

static envelope regarding(uint8_t id)
{
    return (envelope){.request = {{id}}, .attempt = 3, .deadline_unix_ms = 1000000, .trace = {7}};
}

/* Sends one message from the gateway and lets a second pass. */
static void send(world *w, uint16_t type, const void *body, const envelope *e)
{
    error err;
    if (!actor_send(w->gateway.actor, w->gateway.tokenizer, type, body, e, &err))
        fail_msg("%s", err.text);
    simulation_run_until(w->sim, NULL, NULL, NS_PER_S);
}

static text_request say_hello(void)
{
    static const chat_message messages[] = {{.role = {"user", 4}, .content = {"Hello <|im_start|>", 18}}};
    text_request              r          = text_request_defaults;
    r.kind                               = PROMPT_KIND_CHAT;
    r.messages                           = messages;
    r.n_messages                         = 1;
    return r;
}

static void a_request_goes_on_to_the_scheduler(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello();
    envelope     e = regarding(5);
    open_world(&w, true, 8);
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    assert_int_equal(1, w.scheduler.n_heard);
    assert_int_equal(0, w.gateway.n_heard);
    assert_true(request_id_equal(&e.request, &w.scheduler.last.request));
    assert_int_equal(3, w.scheduler.last.attempt);
    assert_int_equal(1000000, w.scheduler.last.deadline_unix_ms);
    assert_int_equal(7, w.scheduler.last.trace[0]);
    assert_string_equal(actor_name(w.gateway.actor), w.scheduler.reply_to);
    assert_int_equal(64, w.scheduler.n_tokens + w.scheduler.max_tokens);
    uint32_t n_starts = 0;
    for (uint32_t i = 0; i < w.scheduler.n_tokens; i++)
        n_starts += w.scheduler.tokens[i] == 1;
    assert_int_equal(3, n_starts); /* system, user, assistant; not the user's own */
    simulation_free(&w.sim);
}

static void credits_come_back_when_the_work_is_done(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello(), bad = say_hello();
    envelope     e = regarding(5);
    open_world(&w, true, 100);
    bad.n_messages = 0;
    for (uint32_t i = 0; i < 10; i++) { /* the tokenizer gave two credits */
        send(&w, MSG_TEXT_REQUEST, i % 2 ? &bad : &r, &e);
        assert_int_equal(2, w.gateway.tokenizer->credits);
    }
    assert_int_equal(5, w.scheduler.n_heard);
    assert_int_equal(5, w.gateway.n_heard);
    simulation_free(&w.sim);
}

static void a_refusal_names_the_field(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello();
    envelope     e = regarding(6);
    open_world(&w, true, 8);
    r.max_tokens = 64;
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    assert_int_equal(0, w.scheduler.n_heard);
    assert_int_equal(MSG_TEXT_REFUSED, w.gateway.last_type);
    assert_true(request_id_equal(&e.request, &w.gateway.last.request));
    assert_int_equal(3, w.gateway.last.attempt);
    assert_int_equal(ERR_INVALID, w.gateway.code);
    assert_string_equal("max_tokens", w.gateway.field);
    assert_int_equal(0, w.gateway.retry_after_ms);
    simulation_free(&w.sim);
}

static void without_a_scheduler_or_its_credit_a_request_may_be_tried_again(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello();
    envelope     e = regarding(6);
    open_world(&w, false, 0);
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    assert_int_equal(ERR_NOT_READY, w.gateway.code);
    assert_true(w.gateway.retry_after_ms > 0);
    simulation_free(&w.sim);
    open_world(&w, true, 1);
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    assert_int_equal(1, w.scheduler.n_heard);
    assert_int_equal(ERR_OVERLOADED, w.gateway.code);
    assert_true(w.gateway.retry_after_ms > 0);
    simulation_free(&w.sim);
}

static void what_a_dead_scheduler_had_is_told_to_the_gateway(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello();
    envelope     e = regarding(8);
    open_world(&w, true, 8);
    simulation_cut(w.sim, w.scheduler.actor, w.tokenizer, true);
    send(&w, MSG_TEXT_REQUEST, &r, &e); /* the tokenizer has not noticed yet */
    assert_int_equal(0, w.gateway.n_heard);
    simulation_run_until(w.sim, NULL, NULL, 10 * NS_PER_S);
    assert_int_equal(1, w.gateway.n_heard);
    assert_int_equal(MSG_TEXT_REFUSED, w.gateway.last_type);
    assert_int_equal(ERR_GONE, w.gateway.code);
    assert_int_equal(3, w.gateway.last.attempt);
    assert_true(request_id_equal(&e.request, &w.gateway.last.request));
    simulation_free(&w.sim);
}

static void a_late_request_is_not_read(void **state)
{
    (void)state;
    world        w;
    text_request r = say_hello();
    envelope     e = regarding(6);
    open_world(&w, true, 8);
    e.deadline_unix_ms = clock_unix_ms(simulation_clock(w.sim)) - 1;
    if (e.deadline_unix_ms <= 0) { /* virtual time began a moment ago */
        simulation_run_until(w.sim, NULL, NULL, 10 * NS_PER_S);
        e.deadline_unix_ms = clock_unix_ms(simulation_clock(w.sim)) - 1;
    }
    send(&w, MSG_TEXT_REQUEST, &r, &e);
    assert_int_equal(0, w.scheduler.n_heard);
    assert_int_equal(ERR_TIMEOUT, w.gateway.code);
    simulation_free(&w.sim);
}

static void text_and_tokens_are_turned_into_each_other(void **state)
{
    (void)state;
    world       w;
    envelope    e    = regarding(9);
    text_encode ask  = text_encode_defaults;
    text_decode back = text_decode_defaults;
    open_world(&w, false, 0);
    ask.kind           = PROMPT_KIND_TEXT;
    ask.prompt         = SPAN("<|im_start|>Grüße");
    ask.special_tokens = true;
    send(&w, MSG_TEXT_ENCODE, &ask, &e);
    assert_int_equal(MSG_TEXT_ENCODED, w.gateway.last_type);
    assert_true(request_id_equal(&e.request, &w.gateway.last.request));
    assert_int_equal(1, w.gateway.tokens[0]);
    assert_int_equal(64, w.gateway.max_tokens);
    back.tokens   = w.gateway.tokens;
    back.n_tokens = w.gateway.n_tokens;
    send(&w, MSG_TEXT_DECODE, &back, &e);
    assert_int_equal(MSG_TEXT_DECODED, w.gateway.last_type);
    assert_string_equal("<|im_start|>Grüße", w.gateway.text);
    ask.special_tokens = false;
    send(&w, MSG_TEXT_ENCODE, &ask, &e);
    assert_int_not_equal(1, w.gateway.tokens[0]);
    ask.kind = PROMPT_KIND_TOKENS;
    send(&w, MSG_TEXT_ENCODE, &ask, &e);
    assert_int_equal(MSG_TEXT_REFUSED, w.gateway.last_type);
    assert_string_equal("prompt", w.gateway.field);
    static const uint32_t bad[] = {UINT32_MAX};
    back                        = (text_decode){.tokens = bad, .n_tokens = 1};
    send(&w, MSG_TEXT_DECODE, &back, &e);
    assert_string_equal("tokens", w.gateway.field);
    simulation_free(&w.sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_goes_on_to_the_scheduler),
        cmocka_unit_test(credits_come_back_when_the_work_is_done),
        cmocka_unit_test(a_refusal_names_the_field),
        cmocka_unit_test(without_a_scheduler_or_its_credit_a_request_may_be_tried_again),
        cmocka_unit_test(what_a_dead_scheduler_had_is_told_to_the_gateway),
        cmocka_unit_test(a_late_request_is_not_read),
        cmocka_unit_test(text_and_tokens_are_turned_into_each_other),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
