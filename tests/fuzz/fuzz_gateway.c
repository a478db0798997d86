// links: service_gateway
/* Valid messages in any order into a gateway while requests run, from all who talk to it and from none that mean well:
 * text of other attempts, from other places, of choices there are not, ends that come twice, refusals of anything.
 * Requests come from a client on the bus, and as HTTP requests whose connection is gone, so that their answers are
 * written as far as the connection. The gateway's invariants hold after every turn, text is valid, and when clients
 * leave and deadlines pass nothing is left. */
#include "services/gateway/state.h"
#include "tests/fuzz/support_players.h"

enum { ATTEMPTS = 3, IDS = 4, RUNS = 16, ACTS_MAX = 64, TURN_MS = 3, MEMORY_BYTES = 4 << 20, CHOICES = 3 };

typedef enum { CLIENT, TOKENIZER, POSTPROCESSOR, SECOND_POSTPROCESSOR, SCHEDULER, N_PLAYERS } player_id;

typedef struct {
    simulation     *sim;
    actor          *gateway, *players[N_PLAYERS];
    gateway_options options;
    envelope        runs[RUNS]; /* the last that a tokenizer was given */
    uint32_t        n_runs, n_said[RUNS][CHOICES];
    arena          *memory;
    fuzz_input      in;
} stage;

static const role   roles[N_PLAYERS] = {ROLE_CLIENT, ROLE_TOKENIZER, ROLE_POSTPROCESSOR, ROLE_POSTPROCESSOR,
                                        ROLE_SCHEDULER};
static player_class classes[N_PLAYERS];

/* ---- the players ---- */

static void on_run(void *self, const message *m)
{
    stage   *t  = self;
    uint32_t at = t->n_runs++ % RUNS;
    t->runs[at] = *m->envelope;
    memset(t->n_said[at], 0, sizeof t->n_said[at]);
    actor_grant(t->players[TOKENIZER], m->from, 1);
}

static void on_delta(void *self, const message *m)
{
    const text_delta *d = m->body;
    (void)self;
    assert(utf8_is_valid(d->text) && utf8_is_valid(d->stop_reason));
}

static void join(stage *t, player_id who)
{
    actor_options where = {0};
    if (who == SCHEDULER)
        where.bind[0] = "inproc://scheduler";
    else
        where.connect[0] = "inproc://gateway";
    t->players[who] = fuzz_join(t->sim, &classes[who].class, t, where);
}

static void say(stage *t, player_id who, uint16_t type, const void *body, const envelope *about)
{
    fuzz_say(t->players[who], t->gateway, type, body, about);
}

static bool is_connected(void *arg)
{
    stage *t = arg;
    return fuzz_all_know_each_other(t->players, N_PLAYERS, t->gateway);
}

static void start(stage *t)
{
    option_group group = {"gateway", gateway_option_rows, n_gateway_option_rows, &t->options};
    for (int i = 0; i < N_PLAYERS; i++) {
        player_class_fill(&classes[i], roles[i]);
        player_class_take(&classes[i], i == CLIENT ? MSG_TEXT_DELTA : MSG_TEXT_REQUEST,
                          i == CLIENT ? on_delta : on_run);
    }
    player_class_take(&classes[TOKENIZER], MSG_TEXT_ENCODE, on_run);
    player_class_take(&classes[TOKENIZER], MSG_TEXT_DECODE, on_run);
    fuzz_open(&t->sim, &t->memory, MEMORY_BYTES);
    if (!option_parse(&group, 1, 0, NULL, NULL, NULL))
        abort();
    t->options.port                 = 0;
    t->options.max_connections      = 4;
    t->options.request_timeout_s    = 3;
    t->options.resume_wait_s        = 1;
    t->options.request_memory_bytes = 1 << 20;
    for (int i = 0; i < N_PLAYERS; i++)
        if (i == SCHEDULER)
            join(t, (player_id)i);
    t->gateway = fuzz_join(t->sim, &gateway_class, &t->options,
                           (actor_options){.bind = {"inproc://gateway"}, .connect = {"inproc://scheduler"}});
    for (int i = 0; i < N_PLAYERS; i++)
        if (i != SCHEDULER)
            join(t, (player_id)i);
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

/* ---- acts ---- */

static void act_bus(stage *t)
{
    static const uint16_t types[] = {MSG_TEXT_REQUEST, MSG_TEXT_REQUEST, MSG_TEXT_ENCODE, MSG_TEXT_DECODE,
                                     MSG_TEXT_CANCEL};
    envelope              about   = fuzz_about(&t->in, IDS, ATTEMPTS);
    uint16_t              type    = types[take(&t->in) % COUNT(types)];
    void                 *body    = take_message(&t->in, type, t->memory);
    if (type == MSG_TEXT_REQUEST && ((text_request *)body)->n > CHOICES)
        ((text_request *)body)->n = CHOICES;
    say(t, CLIENT, type, body, &about);
}

#define CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
#define HEAD "POST /v1 HTTP/1.1\r\nHost: a\r\n"

/* As http_conn.c would hand it on, but that its handle names no connection. */
static void act_http(stage *t)
{
    static const struct {
        const char *path, *body;
    } requests[] = {
        {"/v1/chat/completions", CHAT "}"},
        {"/v1/chat/completions", CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
        {"/v1/chat/completions", CHAT ",\"n\":2,\"logprobs\":true,\"top_logprobs\":2,\"timeout\":5}"},
        {"/v1/completions", "{\"prompt\":[\"x\",\"y\"],\"logprobs\":2,\"echo\":true}"},
        {"/v1/completions", "{\"prompt\":\"x\",\"logprobs\":1,\"echo\":true,\"max_tokens\":0,\"stream\":true}"},
        {"/v1/embeddings", "{\"input\":[\"a\",\"b\",[1,2]],\"encoding_format\":\"base64\",\"dimensions\":2}"},
        {"/v1/rerank", "{\"query\":\"q\",\"documents\":[\"a\",\"b\"]}"},
        {"/tokenize", "{\"prompt\":\"x\"}"},
        {"/detokenize", "{\"tokens\":[1]}"},
    };
    static const char *const heads[] = {HEAD "\r\n", HEAD "Idempotency-Key: k\r\n\r\n",
                                        HEAD "Idempotency-Key: k\r\nLast-Event-ID: 1-1\r\n\r\n"};
    uint8_t                  which   = take(&t->in);
    const char              *head    = heads[which / COUNT(requests) % COUNT(heads)];
    which %= COUNT(requests);
    http_limits limits = http_limits_default();
    http_parser parser;
    http_parser_init(&parser, &limits);
    if (http_parser_head(&parser, head, strlen(head)) != HTTP_DONE)
        abort();
    http_request request = {.method = HTTP_POST,
                            .path   = span_of(requests[which].path),
                            .body   = span_of(requests[which].body),
                            .peer   = "a",
                            .parser = &parser,
                            .head   = head};
    endpoints_on_request(actor_self(t->gateway), &request);
}

/* About a run that there is or was, or about nothing known. */
static envelope take_run(stage *t, uint32_t *at)
{
    uint8_t which = take(&t->in);
    *at           = which % RUNS;
    envelope e    = {.attempt = which >> 6};
    e.request     = t->runs[*at].request;
    if (which & 16)
        e.attempt = t->runs[*at].attempt;
    return e;
}

static player_id take_postprocessor(stage *t)
{
    return take(&t->in) > 224 ? SECOND_POSTPROCESSOR : POSTPROCESSOR;
}

static void act_delta(stage *t)
{
    uint32_t    at;
    envelope    about = take_run(t, &at);
    text_delta *body  = take_message(&t->in, MSG_TEXT_DELTA, t->memory);
    uint8_t     how   = take(&t->in);
    if (how & 1)
        body->choice %= CHOICES;
    if (!(how & 2))
        body->prompt = false;
    if (body->choice < CHOICES && !(how & 4)) {
        body->index = t->n_said[at][body->choice];
        t->n_said[at][body->choice] += body->n_tokens;
    }
    if (!(how & 24))
        body->finish = FINISH_REASON_NONE;
    say(t, how & 32 ? SCHEDULER : take_postprocessor(t), MSG_TEXT_DELTA, body, &about);
}

static void act_reply(stage *t)
{
    static const struct {
        player_id who;
        uint16_t  type;
    } replies[] = {{TOKENIZER, MSG_TEXT_ENCODED}, {TOKENIZER, MSG_TEXT_DECODED}, {TOKENIZER, MSG_TEXT_REFUSED},
                   {SCHEDULER, MSG_TEXT_REFUSED}, {SCHEDULER, MSG_GEN_FOUND},    {POSTPROCESSOR, MSG_TEXT_REFUSED},
                   {TOKENIZER, MSG_GEN_FOUND},    {POSTPROCESSOR, MSG_GEN_FOUND}};
    uint32_t at;
    envelope about = take_run(t, &at);
    uint8_t  which = take(&t->in) % COUNT(replies);
    say(t, replies[which].who, replies[which].type, take_message(&t->in, replies[which].type, t->memory), &about);
}

static void act_leave(stage *t)
{
    player_id who = take(&t->in) % N_PLAYERS;
    simulation_kill(t->sim, t->players[who]);
    join(t, who);
    fuzz_run_ms(t->sim, take(&t->in) * 20);
}

static void act(void *arg)
{
    stage *t = arg;
    switch (take(&t->in) % 8) {
    case 0:
        act_bus(t);
        break;
    case 1:
        act_http(t);
        break;
    case 2:
    case 3:
    case 4:
        act_delta(t);
        break;
    case 5:
    case 6:
        act_reply(t);
        break;
    case 7:
        if (take(&t->in) > 224)
            act_leave(t);
        else
            fuzz_run_ms(t->sim, take(&t->in) * 4);
        break;
    }
}

/* ---- the run ---- */

/* The deadline ends what nobody answers. */
static void expect_nothing_left(stage *t)
{
    const gateway *g = actor_self(t->gateway);
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
    fuzz_run_ms(t->sim, 5 * 1000);
    assert(g->n_answers == 0 && g->n_waiting == 0 && g->n_generating == 0 && g->kept_bytes == 0);
    for (uint32_t i = 0; i < RUN_TABLE_SIZE; i++)
        assert(!g->table[i]);
    assert(actor_find_peer(t->players[CLIENT], span_of(actor_name(t->gateway)))->credits == PLAYER_CREDITS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stage t = {.in = {data, size}};
    start(&t);
    fuzz_act(t.sim, t.memory, &t.in, ACTS_MAX, TURN_MS, act, &t);
    expect_nothing_left(&t);
    fuzz_close(&t.sim, &t.memory);
    return 0;
}
