/* Embeddings and reranking on real loopback HTTP, between actors that speak the ends of the gateway's protocol. */
#include "support_stage.h"

#include <stdlib.h>

/* Asks, and waits until the tokenizer has `n` texts of it. */
static http_client *ask_for_texts(stage *s, const char *path, const char *body, uint32_t n)
{
    uint32_t     before = s->n_seen;
    http_client *c      = http_post(s, path, body);
    pump_stage(s, c, 10000, s->n_seen == before + n || http_status(c));
    if (s->n_seen != before + n)
        fail_msg("%s", c->in);
    return c;
}

static void each_text_of_embeddings_is_a_request(void **state)
{
    stage             *s     = *state;
    static const float one[] = {0.6f, 0.8f}, two[] = {-1, 0};
    stage_open_all(s);
    http_client *c = ask_for_texts(s, "/v1/embeddings", "{\"input\":[\"first\",[7,8]],\"priority\":2}", 2);
    assert_int_equal(REQUEST_TASK_EMBED, s->seen[0].task);
    assert_string_equal("first", s->seen[0].text);
    assert_string_equal(actor_name(s->gateway), s->seen[0].reply_to);
    assert_int_equal(PROMPT_KIND_TOKENS, s->seen[1].kind);
    assert_int_equal(2, s->seen[1].n_tokens);
    stage_pooled(s, &s->seen[1].about, two, 2);
    stage_pooled(s, &s->seen[1].about, two, 2); /* said twice, heard once */
    stage_pooled(s, &s->seen[0].about, one, 2);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(200, http_status(c));
    assert_true(http_has(c, "\"index\":0,\"embedding\":[0.6,0.8]"));
    assert_true(http_has(c, "\"index\":1,\"embedding\":[-1,0]"));
    assert_true(http_has(c, "\"usage\":{\"prompt_tokens\":10,\"total_tokens\":10}"));
    http_close(&c);
}

static void each_document_is_scored_with_the_query(void **state)
{
    stage             *s        = *state;
    static const float scores[] = {-2, 3};
    stage_open_all(s);
    http_client *c = ask_for_texts(s, "/v1/rerank", "{\"query\":\"why\",\"documents\":[\"a\",\"b\"],\"top_n\":1}", 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(REQUEST_TASK_SCORE, s->seen[i].task);
        assert_string_equal("why", s->seen[i].text);
        assert_string_equal(i ? "b" : "a", s->seen[i].document);
        stage_pooled(s, &s->seen[i].about, &scores[i], 1);
    }
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"results\":[{\"index\":1,\"document\":{\"text\":\"b\"},\"relevance_score\":0.95257"));
    assert_false(http_has(c, "\"index\":0"));
    http_close(&c);
}

static void an_answer_that_is_lost_is_asked_for_again(void **state)
{
    stage             *s     = *state;
    static const float one[] = {1};
    stage_open_all(s);
    http_client *c = ask_for_texts(s, "/v1/embeddings", "{\"input\":\"text\"}", 1);
    stage_refuse(s, &s->seen[0].about, ERR_GONE, "the scheduler of this request left", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 2);
    assert_int_equal(1, s->seen[1].about.attempt);
    assert_string_equal("text", s->seen[1].text);
    stage_pooled(s, &s->seen[0].about, one, 1); /* too late */
    pump_stage(s, c, 5000, s->n_cancels > 0);
    assert_int_equal(0, http_status(c));
    stage_pooled(s, &s->seen[1].about, one, 1);
    pump_stage(s, c, 5000, c->closed);
    assert_true(http_has(c, "\"embedding\":[1]"));
    http_close(&c);
}

/* A text of many waits where nobody can take it now; one alone is refused at once. */
static void a_text_of_many_waits_for_who_comes_back(void **state)
{
    stage             *s     = *state;
    static const float one[] = {1};
    stage_open_all(s);
    http_client *c = ask_for_texts(s, "/v1/embeddings", "{\"input\":[\"a\",\"b\"]}", 2);
    stage_pooled(s, &s->seen[0].about, one, 1);
    stage_refuse(s, &s->seen[1].about, ERR_OVERLOADED, "the queue is full", "", 0);
    pump_stage(s, c, 5000, s->n_seen == 3);
    assert_string_equal("b", s->seen[2].text);
    assert_int_equal(0, s->seen[2].about.attempt); /* it isn't spent */
    stage_pooled(s, &s->seen[2].about, one, 1);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(2, http_count(c, "\"embedding\":[1]"));
    http_close(&c);
    c = ask_for_texts(s, "/v1/embeddings", "{\"input\":\"a\"}", 1);
    stage_refuse(s, &s->seen[3].about, ERR_OVERLOADED, "the queue is full", "", 0);
    pump_stage(s, c, 5000, http_status(c) == 429);
    http_close(&c);
}

static void what_is_wrong_with_a_request_is_said(void **state)
{
    stage             *s     = *state;
    static const float two[] = {0, 1};
    stage_open_all(s);
    http_client *c = http_post(s, "/v1/embeddings", "{\"input\":\"\"}");
    pump_stage(s, c, 5000, http_status(c) == 400 && http_has(c, "\"param\":\"input\""));
    http_close(&c);
    c = ask_for_texts(s, "/v1/embeddings", "{\"input\":\"a\",\"dimensions\":3}", 1);
    stage_pooled(s, &s->seen[0].about, two, 2);
    pump_stage(s, c, 5000, http_status(c) == 400 && http_has(c, "dimensions: this model's embeddings have 2, not 3"));
    http_close(&c);
    c = ask_for_texts(s, "/v1/rerank", "{\"query\":\"q\",\"documents\":[\"a\",\"b\"]}", 2);
    stage_refuse(s, &s->seen[2].about, ERR_INVALID, "this model gives no scores", "model", 0);
    pump_stage(s, c, 5000, http_status(c) == 400 && http_has(c, "\"param\":\"model\""));
    http_close(&c);
}

/* So that one request does not fill everybody's queues. */
static void many_texts_are_asked_for_a_few_at_a_time(void **state)
{
    enum { N_TEXTS = 200, AT_ONCE = 64 };
    static char        body[16 * N_TEXTS];
    static const float one[] = {1};
    stage             *s     = *state;
    size_t             used  = (size_t)sprintf(body, "{\"input\":[");
    for (uint32_t i = 0; i < N_TEXTS; i++)
        used += (size_t)sprintf(body + used, "%s\"%u\"", i ? "," : "", i);
    sprintf(body + used, "]}");
    s->options.max_waiting = 100; /* fewer than there are texts */
    stage_open_all(s);
    http_client *c          = http_post(s, "/v1/embeddings", body);
    uint32_t     n_answered = 0;
    while (n_answered < N_TEXTS) {
        uint32_t n = n_answered;
        pump_stage(s, c, 5000, s->n_seen > 0 || http_status(c));
        assert_int_equal(0, http_status(c));
        for (uint32_t i = 0; i < s->n_seen; i++) {
            char expected[16];
            snprintf(expected, sizeof expected, "%u", n + i);
            assert_string_equal(expected, s->seen[i].text);
        }
        assert_true(s->n_seen <= AT_ONCE);
        uint32_t n_seen = s->n_seen;
        s->n_seen       = 0; /* what comes from here on is written over them, from the first on */
        static seen_request seen[SEEN_MAX];
        memcpy(seen, s->seen, sizeof seen);
        for (uint32_t i = 0; i < n_seen; i++)
            stage_pooled(s, &seen[i].about, one, 1);
        n_answered += n_seen;
    }
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(200, http_status(c));
    assert_int_equal(N_TEXTS, http_count(c, "\"embedding\":[1]"));
    assert_true(http_has(c, "\"prompt_tokens\":1000"));
    http_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STAGE_TEST(each_text_of_embeddings_is_a_request),      STAGE_TEST(each_document_is_scored_with_the_query),
        STAGE_TEST(an_answer_that_is_lost_is_asked_for_again), STAGE_TEST(what_is_wrong_with_a_request_is_said),
        STAGE_TEST(many_texts_are_asked_for_a_few_at_a_time),  STAGE_TEST(a_text_of_many_waits_for_who_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
