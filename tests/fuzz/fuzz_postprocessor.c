// links: service_postprocessor
/* Valid messages in any order into a postprocessor, from a scheduler, a gateway and a second scheduler. Any field may
 * be what the schema allows; ids, choices and indices mostly mean something. The invariants hold after every turn, what
 * a gateway is told is valid text, and when all is cancelled no stream is left. */
#include "actor/simulation.h"
#include "base/log.h"
#include "postprocessor/postprocessor.h"
#include "tests/fuzz/support_message.h"

#include <assert.h>

enum { IDS = 4, ATTEMPTS = 3, CHOICES = 3, ACTS_MAX = 64, TURN_MS = 3, MEMORY_BYTES = 4 << 20, CREDITS = 64 };

typedef enum { GATEWAY, SCHEDULER, SECOND_SCHEDULER, N_PLAYERS } player_id;

typedef struct {
    simulation           *sim;
    actor                *postprocessor, *players[N_PLAYERS];
    postprocessor_options options;
    uint32_t              n_said[IDS][CHOICES]; /* tokens of each choice, so that the next come behind them */
    arena                *memory;
    fuzz_input            in;
} stage;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the players ---- */

static void *create(actor *a, const void *options, error *err)
{
    (void)a, (void)err;
    return (void *)(uintptr_t)options;
}

static void destroy(void *self)
{
    (void)self;
}

static void on_delta(void *self, const message *m)
{
    const text_delta *d = m->body;
    (void)self;
    assert(utf8_is_valid(d->text) && utf8_is_valid(d->stop_reason));
    assert(!d->prompt || d->finish == FINISH_REASON_NONE);
}

static const actor_route gateway_routes[]   = {{MSG_TEXT_DELTA, on_delta},       {MSG_TEXT_REFUSED, actor_ignore},
                                               {MSG_TEXT_REQUEST, actor_ignore}, {MSG_TEXT_CANCEL, actor_ignore},
                                               {MSG_TEXT_ENCODE, actor_ignore},  {MSG_TEXT_ENCODED, actor_ignore},
                                               {MSG_TEXT_DECODE, actor_ignore},  {MSG_TEXT_DECODED, actor_ignore},
                                               {MSG_GEN_FOUND, actor_ignore},    {MSG_STATUS_REPORT, actor_ignore}};
static const actor_route scheduler_routes[] = {{MSG_GEN_REQUEST, actor_ignore},    {MSG_GEN_CANCEL, actor_ignore},
                                               {MSG_GEN_FIND, actor_ignore},       {MSG_EXECUTOR_READY, actor_ignore},
                                               {MSG_EXECUTOR_LEAVE, actor_ignore}, {MSG_STEP_RESULT, actor_ignore},
                                               {MSG_DRAFT_REPLY, actor_ignore},    {MSG_STATUS_GET, actor_ignore}};

static const actor_class gateway   = {.name     = "gateway",
                                      .role     = ROLE_GATEWAY,
                                      .routes   = gateway_routes,
                                      .n_routes = COUNT(gateway_routes),
                                      .create   = create,
                                      .destroy  = destroy};
static const actor_class scheduler = {.name     = "scheduler",
                                      .role     = ROLE_SCHEDULER,
                                      .routes   = scheduler_routes,
                                      .n_routes = COUNT(scheduler_routes),
                                      .create   = create,
                                      .destroy  = destroy};

static const char *const places[N_PLAYERS] = {"tcp://gateway:1", "tcp://scheduler:1", "tcp://scheduler:2"};

static void join(stage *t, player_id who)
{
    actor_options bound = {.bind = {places[who]}, .credits = CREDITS};
    t->players[who]     = simulation_add(t->sim, who == GATEWAY ? &gateway : &scheduler, t, &bound, NULL);
    if (!t->players[who])
        abort();
}

static void say(stage *t, player_id who, uint16_t type, const void *body, const envelope *about)
{
    peer *to = actor_find_peer(t->players[who], span_of(actor_name(t->postprocessor)));
    if (to)
        (void)!actor_send(t->players[who], to, type, body, about, NULL);
}

static void run_ms(stage *t, int64_t ms)
{
    simulation_run_until(t->sim, NULL, NULL, ms * NS_PER_MS);
}

/* ---- acts ---- */

static envelope take_about(stage *t)
{
    uint8_t  which     = take(&t->in);
    envelope e         = {.attempt = which / IDS % ATTEMPTS};
    e.request.bytes[0] = which % IDS;
    return e;
}

static player_id take_scheduler(stage *t)
{
    return take(&t->in) > 240 ? SECOND_SCHEDULER : SCHEDULER;
}

static void act_open(stage *t)
{
    envelope  about = take_about(t);
    gen_open *body  = take_message(&t->in, MSG_GEN_OPEN, t->memory);
    uint8_t   how   = take(&t->in);
    if (how & 1)
        body->n = 1 + take(&t->in) % CHOICES;
    if (!(how & 2))
        body->reply_to = span_of(actor_name(t->players[GATEWAY]));
    memset(t->n_said[about.request.bytes[0]], 0, sizeof t->n_said[0]);
    say(t, take_scheduler(t), MSG_GEN_OPEN, body, &about);
}

static void act_tokens(stage *t)
{
    envelope    about = take_about(t);
    gen_tokens *body  = take_message(&t->in, MSG_GEN_TOKENS, t->memory);
    uint8_t     how   = take(&t->in);
    if (how & 1)
        body->choice %= CHOICES;
    if (body->choice < CHOICES && !(how & 2)) {
        body->index = t->n_said[about.request.bytes[0]][body->choice];
        t->n_said[about.request.bytes[0]][body->choice] += body->n_tokens;
    }
    if (!(how & 4))
        body->finish = FINISH_REASON_NONE;
    say(t, take_scheduler(t), MSG_GEN_TOKENS, body, &about);
}

static void act_prompt(stage *t)
{
    envelope about = take_about(t);
    say(t, take_scheduler(t), MSG_GEN_PROMPT, take_message(&t->in, MSG_GEN_PROMPT, t->memory), &about);
}

static void act_cancel(stage *t)
{
    envelope about = take_about(t);
    if (take(&t->in) > 240)
        say(t, GATEWAY, MSG_GEN_FIND, take_message(&t->in, MSG_GEN_FIND, t->memory), NULL);
    say(t, GATEWAY, MSG_GEN_CANCEL, take_message(&t->in, MSG_GEN_CANCEL, t->memory), &about);
}

static void act_leave(stage *t)
{
    player_id who = take(&t->in) % N_PLAYERS;
    simulation_kill(t->sim, t->players[who]);
    join(t, who);
    run_ms(t, take(&t->in) * 20);
}

static void act(stage *t)
{
    switch (take(&t->in) % 8) {
    case 0:
    case 1:
        act_open(t);
        break;
    case 2:
    case 3:
    case 4:
        act_tokens(t);
        break;
    case 5:
        act_prompt(t);
        break;
    case 6:
        act_cancel(t);
        break;
    case 7:
        if (take(&t->in) > 224)
            act_leave(t);
        else
            run_ms(t, take(&t->in));
        break;
    }
}

/* ---- the run ---- */

static bool is_connected(void *arg)
{
    stage *t = arg;
    for (int i = 0; i < N_PLAYERS; i++)
        if (!actor_find_peer(t->players[i], span_of(actor_name(t->postprocessor))) ||
            !actor_find_peer(t->postprocessor, span_of(actor_name(t->players[i]))))
            return false;
    return true;
}

static void start(stage *t)
{
    actor_options calling = {.connect = {places[0], places[1], places[2]}, .credits = CREDITS};
    log_set_level(LOG_OFF);
    t->sim                        = simulation_new(1, NULL);
    t->memory                     = arena_new(MEMORY_BYTES, NULL);
    t->options                    = (postprocessor_options){.model           = TESTS_DIR "/fuzz/corpus/tokenizer_gguf/bytes.gguf",
                                                            .max_num_streams = IDS - 1};
    t->options.output_filter_file = take(&t->in) & 1 ? TESTS_DIR "/fuzz/corpus/output_filter/block.yaml" : NULL;
    if (!t->sim || !t->memory)
        abort();
    simulation_set_network(t->sim, &(sim_network_options){.delay_max_ns = NS_PER_MS});
    for (int i = 0; i < N_PLAYERS; i++)
        join(t, (player_id)i);
    t->postprocessor = simulation_add(t->sim, &postprocessor_class, &t->options, &calling, NULL);
    if (!t->postprocessor)
        abort();
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

static void expect_nothing_left(stage *t)
{
    gen_cancel all = {.all = true, .reason = CANCEL_REASON_CLIENT_LEFT};
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
    for (uint8_t id = 0; id < IDS; id++)
        for (uint32_t attempt = 0; attempt < ATTEMPTS; attempt++) {
            envelope about         = {.attempt = attempt};
            about.request.bytes[0] = id;
            say(t, GATEWAY, MSG_GEN_CANCEL, &all, &about);
        }
    run_ms(t, 1000);
    assert(postprocessor_class.load(actor_self(t->postprocessor)) == 0);
    for (int i = SCHEDULER; i < N_PLAYERS; i++)
        assert(actor_find_peer(t->players[i], span_of(actor_name(t->postprocessor)))->credits == CREDITS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stage t = {.in = {data, size}};
    start(&t);
    for (int i = 0; i < ACTS_MAX && t.in.size > 0; i++) {
        arena_reset(t.memory);
        act(&t);
        run_ms(&t, TURN_MS);
    }
    expect_nothing_left(&t);
    simulation_free(&t.sim);
    arena_free(&t.memory);
    return 0;
}
