/* Clients on the bus: text.request, text.encode and text.decode without HTTP, owned and answered the same way.
 *
 * A client's request id is its own: runs have ids that the gateway draws, so that no client can speak for another. */
#include "services/gateway/state.h"

#include "base/log.h"
#include "base/random.h"

#include <stdio.h>

/* ---- what a client sees ---- */

static void send_to(answer *a, uint16_t type, const void *body)
{
    error err;
    if (!actor_send(a->gateway->actor, a->client, type, body, &a->about, &err))
        log_debug("a client on the bus was not reached", "peer=%s why=\"%s\"", a->client->name, err.text);
}

static bool bus_delta(answer *a, run *r, const text_delta *d, error *err)
{
    (void)r;
    if (actor_send(a->gateway->actor, a->client, MSG_TEXT_DELTA, d, &a->about, err) || err->code == ERR_GONE)
        return true; /* a client that is gone is reported by on_peer_down */
    return false;
}

static void bus_done(answer *a)
{
    (void)a; /* its deltas said so */
}

static void bus_refused(answer *a, const error *why, span field, uint32_t retry_after_ms)
{
    text_refused body = {
        .code = why->code, .text = span_of(why->text), .field = field, .retry_after_ms = retry_after_ms};
    send_to(a, MSG_TEXT_REFUSED, &body);
}

static void bus_encoded(answer *a, const text_encoded *body)
{
    send_to(a, MSG_TEXT_ENCODED, body);
}

static void bus_decoded(answer *a, const text_decoded *body)
{
    send_to(a, MSG_TEXT_DECODED, body);
}

static const answer_sink bus_sink = {
    .delta = bus_delta, .done = bus_done, .refused = bus_refused, .encoded = bus_encoded, .decoded = bus_decoded};

/* ---- requests ---- */

static void refuse(gateway *g, const message *m, const error *why, const char *field)
{
    text_refused body = {.code = why->code, .text = span_of(why->text), .field = span_of(field)};
    error        err;
    if (!actor_send(g->actor, m->from, MSG_TEXT_REFUSED, &body, m->envelope, &err))
        log_debug("a client on the bus was not reached", "peer=%s why=\"%s\"", m->from->name, err.text);
    if (m->envelope->type == MSG_TEXT_REQUEST)
        actor_grant(g->actor, m->from, 1);
}

static answer *find_answer(const gateway *g, const message *m)
{
    answer *a = g->answers;
    while (a && !(a->client == m->from && request_id_equal(&a->about.request, &m->envelope->request)))
        a = a->next;
    return a;
}

/* The body in memory of its own: what a handler gets dies with it. Through the codec, which knows every list. */
static bool copy_body(gateway *g, const message *m, arena *memory, const void **body, error *err)
{
    wire_writer out = {.data = (uint8_t *)g->out, .capacity = g->out_bytes};
    if (!message_encode(m->envelope->type, m->body, &out, err))
        return false;
    span bytes = arena_copy(memory, (span){(const char *)out.data, out.size});
    if (!bytes.data)
        return error_set(err, ERR_TOO_LARGE, "the request needs more memory than this gateway gives to one");
    return message_decode(m->envelope->type, bytes, memory, body, err);
}

/* Makes the answer to a message; NULL when it was refused or is in hand already. */
static answer *take_in(gateway *g, const message *m, const char *what, uint32_t n_choices)
{
    error       err;
    arena      *memory = NULL;
    const void *body   = NULL;
    answer     *a      = NULL;
    if (request_id_is_zero(&m->envelope->request) || m->from->role != ROLE_CLIENT) {
        error_set(&err, ERR_INVALID, "the envelope of a request needs a request id, and a client to answer to");
        refuse(g, m, &err, "request");
        return NULL;
    }
    if (find_answer(g, m)) { /* said twice: answered once */
        if (m->envelope->type == MSG_TEXT_REQUEST)
            actor_grant(g->actor, m->from, 1);
        return NULL;
    }
    memory = arena_new(g->options->request_memory_bytes, &err);
    if (memory && copy_body(g, m, memory, &body, &err)) {
        a      = answer_new(g, memory, &bus_sink, 1, n_choices, &err);
        memory = NULL; /* the answer's, or freed */
    }
    arena_free(&memory);
    if (!a) {
        refuse(g, m, &err, "");
        return NULL;
    }
    a->what         = what;
    a->client       = m->from;
    a->about        = *m->envelope;
    a->runs[0].type = m->envelope->type;
    a->runs[0].body = (void *)(uintptr_t)body;
    answer_trace_bus(a);
    return a;
}

static double timeout_of(const gateway *g, const envelope *e)
{
    if (e->deadline_unix_ms == 0)
        return 0;
    double left_s = (double)(e->deadline_unix_ms - clock_unix_ms(actor_clock(g->actor))) / 1e3;
    return left_s > 0.001 ? left_s : 0.001;
}

/* Choices begin where the client says it has them already. */
static bool take_resume(answer *a, const text_request *body, error *err)
{
    run *r = &a->runs[0];
    for (uint32_t i = 0; i < body->n_resume; i++) {
        const resume_point *point = &body->resume[i];
        if (point->choice >= r->n_choices || r->choices[point->choice].tokens || point->finished)
            return error_set(err, ERR_INVALID, "resume names a choice that is finished, or there twice, or not at all");
        choice_state *c    = &r->choices[point->choice];
        c->tokens          = (uint32_t *)(uintptr_t)point->tokens; /* in this request's memory; grown by copying */
        c->n_tokens        = point->n_tokens;
        c->tokens_capacity = point->n_tokens;
    }
    return true;
}

static bool fill_request(gateway *g, answer *a, text_request *body, const char **field, error *err)
{
    *field = "model";
    if (body->model.size && g->options->served_model_name && !span_equal(body->model, g->model))
        return error_set(err, ERR_NOT_FOUND, "the model %.*s does not exist; this gateway has %.*s",
                         body->model.size < 128 ? (int)body->model.size : 128, body->model.data, SPAN_ARG(g->model));
    *field = "tenant";
    if (body->tenant.size > 60)
        return error_set(err, ERR_INVALID, "a tenant has at most 60 bytes");
    *field = "n";
    if (body->task != REQUEST_TASK_GENERATE && body->n != 1)
        return error_set(err, ERR_INVALID, "a text has one embedding or score");
    *field = "resume";
    if (!take_resume(a, body, err))
        return false;
    *field         = "";
    body->reply_to = span_of(actor_name(g->actor));
    body->tenant   = arena_format(a->memory, "bus/%.*s", SPAN_ARG(body->tenant)); /* apart from those with an API key */
    return body->sampling.seed != 0 || random_bytes(&body->sampling.seed, sizeof body->sampling.seed, err);
}

void bus_on_request(void *self, const message *m)
{
    const text_request *asked = m->body;
    answer             *a     = take_in(self, m, "request", asked->n);
    const char         *field;
    error               err;
    if (!a)
        return;
    text_request *body = a->runs[0].body;
    a->sums            = true;
    if (fill_request(self, a, body, &field, &err))
        answer_start(a, timeout_of(self, m->envelope));
    else
        answer_refuse(a, &err, span_of(field), 0);
}

void bus_on_encode(void *self, const message *m)
{
    answer *a = take_in(self, m, "encode", 0);
    if (a)
        answer_start(a, timeout_of(self, m->envelope));
}

void bus_on_decode(void *self, const message *m)
{
    answer *a = take_in(self, m, "decode", 0);
    if (a)
        answer_start(a, timeout_of(self, m->envelope));
}

void bus_on_cancel(void *self, const message *m)
{
    answer *a = find_answer(self, m);
    if (a)
        answer_abandon(a);
}

void bus_client_down(gateway *g, peer *p)
{
    for (answer *a = g->answers, *next; a; a = next) {
        next = a->next;
        if (a->client == p)
            answer_abandon(a);
    }
}
