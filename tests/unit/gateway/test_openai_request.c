/* Bodies of requests, good and bad, as tables. */
#include "services/gateway/openai_request.h"
#include "support_bodies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define P "\"prompt\":\"hi\""

static bool parse(openai_api api, const char *body, openai_request *out, openai_fault *fault)
{
    *fault = (openai_fault){0};
    return openai_request_parse(api, span_of(body), memory, out, fault);
}

static openai_request must_parse(openai_api api, const char *body)
{
    openai_request out;
    openai_fault   fault;
    if (!parse(api, body, &out, &fault))
        fail_msg("%s: %s", body, fault.error.text);
    return out;
}

static void bad_bodies_are_refused_by_field(void **state)
{
    static const struct {
        openai_api  api;
        const char *body, *field;
        error_code  code;
    } cases[] = {
        {OPENAI_CHAT, "", "", ERR_INVALID},
        {OPENAI_CHAT, "[]", "", ERR_INVALID},
        {OPENAI_CHAT, "{} x", "", ERR_INVALID},
        {OPENAI_CHAT, "{" M "," M "}", "", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "", ERR_INVALID},
        {OPENAI_CHAT, "{}", "messages", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":null}", "messages", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":\"hi\"}", "messages", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[]}", "messages", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[1]}", "messages[0]", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"\",\"content\":\"x\"}]}", "messages[0].role", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0]", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
         "messages[0].content[0]", ERR_INVALID},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":3}]}", "messages[0].tool_calls",
         ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"temperature\":\"1\"}", "temperature", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"temperature\":-0.1}", "temperature", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"temperature\":1e400}", "", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"top_p\":0}", "top_p", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"top_p\":1.01}", "top_p", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"top_k\":-2}", "top_k", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"top_k\":1.5}", "top_k", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"min_p\":2}", "min_p", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"repetition_penalty\":0}", "repetition_penalty", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"frequency_penalty\":2.1}", "frequency_penalty", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"no_repeat_ngram_size\":65}", "no_repeat_ngram_size", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"n\":0}", "n", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"n\":65}", "n", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"n\":true}", "n", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stream\":\"yes\"}", "stream", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"seed\":1.5}", "seed", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"seed\":99999999999999999999}", "", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"max_tokens\":0}", "max_tokens", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"max_completion_tokens\":-1}", "max_completion_tokens", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"min_tokens\":5,\"max_tokens\":4}", "min_tokens", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stop\":5}", "stop", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stop\":\"\"}", "stop", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", "stop", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logit_bias\":[]}", "logit_bias", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logit_bias\":{\"a\":1}}", "logit_bias", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logit_bias\":{\"1\":101}}", "logit_bias", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logit_bias\":{\"1\":\"1\"}}", "logit_bias", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logit_bias\":{\"-1\":1}}", "logit_bias", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"top_logprobs\":2}", "top_logprobs", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"logprobs\":3}", "logprobs", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stream_options\":{}}", "stream_options", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
         "stream_options.include_usage", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"response_format\":{\"type\":\"json_object\"}}", "response_format", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{" M ",\"tool_choice\":\"required\"}", "tool_choice", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{" M ",\"tools\":{}}", "tools", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"guided_json\":{\"a\":1}}", "guided_json", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{" M ",\"modalities\":[\"audio\"]}", "modalities", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{" M ",\"echo\":true}", "echo", ERR_UNSUPPORTED},
        {OPENAI_CHAT, "{" M ",\"timeout\":0}", "timeout", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"draft_tokens\":17}", "draft_tokens", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"priority\":1001}", "priority", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"add_generation_prompt\":true,\"continue_final_message\":true}",
         "continue_final_message", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"chat_template_kwargs\":[1]}", "chat_template_kwargs", ERR_INVALID},
        {OPENAI_CHAT, "{" M ",\"model\":7}", "model", ERR_INVALID},
        {OPENAI_COMPLETION, "{}", "prompt", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":5}", "prompt", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":[]}", "prompt", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":[\"a\",5]}", "prompt[1]", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":[[1],[]]}", "prompt[1]", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":[1,-1]}", "prompt", ERR_INVALID},
        {OPENAI_COMPLETION, "{\"prompt\":[1,\"a\"]}", "prompt", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"max_tokens\":0}", "max_tokens", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"logprobs\":65}", "logprobs", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"logprobs\":true}", "logprobs", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"best_of\":2}", "best_of", ERR_UNSUPPORTED},
        {OPENAI_COMPLETION, "{" P ",\"beam_width\":2}", "beam_width", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"n\":4,\"use_beam_search\":true,\"beam_width\":2}", "beam_width", ERR_INVALID},
        {OPENAI_COMPLETION, "{" P ",\"suffix\":\"end\"}", "suffix", ERR_UNSUPPORTED},
        {OPENAI_COMPLETION, "{" P ",\"prompt_cache_key\":9}", "prompt_cache_key", ERR_INVALID},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        openai_request out;
        openai_fault   fault;
        arena_reset(memory);
        if (parse(cases[i].api, cases[i].body, &out, &fault))
            fail_msg("taken: %s", cases[i].body);
        if (strcmp(fault.field, cases[i].field) != 0 || fault.error.code != cases[i].code)
            fail_msg("%s: field %s, %s", cases[i].body, fault.field, fault.error.text);
        assert_true(fault.error.text[0]);
    }
}

static void bodies_that_are_not_json_say_why(void **state)
{
    static const struct {
        const char *body, *says;
    } cases[] = {
        {"{" P ",\"seed\":18446744073709551615}", "a number is out of range"},
        {"{" P ",\"temperature\":1e999}", "a number is out of range"},
        {"{\"prompt\":\"\xff\"}", "is not UTF-8: line 1, column"},
        {"{\"prompt\":\"a", "ends before its JSON does"},
        {"{\"pro\\u0000mpt\":1}", "has a NUL in it"},
        {"{" P "," P "}", "a field twice"},
        {"{'prompt':1}", "not JSON as RFC 8259 has it: line 1, column 2"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        openai_request out;
        openai_fault   fault;
        assert_false(parse(OPENAI_COMPLETION, cases[i].body, &out, &fault));
        if (!strstr(fault.error.text, cases[i].says))
            fail_msg("%s: %s", cases[i].body, fault.error.text);
    }
}

static void a_text_may_have_a_nul_in_it(void **state)
{
    (void)state;
    openai_request r = must_parse(OPENAI_COMPLETION, "{\"prompt\":\"a\\u0000b\"}");
    assert_true(span_equal(r.prompts[0].text, SPAN("a\0b")));
    r = must_parse(OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                                "\"a\\u0000\"}]}],\"tools\":[{\"a\":\"\\u0000\"}]}");
    assert_true(span_equal(r.request.messages[0].content, SPAN("a\0")));
    assert_true(span_is(r.request.tools_json, "[{\"a\":\"\\u0000\"}]"));
}

static void sampling_fields_go_where_they_belong(void **state)
{
    (void)state;
    openai_request r = must_parse(
        OPENAI_CHAT, "{" M ",\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,\"min_p\":0.1,\"typical_p\":0.8,"
                     "\"repetition_penalty\":1.1,\"frequency_penalty\":-2,\"presence_penalty\":1,"
                     "\"no_repeat_ngram_size\":3,\"seed\":-1,\"logit_bias\":{\"5\":-100,\"70000\":2.5},"
                     "\"logprobs\":true,\"top_logprobs\":4,\"ignore_eos\":true,\"min_tokens\":2,\"n\":3,"
                     "\"stop\":[\"a\",\"b\"],\"include_stop_str_in_output\":true,\"skip_special_tokens\":false,"
                     "\"repetition_limit\":6,\"priority\":-5,\"draft_tokens\":4,\"prompt_cache_key\":\"s1\","
                     "\"user\":\"u\",\"max_tokens\":9,\"max_completion_tokens\":10,\"timeout\":2.5,\"stream\":true,"
                     "\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"length_penalty\":2}");
    const sampling_params *s = &r.request.sampling;
    assert_true(s->temperature == 0.5f && s->top_p == 0.9f && s->top_k == 0 && s->min_p == 0.1f);
    assert_true(s->typical_p == 0.8f && s->repetition_penalty == 1.1f && s->frequency_penalty == -2);
    assert_true(s->presence_penalty == 1 && s->no_repeat_ngram == 3 && s->length_penalty == 2);
    assert_true(r.has_seed && s->seed == UINT64_MAX);
    assert_int_equal(s->n_logit_bias, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(s->logit_bias[i].token == 5 ? s->logit_bias[i].bias == -100 : s->logit_bias[i].bias == 2.5f);
    assert_true(s->logprobs && s->n_top_logprobs == 4 && s->ignore_eos && s->min_tokens == 2);
    assert_int_equal(r.request.n, 3);
    assert_int_equal(r.request.output.n_stop, 2);
    assert_true(span_is(r.request.output.stop[1], "b"));
    assert_true(r.request.output.include_stop && r.request.output.special_tokens && r.request.output.filter);
    assert_int_equal(r.request.output.repetition_limit, 6);
    assert_int_equal(r.request.priority, -5);
    assert_int_equal(r.request.draft_tokens, 4);
    assert_true(span_is(r.request.session, "s1") && r.has_session && span_is(r.user, "u") && span_is(r.model, "m"));
    assert_int_equal(r.request.max_tokens, 10); /* the newer name wins */
    assert_true(r.timeout_s == 2.5 && r.stream && r.include_usage);
}

static void what_is_absent_or_null_takes_the_default(void **state)
{
    (void)state;
    openai_request chat = must_parse(OPENAI_CHAT, "{" M ",\"temperature\":null,\"stop\":null,\"functions\":null,"
                                                  "\"tools\":[],\"suffix\":\"\",\"mirostat\":0,\"echo\":false}");
    assert_true(chat.request.sampling.temperature == 1 && chat.request.sampling.top_p == 1 && !chat.has_seed);
    assert_int_equal(chat.request.max_tokens, 0); /* to the end of the context */
    assert_true(chat.request.add_generation_prompt && chat.request.tools_json.size == 0);
    assert_int_equal(chat.unknown_fields.size, 0);
    openai_request text = must_parse(OPENAI_COMPLETION, "{" P "}");
    assert_int_equal(text.request.max_tokens, OPENAI_COMPLETION_DEFAULT);
    assert_int_equal(text.n_prompts, 1);
}

static void conversations_keep_every_part(void **state)
{
    (void)state;
    openai_request r = must_parse(
        OPENAI_CHAT,
        "{\"messages\":[{\"role\":\"system\",\"content\":\"be \\u00e9\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\"}],\"reasoning_content\":\"hm\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"42\",\"name\":\"f\"}],"
        "\"tools\":[{\"type\":\"function\"}],\"chat_template_kwargs\":{\"enable_thinking\":false}}");
    const chat_message *m = r.request.messages;
    assert_int_equal(r.request.n_messages, 4);
    assert_true(span_is(m[0].content, "be \xc3\xa9"));
    assert_true(span_is(m[1].content, "one\ntwo"));
    assert_true(span_is(m[2].tool_calls_json, "[{\"id\":\"c1\"}]") && span_is(m[2].reasoning_content, "hm"));
    assert_true(span_is(m[3].tool_call_id, "c1") && span_is(m[3].name, "f") && span_is(m[3].content, "42"));
    assert_true(span_is(r.request.tools_json, "[{\"type\":\"function\"}]"));
    assert_true(span_is(r.request.template_json, "{\"enable_thinking\":false}"));
    r = must_parse(OPENAI_CHAT, "{" M ",\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"none\"}");
    assert_int_equal(r.request.tools_json.size, 0);
    r = must_parse(OPENAI_CHAT, "{" M ",\"continue_final_message\":true}");
    assert_true(r.request.continue_final_message && !r.request.add_generation_prompt);
}

static void prompts_come_in_four_forms(void **state)
{
    (void)state;
    openai_request r = must_parse(OPENAI_COMPLETION, "{\"prompt\":[\"a\",\"b\"]}");
    assert_true(r.n_prompts == 2 && span_is(r.prompts[1].text, "b"));
    r = must_parse(OPENAI_COMPLETION, "{\"prompt\":[1,2,3]}");
    assert_true(r.n_prompts == 1 && r.prompts[0].is_tokens && r.prompts[0].n_tokens == 3);
    r = must_parse(OPENAI_COMPLETION, "{\"prompt\":[[4],[5,6]]}");
    assert_true(r.n_prompts == 2 && r.prompts[1].n_tokens == 2 && r.prompts[1].tokens[1] == 6);
}

static void harnesses_score_prompts(void **state)
{
    (void)state;
    openai_request r = must_parse(OPENAI_COMPLETION,
                                  "{\"prompt\":[[1,2]],\"max_tokens\":0,\"echo\":true,\"logprobs\":1,\"temperature\":0,"
                                  "\"seed\":1234}");
    assert_true(r.score_only && r.has_logprobs && r.request.prompt_logprobs && r.request.output.echo);
    assert_int_equal(r.request.sampling.n_top_logprobs, 1);
    r = must_parse(OPENAI_COMPLETION, "{" P ",\"logprobs\":0}");
    assert_true(r.has_logprobs && !r.request.prompt_logprobs && r.request.sampling.logprobs);
}

static void beams_take_their_width_from_three_places(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        uint32_t    n, width;
    } cases[] = {{"\"use_beam_search\":true,\"n\":3", 3, 3},
                 {"\"use_beam_search\":true,\"n\":2,\"best_of\":5", 2, 5},
                 {"\"use_beam_search\":true,\"beam_width\":4", 1, 4},
                 {"\"best_of\":2,\"n\":2", 2, 0},
                 {"\"use_beam_search\":false", 1, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char body[256];
        snprintf(body, sizeof body, "{" P ",%s}", cases[i].fields);
        openai_request r = must_parse(OPENAI_COMPLETION, body);
        assert_int_equal(r.request.n, cases[i].n);
        assert_int_equal(r.request.sampling.beam_width, cases[i].width);
    }
}

static void unknown_fields_are_listed_by_name_only(void **state)
{
    (void)state;
    openai_request r = must_parse(OPENAI_CHAT, "{" M ",\"store\":true,\"My secret!\":1}");
    char           names[64];
    snprintf(names, sizeof names, "%.*s", SPAN_ARG(r.unknown_fields));
    assert_true(strcmp(names, "store,?") == 0 || strcmp(names, "?,store") == 0);
}

static void what_could_exhaust_memory_is_refused_before_it_is_built(void **state)
{
    (void)state;
    openai_request out;
    openai_fault   fault;
    size_t         size = 3 << 20;
    char          *body = malloc(size);
    memset(body, '[', size);
    fault = (openai_fault){0};
    assert_false(openai_request_parse(OPENAI_CHAT, (span){body, size}, memory, &out, &fault));
    assert_int_equal(fault.error.code, ERR_TOO_LARGE);
    for (size_t i = 0; i < size; i++)
        body[i] = "0,"[i % 2];
    memcpy(body, "{\"prompt\":[", 11);
    assert_false(openai_request_parse(OPENAI_COMPLETION, (span){body, size}, memory, &out, &fault));
    assert_int_equal(fault.error.code, ERR_TOO_LARGE);
    free(body);
    arena *small = arena_new(2048, NULL);
    char   text[8192];
    memset(text, 'x', sizeof text);
    memcpy(text, "{\"prompt\":\"", 11);
    memcpy(text + sizeof text - 3, "\"}", 3);
    assert_false(openai_request_parse(OPENAI_COMPLETION, span_of(text), small, &out, &fault));
    assert_int_equal(fault.error.code, ERR_TOO_LARGE);
    arena_free(&small);
}

static void texts_and_tokens_are_parsed_for_the_tokenizer(void **state)
{
    (void)state;
    text_encode  encode;
    text_decode  decode;
    span         model;
    openai_fault fault = {0};
    assert_true(openai_tokenize_parse(SPAN("{\"prompt\":\"x\",\"model\":\"m\",\"add_special_tokens\":true}"), memory,
                                      &encode, &model, &fault));
    assert_true(encode.kind == PROMPT_KIND_TEXT && encode.special_tokens && span_is(model, "m"));
    assert_true(
        openai_tokenize_parse(SPAN("{" M ",\"add_generation_prompt\":false}"), memory, &encode, &model, &fault));
    assert_true(encode.kind == PROMPT_KIND_CHAT && encode.n_messages == 1 && !encode.add_generation_prompt);
    assert_false(openai_tokenize_parse(SPAN("{\"prompt\":\"x\"," M "}"), memory, &encode, &model, &fault));
    assert_string_equal(fault.field, "messages");
    assert_true(openai_tokenize_parse(SPAN("{\"prompt\":\"x\",\"messages\":null}"), memory, &encode, &model, &fault));
    assert_int_equal(encode.kind, PROMPT_KIND_TEXT);
    assert_true(openai_tokenize_parse(SPAN("{\"prompt\":null," M "}"), memory, &encode, &model, &fault));
    assert_int_equal(encode.kind, PROMPT_KIND_CHAT);
    assert_false(openai_tokenize_parse(SPAN("{}"), memory, &encode, &model, &fault));
    assert_string_equal(fault.field, "prompt");
    assert_true(openai_detokenize_parse(SPAN("{\"tokens\":[1,2]}"), memory, &decode, &model, &fault));
    assert_int_equal(decode.n_tokens, 2);
    assert_false(openai_detokenize_parse(SPAN("{\"tokens\":\"1\"}"), memory, &decode, &model, &fault));
    assert_string_equal(fault.field, "tokens");
}

static void whole_numbers_may_have_a_point(void **state)
{
    (void)state;
    openai_request r = must_parse(OPENAI_COMPLETION, "{\"prompt\":[1.0,2],\"top_k\":5.0,\"seed\":-7.0,\"n\":2e0}");
    assert_int_equal(r.prompts[0].n_tokens, 2);
    assert_int_equal(r.prompts[0].tokens[0], 1);
    assert_int_equal(r.request.sampling.top_k, 5);
    assert_int_equal((int64_t)r.request.sampling.seed, -7);
    assert_int_equal(r.request.n, 2);
}

static void no_tool_calls_are_none(void **state)
{
    (void)state;
    openai_request r =
        must_parse(OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[]}]}");
    assert_int_equal(r.request.messages[0].tool_calls_json.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bodies_are_refused_by_field),
        cmocka_unit_test(bodies_that_are_not_json_say_why),
        cmocka_unit_test(a_text_may_have_a_nul_in_it),
        cmocka_unit_test(sampling_fields_go_where_they_belong),
        cmocka_unit_test(what_is_absent_or_null_takes_the_default),
        cmocka_unit_test(conversations_keep_every_part),
        cmocka_unit_test(prompts_come_in_four_forms),
        cmocka_unit_test(harnesses_score_prompts),
        cmocka_unit_test(beams_take_their_width_from_three_places),
        cmocka_unit_test(unknown_fields_are_listed_by_name_only),
        cmocka_unit_test(what_could_exhaust_memory_is_refused_before_it_is_built),
        cmocka_unit_test(texts_and_tokens_are_parsed_for_the_tokenizer),
        cmocka_unit_test(whole_numbers_may_have_a_point),
        cmocka_unit_test(no_tool_calls_are_none),
    };
    return cmocka_run_group_tests(tests, bodies_prepare, bodies_clean_up);
}
