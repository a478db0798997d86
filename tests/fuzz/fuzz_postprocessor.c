// links: service_postprocessor
/* Valid messages in any order into a postprocessor, from a scheduler, a gateway and a second scheduler. Any field may
 * be what the schema allows; ids, choices and indices mostly mean something. The invariants hold after every turn, what
 * a gateway is told is valid text, and when all is cancelled no stream is left. */
#include "postprocessor/postprocessor.h"
#include "tests/fuzz/support_players.h"

enum { IDS = 4, ATTEMPTS = 3, CHOICES = 3, ACTS_MAX = 64, TURN_MS = 3, MEMORY_BYTES = 4 << 20 };

typedef enum { GATEWAY, SCHEDULER, SECOND_SCHEDULER, N_PLAYERS } player_id;

typedef struct {
    simulation           *sim;
    actor                *postprocessor, *players[N_PLAYERS];
    postprocessor_options options;
    uint32_t              n_said[IDS][CHOICES]; /* tokens of each choice, so that the next come behind them */
    arena                *memory;
    fuzz_input            in;
} stage;

/* ---- the players ---- */

static void on_delta(void *self, const message *m)
{
    const text_delta *d = m->body;
    (void)self;
    assert(utf8_is_valid(d->text) && utf8_is_valid(d->stop_reason));
    assert(!d->prompt || d->finish == FINISH_REASON_NONE);
}

static player_class gateway, scheduler;

static const char *const places[N_PLAYERS] = {"tcp://gateway:1", "tcp://scheduler:1", "tcp://scheduler:2"};

static void join(stage *t, player_id who)
{
    t->players[who] = fuzz_join(t->sim, who == GATEWAY ? &gateway.class : &scheduler.class, t,
                                (actor_options){.bind = {places[who]}});
}

static void say(stage *t, player_id who, uint16_t type, const void *body, const envelope *about)
{
    fuzz_say(t->players[who], t->postprocessor, type, body, about);
}

/* ---- acts ---- */

static player_id take_scheduler(stage *t)
{
    return take(&t->in) > 240 ? SECOND_SCHEDULER : SCHEDULER;
}

static void act_open(stage *t)
{
    envelope  about = fuzz_about(&t->in, IDS, ATTEMPTS);
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
    envelope    about = fuzz_about(&t->in, IDS, ATTEMPTS);
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
    envelope about = fuzz_about(&t->in, IDS, ATTEMPTS);
    say(t, take_scheduler(t), MSG_GEN_PROMPT, take_message(&t->in, MSG_GEN_PROMPT, t->memory), &about);
}

static void act_cancel(stage *t)
{
    envelope about = fuzz_about(&t->in, IDS, ATTEMPTS);
    if (take(&t->in) > 240)
        say(t, GATEWAY, MSG_GEN_FIND, take_message(&t->in, MSG_GEN_FIND, t->memory), NULL);
    say(t, GATEWAY, MSG_GEN_CANCEL, take_message(&t->in, MSG_GEN_CANCEL, t->memory), &about);
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
            fuzz_run_ms(t->sim, take(&t->in));
        break;
    }
}

/* ---- the run ---- */

static bool is_connected(void *arg)
{
    stage *t = arg;
    return fuzz_all_know_each_other(t->players, N_PLAYERS, t->postprocessor);
}

static void start(stage *t)
{
    player_class_fill(&scheduler, ROLE_SCHEDULER);
    player_class_fill(&gateway, ROLE_GATEWAY);
    player_class_take(&gateway, MSG_TEXT_DELTA, on_delta);
    fuzz_open(&t->sim, &t->memory, MEMORY_BYTES);
    t->options                    = (postprocessor_options){.model           = TESTS_DIR "/fuzz/corpus/tokenizer_gguf/bytes.gguf",
                                                            .max_num_streams = IDS - 1};
    t->options.output_filter_file = take(&t->in) & 1 ? TESTS_DIR "/fuzz/corpus/output_filter/block.yaml" : NULL;
    for (int i = 0; i < N_PLAYERS; i++)
        join(t, (player_id)i);
    t->postprocessor = fuzz_join(t->sim, &postprocessor_class, &t->options,
                                 (actor_options){.connect = {places[0], places[1], places[2]}});
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
    fuzz_run_ms(t->sim, 1000);
    assert(postprocessor_class.load(actor_self(t->postprocessor)) == 0);
    for (int i = SCHEDULER; i < N_PLAYERS; i++)
        assert(actor_find_peer(t->players[i], span_of(actor_name(t->postprocessor)))->credits == PLAYER_CREDITS);
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
