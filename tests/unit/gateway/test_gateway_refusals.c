/* Requests that can't be taken now: while the gateway drains, while the scheduler does, and under overload. */
#include "support_stage.h"

static void drains_after_the_last_answer(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    actor_drain(s->gateway);
    usleep(100 * 1000);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "the last word", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "the last word"));
    http_close(&c);
    actor_join(s->gateway); /* it left by itself */
}

static int status_of(stage *s, const char *method, const char *path, const char *body, http_client **c)
{
    *c = http_ask(s, method, path, "", body);
    pump_stage(s, *c, 5000, (*c)->closed);
    return http_status(*c);
}

static void while_it_drains_it_refuses_and_says_when_to_try_again(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *first = ask(s, "/v1/chat/completions", hello), *c;
    actor_drain(s->gateway);
    usleep(50 * 1000);
    assert_int_equal(status_of(s, "GET", "/ready", NULL, &c), 503);
    assert_true(http_has(c, "shutting down"));
    http_close(&c);
    assert_int_equal(status_of(s, "GET", "/health", NULL, &c), 200);
    http_close(&c);
    assert_int_equal(status_of(s, "POST", "/v1/chat/completions", hello, &c), 503);
    assert_true(http_has(c, "Retry-After: 1\r\n") && http_has(c, "Connection: close\r\n"));
    http_close(&c);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "the last word", FINISH_REASON_STOP);
    pump_stage(s, first, 5000, first->closed);
    assert_true(http_has(first, "the last word"));
    http_close(&first);
    actor_join(s->gateway);
}

static void with_a_drain_delay_requests_are_taken_until_it_is_over(void **state)
{
    stage *s                 = *state;
    s->options.drain_delay_s = 0.3;
    stage_open_all(s);
    http_client *c;
    actor_drain(s->gateway);
    usleep(50 * 1000);
    assert_int_equal(status_of(s, "GET", "/ready", NULL, &c), 503);
    http_close(&c);
    c = ask(s, "/v1/chat/completions", hello);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "the last word", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "the last word") && http_has(c, "Connection: close\r\n"));
    http_close(&c);
    actor_join(s->gateway);
}

static void a_request_waits_for_who_was_ready_when_it_came(void **state)
{
    stage *s                 = *state;
    s->options.resume_wait_s = 0.2;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_refuse(s, &s->seen[0].about, ERR_NOT_READY, "the scheduler is leaving", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 2);
    assert_int_equal(s->seen[1].about.attempt, 0);
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "here", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 200);
    http_close(&c);

    c = ask(s, "/v1/chat/completions", hello); /* but not for ever */
    stage_refuse(s, &s->seen[2].about, ERR_NOT_READY, "the scheduler is leaving", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 4);
    stage_refuse(s, &s->seen[3].about, ERR_NOT_READY, "the scheduler is leaving", "", 0);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 503);
    assert_true(http_has(c, "Retry-After: 1\r\n"));
    http_close(&c);
}

/* What it has promised it sends on, though the tokenizer had no credit when the drain began. */
static void drains_what_waits_too(void **state)
{
    stage *s             = *state;
    s->tokenizer_credits = 1;
    s->keeps_credits     = true;
    stage_open_all(s);
    http_client *first  = ask(s, "/v1/chat/completions", hello);
    http_client *second = http_post(s, "/v1/chat/completions", hello);
    for (int i = 0; i < 200; i++)
        stage_turn(s, second), usleep(1000);
    actor_drain(s->gateway);
    usleep(100 * 1000);
    actor_grant(s->tokenizer, s->gateway_of_tokenizer, 1);
    pump_stage(s, second, 5000, s->n_seen == 2);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "one", FINISH_REASON_STOP);
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "two", FINISH_REASON_STOP);
    pump_stage(s, second, 5000, http_has(second, "two"));
    pump_stage(s, first, 5000, first->closed);
    http_close(&first);
    http_close(&second);
    actor_join(s->gateway);
}

static void what_would_miss_its_deadline_is_refused_at_once(void **state)
{
    enum { N = 8 };
    http_client *taken[N], *c;
    stage       *s               = *state;
    s->options.request_timeout_s = 3;
    stage_open_all(s);
    for (int i = 0; i < N; i++)
        taken[i] = ask(s, "/v1/chat/completions", hello); /* an idle gateway takes what comes */
    for (int i = 0; i < 400; i++)
        stage_turn(s, taken[0]), usleep(1000);
    assert_int_equal(status_of(s, "POST", "/v1/chat/completions", hello, &c), 429); /* 0.4 s and none has ended */
    assert_true(http_has(c, "Retry-After: ") && http_has(c, "over its deadline"));
    http_close(&c);
    for (int i = 0; i < N; i++) {
        stage_delta(s, &s->seen[i].about, 0, 0, 1, "done", FINISH_REASON_STOP);
        pump_stage(s, taken[i], 5000, taken[i]->closed);
        assert_true(http_has(taken[i], "done"));
        http_close(&taken[i]);
    }
    c = ask(s, "/v1/chat/completions", hello);
    http_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(drains_after_the_last_answer),
        STAGE_TEST(while_it_drains_it_refuses_and_says_when_to_try_again),
        STAGE_TEST(with_a_drain_delay_requests_are_taken_until_it_is_over),
        STAGE_TEST(a_request_waits_for_who_was_ready_when_it_came),
        STAGE_TEST(drains_what_waits_too),
        STAGE_TEST(what_would_miss_its_deadline_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
