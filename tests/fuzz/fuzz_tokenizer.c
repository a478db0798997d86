// links: service_tokenizer
/* Valid messages in any order into a tokenizer, from a gateway and a scheduler that comes and goes or refuses. Each
 * text.request ends in one gen.request or one text.refused, and gives its credit back; the tokens are tokens of the
 * model; text.encode and text.decode are answered once. */
#include "tests/fuzz/support_players.h"
#include "tokenizer/tokenizer.h"

#include <unistd.h>

enum {
    IDS          = 4,
    ATTEMPTS     = 2,
    ACTS_MAX     = 64,
    TURN_MS      = 3,
    MEMORY_BYTES = 4 << 20,
    VOCABULARY   = 1 << 20,
    MODEL_LEN    = 64
};

static const char template_of_chats[] = TESTS_DIR "/data/templates/llama3_tools.jinja";

typedef struct {
    simulation       *sim;
    actor            *tokenizer, *gateway, *scheduler;
    tokenizer_options options;
    uint32_t          n_asked, n_passed_on, n_refused; /* text.request */
    uint32_t          n_converted, n_answers;          /* text.encode, text.decode */
    bool              refuses;
    arena            *memory;
    fuzz_input        in;
} stage;

static player_class gateway, scheduler;

/* ---- a small model's config with a small tokenizer, as a folder for this process ---- */

static char folder[] = "/tmp/fuzz-tokenizer-XXXXXX";

static const struct {
    const char *name, *from;
} files[] = {{"config.json", TESTS_DIR "/data/models/gqa_tied/config.json"},
             {"model.safetensors", TESTS_DIR "/data/models/gqa_tied/model.safetensors"},
             {"tokenizer.json", TESTS_DIR "/data/tokenizer/llama3/tokenizer.json"}};

static void path_of(size_t i, char path[sizeof folder + 32])
{
    snprintf(path, sizeof folder + 32, "%s/%s", folder, files[i].name);
}

static void remove_folder(void)
{
    char path[sizeof folder + 32];
    for (size_t i = 0; i < COUNT(files); i++) {
        path_of(i, path);
        unlink(path);
    }
    rmdir(folder);
}

static void make_folder(void)
{
    static bool made;
    char        path[sizeof folder + 32];
    if (made)
        return;
    if (!mkdtemp(folder))
        abort();
    for (size_t i = 0; i < COUNT(files); i++) {
        path_of(i, path);
        if (symlink(files[i].from, path) != 0)
            abort();
    }
    atexit(remove_folder);
    made = true;
}

/* ---- the players ---- */

static void on_gen_request(void *self, const message *m)
{
    stage             *t = self;
    const gen_request *r = m->body;
    t->n_passed_on++;
    assert(r->n_prompt > 0 && r->n_prompt < MODEL_LEN && utf8_is_valid(r->session));
    for (uint32_t i = 0; i < r->n_prompt; i++)
        assert(r->prompt[i] < VOCABULARY);
    if (!t->refuses)
        actor_grant(t->scheduler, m->from, 1);
}

/* Of conversions too: they carry ids above those of requests. */
static void on_text_refused(void *self, const message *m)
{
    stage              *t = self;
    const text_refused *r = m->body;
    assert(utf8_is_valid(r->text) && utf8_is_valid(r->field));
    if (m->envelope->request.bytes[0] < IDS)
        t->n_refused++;
    else
        t->n_answers++;
}

static void on_answer(void *self, const message *m)
{
    stage *t = self;
    t->n_answers++;
    if (m->envelope->type == MSG_TEXT_DECODED)
        assert(utf8_is_valid(((const text_decoded *)m->body)->text));
}

static void join_gateway(stage *t)
{
    t->gateway = fuzz_join(t->sim, &gateway.class, t, (actor_options){.bind = {"tcp://gateway:1"}});
}

static void join_scheduler(stage *t)
{
    t->scheduler = fuzz_join(t->sim, &scheduler.class, t, (actor_options){.bind = {"tcp://scheduler:1"}});
}

static bool is_connected(void *arg)
{
    stage *t = arg;
    return fuzz_know_each_other(t->gateway, t->tokenizer) && fuzz_know_each_other(t->scheduler, t->tokenizer);
}

static void start(stage *t)
{
    player_class_fill(&gateway, ROLE_GATEWAY);
    player_class_take(&gateway, MSG_TEXT_REFUSED, on_text_refused);
    player_class_take(&gateway, MSG_TEXT_ENCODED, on_answer);
    player_class_take(&gateway, MSG_TEXT_DECODED, on_answer);
    player_class_fill(&scheduler, ROLE_SCHEDULER);
    player_class_take(&scheduler, MSG_GEN_REQUEST, on_gen_request);
    make_folder();
    fuzz_open(&t->sim, &t->memory, MEMORY_BYTES);
    t->options = (tokenizer_options){.model = folder, .chat_template = template_of_chats, .max_model_len = MODEL_LEN};
    join_gateway(t);
    join_scheduler(t);
    t->tokenizer = fuzz_join(t->sim, &tokenizer_class, &t->options,
                             (actor_options){.connect = {"tcp://gateway:1", "tcp://scheduler:1"}});
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

/* ---- acts ---- */

static void act_request(stage *t)
{
    envelope      about = fuzz_about(&t->in, IDS, ATTEMPTS);
    text_request *body  = take_message(&t->in, MSG_TEXT_REQUEST, t->memory);
    uint8_t       how   = take(&t->in);
    peer         *to    = actor_find_peer(t->gateway, span_of(actor_name(t->tokenizer)));
    if (how & 1)
        body->prompt = take_text(&t->in, MESSAGE_TEXT_BYTES);
    if (how & 2)
        body->max_tokens %= MODEL_LEN;
    if (how & 4)
        about.deadline_unix_ms = clock_unix_ms(simulation_clock(t->sim)) + take(&t->in) - 8;
    t->n_asked += to && actor_send(t->gateway, to, MSG_TEXT_REQUEST, body, &about, NULL);
}

static void act_convert(stage *t, uint16_t type)
{
    envelope about         = {0};
    peer    *to            = actor_find_peer(t->gateway, span_of(actor_name(t->tokenizer)));
    about.request.bytes[0] = IDS;
    t->n_converted += to && actor_send(t->gateway, to, type, take_message(&t->in, type, t->memory), &about, NULL);
}

/* The scheduler dies, leaves in order, takes nothing more, or says that it could not use a message. */
static void act_scheduler(stage *t)
{
    envelope      about   = fuzz_about(&t->in, IDS, ATTEMPTS);
    node_refused *refused = take_message(&t->in, MSG_NODE_REFUSED, t->memory);
    uint8_t       how     = take(&t->in);
    if (how > 128) {
        refused->type = MSG_GEN_REQUEST;
        fuzz_say(t->scheduler, t->tokenizer, MSG_NODE_REFUSED, refused, &about);
    } else if (how > 64) {
        t->refuses = !t->refuses;
    } else if (how > 48) {
        simulation_kill(t->sim, t->scheduler);
        join_scheduler(t);
        fuzz_run_ms(t->sim, take(&t->in) * 20);
    }
}

static void act(void *arg)
{
    stage *t = arg;
    switch (take(&t->in) % 8) {
    case 0:
        act_convert(t, MSG_TEXT_ENCODE);
        break;
    case 1:
        act_convert(t, MSG_TEXT_DECODE);
        break;
    case 2:
        act_scheduler(t);
        break;
    case 3:
        fuzz_say(t->gateway, t->tokenizer, MSG_GEN_FIND, take_message(&t->in, MSG_GEN_FIND, t->memory), NULL);
        fuzz_run_ms(t->sim, take(&t->in));
        break;
    default:
        act_request(t);
    }
}

/* What went on may be refused later, when its scheduler dies. */
static void expect_an_end_for_each(const stage *t)
{
    assert(t->n_answers == t->n_converted);
    assert(t->n_passed_on + t->n_refused >= t->n_asked);
    assert(actor_find_peer(t->gateway, span_of(actor_name(t->tokenizer)))->credits == PLAYER_CREDITS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stage t = {.in = {data, size}};
    start(&t);
    fuzz_act(t.sim, t.memory, &t.in, ACTS_MAX, TURN_MS, act, &t);
    assert(simulation_run_until(t.sim, is_connected, &t, 30 * NS_PER_S));
    fuzz_run_ms(t.sim, 1000);
    expect_an_end_for_each(&t);
    fuzz_close(&t.sim, &t.memory);
    return 0;
}
