/* The paths of the HTTP API: who may use them, and what each takes. */
#include "services/gateway/state.h"

#include "base/log.h"
#include "base/random.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>

enum { MODEL_NAME_BYTES = 256, SESSION_BYTES_MAX = 128 };

/* One request on its way through this file. */
typedef struct {
    gateway            *gateway;
    const http_request *http;
    const char         *tenant; /* NULL: no keys are asked for */
} call;

typedef void endpoint_handler(const call *c);

/* ---- answers that need nobody else ---- */

static void refuse(const call *c, error_code code, const char *text, span field, uint32_t retry_after_ms)
{
    error why;
    error_set(&why, code, "%s", text);
    metric_add(c->gateway->metrics.status[error_http_status(code) / 100 - 2], 1);
    http_refuse(c->gateway, c->http->handle, &why, field, retry_after_ms);
}

static void refuse_fault(const call *c, const openai_fault *fault)
{
    metric_add(c->gateway->metrics.status[error_http_status(fault->error.code) / 100 - 2], 1);
    log_debug("refused a body", "field=\"%s\" code=%s", fault->field, error_name(fault->error.code));
    http_refuse(c->gateway, c->http->handle, &fault->error, span_of(fault->field), 0);
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
    refuse(c, ERR_INVALID, "the Content-Type must be application/json", (span){0}, 0);
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

static bool fill_answer(answer *a, const call *c, openai_request *r, error *err)
{
    gateway *g = c->gateway;
    uint8_t  random[16];
    char     hex[33];
    if (!random_bytes(random, sizeof random, err) ||
        (!r->has_seed && !random_bytes(&r->request.sampling.seed, sizeof r->request.sampling.seed, err)))
        return false;
    request_id id;
    memcpy(id.bytes, random, sizeof random);
    request_id_print(&id, hex);
    r->request.reply_to = span_of(actor_name(g->actor));
    r->request.tenant   = c->tenant ? arena_copy(a->memory, span_of(c->tenant)) : (span){0};
    if (r->score_only)
        r->request.max_tokens = 1; /* 0 would mean "to the end of the context" */
    a->what       = r->api == OPENAI_CHAT ? "chat" : "completion";
    a->sums       = true;
    a->stream     = r->stream;
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
    answer *a = answer_new(g, memory, &http_sink, api == OPENAI_CHAT ? 1 : r.n_prompts, r.request.n, &err);
    if (!a) {
        refuse(c, err.code, err.text, (span){0}, 0);
        return;
    }
    a->handle = c->http->handle;
    http_attach(g->http, a->handle, a);
    answer_trace_http(a, c->http);
    if (fill_answer(a, c, &r, &err)) {
        http_answer_expect_silence(a);
        answer_start(a, r.timeout_s);
    } else {
        answer_refuse(a, &err, (span){0}, 0);
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

/* /tokenize and /detokenize: one run that a tokenizer answers. */
static void post_text(const call *c, uint16_t type)
{
    gateway     *g      = c->gateway;
    arena       *memory = says_json(c) ? new_memory(c) : NULL;
    void        *body   = memory ? arena_take(memory, MESSAGE_BODY_BYTES_MAX) : NULL;
    openai_fault fault  = {0};
    span         model  = {0};
    error        err;
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
    answer *a = answer_new(g, memory, &http_sink, 1, 0, &err);
    if (!a) {
        refuse(c, err.code, err.text, (span){0}, 0);
        return;
    }
    a->what         = type == MSG_TEXT_ENCODE ? "tokenize" : "detokenize";
    a->handle       = c->http->handle;
    a->runs[0].type = type;
    a->runs[0].body = body;
    http_attach(g->http, a->handle, a);
    answer_trace_http(a, c->http);
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
    {"/v1/models", HTTP_GET, false, false, get_models},
    {models_prefix, HTTP_GET, true, false, get_model},
    {"/tokenize", HTTP_POST, false, false, post_tokenize},
    {"/detokenize", HTTP_POST, false, false, post_detokenize},
    {"/health", HTTP_GET, false, true, get_health},
    {"/ready", HTTP_GET, false, true, get_ready},
    {"/metrics", HTTP_GET, false, true, get_metrics},
};

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

/* True when the request may go on; *tenant is whom its key belongs to. */
static bool is_authorized(const call *c, const char **tenant)
{
    span header = {0};
    *tenant     = NULL;
    if (!c->gateway->keys)
        return true;
    http_request_header(c->http, "Authorization", &header);
    span key = api_key_of(header);
    *tenant  = key.size ? api_keys_find(c->gateway->keys, key) : NULL;
    return *tenant != NULL;
}

void endpoints_on_request(void *context, const http_request *request)
{
    call   c = {.gateway = context, .http = request};
    size_t i = find_endpoint(request->path);
    if (i == COUNT(endpoints)) {
        refuse(&c, ERR_NOT_FOUND, "There is nothing at this path.", (span){0}, 0);
        return;
    }
    if (request->method != endpoints[i].method && !(request->method == HTTP_HEAD && endpoints[i].method == HTTP_GET)) {
        refuse_method(&c, endpoints[i].method);
        return;
    }
    if (!endpoints[i].is_open && !is_authorized(&c, &c.tenant)) {
        refuse(&c, ERR_UNAUTHORIZED, "Incorrect API key provided: send it as Authorization: Bearer KEY.", (span){0}, 0);
        return;
    }
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
