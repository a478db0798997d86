/* Answers as JSON, compared to the letter. */
#include "services/gateway/openai_response.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char buffer[16384];

static const openai_answer chat = {.api = OPENAI_CHAT, .id = {"chatcmpl-1", 10}, .model = {"m", 1}, .created_s = 5};
static const openai_answer text = {
    .api = OPENAI_COMPLETION, .id = {"cmpl-1", 6}, .model = {"m", 1}, .created_s = 5, .has_logprobs = true};

static void expect(json_out *j, const char *wanted)
{
    span  got;
    error err;
    assert_true(json_out_finish(j, &got, &err));
    assert_string_equal(got.data, wanted);
}

static void chunks_of_a_chat_carry_role_then_text_then_finish(void **state)
{
    (void)state;
    openai_choice choice = {.text = SPAN("a\"b\xff")};
    json_out      j      = json_out_into(buffer, sizeof buffer);
    openai_chunk(&j, &chat, &choice, true);
    expect(&j, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"m\",\"choices\":"
               "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"a\\\"b\xef\xbf\xbd\"},\"logprobs\":null,"
               "\"finish_reason\":null,\"stop_reason\":null}]}");
    openai_answer with_usage = chat;
    with_usage.include_usage = true;
    choice                   = (openai_choice){.index = 2, .finish = FINISH_REASON_STOP, .stop_reason = SPAN("###")};
    j                        = json_out_into(buffer, sizeof buffer);
    openai_chunk(&j, &with_usage, &choice, false);
    expect(&j, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"m\",\"choices\":"
               "[{\"index\":2,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"###\"}],"
               "\"usage\":null}");
}

static void usage_has_its_details(void **state)
{
    (void)state;
    usage cost = {
        .prompt_tokens = 7, .completion_tokens = 5, .cached_tokens = 3, .drafted_tokens = 4, .accepted_tokens = 3};
    json_out j = json_out_into(buffer, sizeof buffer);
    openai_usage_chunk(&j, &chat, &cost);
    expect(&j,
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"m\",\"choices\":[],"
           "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12,"
           "\"prompt_tokens_details\":{\"cached_tokens\":3},\"completion_tokens_details\":"
           "{\"accepted_prediction_tokens\":3,\"rejected_prediction_tokens\":1}}}");
}

static void completions_have_parallel_lists_of_log_probabilities(void **state)
{
    (void)state;
    const text_top     top[]   = {{.logprob = -0.5f, .bytes = SPAN("x")},
                                  {.logprob = -0.75f, .bytes = SPAN("\xe2\x80")},
                                  {.logprob = -0.8f, .bytes = SPAN("x")}};
    const text_logprob lines[] = {
        {.bytes = SPAN("p"), .no_logprob = true},
        {.bytes = SPAN("x"), .logprob = -0.5f, .top = top, .n_top = 3, .text_offset = 1},
        {.bytes = SPAN("\xe2\x80"), .logprob = -INFINITY, .top = top, .n_top = 1, .text_offset = 2}};
    openai_answer answer  = text;
    answer.n_top_logprobs = 3;
    openai_choice choice  = {.text = SPAN("px"), .logprobs = lines, .n_logprobs = 3, .finish = FINISH_REASON_LENGTH};
    usage         cost    = {.prompt_tokens = 1, .completion_tokens = 2};
    json_out      j       = json_out_into(buffer, sizeof buffer);
    openai_body(&j, &answer, &choice, 1, &cost);
    expect(&j,
           "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\",\"choices\":[{\"index\":0,"
           "\"text\":\"px\",\"logprobs\":{\"text_offset\":[0,1,2],\"token_logprobs\":[null,-0.5,-9999],"
           "\"tokens\":[\"p\",\"x\",\"bytes:\\\\xe2\\\\x80\"],\"top_logprobs\":[null,"
           "{\"x\":-0.5,\"bytes:\\\\xe2\\\\x80\":-0.75},{\"x\":-0.5,\"bytes:\\\\xe2\\\\x80\":-9999}]},"
           "\"finish_reason\":\"length\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":1,"
           "\"completion_tokens\":2,\"total_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
}

static void a_chat_has_log_probabilities_with_bytes(void **state)
{
    (void)state;
    const text_top     top[]  = {{.logprob = -1, .bytes = SPAN("\xc3\xa9")}};
    const text_logprob line   = {.bytes = SPAN("\xc3\xa9"), .logprob = -1, .top = top, .n_top = 1};
    openai_answer      answer = chat;
    answer.has_logprobs       = true;
    answer.n_top_logprobs     = 1;
    openai_choice choice      = {.text = SPAN("\xc3\xa9"), .logprobs = &line, .n_logprobs = 1};
    json_out      j           = json_out_into(buffer, sizeof buffer);
    openai_chat_logprobs(&j, &answer, &choice);
    expect(&j, "{\"content\":[{\"token\":\"\xc3\xa9\",\"logprob\":-1,\"bytes\":[195,169],\"top_logprobs\":"
               "[{\"token\":\"\xc3\xa9\",\"logprob\":-1,\"bytes\":[195,169]}]}],\"refusal\":null}");
}

static void finishes_have_names_that_clients_know(void **state)
{
    (void)state;
    assert_null(openai_finish_name(FINISH_REASON_NONE));
    assert_string_equal(openai_finish_name(FINISH_REASON_REPETITION), "stop");
    assert_string_equal(openai_finish_name(FINISH_REASON_CONTENT_FILTER), "content_filter");
    openai_choice choice = {.finish = FINISH_REASON_REPETITION};
    json_out      j      = json_out_into(buffer, sizeof buffer);
    openai_chunk(&j, &chat, &choice, false);
    span  got;
    error err;
    assert_true(json_out_finish(&j, &got, &err));
    assert_non_null(strstr(got.data, "\"finish_reason\":\"stop\",\"stop_reason\":\"repetition\""));
}

static void errors_have_openais_shape(void **state)
{
    static const struct {
        int         status;
        error_code  code;
        const char *text, *field, *wanted;
    } cases[] = {
        {400, ERR_INVALID, "top_p: must be", "top_p",
         "{\"error\":{\"message\":\"top_p: must be\",\"type\":\"invalid_request_error\",\"param\":\"top_p\","
         "\"code\":\"invalid_value\"}}"},
        {404, ERR_NOT_FOUND, "no", "model",
         "{\"error\":{\"message\":\"no\",\"type\":\"not_found_error\",\"param\":\"model\",\"code\":\"model_not_found\"}"
         "}"},
        {429, ERR_OVERLOADED, "", "",
         "{\"error\":{\"message\":\"no capacity now; try again later\",\"type\":\"rate_limit_error\",\"param\":null,"
         "\"code\":\"overloaded\"}}"},
        {401, ERR_UNAUTHORIZED, "key", "",
         "{\"error\":{\"message\":\"key\",\"type\":\"authentication_error\",\"param\":null,\"code\":\"invalid_api_"
         "key\"}}"},
        {503, ERR_GONE, "x", "",
         "{\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,\"code\":\"unavailable\"}}"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_out j = json_out_into(buffer, sizeof buffer);
        openai_error(&j, cases[i].status, cases[i].code, span_of(cases[i].text), span_of(cases[i].field));
        expect(&j, cases[i].wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_a_chat_carry_role_then_text_then_finish),
        cmocka_unit_test(usage_has_its_details),
        cmocka_unit_test(completions_have_parallel_lists_of_log_probabilities),
        cmocka_unit_test(a_chat_has_log_probabilities_with_bytes),
        cmocka_unit_test(finishes_have_names_that_clients_know),
        cmocka_unit_test(errors_have_openais_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
