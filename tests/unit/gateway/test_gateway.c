/* The gateway on real loopback HTTP, between actors that speak the ends of its protocol. */
#include "support_stage.h"

#include "base/metric.h"

#include <stdlib.h>

static void streams_a_chat_piece_by_piece(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello_stream);
    assert_string_equal(s->seen[0].text, "hello");
    assert_string_equal(s->seen[0].reply_to, actor_name(s->gateway));
    assert_int_equal(s->seen[0].max_tokens, 0);
    assert_int_equal(http_status(c), 0); /* nothing is promised before there is text */
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Hel", FINISH_REASON_NONE);
    pump_stage(s, c, 5000, http_has(c, "\"content\":\"Hel\""));
    assert_true(http_has(c, "text/event-stream"));
    assert_true(http_has(c, "\"role\":\"assistant\""));
    stage_delta(s, &s->seen[0].about, 0, 1, 1, "lo", FINISH_REASON_NONE);
    stage_delta(s, &s->seen[0].about, 0, 2, 0, "", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "data: [DONE]\n\n"));
    assert_true(http_has(c, "\"content\":\"lo\""));
    assert_true(http_has(c, "\"finish_reason\":\"stop\""));
    assert_int_equal(http_count(c, "\"role\""), 1);
    assert_int_equal(http_count(c, "\"usage\""), 0);
    http_close(&c);
    stage_turn(s, NULL);
    assert_int_equal(s->n_cancels, 0);
}

static void usage_comes_last_in_a_stream_that_asks_for_it(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,"
                         "\"stream_options\":{\"include_usage\":true},\"seed\":77}");
    assert_int_equal(s->seen[0].seed, 77);
    stage_delta(s, &s->seen[0].about, 0, 0, 3, "abc", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_true(http_has(c, "\"usage\":null"));
    assert_true(http_has(c,
                         "\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3,\"total_tokens\":15,"
                         "\"prompt_tokens_details\":{\"cached_tokens\":4}}"));
    http_close(&c);
}

static void collects_a_chat_with_several_choices(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"n\":2}");
    const envelope *e = &s->seen[0].about;
    stage_delta(s, e, 1, 0, 1, "B", FINISH_REASON_NONE);
    stage_delta(s, e, 0, 0, 2, "A1", FINISH_REASON_NONE);
    stage_delta(s, e, 1, 1, 1, "2", FINISH_REASON_STOP);
    stage_delta(s, e, 0, 2, 1, " \xc3\xa9", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, http_status(c) && c->closed);
    assert_int_equal(http_status(c), 200);
    assert_true(http_has(c, "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A1 \xc3\xa9\""));
    assert_true(http_has(c, "\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"B2\""));
    assert_true(http_has(c, "\"completion_tokens\":5,\"total_tokens\":17"));
    http_close(&c);
}

static void several_prompts_are_several_runs_of_one_answer(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = http_post(s, "/v1/completions", "{\"prompt\":[\"one\",\"two\",[1,2,3]][0:0],\"x\":1}");
    pump_stage(s, c, 5000, http_status(c) == 400); /* not JSON */
    http_close(&c);
    c = http_post(s, "/v1/completions", "{\"prompt\":[\"one\",\"two\",[1,2,3]],\"max_tokens\":4}");
    pump_stage(s, c, 5000, s->n_seen == 3);
    assert_string_equal(s->seen[0].text, "one");
    assert_string_equal(s->seen[1].text, "two");
    assert_int_equal(s->seen[2].kind, PROMPT_KIND_TOKENS);
    assert_int_equal(s->seen[2].n_tokens, 3);
    assert_int_equal(s->seen[0].max_tokens, 4);
    for (uint32_t i = 3; i-- > 0;)
        stage_delta(s, &s->seen[i].about, 0, 0, 1, i == 0 ? "zero" : i == 1 ? "first" : "second", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"index\":0,\"text\":\"zero\""));
    assert_true(http_has(c, "\"index\":2,\"text\":\"second\""));
    assert_true(http_has(c, "\"prompt_tokens\":36"));
    http_close(&c);
}

static void echo_scores_a_prompt_as_harnesses_read_it(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/completions", "{\"prompt\":\"a b\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}");
    const seen_request *seen = &s->seen[0];
    assert_true(seen->echo && seen->prompt_logprobs && seen->n_top_logprobs == 1);
    text_top     top         = {.token = 5, .logprob = -0.25f, .bytes = SPAN(" c")};
    text_logprob logprobs[2] = {
        {.token = 1, .bytes = SPAN("a"), .no_logprob = true},
        {.token = 2, .logprob = -1.5f, .bytes = SPAN(" b"), .top = &top, .n_top = 1, .text_offset = 1}};
    text_delta d = text_delta_defaults;
    d.prompt     = true;
    d.text       = SPAN("a b");
    d.logprobs   = logprobs;
    d.n_logprobs = 2;
    stage_send_delta(s, &seen->about, &d);
    stage_delta(s, &seen->about, 0, 0, 1, "never seen", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"text\":\"a b\",\"logprobs\":{\"text_offset\":[0,1],\"token_logprobs\":[null,-1.5],"
                            "\"tokens\":[\"a\",\" b\"],\"top_logprobs\":[null,{\" c\":-0.25,\" b\":-1.5}]},"
                            "\"finish_reason\":\"length\""));
    assert_true(http_has(c, "\"completion_tokens\":0"));
    http_close(&c);
}

static void a_prompt_cut_in_other_places_is_scored_once(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/completions", "{\"prompt\":\"a b\",\"max_tokens\":0,\"echo\":true,\"logprobs\":1}");
    const seen_request *seen        = &s->seen[0];
    text_logprob        logprobs[3] = {{.token = 1, .bytes = SPAN("a"), .no_logprob = true},
                                       {.token = 2, .logprob = -1.5f, .bytes = SPAN("b"), .text_offset = 1},
                                       {.token = 3, .logprob = -2.5f, .bytes = SPAN("c"), .text_offset = 2}};
    text_delta          d           = text_delta_defaults;
    d.prompt                        = true;
    d.text                          = SPAN("abc");
    d.logprobs                      = logprobs;
    d.n_logprobs                    = 2;
    stage_send_delta(s, &seen->about, &d);
    d.index    = 1;
    d.text     = (span){0};
    d.logprobs = logprobs + 1;
    stage_send_delta(s, &seen->about, &d);
    stage_delta(s, &seen->about, 0, 0, 1, "never seen", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"text\":\"abc\""));
    assert_true(http_has(c, "\"token_logprobs\":[null,-1.5,-2.5]"));
    http_close(&c);
}

static void refuses_by_status_and_field(void **state)
{
    static const struct {
        const char *method, *path, *body;
        int         status;
        const char *text;
    } cases[] = {
        {"POST", "/v1/chat/completions", "{", 400, "invalid_request_error"},
        {"POST", "/v1/chat/completions", "{\"messages\":[]}", 400, "\"param\":\"messages\""},
        {"POST", "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_p\":2}", 400,
         "\"param\":\"top_p\""},
        {"POST", "/v1/chat/completions", "{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         404, "\"code\":\"model_not_found\""},
        {"GET", "/v1/models/other", NULL, 404, "model_not_found"},
        {"GET", "/v1/models/our%20model", NULL, 200, "\"id\":\"our model\""},
        {"GET", "/v1/models", NULL, 200, "\"object\":\"list\""},
        {"GET", "/v1/chat/completions", NULL, 405, "POST"},
        {"TRACE", "/v1/models", NULL, 405, "Allow: GET, HEAD"},
        {"QUERY", "/tokenize", "{}", 405, "Allow: POST"},
        {"GET", "/openapi.json", NULL, 200, "\"openapi\": \"3."},
        {"GET", "/nothing", NULL, 404, "\"error\""},
        {"GET", "/health", NULL, 200, "ok"},
        {"GET", "/metrics", NULL, 200, "troupe_time_to_first_token_seconds_bucket"},
        {"GET", "/ready", NULL, 200, "ready"},
    };
    stage *s                     = *state;
    s->options.served_model_name = "our model";
    stage_open_all(s);
    for (size_t i = 0; i < COUNT(cases); i++) {
        http_client *c = http_ask(s, cases[i].method, cases[i].path, "", cases[i].body);
        pump_stage(s, c, 5000, c->closed);
        if (http_status(c) != cases[i].status || !http_has(c, cases[i].text))
            fail_msg("%s %s: %s", cases[i].path, cases[i].body ? cases[i].body : "", c->in);
        http_close(&c);
    }
    http_client *form = http_ask(s, "POST", "/v1/completions", "Content-Type: text/plain\r\n", NULL);
    pump_stage(s, form, 5000, form->closed);
    assert_int_equal(http_status(form), 415);
    assert_true(http_has(form, "\"code\":\"unsupported_media_type\""));
    http_close(&form);
    assert_int_equal(s->n_seen, 0);
}

static void is_ready_only_with_everything_there(void **state)
{
    stage *s = *state;
    stage_open(s);
    http_client *c = http_ask(s, "GET", "/ready", "", NULL);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 503);
    assert_true(http_has(c, "no tokenizer is ready"));
    http_close(&c);
    c = http_post(s, "/v1/chat/completions", hello);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 503);
    assert_true(http_has(c, "Retry-After: 1\r\n"));
    http_close(&c);
    stage_add_tokenizer(s);
    c = http_post(s, "/tokenize", "{\"prompt\":\"needs nobody else\"}");
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 200);
    http_close(&c);
    c = http_post(s, "/v1/chat/completions", hello);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "no postprocessor is ready"));
    http_close(&c);
    stage_add_postprocessor(s);
    actor_set_ready(s->scheduler, false); /* as a scheduler without an executor says */
    for (bool ready = true; ready;) {
        c = http_ask(s, "GET", "/ready", "", NULL);
        pump_stage(s, c, 5000, c->closed);
        ready = http_status(c) == 200;
        if (!ready)
            assert_true(http_has(c, "no scheduler with an executor is ready"));
        http_close(&c);
    }
}

static void queues_for_credit_and_refuses_past_the_bound(void **state)
{
    stage *s               = *state;
    s->tokenizer_credits   = 1;
    s->keeps_credits       = true;
    s->options.max_waiting = 1;
    stage_open_all(s);
    http_client *first  = ask(s, "/v1/chat/completions", hello);
    http_client *second = http_post(s, "/v1/chat/completions", hello); /* waits */
    http_client *probe  = http_ask(s, "GET", "/metrics", "", NULL);
    for (int i = 0; i < 200 && !http_has(probe, "troupe_gateway_prompts_waiting 1"); i++) {
        http_close(&probe);
        probe = http_ask(s, "GET", "/metrics", "", NULL);
        pump_stage(s, probe, 5000, probe->closed);
    }
    assert_true(http_has(probe, "troupe_gateway_prompts_waiting 1"));
    http_close(&probe);
    http_client *third = http_post(s, "/v1/chat/completions", hello);
    pump_stage(s, third, 5000, third->closed);
    assert_int_equal(http_status(third), 429);
    assert_true(http_has(third, "Retry-After"));
    assert_true(http_has(third, "rate_limit_error"));
    assert_int_equal(s->n_seen, 1);
    actor_grant(s->tokenizer, s->gateway_of_tokenizer, 1);
    pump_stage(s, second, 5000, s->n_seen == 2);
    http_close(&first);
    http_close(&second);
    http_close(&third);
}

static void a_refusal_downstream_becomes_a_status(void **state)
{
    static const struct {
        error_code  code;
        const char *field;
        uint32_t    retry_after_ms;
        int         status;
        const char *text;
    } cases[] = {
        {ERR_INVALID, "max_tokens", 0, 400, "\"param\":\"max_tokens\",\"code\":\"invalid_value\""},
        {ERR_OVERLOADED, "", 2500, 429, "Retry-After: 3\r\n"},
        {ERR_NOT_READY, "", 0, 503, "Retry-After: 1\r\n"}, /* with nothing to wait for: --resume-wait is 0 */
        {ERR_TOO_LARGE, "prompt", 0, 413, "too_large"},
    };
    stage *s                 = *state;
    s->options.resume_wait_s = 0;
    stage_open_all(s);
    for (size_t i = 0; i < COUNT(cases); i++) {
        http_client *c = ask(s, "/v1/chat/completions", hello_stream);
        stage_refuse(s, &s->seen[s->n_seen - 1].about, cases[i].code, "because", cases[i].field,
                     cases[i].retry_after_ms);
        pump_stage(s, c, 5000, c->closed);
        assert_int_equal(http_status(c), cases[i].status);
        assert_true(http_has(c, cases[i].text));
        http_close(&c);
    }
}

static void a_stream_without_text_begins_with_a_ping(void **state)
{
    stage *s                 = *state;
    s->options.stream_ping_s = 0.15;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello_stream);
    assert_int_equal(http_status(c), 0);
    pump_stage(s, c, 5000, http_count(c, ": ping\n\n") == 2);
    assert_int_equal(http_status(c), 200);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "At last.", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed || http_has(c, "[DONE]"));
    assert_true(http_has(c, "At last."));
    http_close(&c);
    c = ask(s, "/v1/chat/completions", hello_stream);
    pump_stage(s, c, 5000, http_has(c, ": ping\n\n"));
    stage_refuse(s, &s->seen[1].about, ERR_OVERLOADED, "too much", "", 1000);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_status(c) == 200 && http_has(c, "data: {\"error\":{\"message\":\"too much\"") &&
                !http_has(c, "[DONE]"));
    http_close(&c);
    c = ask(s, "/v1/chat/completions", hello); /* collected: its status waits for the end */
    usleep(300 * 1000);
    stage_turn(s, c);
    assert_int_equal(http_status(c), 0);
    http_close(&c);
}

static void cancels_within_100_ms_when_the_client_leaves(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    for (int streaming = 0; streaming < 2; streaming++) { /* still queued; and in mid-stream */
        uint32_t     before = s->n_cancels;
        http_client *c      = ask(s, "/v1/chat/completions", hello_stream);
        envelope     e      = s->seen[s->n_seen - 1].about;
        if (streaming) {
            stage_delta(s, &e, 0, 0, 1, "text", FINISH_REASON_NONE);
            pump_stage(s, c, 5000, http_has(c, "text"));
        }
        int64_t left_ns = clock_now_ns(clock_system());
        http_close(&c);
        pump_stage(s, NULL, 5000, s->n_cancels > before);
        assert_true(request_id_equal(&s->cancelled.request, &e.request));
        assert_int_equal(s->cancel_reason, CANCEL_REASON_CLIENT_LEFT);
        print_message("cancelled after %.1f ms\n", (double)(s->cancelled_at_ns - left_ns) / 1e6);
        assert_true(s->cancelled_at_ns - left_ns < 100 * NS_PER_MS);
        /* The cancel may have overtaken the request: whoever still works on it is told again. */
        stage_delta(s, &e, 0, 5, 1, "late", FINISH_REASON_NONE);
        pump_stage(s, NULL, 5000, s->n_cancels > before + 1);
    }
}

static void a_generation_that_fails_is_an_error(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask(s, "/v1/chat/completions", hello);
    text_delta   d = text_delta_defaults;
    d.finish       = FINISH_REASON_ERROR;
    d.error        = SPAN("no finite logit");
    stage_send_delta(s, &s->seen[0].about, &d);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 500);
    assert_true(http_has(c, "no finite logit"));
    http_close(&c);
}

static void a_deadline_ends_a_request_and_cancels_it(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    int64_t      asked_ns = clock_now_ns(clock_system());
    http_client *c =
        ask(s, "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"timeout\":0.3}");
    assert_true(s->seen[0].about.deadline_unix_ms > 0);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 408);
    assert_true(clock_now_ns(clock_system()) - asked_ns >= 290 * NS_PER_MS);
    pump_stage(s, NULL, 5000, s->n_cancels == 1);
    http_close(&c);
}

static void tokenizes_and_detokenizes(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = http_post(s, "/tokenize", "{\"prompt\":\"some text\"}");
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "{\"count\":3,\"max_model_len\":2048,\"tokens\":[7,8,9],\"token_strs\":null}"));
    assert_string_equal(s->seen[0].text, "some text");
    http_close(&c);
    c = http_post(s, "/detokenize", "{\"tokens\":[1,2]}");
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "{\"prompt\":\"2 tokens\"}"));
    http_close(&c);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void asks_for_keys_and_reads_them_again(void **state)
{
    stage *s        = *state;
    char   path[64] = "/tmp/gateway-keys-XXXXXX";
    close(mkstemp(path));
    write_file(path, "secret-one acme\nsecret-two\n");
    s->options.api_key_file = path;
    stage_open_all(s);
    static const struct {
        const char *path, *header;
        int         status;
    } cases[] = {{"/v1/models", "", 401},
                 {"/v1/models", "Authorization: Bearer wrong-secret\r\n", 401},
                 {"/v1/models", "Authorization: Basic secret-one\r\n", 401},
                 {"/v1/models", "Authorization: Bearer secret-one\r\n", 200},
                 {"/health", "", 200},
                 {"/ready", "", 200},
                 {"/metrics", "", 200}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        http_client *c = http_ask(s, "GET", cases[i].path, cases[i].header, NULL);
        pump_stage(s, c, 5000, c->closed);
        assert_int_equal(http_status(c), cases[i].status);
        http_close(&c);
    }
    http_client *c = http_ask(s, "POST", "/v1/chat/completions",
                              "Authorization: Bearer secret-one\r\nX-Session-Id: talk-7\r\n", hello);
    pump_stage(s, c, 5000, s->n_seen == 1);
    assert_string_equal(s->seen[0].tenant, "acme");
    assert_string_equal(s->seen[0].session, "talk-7");
    http_close(&c);
    write_file(path, "secret-three\n");
    actor_reload(s->gateway);
    int status = 0;
    for (int i = 0; i < 100 && status != 200; i++) {
        c = http_ask(s, "GET", "/v1/models", "Authorization: Bearer secret-three\r\n", NULL);
        pump_stage(s, c, 5000, c->closed);
        status = http_status(c);
        http_close(&c);
    }
    assert_int_equal(status, 200);
    unlink(path);
}

static void a_key_is_held_to_its_limits(void **state)
{
    static const char authorization[] = "Authorization: Bearer secret-one\r\n";
    stage            *s               = *state;
    char              path[64]        = "/tmp/gateway-keys-XXXXXX";
    close(mkstemp(path));
    write_file(path, "secret-one acme requests-per-minute=3 tokens-per-minute=1000 concurrent-requests=1\n");
    s->options.api_key_file = path;
    stage_open_all(s);
    http_client *first = http_ask(s, "POST", "/v1/chat/completions", authorization, hello), *c;
    pump_stage(s, first, 5000, s->n_seen == 1);
    c = http_ask(s, "POST", "/v1/chat/completions", authorization, hello);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 429);
    assert_true(http_has(c, "rate_limit_exceeded") && http_has(c, "1 requests running"));
    assert_true(http_has(c, "Retry-After: 1\r\n") && http_has(c, "x-ratelimit-remaining-requests: 2\r\n"));
    http_close(&c);
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "one", FINISH_REASON_STOP);
    pump_stage(s, first, 5000, first->closed);
    assert_true(http_has(first, "x-ratelimit-limit-tokens: 1000\r\n"));
    http_close(&first);
    c = http_ask(s, "POST", "/v1/chat/completions", authorization, hello_stream);
    pump_stage(s, c, 5000, s->n_seen == 2);
    stage_delta(s, &s->seen[1].about, 0, 0, 1, "two", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_true(http_has(c, "x-ratelimit-remaining-requests: 1\r\n"));
    assert_true(http_has(c, "x-ratelimit-remaining-tokens: 987\r\n")); /* 12 + 1 of the first */
    http_close(&c);
    for (int i = 0; i < 2; i++) { /* one that is refused for its body counts too */
        c = http_ask(s, "POST", "/v1/chat/completions", authorization, "{}");
        pump_stage(s, c, 5000, c->closed);
        assert_int_equal(http_status(c), i == 0 ? 400 : 429);
        assert_true(i == 0 || http_has(c, "3 times a minute"));
        http_close(&c);
    }
    c = http_ask(s, "GET", "/v1/models", authorization, NULL);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 200);
    http_close(&c);
    unlink(path);
}

static void front_rules_answer_before_any_model(void **state)
{
    stage *s        = *state;
    char   path[64] = "/tmp/gateway-rules-XXXXXX";
    close(mkstemp(path));
    write_file(path, "rules:\n- {name: greet, match: exact, pattern: Hello, answer: Canned.}\n");
    s->options.front_rules = path;
    stage_open(s); /* nobody else is needed */
    http_client *c = http_post(s, "/v1/chat/completions", hello_stream);
    pump_stage(s, c, 5000, http_has(c, "[DONE]"));
    assert_true(http_has(c, "\"content\":\"Canned.\""));
    http_close(&c);
    write_file(path, "rules: [\n");
    usleep(1500 * 1000); /* the bad file is read and refused */
    c = http_post(s, "/v1/chat/completions", hello);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"content\":\"Canned.\"") && http_status(c) == 200);
    http_close(&c);
    write_file(path, "rules:\n- {name: greet, match: exact, pattern: Hello, answer: Fresh from the file.}\n");
    bool fresh = false;
    for (int i = 0; i < 100 && !fresh; i++) {
        c = http_post(s, "/v1/chat/completions", hello);
        pump_stage(s, c, 5000, c->closed);
        fresh = http_has(c, "Fresh from the file.");
        http_close(&c);
        usleep(50 * 1000);
    }
    assert_true(fresh);
    unlink(path);
}

static void front_rules_look_at_every_prompt_of_a_list(void **state)
{
    stage *s        = *state;
    char   path[64] = "/tmp/gateway-rules-XXXXXX";
    close(mkstemp(path));
    write_file(path, "rules:\n- {name: no, match: keyword, pattern: bomb, answer: No., finish: content_filter}\n");
    s->options.front_rules = path;
    stage_open_all(s);
    http_client *c = http_post(s, "/v1/completions", "{\"prompt\":[\"a bomb\",\"tea\",\"the bomb\"],\"n\":2}");
    pump_stage(s, c, 5000, s->n_seen == 1);
    assert_string_equal(s->seen[0].text, "tea");
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "Leaves.", FINISH_REASON_STOP);
    stage_delta(s, &s->seen[0].about, 1, 0, 1, "Water.", FINISH_REASON_STOP);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), 200);
    assert_int_equal(http_count(c, "\"text\":\"No.\""), 4);
    assert_int_equal(http_count(c, "\"finish_reason\":\"content_filter\""), 4);
    assert_true(http_has(c, "Leaves.") && http_has(c, "Water."));
    http_close(&c);
    c = http_post(s, "/v1/completions", "{\"prompt\":[\"one bomb\",\"two bomb\"]}");
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_count(c, "\"text\":\"No.\""), 2);
    http_close(&c);
    assert_int_equal(s->n_seen, 1);
    unlink(path);
}

/* ---- the bus ---- */

static void say(stage *s, uint16_t type, const void *body, uint8_t id)
{
    envelope about = {.request.bytes = {id}, .attempt = 3};
    error    err;
    if (!actor_send(s->client, s->gateway_of_client, type, body, &about, &err))
        fail_msg("%s", err.text);
}

static void a_client_on_the_bus_is_owned_the_same_way(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    stage_add_client(s);
    text_request body = text_request_defaults;
    body.kind         = PROMPT_KIND_TEXT;
    body.prompt       = SPAN("from the bus");
    body.tenant       = SPAN("acme");
    say(s, MSG_TEXT_REQUEST, &body, 1);
    pump_stage(s, NULL, 5000, s->n_seen == 1);
    assert_string_equal(s->seen[0].text, "from the bus");
    assert_string_equal(s->seen[0].tenant, "bus/acme");
    assert_int_not_equal(s->seen[0].seed, 0);
    assert_int_not_equal(s->seen[0].about.request.bytes[1], 0); /* an id of the gateway's own */
    stage_delta(s, &s->seen[0].about, 0, 0, 1, "yes", FINISH_REASON_NONE);
    stage_remove(&s->postprocessor);
    stage_add_postprocessor(s);
    pump_stage(s, NULL, 5000, s->n_seen == 2);
    stage_delta(s, &s->seen[1].about, 0, 1, 1, " sir", FINISH_REASON_STOP);
    pump_stage(s, NULL, 5000, s->n_replies == 2);
    assert_string_equal(s->replies[0].text, "yes");
    assert_string_equal(s->replies[1].text, " sir");
    assert_int_equal(s->replies[1].finish, FINISH_REASON_STOP);
    assert_int_equal(s->replies[1].about.request.bytes[0], 1);
    assert_int_equal(s->replies[1].about.attempt, 3);

    text_encode encode = text_encode_defaults;
    encode.kind        = PROMPT_KIND_TEXT;
    encode.prompt      = SPAN("count me");
    say(s, MSG_TEXT_ENCODE, &encode, 2);
    pump_stage(s, NULL, 5000, s->n_replies == 3);
    assert_int_equal(s->replies[2].n_tokens, 3);

    say(s, MSG_TEXT_REQUEST, &body, 3);
    pump_stage(s, NULL, 5000, s->n_seen == 4);
    say(s, MSG_TEXT_CANCEL, &text_cancel_defaults, 3);
    pump_stage(s, NULL, 5000, request_id_equal(&s->cancelled.request, &s->seen[3].about.request));

    say(s, MSG_TEXT_REQUEST, &body, 4);
    pump_stage(s, NULL, 5000, s->n_seen == 5);
    stage_refuse(s, &s->seen[4].about, ERR_INVALID, "too long", "prompt", 0);
    pump_stage(s, NULL, 5000, s->n_replies == 4);
    assert_int_equal(s->replies[3].code, ERR_INVALID);
    assert_int_equal(s->gateway_of_client->credits + 0u, 8); /* each came back */
}

static void a_client_that_leaves_the_bus_is_cancelled(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    stage_add_client(s);
    text_request body = text_request_defaults;
    body.kind         = PROMPT_KIND_TEXT;
    body.prompt       = SPAN("x");
    say(s, MSG_TEXT_REQUEST, &body, 9);
    pump_stage(s, NULL, 5000, s->n_seen == 1);
    stage_remove(&s->client);
    pump_stage(s, NULL, 5000, s->n_cancels == 1);
}

/* The connection dies of the answer's last piece: the answer ends first, and its end is not reported to it. */
static void a_client_that_cannot_take_the_last_piece_is_gone_once(void **state)
{
    static char text[1 << 20];
    stage      *s = *state;
    memset(text, 'a', sizeof text);
    stage_open_all(s);
    http_client *c    = ask(s, "/v1/chat/completions", hello_stream);
    text_delta   d    = text_delta_defaults;
    uint32_t     one  = 7;
    double       gone = metric_value(metric_find("troupe_gateway_clients_gone_total", ""));
    d.tokens          = &one;
    d.n_tokens        = 1;
    d.text            = (span){text, sizeof text};
    d.finish          = FINISH_REASON_STOP;
    stage_send_delta(s, &s->seen[0].about, &d);
    pump_stage(s, c, 5000, c->closed);
    http_close(&c);
    http_client *probe = http_ask(s, "GET", "/metrics", "", NULL);
    pump_stage(s, probe, 5000, probe->closed);
    assert_true(http_has(probe, "troupe_num_requests_in_hand 0"));
    assert_true(metric_value(metric_find("troupe_gateway_clients_gone_total", "")) == gone);
    http_close(&probe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(streams_a_chat_piece_by_piece),
        STAGE_TEST(usage_comes_last_in_a_stream_that_asks_for_it),
        STAGE_TEST(collects_a_chat_with_several_choices),
        STAGE_TEST(several_prompts_are_several_runs_of_one_answer),
        STAGE_TEST(echo_scores_a_prompt_as_harnesses_read_it),
        STAGE_TEST(a_prompt_cut_in_other_places_is_scored_once),
        STAGE_TEST(refuses_by_status_and_field),
        STAGE_TEST(is_ready_only_with_everything_there),
        STAGE_TEST(queues_for_credit_and_refuses_past_the_bound),
        STAGE_TEST(a_refusal_downstream_becomes_a_status),
        STAGE_TEST(a_stream_without_text_begins_with_a_ping),
        STAGE_TEST(cancels_within_100_ms_when_the_client_leaves),
        STAGE_TEST(a_generation_that_fails_is_an_error),
        STAGE_TEST(a_deadline_ends_a_request_and_cancels_it),
        STAGE_TEST(tokenizes_and_detokenizes),
        STAGE_TEST(asks_for_keys_and_reads_them_again),
        STAGE_TEST(a_key_is_held_to_its_limits),
        STAGE_TEST(front_rules_answer_before_any_model),
        STAGE_TEST(front_rules_look_at_every_prompt_of_a_list),
        STAGE_TEST(a_client_on_the_bus_is_owned_the_same_way),
        STAGE_TEST(a_client_that_leaves_the_bus_is_cancelled),
        STAGE_TEST(a_client_that_cannot_take_the_last_piece_is_gone_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
