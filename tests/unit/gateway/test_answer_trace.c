/* Whose trace a request belongs to, and the span that its answer leaves. */
#include "support_stage.h"

#include "trace/trace.h"

static const char prompts[] = "{\"prompt\":[\"a secret\",\"another\"],\"model\":\"m\"}";
static const char body_ids[] =
    "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c\xb7\xad\x6b\x71\x69\x20\x33\x31";

#define TRACEPARENT "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
#define OTHER "TraceParent: 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01\r\n"

static http_client *ask_traced(stage *s, const char *headers, uint32_t n_runs)
{
    uint32_t     before = s->n_seen;
    http_client *c      = http_ask(s, "POST", "/v1/completions", headers, prompts);
    pump_stage(s, c, 5000, s->n_seen == before + n_runs);
    return c;
}

static void a_gateway_that_records_nothing_hands_the_context_on(void **state)
{
    stage *s = *state;
    stage_open_all(s);
    http_client *c = ask_traced(s, TRACEPARENT, 2);
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(s->seen[i].about.trace, body_ids, TRACE_CONTEXT_BYTES - 1);
        assert_int_equal(s->seen[i].about.trace[TRACE_CONTEXT_BYTES - 1], TRACE_SAMPLED);
    }
    http_close(&c);
}

static void without_one_header_that_is_valid_a_trace_is_drawn(void **state)
{
    static const char *const headers[]            = {"", "traceparent: 00-0\r\n", "traceparent:\r\n", TRACEPARENT OTHER,
                                                     TRACEPARENT TRACEPARENT};
    stage                   *s                    = *state;
    uint8_t                  last[TRACE_ID_BYTES] = {0};
    stage_open_all(s);
    for (size_t i = 0; i < COUNT(headers); i++) {
        http_client   *c     = ask_traced(s, headers[i], 2);
        const uint8_t *trace = s->seen[s->n_seen - 1].about.trace;
        assert_true(trace_context_is_valid(trace));
        assert_memory_equal(trace, s->seen[s->n_seen - 2].about.trace, TRACE_CONTEXT_BYTES); /* one for the answer */
        assert_memory_not_equal(trace, body_ids, TRACE_ID_BYTES);
        assert_memory_not_equal(trace, last, TRACE_ID_BYTES);
        memcpy(last, trace, sizeof last);
        http_close(&c);
    }
}

static bool has_text(const trace_span *t, const char *key, const char *value)
{
    for (uint32_t i = 0; i < t->n_attributes; i++)
        if (strcmp(t->attributes[i].key, key) == 0)
            return span_is((span){t->text + t->attributes[i].at, t->attributes[i].size}, value);
    return false;
}

static bool has_number(const trace_span *t, const char *key, int64_t value)
{
    for (uint32_t i = 0; i < t->n_attributes; i++)
        if (strcmp(t->attributes[i].key, key) == 0)
            return t->attributes[i].number == value;
    return false;
}

static void wait_for_span(stage *s, http_client *c, trace_span *t)
{
    bool taken = false;
    pump_stage(s, c, 5000, taken = taken || trace_take(t));
}

static void an_answer_leaves_a_span_under_its_clients(void **state)
{
    stage     *s = *state;
    error      err;
    trace_span t;
    assert_true(trace_open(16, 1, &err));
    stage_open_all(s);
    http_client *c     = ask_traced(s, TRACEPARENT, 2);
    envelope     first = s->seen[0].about;
    assert_memory_equal(first.trace, body_ids, TRACE_ID_BYTES);
    assert_memory_not_equal(first.trace + TRACE_ID_BYTES, body_ids + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    assert_false(trace_take(&t));
    stage_delta(s, &first, 0, 0, 3, "abc", FINISH_REASON_STOP);
    stage_delta(s, &s->seen[1].about, 0, 0, 2, "de", FINISH_REASON_LENGTH);
    pump_stage(s, c, 5000, http_status(c) == 200);
    wait_for_span(s, c, &t);
    assert_string_equal(t.name, "completion");
    assert_memory_equal(t.trace_id, body_ids, TRACE_ID_BYTES);
    assert_memory_equal(t.parent_id, body_ids + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    assert_memory_equal(t.span_id, first.trace + TRACE_ID_BYTES, TRACE_SPAN_ID_BYTES);
    assert_true(t.is_server && !t.failed && t.start_ns < t.end_ns && t.n_events == 1);
    assert_true(has_text(&t, "gen_ai.response.finish_reasons", "stop,length"));
    assert_true(has_text(&t, "gen_ai.request.model", "m"));
    assert_true(has_number(&t, "gen_ai.usage.output_tokens", 5));
    assert_true(has_number(&t, "http.response.status_code", 200));
    assert_true(has_number(&t, "troupe.attempts", 1));
    assert_null(memmem(t.text, sizeof t.text, "secret", 6));
    http_close(&c);
    c = ask_traced(s, "", 2);
    stage_refuse(s, &s->seen[2].about, ERR_INTERNAL, "it broke", "", 0);
    wait_for_span(s, c, &t);
    assert_true(t.failed && has_number(&t, "http.response.status_code", 500));
    assert_memory_equal(t.parent_id, ((uint8_t[TRACE_SPAN_ID_BYTES]){0}), TRACE_SPAN_ID_BYTES);
    http_close(&c);
    stage_remove(&s->gateway);
    trace_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(a_gateway_that_records_nothing_hands_the_context_on),
        STAGE_TEST(without_one_header_that_is_valid_a_trace_is_drawn),
        STAGE_TEST(an_answer_leaves_a_span_under_its_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
