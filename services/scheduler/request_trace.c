/* The spans of a request: queue, prefill and decode, recorded together when it has ended.
 *
 * Their times are the clock's, not the turn's: who sent the request may have done so within the turn. */
#include "scheduler/state.h"

static int64_t now_ns(const scheduler *s)
{
    return clock_now_ns(actor_clock(s->actor));
}

void request_trace_arrived(const scheduler *s, request *r)
{
    if (trace_wants(r->envelope.trace))
        r->trace.arrived_ns = now_ns(s);
}

void request_trace_started(const scheduler *s, const sequence *q)
{
    request *r = q->request;
    if (r->trace.arrived_ns == 0)
        return;
    if (r->trace.planned_ns == 0)
        r->trace.planned_ns = now_ns(s);
    if (q->generation > 0)
        request_trace_event(s, r, "resumed");
}

void request_trace_token(const scheduler *s, request *r)
{
    if (r->trace.arrived_ns == 0)
        return;
    r->trace.last_token_ns = now_ns(s);
    if (r->trace.first_token_ns == 0)
        r->trace.first_token_ns = r->trace.last_token_ns;
}

void request_trace_event(const scheduler *s, request *r, const char *name)
{
    if (r->trace.arrived_ns == 0)
        return;
    if (r->trace.n_events < TRACE_EVENTS_MAX)
        r->trace.events[r->trace.n_events] = (trace_event){.name = name, .at_ns = now_ns(s)};
    r->trace.n_events++;
}

/* A span with the events of its time. */
static trace_span phase(const request *r, const char *name, int64_t start_ns, int64_t end_ns)
{
    char       id[33];
    trace_span t = trace_span_under(r->envelope.trace, "scheduler", name, start_ns, end_ns);
    request_id_print(&r->envelope.request, id);
    trace_add_text(&t, "troupe.run", span_of(id));
    trace_add_number(&t, "troupe.attempt", r->envelope.attempt);
    for (uint32_t i = 0; i < r->trace.n_events && i < TRACE_EVENTS_MAX; i++)
        if (r->trace.events[i].at_ns >= start_ns && r->trace.events[i].at_ns <= end_ns)
            trace_add_event(&t, r->trace.events[i].name, r->trace.events[i].at_ns);
    return t;
}

static void record_decode(const request *r)
{
    uint32_t   n_tokens = 0, n_drafted = 0, n_accepted = 0;
    trace_span t = phase(r, "decode", r->trace.first_token_ns, r->trace.last_token_ns);
    for (uint32_t i = 0; i < r->n_choices; i++) {
        n_tokens += r->sequences[i].n_tokens - r->sequences[i].n_prompt;
        n_drafted += r->sequences[i].n_drafted;
        n_accepted += r->sequences[i].n_accepted;
    }
    trace_add_number(&t, "gen_ai.usage.output_tokens", n_tokens);
    trace_add_number(&t, "troupe.drafted_tokens", n_drafted);
    trace_add_number(&t, "troupe.accepted_tokens", n_accepted);
    if (r->trace.n_events > TRACE_EVENTS_MAX)
        t.n_dropped_events = r->trace.n_events - TRACE_EVENTS_MAX;
    trace_record(&t);
}

void request_trace_end(const scheduler *s, const request *r)
{
    const request_trace *at = &r->trace;
    if (at->arrived_ns == 0)
        return;
    int64_t    end_ns = now_ns(s);
    trace_span queue  = phase(r, "queue", at->arrived_ns, at->planned_ns ? at->planned_ns : end_ns);
    trace_record(&queue);
    if (at->planned_ns == 0)
        return;
    trace_span prefill = phase(r, "prefill", at->planned_ns, at->first_token_ns ? at->first_token_ns : end_ns);
    trace_add_number(&prefill, "gen_ai.usage.input_tokens", r->n_prompt);
    trace_add_number(&prefill, "troupe.cached_tokens", r->sequences[0].n_cached);
    trace_record(&prefill);
    if (at->first_token_ns)
        record_decode(r);
}
