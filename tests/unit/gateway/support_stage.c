#include "support_stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

const char hello[]        = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}";
const char hello_stream[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"stream\":true}";

static void copy(char *out, size_t out_bytes, span text)
{
    snprintf(out, out_bytes, "%.*s", SPAN_ARG(text));
}

/* ---- the tokenizer ---- */

static seen_request *see(stage *s, const message *m)
{
    assert_true(s->n_seen < SEEN_MAX);
    seen_request *seen = &s->seen[s->n_seen++];
    *seen              = (seen_request){.about = *m->envelope};
    return seen;
}

static void on_text_request(void *self, const message *m)
{
    stage              *s    = self;
    const text_request *body = m->body;
    seen_request       *seen = see(s, m);
    seen->kind               = body->kind;
    seen->seed               = body->sampling.seed;
    seen->max_tokens         = body->max_tokens;
    seen->n                  = body->n;
    seen->n_tokens           = body->n_prompt_tokens;
    seen->n_stop             = body->output.n_stop;
    seen->n_top_logprobs     = body->sampling.n_top_logprobs;
    seen->prompt_logprobs    = body->prompt_logprobs;
    seen->echo               = body->output.echo;
    seen->n_resume           = body->n_resume;
    seen->task               = body->task;
    copy(seen->document, SEEN_TEXT, body->document);
    copy(seen->text, SEEN_TEXT, body->n_messages ? body->messages[body->n_messages - 1].content : body->prompt);
    copy(seen->tenant, sizeof seen->tenant, body->tenant);
    copy(seen->session, sizeof seen->session, body->session);
    copy(seen->reply_to, sizeof seen->reply_to, body->reply_to);
    if (body->n_resume > 0 && body->resume[0].n_tokens > 0) {
        assert_true(body->resume[0].n_tokens <= SEEN_TOKENS);
        seen->n_resume_tokens = body->resume[0].n_tokens;
        memcpy(seen->resume_tokens, body->resume[0].tokens, body->resume[0].n_tokens * sizeof(uint32_t));
    }
    if (!s->keeps_credits)
        actor_grant(s->tokenizer, m->from, 1);
}

static void on_text_encode(void *self, const message *m)
{
    static const uint32_t tokens[] = {7, 8, 9};
    stage                *s        = self;
    const text_encode    *body     = m->body;
    text_encoded          reply    = {.tokens = tokens, .n_tokens = COUNT(tokens), .max_model_len = 2048};
    error                 err;
    copy(see(s, m)->text, SEEN_TEXT, body->prompt);
    assert_true(actor_send(s->tokenizer, m->from, MSG_TEXT_ENCODED, &reply, m->envelope, &err));
}

static void on_text_decode(void *self, const message *m)
{
    stage             *s    = self;
    const text_decode *body = m->body;
    char               text[64];
    text_decoded       reply = {.text = {text, (size_t)snprintf(text, sizeof text, "%u tokens", body->n_tokens)}};
    error              err;
    see(s, m);
    assert_true(actor_send(s->tokenizer, m->from, MSG_TEXT_DECODED, &reply, m->envelope, &err));
}

/* ---- the scheduler ---- */

static void on_gen_cancel(void *self, const message *m)
{
    stage            *s    = self;
    const gen_cancel *body = m->body;
    assert_true(body->all);
    s->cancelled       = *m->envelope;
    s->cancel_reason   = body->reason;
    s->cancelled_at_ns = clock_now_ns(clock_system());
    s->n_cancels++;
}

static void on_status_get(void *self, const message *m)
{
    stage            *s    = self;
    const status_get *body = m->body;
    executor_status   executors[128];
    status_report     report = {.round            = body->round,
                                .n_requests       = 3,
                                .n_running        = 2,
                                .n_waiting        = 1,
                                .executors        = executors,
                                .n_executors      = COUNT(executors),
                                .executors_in_all = COUNT(executors),
                                .tokens_per_s     = 12.5f};
    for (size_t i = 0; i < COUNT(executors); i++)
        executors[i] = (executor_status){.device = SPAN("a \"device\""), .n_kv_blocks = 9, .n_kv_blocks_used = 7};
    s->n_status_asked++;
    if (s->answers_status)
        assert_true(actor_send(s->scheduler, m->from, MSG_STATUS_REPORT, &report, NULL, NULL));
}

/* ---- all three, of a run that is silent ---- */

static void answer_find(stage *s, actor *a, const message *m, bool has)
{
    const gen_find *body = m->body;
    gen_found found      = {.round = body->round, .requests = body->requests, .n_requests = has ? body->n_requests : 0};
    s->n_finds += a == s->scheduler;
    if (s->find != FIND_NO_ANSWER)
        assert_true(actor_send(a, m->from, MSG_GEN_FOUND, &found, NULL, NULL));
}

static void tokenizer_find(void *self, const message *m)
{
    answer_find(self, ((stage *)self)->tokenizer, m, false);
}

static void postprocessor_find(void *self, const message *m)
{
    answer_find(self, ((stage *)self)->postprocessor, m, false);
}

static void scheduler_find(void *self, const message *m)
{
    stage *s = self;
    answer_find(s, s->scheduler, m, s->find == FIND_AT_SCHEDULER);
}

/* ---- the client on the bus ---- */

static void on_reply(void *self, const message *m)
{
    stage *s = self;
    assert_true(s->n_replies < SEEN_MAX);
    seen_reply *r = &s->replies[s->n_replies++];
    *r            = (seen_reply){.type = m->envelope->type, .about = *m->envelope};
    if (r->type == MSG_TEXT_DELTA) {
        const text_delta *body = m->body;
        copy(r->text, SEEN_TEXT, body->text);
        r->finish   = body->finish;
        r->n_tokens = body->n_tokens;
    } else if (r->type == MSG_TEXT_REFUSED) {
        const text_refused *body = m->body;
        copy(r->text, SEEN_TEXT, body->text);
        r->code = body->code;
    } else if (r->type == MSG_TEXT_ENCODED) {
        r->n_tokens = ((const text_encoded *)m->body)->n_tokens;
    } else if (r->type == MSG_TEXT_DECODED) {
        copy(r->text, SEEN_TEXT, ((const text_decoded *)m->body)->text);
    }
}

/* ---- the four classes ---- */

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return (void *)(uintptr_t)options;
}

static void destroy(void *self)
{
    (void)self;
}

static peer **place_of(stage *s, const actor *a)
{
    return a == s->tokenizer       ? &s->gateway_of_tokenizer
           : a == s->postprocessor ? &s->gateway_of_postprocessor
           : a == s->scheduler     ? &s->gateway_of_scheduler
                                   : &s->gateway_of_client;
}

#define PEER_CALLBACKS(which)                                                                                          \
    static void which##_up(void *self, peer *p)                                                                        \
    {                                                                                                                  \
        stage *s               = self;                                                                                 \
        *place_of(s, s->which) = p;                                                                                    \
    }                                                                                                                  \
    static void which##_down(void *self, peer *p)                                                                      \
    {                                                                                                                  \
        stage *s = self;                                                                                               \
        (void)p;                                                                                                       \
        *place_of(s, s->which) = NULL;                                                                                 \
    }
PEER_CALLBACKS(tokenizer)
PEER_CALLBACKS(postprocessor)
PEER_CALLBACKS(scheduler)
PEER_CALLBACKS(client)

static const actor_route tokenizer_routes[]     = {{MSG_TEXT_REQUEST, on_text_request},
                                                   {MSG_TEXT_ENCODE, on_text_encode},
                                                   {MSG_TEXT_DECODE, on_text_decode},
                                                   {MSG_GEN_FIND, tokenizer_find}};
static const actor_route postprocessor_routes[] = {{MSG_GEN_OPEN, actor_ignore},
                                                   {MSG_GEN_TOKENS, actor_ignore},
                                                   {MSG_GEN_PROMPT, actor_ignore},
                                                   {MSG_GEN_CANCEL, actor_ignore},
                                                   {MSG_GEN_FIND, postprocessor_find}};
static const actor_route scheduler_routes[]     = {
        {MSG_GEN_REQUEST, actor_ignore},    {MSG_GEN_CANCEL, on_gen_cancel},    {MSG_GEN_FIND, scheduler_find},
        {MSG_EXECUTOR_READY, actor_ignore}, {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, actor_ignore},
        {MSG_KV_LOADED, actor_ignore},      {MSG_DRAFT_REPLY, actor_ignore},    {MSG_STATUS_GET, on_status_get}};
static const actor_route client_routes[] = {{MSG_TEXT_DELTA, on_reply},
                                            {MSG_TEXT_REFUSED, on_reply},
                                            {MSG_TEXT_ENCODED, on_reply},
                                            {MSG_TEXT_DECODED, on_reply}};

#define CLASS(which, role_)                                                                                            \
    static const actor_class which##_class = {.name         = #which,                                                  \
                                              .role         = role_,                                                   \
                                              .routes       = which##_routes,                                          \
                                              .n_routes     = COUNT(which##_routes),                                   \
                                              .create       = create,                                                  \
                                              .destroy      = destroy,                                                 \
                                              .on_peer_up   = which##_up,                                              \
                                              .on_peer_down = which##_down}
CLASS(tokenizer, ROLE_TOKENIZER);
CLASS(postprocessor, ROLE_POSTPROCESSOR);
CLASS(scheduler, ROLE_SCHEDULER);
CLASS(client, ROLE_CLIENT);

/* ---- the stage ---- */

int stage_prepare(void **state)
{
    stage       *s     = calloc(1, sizeof *s);
    option_group group = {"gateway", gateway_option_rows, n_gateway_option_rows, &s->options};
    error        err;
    assert_true(option_parse(&group, 1, 0, NULL, NULL, &err));
    s->bus               = bus_new(NULL, &err);
    s->options.port      = 0;
    s->tokenizer_credits = 16;
    assert_non_null(s->bus);
    *state = s;
    return 0;
}

void stage_remove(actor **a)
{
    if (*a) {
        actor_stop(*a);
        actor_join(*a);
        actor_free(a);
    }
}

int stage_clean_up(void **state)
{
    stage *s = *state;
    stage_remove(&s->client);
    stage_remove(&s->gateway);
    stage_remove(&s->tokenizer);
    stage_remove(&s->postprocessor);
    stage_remove(&s->scheduler);
    bus_free(&s->bus);
    free(s);
    return 0;
}

static actor *new_actor(stage *s, const actor_class *class, actor_options options)
{
    error err;
    options.bus           = s->bus;
    options.heartbeat_ms  = 50;
    options.dead_after_ms = 5000; /* sanitizers on a loaded machine are slow */
    actor *a              = actor_new(class, s, &options, &err);
    if (!a)
        fail_msg("%s", err.text);
    return a;
}

void stage_open(stage *s)
{
    error         err;
    actor_options options = {.bind          = {"queue://gateway"},
                             .connect       = {"queue://scheduler"},
                             .credits       = 8,
                             .bus           = s->bus,
                             .heartbeat_ms  = 50,
                             .dead_after_ms = 5000};
    s->scheduler = new_actor(s, &scheduler_class, (actor_options){.bind = {"queue://scheduler"}, .credits = 64});
    s->gateway   = actor_new(&gateway_class, &s->options, &options, &err);
    if (!s->gateway)
        fail_msg("%s", err.text);
    assert_true(actor_start(s->gateway, &err));
    pump_stage(s, NULL, 10000, s->gateway_of_scheduler);
}

void stage_add_tokenizer(stage *s)
{
    s->tokenizer = new_actor(s, &tokenizer_class,
                             (actor_options){.connect = {"queue://gateway"}, .credits = s->tokenizer_credits});
    pump_stage(s, NULL, 10000, s->gateway_of_tokenizer);
}

void stage_add_postprocessor(stage *s)
{
    s->postprocessor =
        new_actor(s, &postprocessor_class, (actor_options){.connect = {"queue://gateway"}, .credits = 64});
    pump_stage(s, NULL, 10000, s->gateway_of_postprocessor);
}

void stage_add_client(stage *s)
{
    s->client = new_actor(s, &client_class, (actor_options){.connect = {"queue://gateway"}, .credits = 64});
    pump_stage(s, NULL, 10000, s->gateway_of_client);
}

void stage_open_all(stage *s)
{
    stage_open(s);
    stage_add_tokenizer(s);
    stage_add_postprocessor(s);
}

static void read_some(http_client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_size, sizeof c->in - 1 - c->in_size, MSG_DONTWAIT);
    if (n > 0)
        c->in_size += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        c->closed = true;
    c->in[c->in_size] = 0;
}

void stage_turn(stage *s, http_client *c)
{
    actor *all[] = {s->scheduler, s->tokenizer, s->postprocessor, s->client};
    for (size_t i = 0; i < COUNT(all); i++)
        if (all[i])
            actor_turn(all[i]);
    if (c && !c->closed)
        read_some(c);
}

/* ---- HTTP ---- */

http_client *http_ask(stage *s, const char *method, const char *path, const char *headers, const char *body)
{
    http_client       *c  = calloc(1, sizeof *c);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(gateway_port(s->gateway))};
    char               head[1024];
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd              = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof to), 0);
    int n =
        snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s", method, path, headers);
    if (body)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    assert_int_equal(send(c->fd, head, (size_t)n, MSG_NOSIGNAL), n);
    if (body)
        assert_int_equal(send(c->fd, body, strlen(body), MSG_NOSIGNAL), strlen(body));
    return c;
}

http_client *http_post(stage *s, const char *path, const char *body)
{
    return http_ask(s, "POST", path, "", body);
}

void http_close(http_client **c)
{
    close((*c)->fd);
    free(*c);
    *c = NULL;
}

int http_status(const http_client *c)
{
    int status;
    return strstr(c->in, "\r\n\r\n") && sscanf(c->in, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

bool http_has(const http_client *c, const char *text)
{
    return strstr(c->in, text) != NULL;
}

uint32_t http_count(const http_client *c, const char *text)
{
    uint32_t n = 0;
    for (const char *at = c->in; (at = strstr(at, text)); at += strlen(text))
        n++;
    return n;
}

/* ---- the postprocessor ---- */

void stage_send_delta(stage *s, const envelope *about, const text_delta *d)
{
    error err;
    if (!actor_send(s->postprocessor, s->gateway_of_postprocessor, MSG_TEXT_DELTA, d, about, &err))
        fail_msg("%s", err.text);
}

void stage_delta(stage *s, const envelope *about, uint32_t choice, uint32_t index, uint32_t n, const char *text,
                 finish_reason finish)
{
    uint32_t   tokens[SEEN_TOKENS];
    text_delta d = text_delta_defaults;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = 100 + index + i;
    d.choice   = choice;
    d.index    = index;
    d.text     = span_of(text);
    d.tokens   = tokens;
    d.n_tokens = n;
    d.finish   = finish;
    if (finish != FINISH_REASON_NONE)
        d.usage = (usage){.prompt_tokens = 12, .completion_tokens = index + n, .cached_tokens = 4};
    stage_send_delta(s, about, &d);
}

void stage_pooled(stage *s, const envelope *about, const float *numbers, uint32_t n)
{
    text_delta d = text_delta_defaults;
    error      err;
    d.pooled   = numbers;
    d.n_pooled = n;
    d.finish   = FINISH_REASON_STOP;
    d.usage    = (usage){.prompt_tokens = 5};
    if (!actor_send(s->scheduler, s->gateway_of_scheduler, MSG_TEXT_DELTA, &d, about, &err))
        fail_msg("%s", err.text);
}

void stage_refuse(stage *s, const envelope *about, error_code code, const char *text, const char *field,
                  uint32_t retry_after_ms)
{
    text_refused body = {
        .code = code, .text = span_of(text), .field = span_of(field), .retry_after_ms = retry_after_ms};
    error err;
    assert_true(actor_send(s->scheduler, s->gateway_of_scheduler, MSG_TEXT_REFUSED, &body, about, &err));
}

http_client *ask(stage *s, const char *path, const char *body)
{
    uint32_t     before = s->n_seen;
    http_client *c      = http_post(s, path, body);
    pump_stage(s, c, 10000, s->n_seen > before || http_status(c));
    if (s->n_seen == before)
        fail_msg("%s", c->in);
    return c;
}
