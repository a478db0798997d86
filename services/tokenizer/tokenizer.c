/* The tokenizer actor: text.request in, gen.request out. It keeps nothing between messages but who asked for what, for
 * the case that the scheduler refuses a message, or dies with it. */
#include "tokenizer/tokenizer.h"

#include "base/log.h"
#include "base/metric.h"
#include "tokenizer/prompt.h"
#include "trace/trace.h"

#include <stdio.h>
#include <stdlib.h>

enum { ASKED_MAX = 4096, RETRY_AFTER_MS = 1000 };

/* A request that went on: who sent it, and to which scheduler. */
typedef struct {
    envelope about;
    char     node[BUS_NAME_BYTES + 1], scheduler[BUS_NAME_BYTES + 1];
} asked;

typedef struct {
    actor        *actor;
    prompt_maker *prompts;
    asked         asked[ASKED_MAX]; /* a ring */
    uint32_t      n_asked;
    metric       *requests, *refused, *tokens, *seconds;
} service;

const option_row tokenizer_option_rows[] = {
    OPTION_STRING(tokenizer_options, model, "--model", "FILE", NULL,
                  "GGUF file, or a folder with config.json and safetensors."),
    OPTION_STRING(tokenizer_options, chat_template, "--chat-template", "FILE", NULL,
                  "Jinja template for conversations; without it the model's own."),
    OPTION_UINT(tokenizer_options, max_model_len, "--max-model-len", "N", 0, 0, 1 << 20,
                "Tokens of one prompt and its answer together; 0: what the model was trained for."),
};
const size_t n_tokenizer_option_rows = COUNT(tokenizer_option_rows);

static void destroy(void *self)
{
    service *s = self;
    prompt_maker_free(&s->prompts);
    free(s);
}

static void *create(actor *a, const void *options, error *err)
{
    service *s = calloc(1, sizeof *s);
    if (!s) {
        error_set(err, ERR_NO_MEMORY, "no memory for the tokenizer");
        return NULL;
    }
    s->actor   = a;
    s->prompts = prompt_maker_new(options, err);
    if (!s->prompts) {
        destroy(s);
        return NULL;
    }
    s->requests = metric_counter("troupe_tokenizer_requests_total", "", "Requests that went on to the scheduler.");
    s->refused  = metric_counter("troupe_tokenizer_refused_total", "", "Requests refused here.");
    s->tokens   = metric_counter("troupe_tokenizer_tokens_total", "", "Prompt tokens made.");
    s->seconds  = metric_histogram("troupe_tokenizer_prompt_seconds", "", "Time to render and encode one prompt.",
                                   metric_seconds_bounds, n_metric_seconds_bounds);
    return s;
}

static int64_t unix_s(const service *s)
{
    return clock_unix_ms(actor_clock(s->actor)) / 1000;
}

static void answer(service *s, peer *to, uint16_t type, const void *body, const envelope *regarding)
{
    error err;
    if (!actor_send(s->actor, to, type, body, regarding, &err))
        log_warn("an answer was not sent", "node=%s why=\"%s\"", to->name, err.text);
}

static void send_refusal(service *s, peer *to, const envelope *regarding, const request_field *field, const error *why)
{
    text_refused body = {.code           = why->code,
                         .text           = span_of(why->text),
                         .field          = span_of(field->name),
                         .retry_after_ms = error_may_retry(why->code) ? RETRY_AFTER_MS : 0};
    answer(s, to, MSG_TEXT_REFUSED, &body, regarding);
}

/* ---- text.request ---- */

static void remember(service *s, const message *m, const peer *scheduler)
{
    asked *a = &s->asked[s->n_asked++ % ASKED_MAX];
    a->about = *m->envelope;
    snprintf(a->node, sizeof a->node, "%s", m->from->name);
    snprintf(a->scheduler, sizeof a->scheduler, "%s", scheduler->name);
}

static bool is_late(const service *s, const envelope *e)
{
    return e->deadline_unix_ms > 0 && clock_unix_ms(actor_clock(s->actor)) > e->deadline_unix_ms;
}

static void trace_prompt(const service *s, const envelope *about, int64_t started_ns, uint32_t n_tokens, bool failed)
{
    if (!trace_wants(about->trace))
        return;
    int64_t    now_ns = clock_now_ns(actor_clock(s->actor));
    trace_span t      = trace_span_under(about->trace, "tokenizer", "tokenize", started_ns, now_ns);
    t.failed          = failed;
    trace_add_number(&t, "gen_ai.usage.input_tokens", n_tokens);
    trace_add_number(&t, "troupe.attempt", about->attempt);
    trace_record(&t);
}

/* Makes the tokens and hands them on. False with *err set: the request ends here. */
static bool pass_on(service *s, const message *m, request_field *field, error *err)
{
    const text_request *r = m->body;
    gen_request         body;
    uint32_t            n_ready;
    peer               *scheduler = actor_pick_peer(s->actor, ROLE_SCHEDULER, &n_ready);
    if (is_late(s, m->envelope))
        return refuse(field, "", err, ERR_TIMEOUT, "the deadline passed before the prompt was read");
    if (!scheduler && n_ready == 0)
        return refuse(field, "", err, ERR_NOT_READY, "no scheduler is connected");
    if (!scheduler)
        return refuse(field, "", err, ERR_OVERLOADED, "the scheduler's queue is full; try again later");
    int64_t started_ns = clock_now_ns(actor_clock(s->actor));
    bool    made       = prompt_make_request(s->prompts, r, unix_s(s), &body, field, err);
    trace_prompt(s, m->envelope, started_ns, made ? body.n_prompt : 0, !made);
    if (!made)
        return false;
    if (body.reply_to.size == 0)
        body.reply_to = span_of(m->from->name);
    metric_observe(s->seconds, (double)(clock_now_ns(actor_clock(s->actor)) - started_ns) / (double)NS_PER_S);
    if (!actor_send(s->actor, scheduler, MSG_GEN_REQUEST, &body, m->envelope, err))
        return refuse(field, "", err, err->code, "%s", err->text);
    char id[33], trace[TRACE_ID_TEXT];
    request_id_print(&m->envelope->request, id);
    trace_id_print(m->envelope->trace, trace);
    log_debug("passed a request on", "run=%s trace=%s attempt=%u prompt_tokens=%u to=%s", id, trace,
              m->envelope->attempt, body.n_prompt, scheduler->name);
    metric_add(s->requests, 1);
    metric_add(s->tokens, body.n_prompt);
    remember(s, m, scheduler);
    return true;
}

static void on_text_request(void *self, const message *m)
{
    service      *s     = self;
    request_field field = {""};
    error         err;
    if (!pass_on(s, m, &field, &err)) {
        metric_add(s->refused, 1);
        send_refusal(s, m->from, m->envelope, &field, &err);
    }
    actor_grant(s->actor, m->from, 1);
}

/* The scheduler could not use a gen.request. Its own refusals go to the gateway straight; these are the bus's. */
static void on_refused(void *self, const message *m)
{
    service            *s       = self;
    const node_refused *refused = m->body;
    log_warn("a message was refused", "node=%s type=%u why=\"%.*s\"", m->from->name, refused->type,
             SPAN_ARG(refused->text));
    for (uint32_t i = 0; refused->type == MSG_GEN_REQUEST && i < ASKED_MAX && i < s->n_asked; i++) {
        const asked *a = &s->asked[(s->n_asked - 1 - i) % ASKED_MAX];
        if (!request_id_equal(&a->about.request, &m->envelope->request))
            continue;
        error         err;
        request_field none = {""};
        peer         *to   = actor_find_peer(s->actor, span_of(a->node));
        error_set(&err, refused->code < N_ERRORS ? (error_code)refused->code : ERR_INTERNAL, "%.*s",
                  SPAN_ARG(refused->text));
        if (to)
            send_refusal(s, to, m->envelope, &none, &err);
        return;
    }
}

/* What a scheduler had of us is lost with it, and it may be that the gateway noticed its end before we did and gave us
 * this attempt since. A gateway that has gone on ignores what we say of older attempts. */
static void on_peer_down(void *self, peer *gone)
{
    service      *s    = self;
    request_field none = {""};
    error         err;
    error_set(&err, ERR_GONE, "the scheduler of this request left");
    for (uint32_t i = 0; gone->role == ROLE_SCHEDULER && i < ASKED_MAX && i < s->n_asked; i++) {
        asked *a  = &s->asked[i];
        peer  *to = strcmp(a->scheduler, gone->name) == 0 ? actor_find_peer(s->actor, span_of(a->node)) : NULL;
        if (to)
            send_refusal(s, to, &a->about, &none, &err);
    }
}

/* ---- text.encode, text.decode ---- */

static void on_text_encode(void *self, const message *m)
{
    service           *s     = self;
    const text_encode *e     = m->body;
    text_request       r     = text_request_defaults;
    request_field      field = {""};
    prompt             made;
    error              err;
    r.kind                  = e->kind;
    r.messages              = e->messages;
    r.n_messages            = e->n_messages;
    r.prompt                = e->prompt;
    r.add_generation_prompt = e->add_generation_prompt;
    bool ok                 = e->kind == PROMPT_KIND_TOKENS
                                  ? refuse(&field, "prompt", &err, ERR_INVALID, "token ids are encoded already")
                                  : prompt_encode(s->prompts, &r, e->special_tokens, unix_s(s), &made, &field, &err);
    if (!ok) {
        send_refusal(s, m->from, m->envelope, &field, &err);
        return;
    }
    text_encoded body = {
        .tokens = made.tokens, .n_tokens = made.n_tokens, .max_model_len = prompt_max_model_len(s->prompts)};
    answer(s, m->from, MSG_TEXT_ENCODED, &body, m->envelope);
}

static void on_text_decode(void *self, const message *m)
{
    service           *s     = self;
    const text_decode *d     = m->body;
    request_field      field = {""};
    text_decoded       body;
    error              err;
    if (prompt_decode(s->prompts, d->tokens, d->n_tokens, &body.text, &field, &err))
        answer(s, m->from, MSG_TEXT_DECODED, &body, m->envelope);
    else
        send_refusal(s, m->from, m->envelope, &field, &err);
}

/* What came before this went on, or was refused, before it. */
static void on_gen_find(void *self, const message *m)
{
    gen_found body = {.round = ((const gen_find *)m->body)->round};
    answer(self, m->from, MSG_GEN_FOUND, &body, m->envelope);
}

static void on_drain(void *self)
{
    actor_finish(((service *)self)->actor); /* nothing is in hand between messages */
}

static const actor_route routes[] = {
    {MSG_TEXT_REQUEST, on_text_request}, /* a prompt to make tokens of and pass on */
    {MSG_TEXT_ENCODE, on_text_encode},   /* only the tokens, please */
    {MSG_TEXT_DECODE, on_text_decode},   /* and back */
    {MSG_GEN_FIND, on_gen_find},         /* is this yours? */
};

const actor_class tokenizer_class = {
    .name         = "tokenizer",
    .role         = ROLE_TOKENIZER,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_peer_down = on_peer_down,
    .on_drain     = on_drain,
    .on_refused   = on_refused,
};
