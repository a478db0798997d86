/* What a client sees of parts that die under its request: nothing but a pause. */
#include "support_stage.h"

#include "base/metric.h"

static void goes_on_where_it_was_when_a_postprocessor_dies(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c     = ask(s, "/v1/chat/completions", hello_stream);
    envelope     first = s->seen[0].about;
    stage_delta(s, &first, 0, 0, 2, "one two", FINISH_REASON_NONE);
    stage_delta(s, &first, 0, 2, 1, " three", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, http_has(c, " three"));
    stage_remove(&s->postprocessor);
    stage_add_postprocessor(s);
    pump_stage(s, c, 5000, s->n_seen == 2);
    const seen_request *again = &s->seen[1];
    assert_true(request_id_equal(&again->about.request, &first.request));
    assert_int_equal(again->about.attempt, 1);
    assert_int_equal(again->n_resume, 1);
    assert_int_equal(again->n_resume_tokens, 3);
    assert_int_equal(again->resume_tokens[2], 102);
    assert_int_equal(again->seed, s->seen[0].seed);
    assert_int_equal(s->cancelled.attempt, 0);
    assert_int_equal(s->cancel_reason, CANCEL_REASON_SUPERSEDED);
    stage_delta(s, &first, 0, 3, 1, " OLD", FINISH_REASON_NONE);          /* of the attempt before */
    stage_delta(s, &again->about, 0, 1, 2, " TWICE", FINISH_REASON_NONE); /* already there */
    stage_delta(s, &again->about, 0, 3, 1, " four", FINISH_REASON_NONE);
    stage_delta(s, &again->about, 0, 3, 1, " TWICE", FINISH_REASON_STOP); /* the text is there, its end is not */
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_true(http_has(c, " four"));
    assert_false(http_has(c, "OLD"));
    assert_false(http_has(c, "TWICE"));
    assert_int_equal(http_count(c, "finish_reason\":\"stop\""), 1);
    http_close(&c);
}

/* Its last word was lost with the link, or the node, that carried it; nobody else died of that. */
static void a_run_that_nobody_has_is_sent_again(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    pump_stage(s, c, 10000, s->n_finds == 1); /* nobody answers: nobody may be dead */
    for (int i = 0; i < 1000; i++, usleep(1000))
        stage_turn(s, c);
    assert_int_equal(s->n_finds, 1);
    assert_int_equal(s->n_seen, 1);
    stage_remove(&s->postprocessor);
    stage_add_postprocessor(s); /* that round ends */
    s->find = FIND_AT_SCHEDULER;
    pump_stage(s, c, 10000, s->n_finds == 5);
    assert_int_equal(s->n_seen, 1);
    s->find = FIND_NOTHING;
    pump_stage(s, c, 10000, s->n_seen == 2);
    assert_in_range(s->n_finds, 6, 7); /* one of the rounds may have been answered before */
    assert_int_equal(s->seen[1].about.attempt, 1);
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "found", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "found"));
    http_close(&c);
}

static void a_hole_in_the_text_is_asked_for_again(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "a", FINISH_REASON_NONE);
    stage_delta(s, &s->seen[0].about, 0, 2, 1, "c", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, s->n_seen == 2);
    assert_int_equal(s->seen[1].n_resume_tokens, 1);
    stage_delta(s, &s->seen[1].about, 0, 1, 2, "bc", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"content\":\"abc\""));
    http_close(&c);
}

static void a_system_that_comes_up_again_costs_no_attempt(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_refuse(s, &s->seen[0].about, ERR_GONE, "the postprocessor left", "", 0);
    for (uint32_t i = 1; i <= 5; i++) { /* more often than there are attempts */
        pump_stage(s, c, 5000, s->n_seen == i + 1);
        assert_int_equal(s->seen[i].about.attempt, 1);
        if (i < 5)
            stage_refuse(s, &s->seen[i].about, ERR_NOT_READY, "no executor yet", "", 0);
    }
    stage_delta(s, &s->seen[5].about, 0, 0, 1, "at last", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "at last"));
    http_close(&c);
}

static void waits_anew_after_an_attempt_that_was_taken(void **state)
{
    stage *s                 = *state;
    s->options.resume_wait_s = 0.4;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_refuse(s, &s->seen[0].about, ERR_NOT_READY, "no executor yet", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 2);
    usleep(300 * 1000);
    stage_refuse(s, &s->seen[1].about, ERR_GONE, "the scheduler left", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 3);
    stage_refuse(s, &s->seen[2].about, ERR_NOT_READY, "no executor yet", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 4);
    stage_delta(s, &s->seen[3].about, 0, 0, 1, "at last", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "at last"));
    http_close(&c);
}

static void gives_up_after_the_last_attempt_without_done(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello_stream);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "begun", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, http_has(c, "begun"));
    for (uint32_t attempt = 0; attempt <= 3; attempt++) {
        pump_stage(s, c, 10000, s->n_seen == attempt + 1);
        assert_int_equal(s->seen[attempt].about.attempt, attempt);
        stage_delta(s, &s->seen[attempt].about, 0, 1, 0, "", FINISH_REASON_NONE); /* it has it, and gets no further */
        stage_remove(&s->postprocessor);
        stage_add_postprocessor(s);
    }
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "data: {\"error\":{\"message\":\"a postprocessor left"));
    assert_false(http_has(c, "[DONE]"));
    assert_false(http_has(c, "\r\n0\r\n\r\n")); /* the stream is visibly broken */
    http_close(&c);
    c = http_ask(s, "GET", "/metrics", "", NULL);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "troupe_gateway_retries_exhausted_total 1"));
    http_close(&c);
}

static void an_answer_that_gets_further_between_losses_is_never_given_up(void **state)
{
    enum { LOSSES = 6 }; /* twice as many as are forgiven at one place */
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello_stream);
    for (uint32_t i = 0; i < LOSSES; i++) {
        pump_stage(s, c, 10000, s->n_seen == i + 1);
        assert_int_equal(s->seen[i].n_resume_tokens, i);
        stage_delta(s, &s->seen[i].about, 0, i, 1, "+", FINISH_REASON_NONE);
        pump_stage(s, c, 5000, http_count(c, "\"+\"") == i + 1);
        stage_refuse(s, &s->seen[i].about, ERR_GONE, "the postprocessor left", "", 0);
    }
    pump_stage(s, c, 10000, s->n_seen == LOSSES + 1);
    stage_delta(s, &s->seen[LOSSES].about, 0, LOSSES, 1, "end", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    http_close(&c);
}

static void a_lost_tokenizer_may_have_passed_the_request_on(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c     = ask(s, "/v1/chat/completions", hello_stream);
    envelope     first = s->seen[0].about;
    stage_remove(&s->tokenizer);
    usleep(200 * 1000); /* the gateway rests, and then waits for a tokenizer */
    stage_delta(s, &first, 0, 0, 1, "begun", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, http_has(c, "begun"));
    assert_int_equal(s->n_cancels, 0);
    stage_add_tokenizer(s);
    stage_delta(s, &first, 0, 1, 1, "done", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_int_equal(s->n_seen, 1);
    http_close(&c);
    c = ask(s, "/v1/chat/completions", hello_stream); /* and it may not have */
    stage_remove(&s->tokenizer);
    stage_add_tokenizer(s);
    pump_stage(s, c, 5000, s->n_seen == 3);
    assert_true(request_id_equal(&s->seen[2].about.request, &s->seen[1].about.request));
    assert_int_equal(s->seen[2].about.attempt, 0);
    assert_int_equal(s->n_cancels, 0);
    http_close(&c);
    pump_stage(s, NULL, 5000, s->n_cancels == 1); /* a client that leaves is cancelled all the same */
}

static void a_request_that_comes_while_a_part_is_away_waits_for_it(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "all is there", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    http_close(&c);
    stage_remove(&s->postprocessor);
    http_client *probe = http_ask(s, "GET", "/ready", "", NULL);
    pump_stage(s, probe, 5000, probe->closed);
    assert_int_equal(http_status(probe), 503);
    http_close(&probe);
    c = http_post(s, "/v1/chat/completions", hello);
    usleep(100 * 1000);
    stage_turn(s, c);
    assert_int_equal(http_status(c), 0);
    stage_add_postprocessor(s);
    pump_stage(s, c, 5000, s->n_seen == 2);
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "at last", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "at last"));
    http_close(&c);
}

static void waits_a_while_for_what_is_away_then_refuses(void **state)
{
    stage *s                 = *state;
    s->options.resume_wait_s = 0.2;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    stage_remove(&s->tokenizer); /* has passed it on, or not: nobody knows */
    pump_stage(s, c, 10000, c->closed);
    assert_int_equal(http_status(c), 503);
    assert_true(http_has(c, "no tokenizer is ready"));
    http_close(&c);
}

/* 0.01 is the least; as a float it is less than that. */
static void a_number_at_its_limit_is_sent_and_the_queue_goes_on(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/completions", "{\"prompt\":\"x\",\"repetition_penalty\":0.01}");
    http_client *d = ask(s, "/v1/completions", "{\"prompt\":\"y\"}");
    assert_string_equal(s->seen[1].text, "y");
    http_close(&c);
    http_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(goes_on_where_it_was_when_a_postprocessor_dies),
        STAGE_TEST(a_run_that_nobody_has_is_sent_again),
        STAGE_TEST(a_hole_in_the_text_is_asked_for_again),
        STAGE_TEST(a_system_that_comes_up_again_costs_no_attempt),
        STAGE_TEST(waits_anew_after_an_attempt_that_was_taken),
        STAGE_TEST(gives_up_after_the_last_attempt_without_done),
        STAGE_TEST(an_answer_that_gets_further_between_losses_is_never_given_up),
        STAGE_TEST(a_lost_tokenizer_may_have_passed_the_request_on),
        STAGE_TEST(a_request_that_comes_while_a_part_is_away_waits_for_it),
        STAGE_TEST(waits_a_while_for_what_is_away_then_refuses),
        STAGE_TEST(a_number_at_its_limit_is_sent_and_the_queue_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
