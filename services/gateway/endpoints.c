/* The paths of the HTTP API: who may use them, and what each takes. */
#include "services/gateway/openapi.h"
#include "services/gateway/pages.h"
#include "services/gateway/reply_log.h"

#include "base/log.h"
#include "base/random.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MODEL_NAME_BYTES = 256, SESSION_BYTES_MAX = 128 };

/* One request on its way through this file. */
typedef struct {
    gateway            *gateway;
    const http_request *http;
    const char         *tenant; /* NULL: no keys are asked for */
    key_usage          *usage;  /* of its key; NULL too */
} call;

typedef void endpoint_handler(const call *c);

/* ---- answers that need nobody else ---- */

static void refuse(const call *c, error_code code, const char *text, span field, uint32_t retry_after_ms)
{
    error why;
    error_set(&why, code, "%s", text);
    metric_add(c->gateway->metrics.status[error_http_status(code) / 100 - 2], 1);
    http_refuse(c->gateway, c->http->handle, c->usage, &why, field, retry_after_ms);
}

static void refuse_fault(const call *c, const openai_fault *fault)
{
    metric_add(c->gateway->metrics.status[error_http_status(fault->error.code) / 100 - 2], 1);
    log_debug("refused a body", "field=\"%s\" code=%s", fault->field, error_name(fault->error.code));
    http_refuse(c->gateway, c->http->handle, c->usage, &fault->error, span_of(fault->field), 0);
}

/* RFC 9110, 15.5.6: a 405 says what is allowed. */
static void refuse_method(const call *c, http_method allowed)
{
    bool       get   = allowed == HTTP_GET;
    json_out   j     = json_out_into(c->gateway->out, c->gateway->out_bytes);
    http_field allow = {"Allow", get ? SPAN("GET, HEAD") : SPAN("POST")};
    http_reply reply = {.status = 405, .content_type = "application/json", .fields = &allow, .n_fields = 1};
    error      err;
    metric_add(c->gateway->metrics.status[4 - 2], 1);
    openai_error(&j, 405, ERR_METHOD, get ? SPAN("This path takes GET.") : SPAN("This path takes POST."), (span){0});
    if (!json_out_finish(&j, &reply.body, &err))
        log_error("a refusal does not fit into the buffer for answers", "why=\"%s\"", err.text);
    http_respond(c->gateway->http, c->http->handle, &reply);
}

static void get_health(const call *c)
{
    json_out j = json_out_into(c->gateway->out, c->gateway->out_bytes);
    json_out_object(&j);
    json_out_member_string(&j, "status", SPAN("ok"));
    json_out_end(&j);
    http_reply_json(c->gateway, c->http->handle, 200, &j);
}

static void get_ready(const call *c)
{
    const char *lacks = gateway_lacks(c->gateway);
    json_out    j     = json_out_into(c->gateway->out, c->gateway->out_bytes);
    json_out_object(&j);
    json_out_member_string(&j, "status", span_of(lacks ? "unavailable" : "ready"));
    if (lacks)
        json_out_member_string(&j, "reason", span_of(lacks));
    json_out_end(&j);
    http_reply_json(c->gateway, c->http->handle, lacks ? 503 : 200, &j);
}

static void get_metrics(const call *c)
{
    size_t     bytes = metric_print(c->gateway->out, c->gateway->out_bytes);
    http_reply reply = {
        .status = 200, .content_type = "text/plain; version=0.0.4; charset=utf-8", .body = {c->gateway->out, bytes}};
    http_respond(c->gateway->http, c->http->handle, &reply);
}

static void get_openapi(const call *c)
{
    http_respond(c->gateway->http, c->http->handle,
                 &(http_reply){.status = 200, .content_type = "application/json", .body = openapi_document()});
}

static void refuse_path(const call *c)
{
    refuse(c, ERR_NOT_FOUND, "There is nothing at this path.", (span){0}, 0);
}

static void get_page(const call *c)
{
    if (!c->gateway->options->pages || !pages_respond(c->gateway->http, c->http))
        refuse_path(c);
}

static void get_status(const call *c)
{
    if (c->gateway->options->pages)
        status_look(c->gateway, c->http->handle);
    else
        refuse_path(c);
}

static void write_model(json_out *j, const gateway *g)
{
    json_out_object(j);
    json_out_member_string(j, "id", g->model);
    json_out_member_string(j, "object", SPAN("model"));
    json_out_member_i64(j, "created", g->created_s);
    json_out_member_string(j, "owned_by", SPAN("troupe"));
    json_out_end(j);
}

static void get_models(const call *c)
{
    json_out j = json_out_into(c->gateway->out, c->gateway->out_bytes);
    json_out_object(&j);
    json_out_member_string(&j, "object", SPAN("list"));
    json_out_key(&j, SPAN("data"));
    json_out_array(&j);
    write_model(&j, c->gateway);
    json_out_end(&j);
    json_out_end(&j);
    http_reply_json(c->gateway, c->http->handle, 200, &j);
}

static void refuse_model(const call *c, span asked)
{
    char text[ERROR_TEXT_BYTES];
    snprintf(text, sizeof text, "The model `%.*s` does not exist; this server has `%.*s`.",
             asked.size < MODEL_NAME_BYTES ? (int)asked.size : MODEL_NAME_BYTES, asked.data,
             SPAN_ARG(c->gateway->model));
    refuse(c, ERR_NOT_FOUND, text, SPAN("model"), 0);
}

/* Without a served name every name is ours. */
static bool is_our_model(const gateway *g, span asked)
{
    return asked.size == 0 || !g->options->served_model_name || span_equal(asked, g->model);
}

static const char models_prefix[] = "/v1/models/";

static void get_model(const call *c)
{
    char name[MODEL_NAME_BYTES];
    span asked = {c->http->path.data + sizeof models_prefix - 1, c->http->path.size - (sizeof models_prefix - 1)};
    bool plain = http_percent_decode(asked, name, sizeof name, &asked) && utf8_is_valid(asked);
    if (!plain || asked.size == 0 || !is_our_model(c->gateway, asked)) {
        refuse_model(c, plain ? asked : (span){0});
        return;
    }
    json_out j = json_out_into(c->gateway->out, c->gateway->out_bytes);
    write_model(&j, c->gateway);
    http_reply_json(c->gateway, c->http->handle, 200, &j);
}

/* ---- answers that need the model ---- */

static arena *new_memory(const call *c)
{
    error  err;
    arena *memory = arena_new(c->gateway->options->request_memory_bytes, &err);
    if (!memory)
        refuse(c, ERR_NO_MEMORY, err.text, (span){0}, 1000);
    return memory;
}

/* A body that says it is something else than JSON comes from a form on a web page, not from a client of this API. */
static bool says_json(const call *c)
{
    span type;
    if (!http_request_header(c->http, "Content-Type", &type) || memmem(type.data, type.size, "json", 4))
        return true;
    refuse(c, ERR_MEDIA_TYPE, "the Content-Type must be application/json", (span){0}, 0);
    return false;
}

/* The session of the header, unless the body named one. False: refused. */
static bool take_session(const call *c, openai_request *r, arena *memory)
{
    span session;
    if (r->has_session || !http_request_header(c->http, "X-Session-Id", &session))
        return true;
    if (session.size > SESSION_BYTES_MAX || !utf8_is_valid(session)) {
        refuse(c, ERR_INVALID, "X-Session-Id must be UTF-8 of at most 128 bytes", SPAN("X-Session-Id"), 0);
        return false;
    }
    r->request.session = arena_copy(memory, session);
    return true;
}

/* The answer to this call, or NULL: refused. It owns `memory` in both cases. */
static answer *begin_answer(const call *c, const answer_sink *sink, arena *memory, uint32_t n_runs, uint32_t n_choices)
{
    error   err;
    answer *a = answer_new(c->gateway, memory, sink, n_runs, n_choices, &err);
    if (!a) {
        refuse(c, err.code, err.text, (span){0}, 0);
        return NULL;
    }
    a->handle = c->http->handle;
    http_attach(c->gateway->http, a->handle, a);
    answer_trace_http(a, c->http);
    if (c->usage) {
        a->usage = key_usage_hold(c->usage);
        key_usage_enter(a->usage);
    }
    return a;
}

/* The text.request of each run: the same, but for the prompt. */
static bool fill_bodies(answer *a, const openai_request *r)
{
    for (uint32_t i = 0; i < a->n_runs; i++) {
        text_request *body = arena_take(a->memory, sizeof *body);
        if (!body)
            return false;
        *body = r->request;
        if (r->api == OPENAI_COMPLETION) {
            const openai_prompt *prompt = &r->prompts[i];
            body->kind                  = prompt->is_tokens ? PROMPT_KIND_TOKENS : PROMPT_KIND_TEXT;
            body->prompt                = prompt->text;
            body->prompt_tokens         = prompt->tokens;
            body->n_prompt_tokens       = prompt->n_tokens;
        }
        a->runs[i].type = MSG_TEXT_REQUEST;
        a->runs[i].body = body;
    }
    return true;
}

/* The event that "17-342" names. */
static bool read_event_id(span text, event_id *id)
{
    char copy[48];
    int  n = 0;
    if (text.size >= sizeof copy)
        return false;
    snprintf(copy, sizeof copy, "%.*s", SPAN_ARG(text));
    return sscanf(copy, "%" SCNu64 "-%" SCNu64 "%n", &id->number, &id->text_bytes, &n) == 2 && copy[n] == '\0' &&
           copy[0] != '-';
}

/* Gives the answer a log when the client asks for one. *given is false without. */
static bool take_idempotency_key(answer *a, const call *c, reply_identity *identity, bool *given, const char **field,
                                 error *err)
{
    span     key, event;
    event_id last = {0};
    *given        = http_request_header(c->http, "Idempotency-Key", &key);
    *field        = "Idempotency-Key";
    if (!*given)
        return true;
    if (key.size == 0 || key.size > IDEMPOTENCY_KEY_BYTES_MAX)
        return error_set(err, ERR_INVALID, "an Idempotency-Key has 1 to %d bytes", IDEMPOTENCY_KEY_BYTES_MAX);
    *field = "Last-Event-ID";
    if (a->stream && http_request_header(c->http, "Last-Event-ID", &event) && event.size > 0 &&
        !read_event_id(event, &last))
        return error_set(err, ERR_INVALID, "a Last-Event-ID is the id of an event of this response");
    *field = "";
    return reply_identity_make(identity, span_of(c->tenant), key, c->http->path, c->http->body, err) &&
           reply_log_new(a, identity, last, err);
}

static bool fill_answer(answer *a, const call *c, openai_request *r, const char **field, error *err)
{
    gateway       *g = c->gateway;
    reply_identity identity;
    char           hex[33];
    bool           is_keyed;
    a->stream = r->stream;
    if (!take_idempotency_key(a, c, &identity, &is_keyed, field, err) ||
        (!is_keyed && (!random_bytes(identity.id, sizeof identity.id, err) ||
                       !random_bytes(&identity.seed, sizeof identity.seed, err))))
        return false;
    if (!r->has_seed)
        r->request.sampling.seed = identity.seed;
    request_id id;
    memcpy(id.bytes, identity.id, sizeof id.bytes);
    request_id_print(&id, hex);
    r->request.reply_to = span_of(actor_name(g->actor));
    r->request.tenant   = c->tenant ? arena_copy(a->memory, span_of(c->tenant)) : (span){0};
    if (r->score_only)
        r->request.max_tokens = 1; /* 0 would mean "to the end of the context" */
    a->what       = r->api == OPENAI_CHAT ? "chat" : "completion";
    a->sums       = true;
    a->score_only = r->score_only;
    a->head       = (openai_answer){.api = r->api,
                                    .id  = arena_format(a->memory, "%s-%s", r->api == OPENAI_CHAT ? "chatcmpl" : "cmpl", hex),
                                    .model          = r->model.size ? r->model : g->model,
                                    .created_s      = clock_unix_ms(actor_clock(g->actor)) / 1000,
                                    .include_usage  = r->include_usage,
                                    .has_logprobs   = r->request.sampling.logprobs,
                                    .n_top_logprobs = r->request.sampling.n_top_logprobs};
    if (!a->head.id.data || !fill_bodies(a, r))
        return error_set(err, ERR_TOO_LARGE, "the request needs more memory than this server gives to one");
    return true;
}

static void post_generation(const call *c, openai_api api)
{
    gateway       *g      = c->gateway;
    arena         *memory = says_json(c) ? new_memory(c) : NULL;
    openai_request r;
    openai_fault   fault = {0};
    error          err;
    if (!memory)
        return;
    if (!openai_request_parse(api, c->http->body, memory, &r, &fault)) {
        refuse_fault(c, &fault);
        arena_free(&memory);
        return;
    }
    if (r.unknown_fields.size)
        log_debug("ignores fields it does not know", "fields=%.*s", SPAN_ARG(r.unknown_fields));
    if (!is_our_model(g, r.model)) {
        refuse_model(c, r.model);
        arena_free(&memory);
        return;
    }
    if (!take_session(c, &r, memory)) {
        arena_free(&memory);
        return;
    }
    const char *field = "";
    answer     *a     = begin_answer(c, &http_sink, memory, api == OPENAI_CHAT ? 1 : r.n_prompts, r.request.n);
    if (!a)
        return;
    if (fill_answer(a, c, &r, &field, &err)) {
        http_answer_expect_silence(a);
        answer_start(a, r.timeout_s);
    } else {
        answer_refuse(a, &err, span_of(field), 0);
    }
}

static void post_chat(const call *c)
{
    post_generation(c, OPENAI_CHAT);
}

static void post_completion(const call *c)
{
    post_generation(c, OPENAI_COMPLETION);
}

/* The text.request of one text, or of the query and one document. */
static text_request *body_of_input(const openai_pooled *r, uint32_t i, arena *memory)
{
    text_request        *body  = arena_take(memory, sizeof *body);
    const openai_prompt *input = &r->inputs[i];
    if (!body)
        return NULL;
    *body                 = text_request_defaults;
    body->task            = r->task;
    body->priority        = r->priority;
    body->kind            = input->is_tokens ? PROMPT_KIND_TOKENS : PROMPT_KIND_TEXT;
    body->prompt          = r->task == REQUEST_TASK_SCORE ? r->query : input->text;
    body->document        = r->task == REQUEST_TASK_SCORE ? input->text : (span){0};
    body->prompt_tokens   = input->tokens;
    body->n_prompt_tokens = input->n_tokens;
    return body;
}

static bool fill_pooled(answer *a, const call *c, const openai_pooled *r, error *err)
{
    request_id id;
    char       hex[33];
    bool       scores = r->task == REQUEST_TASK_SCORE;
    if (!random_bytes(id.bytes, sizeof id.bytes, err))
        return false;
    request_id_print(&id, hex);
    span tenant   = c->tenant ? arena_copy(a->memory, span_of(c->tenant)) : (span){0};
    a->what       = scores ? "rerank" : "embeddings";
    a->sums       = true;
    a->pooled     = r;
    a->head.id    = arena_format(a->memory, "%s-%s", scores ? "rerank" : "embd", hex);
    a->head.model = r->model.size ? r->model : c->gateway->model;
    bool fits     = a->head.id.data != NULL;
    for (uint32_t i = 0; fits && i < a->n_runs; i++) {
        text_request *body = body_of_input(r, i, a->memory);
        a->runs[i].type    = MSG_TEXT_REQUEST;
        a->runs[i].body    = body;
        fits               = body != NULL;
        if (fits) {
            body->reply_to = span_of(actor_name(c->gateway->actor));
            body->tenant   = tenant;
        }
    }
    return fits || error_set(err, ERR_TOO_LARGE, "the request needs more memory than this server gives to one");
}

/* Embeddings and scores: a run for each text, and numbers for an answer. */
static void post_pooled(const call *c, request_task task)
{
    gateway       *g      = c->gateway;
    arena         *memory = says_json(c) ? new_memory(c) : NULL;
    openai_pooled *r      = memory ? arena_take(memory, sizeof *r) : NULL;
    openai_fault   fault  = {0};
    error          err;
    if (!memory)
        return;
    bool ok = openai_pooled_parse(task, c->http->body, memory, r, &fault);
    if (!ok)
        refuse_fault(c, &fault);
    else if (!is_our_model(g, r->model))
        refuse_model(c, r->model);
    if (!ok || !is_our_model(g, r->model)) {
        arena_free(&memory);
        return;
    }
    answer *a = begin_answer(c, &http_pooled_sink, memory, r->n_inputs, 1);
    if (!a)
        return;
    if (fill_pooled(a, c, r, &err))
        answer_start(a, r->timeout_s);
    else
        answer_refuse(a, &err, (span){0}, 0);
}

static void post_embeddings(const call *c)
{
    post_pooled(c, REQUEST_TASK_EMBED);
}

static void post_rerank(const call *c)
{
    post_pooled(c, REQUEST_TASK_SCORE);
}

/* /tokenize and /detokenize: one run that a tokenizer answers. */
static void post_text(const call *c, uint16_t type)
{
    gateway     *g      = c->gateway;
    arena       *memory = says_json(c) ? new_memory(c) : NULL;
    void        *body   = memory ? arena_take(memory, MESSAGE_BODY_BYTES_MAX) : NULL;
    openai_fault fault  = {0};
    span         model  = {0};
    if (!memory)
        return;
    bool ok = type == MSG_TEXT_ENCODE ? openai_tokenize_parse(c->http->body, memory, body, &model, &fault)
                                      : openai_detokenize_parse(c->http->body, memory, body, &model, &fault);
    if (!ok)
        refuse_fault(c, &fault);
    else if (!is_our_model(g, model))
        refuse_model(c, model);
    if (!ok || !is_our_model(g, model)) {
        arena_free(&memory);
        return;
    }
    answer *a = begin_answer(c, &http_sink, memory, 1, 0);
    if (!a)
        return;
    a->what         = type == MSG_TEXT_ENCODE ? "tokenize" : "detokenize";
    a->runs[0].type = type;
    a->runs[0].body = body;
    answer_start(a, 0);
}

static void post_tokenize(const call *c)
{
    post_text(c, MSG_TEXT_ENCODE);
}

static void post_detokenize(const call *c)
{
    post_text(c, MSG_TEXT_DECODE);
}

/* ---- the table ---- */

static const struct {
    const char       *path;
    http_method       method;
    bool              is_prefix, is_open; /* open: without a key */
    endpoint_handler *handle;
} endpoints[] = {
    {"/v1/chat/completions", HTTP_POST, false, false, post_chat},
    {"/v1/completions", HTTP_POST, false, false, post_completion},
    {"/v1/embeddings", HTTP_POST, false, false, post_embeddings},
    {"/v1/rerank", HTTP_POST, false, false, post_rerank},
    {"/v1/models", HTTP_GET, false, false, get_models},
    {models_prefix, HTTP_GET, true, false, get_model},
    {"/tokenize", HTTP_POST, false, false, post_tokenize},
    {"/detokenize", HTTP_POST, false, false, post_detokenize},
    {"/health", HTTP_GET, false, true, get_health},
    {"/ready", HTTP_GET, false, true, get_ready},
    {"/metrics", HTTP_GET, false, true, get_metrics},
    {"/openapi.json", HTTP_GET, false, true, get_openapi},
    {"/", HTTP_GET, false, true, get_page},
    {"/status", HTTP_GET, false, true, get_page},
    {"/pages/", HTTP_GET, true, true, get_page},
    {"/status.json", HTTP_GET, false, false, get_status},
};

const char *endpoints_path(size_t i, http_method *method)
{
    if (i >= COUNT(endpoints))
        return NULL;
    *method = endpoints[i].method;
    return endpoints[i].path;
}

static size_t find_endpoint(span path)
{
    size_t i = 0;
    while (i < COUNT(endpoints)) {
        size_t bytes = strlen(endpoints[i].path);
        if (span_is(path, endpoints[i].path) ||
            (endpoints[i].is_prefix && path.size > bytes && memcmp(path.data, endpoints[i].path, bytes) == 0))
            break;
        i++;
    }
    return i;
}

/* True when the request may go on; the call knows its tenant then. */
static bool is_authorized(call *c)
{
    span header = {0};
    if (!c->gateway->keys)
        return true;
    http_request_header(c->http, "Authorization", &header);
    span key  = api_key_of(header);
    c->tenant = key.size ? api_keys_find(c->gateway->keys, key, &c->usage) : NULL;
    return c->tenant != NULL;
}

static bool is_within_limits(const call *c)
{
    uint32_t retry_after_ms;
    error    why;
    if (!c->usage || key_usage_take(c->usage, gateway_now_ns(c->gateway), &retry_after_ms, &why))
        return true;
    metric_add(c->gateway->metrics.rate_limited, 1);
    refuse(c, why.code, why.text, (span){0}, retry_after_ms);
    return false;
}

void endpoints_on_request(void *context, const http_request *request)
{
    call   c = {.gateway = context, .http = request};
    size_t i = find_endpoint(request->path);
    if (i == COUNT(endpoints)) {
        refuse_path(&c);
        return;
    }
    if (request->method != endpoints[i].method && !(request->method == HTTP_HEAD && endpoints[i].method == HTTP_GET)) {
        refuse_method(&c, endpoints[i].method);
        return;
    }
    if (!endpoints[i].is_open && !is_authorized(&c)) {
        refuse(&c, ERR_UNAUTHORIZED, "Incorrect API key provided: send it as Authorization: Bearer KEY.", (span){0}, 0);
        return;
    }
    if (endpoints[i].method == HTTP_POST && !is_within_limits(&c))
        return;
    endpoints[i].handle(&c);
}

void endpoints_on_gone(void *context, http_handle handle, void *owner, http_gone why)
{
    (void)context, (void)handle;
    if (!owner)
        return;
    if (why == HTTP_GONE_BACKLOG || why == HTTP_GONE_STALLED)
        log_warn("a client did not take its answer", "why=%s", why == HTTP_GONE_BACKLOG ? "backlog" : "stalled");
    answer_abandon(owner);
}

void endpoints_on_writable(void *context, http_handle handle, void *owner)
{
    (void)context, (void)handle, (void)owner; /* text comes at the model's pace; a client far behind it is cancelled */
}
