/* services/gateway/openapi.json says what the code does: the same paths, the same fields, the same limits. */
#include "services/gateway/openai_pooled.h"
#include "services/gateway/openapi.h"
#include "services/gateway/state.h"
#include "support_bodies.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BODY_BYTES = 4096 };

static json_t *document;

static int prepare(void **state)
{
    span text = openapi_document();
    document  = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, NULL);
    return document ? bodies_prepare(state) : -1;
}

static int clean_up(void **state)
{
    json_decref(document);
    return bodies_clean_up(state);
}

static const json_t *find(const char *first, const char *second, const char *third)
{
    const json_t *found = json_object_get(json_object_get(json_object_get(document, first), second), third);
    if (!found)
        fail_msg("openapi.json has no %s.%s.%s", first, second, third);
    return found;
}

static void the_paths_are_those_of_the_gateway(void **state)
{
    size_t      n = 0;
    http_method method;
    (void)state;
    for (const char *path; (path = endpoints_path(n, &method)); n++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", path,
                 strcmp(path, "/v1/models/") == 0 ? "{model}"
                 : strcmp(path, "/pages/") == 0   ? "{file}"
                                                  : "");
        const json_t *item = find("paths", name, method == HTTP_GET ? "get" : "post");
        assert_int_equal(json_object_size(json_object_get(json_object_get(document, "paths"), name)), 1);
        assert_non_null(json_object_get(item, "responses"));
    }
    assert_int_equal(json_object_size(json_object_get(document, "paths")), n);
}

/* ---- requests ---- */

static bool parse_chat(span body, openai_fault *fault)
{
    openai_request out;
    return openai_request_parse(OPENAI_CHAT, body, memory, &out, fault);
}

static bool parse_completion(span body, openai_fault *fault)
{
    openai_request out;
    return openai_request_parse(OPENAI_COMPLETION, body, memory, &out, fault);
}

static bool parse_embedding(span body, openai_fault *fault)
{
    openai_pooled out;
    return openai_pooled_parse(REQUEST_TASK_EMBED, body, memory, &out, fault);
}

static bool parse_rerank(span body, openai_fault *fault)
{
    openai_pooled out;
    return openai_pooled_parse(REQUEST_TASK_SCORE, body, memory, &out, fault);
}

static bool parse_tokenize(span body, openai_fault *fault)
{
    text_encode out;
    span        model;
    return openai_tokenize_parse(body, memory, &out, &model, fault);
}

static bool parse_detokenize(span body, openai_fault *fault)
{
    text_decode out;
    span        model;
    return openai_detokenize_parse(body, memory, &out, &model, fault);
}

static const struct {
    const char *schema, *least; /* the name of the schema, and the least that it allows */
    bool (*parse)(span body, openai_fault *fault);
} requests[] = {
    {"chat_request", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", parse_chat},
    {"completion_request", "{\"prompt\":\"x\",\"echo\":true}", parse_completion},
    {"embedding_request", "{\"input\":\"x\"}", parse_embedding},
    {"rerank_request", "{\"query\":\"x\",\"documents\":[\"y\"]}", parse_rerank},
    {"tokenize_request", "{\"prompt\":\"x\"}", parse_tokenize},
    {"detokenize_request", "{\"tokens\":[1]}", parse_detokenize},
};

/* Whether the body with this value is refused for this field. */
static bool refuses(size_t request, const char *name, json_t *value, openai_fault *fault)
{
    char    text[BODY_BYTES];
    json_t *body = json_loads(requests[request].least, 0, NULL);
    json_object_set_new(body, name, value);
    size_t size = json_dumpb(body, text, sizeof text, JSON_COMPACT);
    json_decref(body);
    arena_reset(memory);
    *fault = (openai_fault){0};
    return !requests[request].parse((span){text, size}, fault) && strncmp(fault->field, name, strlen(name)) == 0;
}

/* A field that the code does not know is ignored, whatever it is. */
static void every_field_of_a_request_is_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(requests); i++) {
        json_t     *fields = (json_t *)(uintptr_t)find("components", "schemas", requests[i].schema), *field;
        const char *name;
        json_object_foreach(json_object_get(fields, "properties"), name, field)
        {
            openai_fault fault;
            if (!refuses(i, name, json_real(1.5), &fault) && !refuses(i, name, json_pack("{si}", "a", 1), &fault))
                fail_msg("%s.%s takes anything", requests[i].schema, name);
        }
    }
}

static void every_known_field_is_in_a_request(void **state)
{
    (void)state;
    const char *name;
    for (size_t i = 0; (name = openai_field_name(i)); i++) {
        const json_t *chat       = json_object_get(find("components", "schemas", "chat_request"), "properties");
        const json_t *completion = json_object_get(find("components", "schemas", "completion_request"), "properties");
        if (!json_object_get(chat, name) && !json_object_get(completion, name))
            fail_msg("openapi.json does not say %s", name);
    }
}

static json_t *number_at(const json_t *limit, int step)
{
    return json_is_integer(limit) ? json_integer(json_integer_value(limit) + step)
                                  : json_real(json_real_value(limit) + step * 1e-6);
}

/* Whether the refusal is about the range, not about another field. */
static bool is_out_of_range(const openai_fault *fault)
{
    return strstr(fault->error.text, " and at most ") != NULL;
}

static void check_limit(size_t request, const char *name, const json_t *limit, int outwards, bool is_taken)
{
    openai_fault fault;
    if (!limit || fabs(json_number_value(limit)) > 1e15)
        return; /* none, or that of 64 bits */
    bool at = refuses(request, name, json_deep_copy(limit), &fault) && is_out_of_range(&fault);
    if (at == is_taken)
        fail_msg("%s.%s: the limit itself is %staken: %s", requests[request].schema, name, is_taken ? "not " : "",
                 fault.error.text);
    if (!refuses(request, name, number_at(limit, outwards), &fault) || !is_out_of_range(&fault))
        fail_msg("%s.%s: more than the limit is taken", requests[request].schema, name);
}

static void limits_are_those_of_the_gateway(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(requests); i++) {
        json_t     *fields = (json_t *)(uintptr_t)find("components", "schemas", requests[i].schema), *field;
        const char *name;
        json_object_foreach(json_object_get(fields, "properties"), name, field)
        {
            check_limit(i, name, json_object_get(field, "minimum"), -1, true);
            check_limit(i, name, json_object_get(field, "exclusiveMinimum"), -1, false);
            check_limit(i, name, json_object_get(field, "maximum"), 1, true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_paths_are_those_of_the_gateway),
        cmocka_unit_test(every_field_of_a_request_is_known),
        cmocka_unit_test(every_known_field_is_in_a_request),
        cmocka_unit_test(limits_are_those_of_the_gateway),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
