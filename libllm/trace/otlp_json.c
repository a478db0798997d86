/* See otlp_json.h. */
#include "trace/otlp_json.h"

#include "base/hex.h"
#include "base/json_out.h"

#include <inttypes.h>
#include <stdio.h>

enum { KIND_INTERNAL = 1, KIND_SERVER = 2, STATUS_ERROR = 2 };

static void put_id(json_out *j, const char *key, const uint8_t *id, size_t bytes)
{
    char text[2 * TRACE_ID_BYTES + 1];
    hex_print(id, bytes, text);
    json_out_member_string(j, key, (span){text, 2 * bytes});
}

static void put_integer(json_out *j, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    json_out_member_string(j, key, span_of(text));
}

/* Opens {"key": KEY, "value": {, which put_end closes. */
static void put_key(json_out *j, const char *key)
{
    json_out_object(j);
    json_out_member_string(j, "key", span_of(key));
    json_out_key(j, SPAN("value"));
    json_out_object(j);
}

static void put_end(json_out *j)
{
    json_out_end(j);
    json_out_end(j);
}

static void put_text(json_out *j, const char *key, span value)
{
    put_key(j, key);
    json_out_member_string(j, "stringValue", value);
    put_end(j);
}

static void put_number(json_out *j, const char *key, int64_t value)
{
    put_key(j, key);
    put_integer(j, "intValue", value);
    put_end(j);
}

static void put_list(json_out *j, const char *key, span list)
{
    put_key(j, key);
    json_out_key(j, SPAN("arrayValue"));
    json_out_object(j);
    json_out_key(j, SPAN("values"));
    json_out_array(j);
    while (list.size > 0) {
        const char *comma = memchr(list.data, ',', list.size);
        span        value = {list.data, comma ? (size_t)(comma - list.data) : list.size};
        size_t      past  = value.size + (comma != NULL);
        json_out_object(j);
        json_out_member_string(j, "stringValue", value);
        json_out_end(j);
        list = (span){list.data + past, list.size - past};
    }
    json_out_end(j);
    json_out_end(j);
    put_end(j);
}

static void put_attributes(json_out *j, const trace_span *t)
{
    json_out_key(j, SPAN("attributes"));
    json_out_array(j);
    for (uint32_t i = 0; i < t->n_attributes; i++) {
        const trace_attribute *a    = &t->attributes[i];
        span                   text = {t->text + a->at, a->size};
        if (a->kind == TRACE_NUMBER)
            put_number(j, a->key, a->number);
        else if (a->kind == TRACE_TEXT)
            put_text(j, a->key, text);
        else
            put_list(j, a->key, text);
    }
    json_out_end(j);
    if (t->n_dropped_attributes > 0)
        json_out_member_u64(j, "droppedAttributesCount", t->n_dropped_attributes);
}

static void put_events(json_out *j, const otlp_process *process, const trace_span *t)
{
    if (t->n_events == 0)
        return;
    json_out_key(j, SPAN("events"));
    json_out_array(j);
    for (uint32_t i = 0; i < t->n_events; i++) {
        json_out_object(j);
        put_integer(j, "timeUnixNano", t->events[i].at_ns + process->unix_less_mono_ns);
        json_out_member_string(j, "name", span_of(t->events[i].name));
        json_out_end(j);
    }
    json_out_end(j);
    if (t->n_dropped_events > 0)
        json_out_member_u64(j, "droppedEventsCount", t->n_dropped_events);
}

static void put_span(json_out *j, const otlp_process *process, const trace_span *t)
{
    static const uint8_t none[TRACE_SPAN_ID_BYTES];
    json_out_object(j);
    put_id(j, "traceId", t->trace_id, sizeof t->trace_id);
    put_id(j, "spanId", t->span_id, sizeof t->span_id);
    if (memcmp(t->parent_id, none, sizeof none) != 0)
        put_id(j, "parentSpanId", t->parent_id, sizeof t->parent_id);
    json_out_member_string(j, "name", span_of(t->name));
    json_out_member_u64(j, "kind", t->is_server ? KIND_SERVER : KIND_INTERNAL);
    put_integer(j, "startTimeUnixNano", t->start_ns + process->unix_less_mono_ns);
    put_integer(j, "endTimeUnixNano", t->end_ns + process->unix_less_mono_ns);
    put_attributes(j, t);
    put_events(j, process, t);
    json_out_key(j, SPAN("status"));
    json_out_object(j);
    if (t->failed)
        json_out_member_u64(j, "code", STATUS_ERROR);
    json_out_end(j);
    json_out_end(j);
}

static void put_resource(json_out *j, const otlp_process *process, const char *service)
{
    char name[64];
    snprintf(name, sizeof name, "troupe-%s", service);
    json_out_key(j, SPAN("resource"));
    json_out_object(j);
    json_out_key(j, SPAN("attributes"));
    json_out_array(j);
    put_text(j, "service.name", span_of(name));
    put_text(j, "service.namespace", SPAN("troupe"));
    put_text(j, "service.version", SPAN(TROUPE_VERSION));
    put_text(j, "host.name", span_of(process->host));
    put_number(j, "process.pid", process->pid);
    json_out_end(j);
    json_out_end(j);
}

static bool came_before(const trace_span *spans, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(spans[k].service, spans[i].service) == 0)
            return true;
    return false;
}

bool otlp_print(const otlp_process *process, const trace_span *spans, size_t n_spans, char *out, size_t out_bytes,
                span *body, error *err)
{
    json_out j = json_out_into(out, out_bytes);
    json_out_object(&j);
    json_out_key(&j, SPAN("resourceSpans"));
    json_out_array(&j);
    for (size_t i = 0; i < n_spans; i++) {
        if (came_before(spans, i))
            continue;
        json_out_object(&j);
        put_resource(&j, process, spans[i].service);
        json_out_key(&j, SPAN("scopeSpans"));
        json_out_array(&j);
        json_out_object(&j);
        json_out_key(&j, SPAN("scope"));
        json_out_object(&j);
        json_out_member_string(&j, "name", SPAN("troupe"));
        json_out_end(&j);
        json_out_key(&j, SPAN("spans"));
        json_out_array(&j);
        for (size_t k = i; k < n_spans; k++)
            if (strcmp(spans[k].service, spans[i].service) == 0)
                put_span(&j, process, &spans[k]);
        json_out_end(&j);
        json_out_end(&j);
        json_out_end(&j);
        json_out_end(&j);
    }
    json_out_end(&j);
    json_out_end(&j);
    return json_out_finish(&j, body, err);
}
