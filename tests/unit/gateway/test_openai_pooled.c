/* Bodies of embeddings and reranking, good and bad, and what answers them. */
#include "services/gateway/openai_pooled.h"
#include "support_bodies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define EMBED REQUEST_TASK_EMBED
#define RERANK REQUEST_TASK_SCORE

static openai_pooled must_parse(request_task task, const char *body)
{
    openai_pooled out;
    openai_fault  fault = {0};
    if (!openai_pooled_parse(task, span_of(body), memory, &out, &fault))
        fail_msg("%s: %s", body, fault.error.text);
    return out;
}

#define D "\"documents\":[\"a\"]"
#define Q "\"query\":\"q\""

static void bad_bodies_are_refused_by_field(void **state)
{
    static const struct {
        request_task task;
        const char  *body, *field;
        error_code   code;
    } cases[] = {
        {EMBED, "[1]", "", ERR_INVALID},
        {EMBED, "{\"input\":\"a\"", "", ERR_INVALID},
        {EMBED, "{}", "input", ERR_INVALID},
        {EMBED, "{\"input\":null}", "input", ERR_INVALID},
        {EMBED, "{\"input\":\"\"}", "input", ERR_INVALID},
        {EMBED, "{\"input\":[\"a\",\"\"]}", "input", ERR_INVALID},
        {EMBED, "{\"input\":[]}", "input", ERR_INVALID},
        {EMBED, "{\"input\":[[]]}", "input[0]", ERR_INVALID},
        {EMBED, "{\"input\":7}", "input", ERR_INVALID},
        {EMBED, "{\"input\":[\"a\",7]}", "input[1]", ERR_INVALID},
        {EMBED, "{\"input\":[1,-1]}", "input", ERR_INVALID},
        {EMBED, "{\"input\":[[1],[1.5]]}", "input[1]", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"encoding_format\":\"hex\"}", "encoding_format", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"encoding_format\":1}", "encoding_format", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"dimensions\":0}", "dimensions", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"dimensions\":2.5}", "dimensions", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"dimensions\":1000000}", "dimensions", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"model\":1}", "model", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"timeout\":0}", "timeout", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"priority\":5000}", "priority", ERR_INVALID},
        {EMBED, "{\"input\":\"a\",\"truncate_prompt_tokens\":5}", "truncate_prompt_tokens", ERR_UNSUPPORTED},
        {EMBED, "{\"messages\":[],\"input\":\"a\"}", "messages", ERR_UNSUPPORTED},
        {RERANK, "{" D "}", "query", ERR_INVALID},
        {RERANK, "{\"query\":[\"a\"]," D "}", "query", ERR_INVALID},
        {RERANK, "{" Q "}", "documents", ERR_INVALID},
        {RERANK, "{" Q ",\"documents\":\"a\"}", "documents", ERR_INVALID},
        {RERANK, "{" Q ",\"documents\":[]}", "documents", ERR_INVALID},
        {RERANK, "{" Q ",\"documents\":[\"a\",1]}", "documents[1]", ERR_INVALID},
        {RERANK, "{" Q ",\"documents\":[{\"title\":\"a\"}]}", "documents[0]", ERR_INVALID},
        {RERANK, "{" Q ",\"documents\":[{\"text\":[]}]}", "documents[0]", ERR_INVALID},
        {RERANK, "{" Q "," D ",\"top_n\":-1}", "top_n", ERR_INVALID},
        {RERANK, "{" Q "," D ",\"return_documents\":1}", "return_documents", ERR_INVALID},
        {RERANK, "{" Q "," D ",\"rank_fields\":[\"a\"]}", "rank_fields", ERR_UNSUPPORTED},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        openai_pooled out;
        openai_fault  fault = {0};
        bool          ok    = openai_pooled_parse(cases[i].task, span_of(cases[i].body), memory, &out, &fault);
        if (ok || strcmp(fault.field, cases[i].field) != 0 || fault.error.code != cases[i].code)
            fail_msg("%s: field \"%s\", code %d: %s", cases[i].body, fault.field, fault.error.code, fault.error.text);
    }
}

static void takes_at_most_2048_inputs(void **state)
{
    static char   body[5 * (OPENAI_INPUTS_MAX + 1) + 64];
    openai_pooled out;
    (void)state;
    for (uint32_t n = OPENAI_INPUTS_MAX; n <= OPENAI_INPUTS_MAX + 1; n++) {
        openai_fault fault = {0};
        size_t       used  = (size_t)sprintf(body, "{\"input\":[");
        for (uint32_t i = 0; i < n; i++)
            used += (size_t)sprintf(body + used, "%s\"a\"", i ? "," : "");
        sprintf(body + used, "]}");
        assert_int_equal(n == OPENAI_INPUTS_MAX, openai_pooled_parse(EMBED, span_of(body), memory, &out, &fault));
        if (n > OPENAI_INPUTS_MAX)
            assert_string_equal("input", fault.field);
    }
}

static void all_kinds_of_input_are_read(void **state)
{
    (void)state;
    openai_pooled r = must_parse(EMBED, "{\"input\":\"one\",\"user\":\"u\",\"unknown\":[1]}");
    assert_int_equal(1, r.n_inputs);
    assert_true(span_is(r.inputs[0].text, "one") && !r.base64 && r.n_dimensions == 0);
    r = must_parse(EMBED,
                   "{\"input\":[\"one\",\"two\"],\"model\":\"m\",\"encoding_format\":\"base64\",\"dimensions\":8,"
                   "\"timeout\":2.5,\"priority\":-3}");
    assert_int_equal(2, r.n_inputs);
    assert_true(span_is(r.inputs[1].text, "two") && span_is(r.model, "m") && r.base64 && r.n_dimensions == 8);
    assert_true(r.timeout_s == 2.5 && r.priority == -3);
    r = must_parse(EMBED, "{\"input\":[5,6,7],\"encoding_format\":\"float\",\"dimensions\":null}");
    assert_int_equal(1, r.n_inputs);
    assert_true(r.inputs[0].is_tokens && r.inputs[0].n_tokens == 3 && r.inputs[0].tokens[2] == 7);
    r = must_parse(EMBED, "{\"input\":[[5,6],[7]]}");
    assert_int_equal(2, r.n_inputs);
    assert_true(r.inputs[1].is_tokens && r.inputs[1].tokens[0] == 7);
    r = must_parse(RERANK, "{" Q ",\"documents\":[\"a\",{\"text\":\"b\"}]}");
    assert_true(span_is(r.query, "q") && span_is(r.inputs[1].text, "b") && r.top_n == 2 && r.return_documents);
    r = must_parse(RERANK, "{" Q ",\"documents\":[\"a\",\"b\"],\"top_n\":1,\"return_documents\":false}");
    assert_true(r.top_n == 1 && !r.return_documents);
    assert_int_equal(2, must_parse(RERANK, "{" Q ",\"documents\":[\"a\",\"b\"],\"top_n\":9}").top_n);
}

static const char *body_of(const openai_pooled *r, const openai_vector *vectors)
{
    static char text[4096];
    json_out    j    = json_out_into(text, sizeof text);
    usage       cost = {.prompt_tokens = 9};
    span        out;
    error       err;
    if (!openai_pooled_body(&j, r, SPAN("id-1"), SPAN("m"), vectors, &cost, memory, &err) ||
        !json_out_finish(&j, &out, &err))
        fail_msg("%s", err.text);
    return text;
}

static const float three[] = {0.5f, 0.75f, -1}, four[] = {4, 3, 0};

static void embeddings_are_written_as_numbers_or_base64(void **state)
{
    (void)state;
    const openai_vector vectors[] = {{three, 3}, {four, 3}};
    openai_pooled       r         = must_parse(EMBED, "{\"input\":[\"a\",\"b\"]}");
    assert_string_equal("{\"id\":\"id-1\",\"model\":\"m\",\"object\":\"list\",\"data\":["
                        "{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.5,0.75,-1]},"
                        "{\"object\":\"embedding\",\"index\":1,\"embedding\":[4,3,0]}],"
                        "\"usage\":{\"prompt_tokens\":9,\"total_tokens\":9}}",
                        body_of(&r, vectors));
    r.base64 = true; /* 0000003f 0000403f 000080bf, and 00008040 00004040 00000000 */
    assert_non_null(strstr(body_of(&r, vectors), "\"index\":0,\"embedding\":\"AAAAPwAAQD8AAIC/\"}"));
    assert_non_null(strstr(body_of(&r, vectors), "\"index\":1,\"embedding\":\"AACAQAAAQEAAAAAA\"}"));
    r.n_dimensions = 1; /* 1.0 is 0000803f: two bytes are left over of a group of three */
    assert_non_null(strstr(body_of(&r, vectors), "\"index\":1,\"embedding\":\"AACAPw==\"}"));
    r.base64       = false;
    r.n_dimensions = 2; /* of length 1 again */
    assert_non_null(strstr(body_of(&r, vectors), "\"index\":1,\"embedding\":[0.8,0.6]"));
}

static void documents_are_ranked_by_score(void **state)
{
    (void)state;
    static const float  scores[]  = {-1, 2, 0, 2};
    const openai_vector vectors[] = {{&scores[0], 1}, {&scores[1], 1}, {&scores[2], 1}, {&scores[3], 1}};
    openai_pooled       r         = must_parse(RERANK, "{" Q ",\"documents\":[\"a\",\"b\",\"c\",\"d\"],\"top_n\":3}");
    const char         *text      = body_of(&r, vectors);
    assert_non_null(strstr(text, "\"results\":[{\"index\":1,\"document\":{\"text\":\"b\"},\"relevance_score\":0.8807"));
    assert_non_null(strstr(text, "{\"index\":3,\"document\":{\"text\":\"d\"},\"relevance_score\":0.8807"));
    assert_non_null(strstr(text, "{\"index\":2,\"document\":{\"text\":\"c\"},\"relevance_score\":0.5}],\"usage\""));
    r.return_documents = false;
    assert_non_null(strstr(body_of(&r, vectors), "{\"index\":2,\"relevance_score\":0.5}],"));
}

static void numbers_that_do_not_answer_are_not_accepted(void **state)
{
    (void)state;
    error         err;
    openai_pooled embed = must_parse(EMBED, "{\"input\":\"a\",\"dimensions\":3}");
    openai_pooled score = must_parse(RERANK, "{" Q "," D "}");
    assert_true(openai_pooled_accepts(&embed, 3, &err));
    assert_false(openai_pooled_accepts(&embed, 2, &err));
    assert_int_equal(ERR_INVALID, err.code);
    assert_false(openai_pooled_accepts(&embed, 0, &err));
    assert_true(openai_pooled_accepts(&score, 1, &err));
    assert_false(openai_pooled_accepts(&score, 2, &err));
    assert_int_equal(ERR_INTERNAL, err.code);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bodies_are_refused_by_field),
        cmocka_unit_test(takes_at_most_2048_inputs),
        cmocka_unit_test(all_kinds_of_input_are_read),
        cmocka_unit_test(embeddings_are_written_as_numbers_or_base64),
        cmocka_unit_test(documents_are_ranked_by_score),
        cmocka_unit_test(numbers_that_do_not_answer_are_not_accepted),
    };
    return cmocka_run_group_tests(tests, bodies_prepare, bodies_clean_up);
}
