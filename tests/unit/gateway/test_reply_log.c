/* Replies with an Idempotency-Key: whoever asks again gets the same, wherever the first connection broke. */
#include "support_stage.h"

#include <stdlib.h>

static const char stream_body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"stream\":true,"
                                  "\"stream_options\":{\"include_usage\":true}}";
static const char plain_body[]  = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";

static http_client *ask_as(stage *s, const char *key, const char *last_event, const char *body)
{
    char headers[512];
    int  n = snprintf(headers, sizeof headers, "Idempotency-Key: %s\r\n", key);
    if (last_event)
        snprintf(headers + n, sizeof headers - (size_t)n, "Last-Event-ID: %s\r\n", last_event);
    return http_ask(s, "POST", "/v1/chat/completions", headers, body);
}

/* Asks, and waits until the tokenizer has it. */
static http_client *ask_and_see(stage *s, const char *key, const char *last_event, const char *body)
{
    uint32_t     before = s->n_seen;
    http_client *c      = ask_as(s, key, last_event, body);
    pump_stage(s, c, 10000, s->n_seen > before || http_status(c));
    if (s->n_seen == before)
        fail_msg("%s", c->in);
    return c;
}

/* What came behind the head, without the sizes of chunks. */
static void body_of(const http_client *c, char *out, size_t out_bytes)
{
    const char *at      = strstr(c->in, "\r\n\r\n");
    bool        chunked = strstr(c->in, "Transfer-Encoding: chunked") != NULL;
    size_t      used    = 0;
    assert_non_null(at);
    at += 4;
    if (!chunked) {
        snprintf(out, out_bytes, "%s", at);
        return;
    }
    for (char *end; *at;) {
        size_t size = strtoul(at, &end, 16);
        assert_true(used + size < out_bytes && strlen(end) >= size + 2);
        memcpy(out + used, end + 2, size);
        used += size;
        at = end + 2 + size + 2;
    }
    out[used] = '\0';
}

/* "Hel" "lo" and the end, for a request that was seen. */
static void say_rest(stage *s, const envelope *about)
{
    stage_delta(s, about, 0, 1, 1, "lo", FINISH_REASON_NONE);
    stage_delta(s, about, 0, 2, 0, "", FINISH_REASON_STOP);
}

static void events_have_ids_only_when_a_key_was_given(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    for (int keyed = 0; keyed < 2; keyed++) {
        http_client *c =
            keyed ? ask_and_see(s, "k", NULL, stream_body) : http_post(s, "/v1/chat/completions", stream_body);
        pump_stage(s, c, 5000, s->n_seen == (uint32_t)keyed + 1);
        stage_delta(s, &s->seen[keyed].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
        say_rest(s, &s->seen[keyed].about);
        pump_stage(s, c, 5000, http_has(c, "[DONE]"));
        assert_int_equal(http_count(c, "id: "), keyed ? 5 : 0);
        assert_int_equal(http_has(c, "id: 1-3\ndata: {"), keyed);
        assert_int_equal(http_has(c, "id: 5-5\ndata: [DONE]\n\n"), keyed);
        assert_int_equal(http_has(c, "X-Troupe-Resumable: yes"), keyed);
        assert_int_equal(http_has(c, "Idempotent-Replayed: false"), keyed);
        http_close(&c);
    }
}

static void a_client_that_comes_back_gets_the_rest(void **state)
{
    static char whole[8192], first[8192], rest[8192];
    stage      *s = *state;
    stage_open_all(s);
    http_client *c = ask_and_see(s, "cut", NULL, stream_body);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, http_has(c, "id: 1-3"));
    pump_stage(s, c, 200, http_has(c, "\n\n\r\n"));
    body_of(c, first, sizeof first);
    http_close(&c);
    pump_stage(s, NULL, 5000, s->n_cancels == 1);

    c = ask_and_see(s, "cut", "1-3", stream_body);
    assert_int_equal(s->seen[1].n_resume_tokens, 1);
    assert_int_equal(s->seen[1].resume_tokens[0], 100);
    assert_true(s->seen[1].seed == s->seen[0].seed);
    say_rest(s, &s->seen[1].about);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_true(http_has(c, "Idempotent-Replayed: true"));
    body_of(c, rest, sizeof rest);
    http_close(&c);

    c = ask_as(s, "cut", NULL, stream_body); /* nobody has to compute it again */
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    body_of(c, whole, sizeof whole);
    assert_int_equal(s->n_seen, 2);
    assert_int_equal(strncmp(whole, first, strlen(first)), 0);
    assert_string_equal(whole + strlen(first), rest);
    http_close(&c);
}

static void a_second_request_follows_the_first_and_takes_its_place(void **state)
{
    static char a[8192], b[8192];
    stage      *s = *state;
    stage_open_all(s);
    http_client *first = ask_and_see(s, "two", NULL, stream_body);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
    pump_stage(s, first, 5000, http_has(first, "id: 1-3"));
    http_client *second = ask_as(s, "two", NULL, stream_body);
    pump_stage(s, second, 5000, http_has(second, "id: 1-3"));
    http_client *third = ask_as(s, "two", NULL, stream_body);
    pump_stage(s, third, 5000, http_has(third, "id: 1-3"));
    assert_int_equal(s->n_seen, 1);
    http_close(&first);
    pump_stage(s, second, 5000, s->n_seen == 2);
    assert_int_equal(s->seen[1].n_resume_tokens, 1);
    say_rest(s, &s->seen[1].about);
    pump_stage(s, second, 5000, http_has(second, "[DONE]"));
    pump_stage(s, third, 5000, http_has(third, "[DONE]"));
    body_of(second, a, sizeof a);
    body_of(third, b, sizeof b);
    assert_string_equal(a, b);
    assert_int_equal(s->n_seen, 2);
    http_close(&second);
    http_close(&third);
}

static void a_collected_answer_is_the_same_to_the_byte(void **state)
{
    static char a[8192], b[8192];
    stage      *s = *state;
    stage_open_all(s);
    http_client *c = ask_and_see(s, "plain", NULL, plain_body);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
    for (int i = 0; i < 20; i++)
        stage_turn(s, c), usleep(1000); /* the log has it */
    http_close(&c);
    pump_stage(s, NULL, 5000, s->n_cancels == 1);
    c = ask_and_see(s, "plain", NULL, plain_body);
    assert_int_equal(s->seen[1].n_resume_tokens, 1);
    say_rest(s, &s->seen[1].about);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"content\":\"Hello\""));
    body_of(c, a, sizeof a);
    http_close(&c);
    c = ask_as(s, "plain", NULL, plain_body);
    pump_stage(s, c, 5000, c->closed);
    body_of(c, b, sizeof b);
    assert_string_equal(a, b);
    assert_int_equal(s->n_seen, 2);
    http_close(&c);
}

static void finished_choices_and_prompts_stay_finished(void **state)
{
    static const char body[] = "{\"prompt\":[\"one\",\"two\"],\"n\":2,\"stream\":true}";
    stage            *s      = *state;
    stage_open_all(s);
    http_client *c = http_ask(s, "POST", "/v1/completions", "Idempotency-Key: many\r\n", body);
    pump_stage(s, c, 5000, s->n_seen == 2);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "a", FINISH_REASON_STOP);
    stage_delta(s, &s->seen[0].about, 1, 0, 1, "b", FINISH_REASON_STOP);
    stage_delta(s, &s->seen[1].about, 1, 0, 2, "d", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "id: 3-3"));
    http_close(&c);
    pump_stage(s, NULL, 5000, s->n_cancels == 1);
    c = http_ask(s, "POST", "/v1/completions", "Idempotency-Key: many\r\nLast-Event-ID: 2-2\r\n", body);
    pump_stage(s, c, 5000, s->n_seen == 3);
    assert_string_equal(s->seen[2].text, "two");
    assert_int_equal(s->seen[2].n_resume, 2);
    stage_delta(s, &s->seen[2].about, 0, 0, 1, "c", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_int_equal(http_count(c, "\"text\""), 2);
    assert_true(http_has(c, "\"text\":\"c\"") && http_has(c, "\"text\":\"d\""));
    http_close(&c);
}

static void what_does_not_fit_is_refused(void **state)
{
    static const struct {
        const char *key, *event, *body;
        int         status;
        const char *says;
    } cases[] = {
        {"done", NULL, plain_body, 422, "used for another request"},
        {"done", "1-4", stream_body, 422, "Last-Event-ID"}, /* there is an event 1, but not that one */
        {"new", "3-9", stream_body, 422, "Last-Event-ID"},
        {"done", "1", stream_body, 400, "\"param\":\"Last-Event-ID\""},
        {"done", "x", stream_body, 400, "\"param\":\"Last-Event-ID\""},
        {"", NULL, stream_body, 400, "\"param\":\"Idempotency-Key\""},
    };
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask_and_see(s, "done", NULL, stream_body);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Hel", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    http_close(&c);
    for (size_t i = 0; i < COUNT(cases); i++) {
        c = ask_as(s, cases[i].key, cases[i].event, cases[i].body);
        pump_stage(s, c, 5000, c->closed);
        if (http_status(c) != cases[i].status || !http_has(c, cases[i].says))
            fail_msg("case %zu: %s", i, c->in);
        http_close(&c);
    }
    assert_int_equal(s->n_seen, 1);
}

static void keys_are_a_tenants_own(void **state)
{
    static const char *const keys[] = {"key-of-alice", "key-of-bob", "key-of-alice"};
    char                     path[] = "/tmp/troupe-keys-XXXXXX", headers[128];
    int                      fd     = mkstemp(path);
    stage                   *s      = *state;
    dprintf(fd, "key-of-alice alice\nkey-of-bob bob\n");
    close(fd);
    s->options.api_key_file = path;
    stage_open_all(s);
    for (uint32_t i = 0; i < COUNT(keys); i++) {
        snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nIdempotency-Key: same\r\n", keys[i]);
        http_client *c = http_ask(s, "POST", "/v1/chat/completions", headers, stream_body);
        if (i < 2) {
            pump_stage(s, c, 5000, s->n_seen == i + 1);
            stage_delta(s, &s->seen[i].about, 0, 0, 1, i ? "Bob" : "Alice", FINISH_REASON_STOP);
        }
        pump_stage(s, c, 5000, http_has(c, "[DONE]"));
        assert_true(http_has(c, i == 1 ? "\"content\":\"Bob\"" : "\"content\":\"Alice\""));
        http_close(&c);
    }
    assert_int_equal(s->n_seen, 2);
    assert_true(s->seen[0].seed != s->seen[1].seed);
    unlink(path);
}

static void what_was_refused_before_its_first_text_may_be_asked_again(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask_and_see(s, "again", NULL, plain_body);
    stage_refuse(s, &s->seen[0].about, ERR_OVERLOADED, "the queue is full", "", 0);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 429);
    http_close(&c);
    c = ask_and_see(s, "again", NULL, stream_body); /* nothing was kept, not even what it was about */
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "Hel", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    http_close(&c);
}

static void without_its_store_a_request_is_answered_and_says_so(void **state)
{
    stage *s                 = *state;
    s->options.store_url     = "redis://127.0.0.1:1/0";
    s->options.resume_wait_s = 0.3;
    stage_open_all(s);
    for (uint32_t i = 0; i < 2; i++) {
        http_client *c = ask_and_see(s, "none", NULL, stream_body);
        stage_delta(s, &s->seen[i].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
        say_rest(s, &s->seen[i].about);
        pump_stage(s, c, 5000, http_has(c, "[DONE]"));
        assert_true(http_has(c, "X-Troupe-Resumable: no"));
        http_close(&c);
    }
    assert_true(s->seen[0].seed == s->seen[1].seed); /* so even now the same is said */
    http_client *c = ask_as(s, "none", "1-3", stream_body);
    pump_stage(s, c, 20000, c->closed);
    assert_int_equal(http_status(c), 503);
    http_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(events_have_ids_only_when_a_key_was_given),
        STAGE_TEST(a_client_that_comes_back_gets_the_rest),
        STAGE_TEST(a_second_request_follows_the_first_and_takes_its_place),
        STAGE_TEST(a_collected_answer_is_the_same_to_the_byte),
        STAGE_TEST(finished_choices_and_prompts_stay_finished),
        STAGE_TEST(what_does_not_fit_is_refused),
        STAGE_TEST(keys_are_a_tenants_own),
        STAGE_TEST(what_was_refused_before_its_first_text_may_be_asked_again),
        STAGE_TEST(without_its_store_a_request_is_answered_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
