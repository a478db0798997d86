/* OTLP in JSON, byte by byte: ids in hexadecimal, 64-bit numbers as texts, a resource a service. */
#include "trace/otlp_json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const otlp_process process = {.host = "a-host", .pid = 4242, .unix_less_mono_ns = 1700000000000000000};

static const uint8_t context[TRACE_CONTEXT_BYTES] = {0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43,         0xdd, 0x84,
                                                     0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c,         0xb7, 0xad,
                                                     0x6b, 0x71, 0x69, 0x20, 0x33, 0x31, TRACE_SAMPLED};

static trace_span span_with_id(uint8_t id, const char *service, const char *name)
{
    trace_span t = trace_span_under(context, service, name, 1000, 2500);
    memset(t.span_id, id, sizeof t.span_id);
    return t;
}

#define RESOURCE(name)                                                                                                 \
    "{\"resource\":{\"attributes\":["                                                                                  \
    "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"" name "\"}},"                                             \
    "{\"key\":\"service.namespace\",\"value\":{\"stringValue\":\"troupe\"}},"                                          \
    "{\"key\":\"service.version\",\"value\":{\"stringValue\":\"" TROUPE_VERSION "\"}},"                                \
    "{\"key\":\"host.name\",\"value\":{\"stringValue\":\"a-host\"}},"                                                  \
    "{\"key\":\"process.pid\",\"value\":{\"intValue\":\"4242\"}}]},"                                                   \
    "\"scopeSpans\":[{\"scope\":{\"name\":\"troupe\"},\"spans\":["
#define IDS(id) "{\"traceId\":\"0af7651916cd43dd8448eb211c80319c\",\"spanId\":\"" id id id id id id id id "\","
#define PARENT "\"parentSpanId\":\"b7ad6b7169203331\","
#define TIMES "\"startTimeUnixNano\":\"1700000000000001000\",\"endTimeUnixNano\":\"1700000000000002500\","

static void spans_are_written_as_the_protocol_asks(void **state)
{
    static const char expected[] = "{\"resourceSpans\":[" RESOURCE("troupe-gateway")
        IDS("01") "\"name\":\"chat\",\"kind\":2," TIMES
                  "\"attributes\":[{\"key\":\"number\",\"value\":{\"intValue\":\"-9007199254740993\"}},"
                  "{\"key\":\"text\",\"value\":{\"stringValue\":\"say \\\"hi\\\"\"}},"
                  "{\"key\":\"list\",\"value\":{\"arrayValue\":{\"values\":[{\"stringValue\":\"stop\"},"
                  "{\"stringValue\":\"length\"}]}}},"
                  "{\"key\":\"empty\",\"value\":{\"arrayValue\":{\"values\":[]}}}],"
                  "\"events\":[{\"timeUnixNano\":\"1700000000000001500\",\"name\":\"first token\"}],"
                  "\"status\":{\"code\":2}}," IDS("03") PARENT
        "\"name\":\"again\",\"kind\":1," TIMES "\"attributes\":[],\"droppedAttributesCount\":1,"
        "\"status\":{}}]}]}," RESOURCE("troupe-scheduler") IDS("02") PARENT "\"name\":\"queue\",\"kind\":1," TIMES
                                                                            "\"attributes\":[],\"status\":{}}]}]}]}";
    char       out[8192];
    span       body;
    error      err;
    trace_span spans[] = {span_with_id(1, "gateway", "chat"), span_with_id(2, "scheduler", "queue"),
                          span_with_id(3, "gateway", "again")};
    (void)state;
    memset(spans[0].parent_id, 0, sizeof spans[0].parent_id);
    spans[0].is_server = spans[0].failed = true;
    trace_add_number(&spans[0], "number", -9007199254740993);
    trace_add_text(&spans[0], "text", SPAN("say \"hi\""));
    trace_add_list(&spans[0], "list", SPAN("stop,length"));
    trace_add_list(&spans[0], "empty", SPAN(""));
    trace_add_event(&spans[0], "first token", 1500);
    spans[2].n_dropped_attributes = 1;
    assert_true(otlp_print(&process, spans, COUNT(spans), out, sizeof out, &body, &err));
    assert_string_equal(body.data, expected);
    assert_int_equal(body.size, sizeof expected - 1);
    assert_false(otlp_print(&process, spans, COUNT(spans), out, 512, &body, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
}

static void the_largest_span_fits_its_room(void **state)
{
    static char  out[OTLP_SPAN_BYTES_MAX + OTLP_RESOURCE_BYTES_MAX];
    char         text[TRACE_TEXT_BYTES];
    span         body;
    error        err;
    otlp_process far = {.host = "a-host-whose-name-is-as-long-as-a-name-may-be-in-the-whole-world", .pid = INT32_MAX};
    trace_span   t = trace_span_under(context, "postprocessor", "a-name-of-a-phase-that-is-long", INT64_MIN, INT64_MIN);
    (void)state;
    memset(text, 1, sizeof text); /* \u0001: six bytes each */
    trace_add_text(&t, "an.attribute.with.a.long.and.dotted.name", (span){text, sizeof text});
    while (t.n_attributes < TRACE_ATTRIBUTES_MAX)
        trace_add_number(&t, "an.attribute.with.a.long.and.dotted.name", INT64_MIN);
    while (t.n_events < TRACE_EVENTS_MAX)
        trace_add_event(&t, "an event that has a long name", INT64_MIN);
    t.n_dropped_attributes = t.n_dropped_events = UINT32_MAX;
    assert_true(otlp_print(&far, &t, 1, out, sizeof out, &body, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_are_written_as_the_protocol_asks),
        cmocka_unit_test(the_largest_span_fits_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
