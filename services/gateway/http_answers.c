/* What an HTTP client sees: one JSON body, or a stream of server-sent events.
 *
 * A stream begins with its first text, so that a request refused before that still gets its proper status; or, when
 * that text is long in coming, with a ping, so that nobody between here and the client takes the silence for death. */
#include "services/gateway/reply_log.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- writing ---- */

/* Behind n fields those of a key's limits. */
static size_t add_usage_fields(gateway *g, key_usage *key, key_usage_fields *room, http_field *fields, size_t n)
{
    key_usage_describe(key, gateway_now_ns(g), room);
    if (room->n > 0)
        memcpy(fields + n, room->fields, room->n * sizeof *fields);
    return n + room->n;
}

/* The reply to a request that has no stream yet; `a` and `key` may be NULL. */
static void reply(gateway *g, http_handle handle, const answer *a, key_usage *key, int status, json_out *j,
                  uint32_t retry_after_ms)
{
    key_usage_fields room;
    http_field       fields[2 + REPLY_LOG_FIELDS + KEY_USAGE_FIELDS];
    size_t           n = add_usage_fields(g, key, &room, fields, a ? reply_log_fields(a, fields) : 0);
    char             seconds[16];
    span             body;
    error            err;
    if (!json_out_finish(j, &body, &err)) {
        log_error("an answer does not fit into the buffer for answers", "why=\"%s\"", err.text);
        status = 500;
        body   = SPAN("{\"error\":{\"message\":\"The answer is too large for this server.\",\"type\":\"server_error\","
                        "\"param\":null,\"code\":\"too_large\"}}");
    }
    if (retry_after_ms > 0) {
        snprintf(seconds, sizeof seconds, "%u", (retry_after_ms + 999) / 1000);
        fields[n++] = (http_field){"Retry-After", span_of(seconds)};
    }
    if (status == 401)
        fields[n++] = (http_field){"WWW-Authenticate", SPAN("Bearer")};
    http_reply r = {
        .status = status, .content_type = "application/json", .fields = fields, .n_fields = n, .body = body};
    http_respond(g->http, handle, &r);
}

void http_reply_json(gateway *g, http_handle handle, int status, json_out *j)
{
    reply(g, handle, NULL, NULL, status, j, 0);
}

void http_refuse(gateway *g, http_handle handle, key_usage *key, const error *why, span field, uint32_t retry_after_ms)
{
    int      status = error_http_status(why->code);
    json_out j      = json_out_into(g->out, g->out_bytes);
    openai_error(&j, status, why->code, span_of(why->text), field);
    reply(g, handle, NULL, key, status, &j, retry_after_ms);
}

/* An event is written as "data: {...}\n\n" in place: the JSON goes behind room for what stands before it. Those of an
 * answer with a log have a line "id: 17-342" too. */
enum { EVENT_HEAD_BYTES = sizeof "id: -\ndata: " + 2 * 20, EVENT_END_BYTES = 2 };

static json_out event_begin(gateway *g)
{
    return json_out_into(g->out + EVENT_HEAD_BYTES, g->out_bytes - EVENT_HEAD_BYTES - EVENT_END_BYTES);
}

static void begin_stream(answer *a)
{
    key_usage_fields room;
    http_field       fields[REPLY_LOG_FIELDS + KEY_USAGE_FIELDS];
    http_reply       head = {.status = 200, .content_type = "text/event-stream", .fields = fields};
    if (a->streaming)
        return;
    a->streaming  = true;
    head.n_fields = add_usage_fields(a->gateway, a->usage, &room, fields, reply_log_fields(a, fields));
    http_stream_begin(a->gateway->http, a->handle, &head);
}

/* Counts an event of an answer with a log; *is_new: the client has not had it. False when it has had another one. */
static bool event_count(answer *a, size_t text_bytes, bool *is_new, error *err)
{
    a->event.number++;
    a->event.text_bytes += text_bytes;
    *is_new = a->event.number > a->last_event.number;
    return a->event.number != a->last_event.number || a->event.text_bytes == a->last_event.text_bytes ||
           error_set(err, ERR_MISMATCH,
                     "Last-Event-ID names an event that is not kept; ask again without it, for all of them");
}

/* Sends what was written behind EVENT_HEAD_BYTES of g->out. A client that reads too slowly is reported by on_gone. */
static void event_write(answer *a, span data, bool has_id)
{
    gateway *g = a->gateway;
    char     head[EVENT_HEAD_BYTES + 1];
    int      n     = has_id ? snprintf(head, sizeof head, "id: %" PRIu64 "-%" PRIu64 "\ndata: ", a->event.number,
                                       a->event.text_bytes)
                            : snprintf(head, sizeof head, "data: ");
    char    *start = g->out + EVENT_HEAD_BYTES - n;
    memcpy(start, head, (size_t)n);
    memcpy(g->out + EVENT_HEAD_BYTES + data.size, "\n\n", EVENT_END_BYTES);
    begin_stream(a);
    http_stream_write(g->http, a->handle, (span){start, (size_t)n + data.size + EVENT_END_BYTES});
}

static bool event_send(answer *a, json_out *j, size_t text_bytes, error *err)
{
    span json;
    bool is_new = true;
    if (!json_out_finish(j, &json, err))
        return error_wrap(err, "a piece of the answer is too large");
    if (a->log && !event_count(a, text_bytes, &is_new, err))
        return false;
    if (is_new)
        event_write(a, json, a->log != NULL);
    return true;
}

static void on_silence(void *self, actor_timer *timer)
{
    answer *a = (answer *)((char *)timer - offsetof(answer, silence));
    (void)self;
    if (a->streaming)
        return; /* from here on the connection itself sees to it */
    begin_stream(a);
    http_stream_write(a->gateway->http, a->handle, SPAN(": ping\n\n"));
}

void http_answer_expect_silence(answer *a)
{
    const gateway *g = a->gateway;
    if (a->stream && g->options->stream_ping_s > 0)
        gateway_timer_set(a->gateway, &a->silence, (int64_t)(g->options->stream_ping_s * 1e9), on_silence);
}

/* ---- collecting ---- */

static bool keep_text(answer *a, choice_state *c, span text)
{
    if (c->text_size + text.size > c->text_capacity) {
        size_t capacity = c->text_capacity ? c->text_capacity : 256;
        while (capacity < c->text_size + text.size)
            capacity *= 2;
        char *grown = arena_take(a->memory, capacity);
        if (!grown)
            return false;
        if (c->text_size > 0)
            memcpy(grown, c->text, c->text_size);
        c->text          = grown;
        c->text_capacity = capacity;
    }
    if (text.size > 0)
        memcpy(c->text + c->text_size, text.data, text.size);
    c->text_size += text.size;
    return true;
}

static bool copy_logprob(arena *memory, const text_logprob *from, text_logprob *to)
{
    text_top *top = arena_take_array(memory, from->n_top, sizeof *top);
    *to           = *from;
    to->bytes     = arena_copy(memory, from->bytes);
    to->top       = top;
    if (!top || !to->bytes.data)
        return false;
    for (uint32_t i = 0; i < from->n_top; i++) {
        top[i]       = from->top[i];
        top[i].bytes = arena_copy(memory, from->top[i].bytes);
        if (!top[i].bytes.data)
            return false;
    }
    return true;
}

static bool keep_logprobs(answer *a, choice_state *c, const text_delta *d)
{
    uint32_t needed = c->n_logprobs + d->n_logprobs;
    if (needed > c->logprobs_capacity) {
        uint32_t capacity = c->logprobs_capacity ? c->logprobs_capacity : 16;
        while (capacity < needed)
            capacity *= 2;
        text_logprob *grown = arena_take_array(a->memory, capacity, sizeof *grown);
        if (!grown)
            return false;
        if (c->n_logprobs > 0)
            memcpy(grown, c->logprobs, c->n_logprobs * sizeof *grown);
        c->logprobs          = grown;
        c->logprobs_capacity = capacity;
    }
    for (uint32_t i = 0; i < d->n_logprobs; i++)
        if (!copy_logprob(a->memory, &d->logprobs[i], &c->logprobs[c->n_logprobs++]))
            return false;
    return true;
}

/* ---- the sink ---- */

static bool http_delta(answer *a, run *r, const text_delta *delta, error *err)
{
    choice_state *c = &r->choices[delta->choice];
    text_delta    d = *delta;
    if (a->score_only && !d.prompt)
        d.text = (span){0}, d.n_logprobs = 0; /* one token was asked for so that the prompt is computed */
    if (!a->head.has_logprobs)
        d.n_logprobs = 0;
    if (!a->stream)
        return (keep_text(a, c, d.text) && keep_logprobs(a, c, &d)) ||
               error_set(err, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
    if (d.text.size == 0 && d.n_logprobs == 0 && d.finish == FINISH_REASON_NONE)
        return true;
    openai_choice choice = {.index       = r->index * a->n_choices + d.choice,
                            .text        = d.text,
                            .n_logprobs  = d.n_logprobs,
                            .logprobs    = d.logprobs,
                            .finish      = a->score_only && d.finish ? FINISH_REASON_LENGTH : d.finish,
                            .stop_reason = d.stop_reason};
    json_out      j      = event_begin(a->gateway);
    openai_chunk(&j, &a->head, &choice, !c->begun);
    c->begun = true;
    return event_send(a, &j, d.text.size, err);
}

static void done_stream(answer *a)
{
    static const char end[] = "[DONE]";
    usage             sum;
    error             err;
    bool              is_new = true;
    if (a->head.include_usage) {
        json_out j = event_begin(a->gateway);
        answer_usage(a, &sum);
        openai_usage_chunk(&j, &a->head, &sum);
        if (!event_send(a, &j, 0, &err))
            log_error("usage was not sent", "why=\"%s\"", err.text);
    }
    begin_stream(a);
    if (a->log && !event_count(a, 0, &is_new, &err))
        log_error("the end was not sent", "why=\"%s\"", err.text);
    memcpy(a->gateway->out + EVENT_HEAD_BYTES, end, sizeof end - 1);
    if (is_new)
        event_write(a, (span){end, sizeof end - 1}, a->log != NULL);
    http_stream_end(a->gateway->http, a->handle);
}

static void http_done(answer *a)
{
    uint32_t       n       = a->n_runs * a->n_choices;
    openai_choice *choices = a->stream ? NULL : arena_take_array(a->memory, n, sizeof *choices);
    usage          sum;
    if (a->stream) {
        done_stream(a);
        return;
    }
    if (!choices) {
        error why;
        error_set(&why, ERR_NO_MEMORY, "the answer outgrew the memory of one request");
        http_refuse(a->gateway, a->handle, a->usage, &why, (span){0}, 0);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        const choice_state *c = &a->runs[i / a->n_choices].choices[i % a->n_choices];
        choices[i]            = (openai_choice){.index       = i,
                                                .text        = {c->text, c->text_size},
                                                .n_logprobs  = c->n_logprobs,
                                                .logprobs    = c->logprobs,
                                                .finish      = a->score_only ? FINISH_REASON_LENGTH : c->finish,
                                                .stop_reason = c->stop_reason};
    }
    json_out j = json_out_into(a->gateway->out, a->gateway->out_bytes);
    answer_usage(a, &sum);
    openai_body(&j, &a->head, choices, n, &sum);
    reply(a->gateway, a->handle, a, a->usage, 200, &j, 0);
}

void http_answer_refused(answer *a, const error *why, span field, uint32_t retry_after_ms)
{
    error err;
    span  json;
    if (!a->streaming) {
        http_refuse(a->gateway, a->handle, a->usage, why, field, retry_after_ms);
        return;
    }
    json_out j = event_begin(a->gateway);
    openai_error(&j, error_http_status(why->code), why->code, span_of(why->text), field);
    if (json_out_finish(&j, &json, &err))
        event_write(a, json, false);
    else
        log_error("an error was not sent", "why=\"%s\"", err.text);
    http_stream_abort(a->gateway->http, a->handle); /* without [DONE]: the client can tell */
}

static void http_encoded(answer *a, const text_encoded *body)
{
    json_out j = json_out_into(a->gateway->out, a->gateway->out_bytes);
    json_out_object(&j);
    json_out_member_u64(&j, "count", body->n_tokens);
    json_out_member_u64(&j, "max_model_len", body->max_model_len);
    json_out_key(&j, SPAN("tokens"));
    json_out_array(&j);
    for (uint32_t i = 0; i < body->n_tokens; i++)
        json_out_u64(&j, body->tokens[i]);
    json_out_end(&j);
    json_out_member_null(&j, "token_strs");
    json_out_end(&j);
    http_reply_json(a->gateway, a->handle, 200, &j);
}

static void http_decoded(answer *a, const text_decoded *body)
{
    json_out j = json_out_into(a->gateway->out, a->gateway->out_bytes);
    json_out_object(&j);
    json_out_member_string(&j, "prompt", body->text);
    json_out_end(&j);
    http_reply_json(a->gateway, a->handle, 200, &j);
}

const answer_sink http_sink = {.delta   = http_delta,
                               .done    = http_done,
                               .refused = http_answer_refused,
                               .encoded = http_encoded,
                               .decoded = http_decoded};
