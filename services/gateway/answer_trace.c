/* The trace of an answer: whose it is, and the span that says how it went. */
#include "services/gateway/state.h"

#include "base/log.h"
#include "trace/trace.h"

#include <stdio.h>

/* A header that is there twice is as good as none, says the specification. */
static bool read_traceparent(const http_request *request, uint8_t trace[TRACE_CONTEXT_BYTES])
{
    static const char name[] = "traceparent";
    uint32_t          n      = 0;
    span              header, value, found = {0};
    for (uint32_t i = 0; i < request->parser->n_headers; i++) {
        http_parser_header_at(request->parser, request->head, i, &header, &value);
        if (header.size != sizeof name - 1 || strncasecmp(header.data, name, header.size) != 0)
            continue;
        found = value;
        n++;
    }
    return n == 1 && trace_context_parse(found, trace);
}

/* With a parent the answer's span is another one of its trace, if anybody wants it; without, the first of a new one. */
static void begin(answer *a, bool has_parent)
{
    uint8_t *trace = a->about.trace;
    error    err;
    if (!has_parent) {
        if (!trace_draw(trace, &err))
            log_warn("a request has no trace", "why=\"%s\"", err.text);
    } else if (trace_wants(trace)) {
        memcpy(a->trace_parent, trace + TRACE_ID_BYTES, sizeof a->trace_parent);
        trace_new_span_id(trace + TRACE_ID_BYTES);
    }
}

void answer_trace_http(answer *a, const http_request *request)
{
    begin(a, read_traceparent(request, a->about.trace));
}

void answer_trace_bus(answer *a)
{
    begin(a, trace_context_is_valid(a->about.trace));
}

static span model_of(const answer *a)
{
    const text_request *body = a->runs[0].type == MSG_TEXT_REQUEST ? a->runs[0].body : NULL;
    if (a->head.model.size > 0)
        return a->head.model;
    return body && body->model.size > 0 ? body->model : a->gateway->model;
}

/* As the client was told: of every choice, as far as they fit. */
static void add_finishes(trace_span *t, const answer *a)
{
    char   list[64];
    size_t used = 0;
    for (uint32_t i = 0; i < a->n_runs; i++) {
        for (uint32_t c = 0; c < a->n_choices; c++) {
            const choice_state *choice = &a->runs[i].choices[c];
            const char         *name   = finish_reason_name(choice->finished ? choice->finish : a->finish);
            size_t              bytes  = strlen(name) + (used > 0);
            if (used + bytes >= sizeof list)
                break;
            snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? "," : "", name);
            used += bytes;
        }
    }
    trace_add_list(t, "gen_ai.response.finish_reasons", (span){list, used});
}

/* Names of attributes: OpenTelemetry's semantic conventions for generative AI and for HTTP; our own begin with
 * "troupe.". */
static void add_generation(trace_span *t, const answer *a, const usage *sum)
{
    const text_request *body = a->runs[0].type == MSG_TEXT_REQUEST ? a->runs[0].body : &text_request_defaults;
    bool                chat = body->kind == PROMPT_KIND_CHAT;
    trace_add_text(t, "gen_ai.operation.name", chat ? SPAN("chat") : SPAN("text_completion"));
    trace_add_text(t, "gen_ai.provider.name", SPAN("troupe"));
    trace_add_text(t, "gen_ai.request.model", model_of(a));
    trace_add_number(t, "gen_ai.usage.input_tokens", sum->prompt_tokens);
    trace_add_number(t, "gen_ai.usage.output_tokens", sum->completion_tokens);
    trace_add_number(t, "troupe.cached_tokens", sum->cached_tokens);
    add_finishes(t, a);
    if (a->head.id.size > 0)
        trace_add_text(t, "gen_ai.response.id", a->head.id);
    if (a->first_ns > 0)
        trace_add_event(t, "first token", a->first_ns);
}

void answer_trace_end(const answer *a, int status, const usage *sum, uint32_t n_attempts)
{
    if (!trace_wants(a->about.trace))
        return;
    trace_span t = trace_span_under(a->about.trace, "gateway", a->what ? a->what : "request", a->arrived_ns,
                                    gateway_now_ns(a->gateway));
    memcpy(t.span_id, a->about.trace + TRACE_ID_BYTES, sizeof t.span_id);
    memcpy(t.parent_id, a->trace_parent, sizeof t.parent_id);
    t.is_server = true;
    t.failed    = status >= 500;
    trace_add_number(&t, a->client ? "troupe.status_code" : "http.response.status_code", status);
    trace_add_number(&t, "troupe.attempts", n_attempts);
    if (a->sums)
        add_generation(&t, a, sum);
    trace_record(&t);
}
