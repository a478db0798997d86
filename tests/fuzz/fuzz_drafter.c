// links: service_drafter
/* Valid messages in any order into a drafter, from two schedulers. Sequences mostly go on where they are; any field may
 * be what the schema allows. Each request is answered with drafts that are tokens of its sequence, a credit comes back
 * for each, and a drafter that forgets knows nothing. */
#include "drafter/drafter.h"
#include "tests/fuzz/support_players.h"

enum { IDS = 4, ATTEMPTS = 2, CHOICES = 2, PLACES = 3, TOKENS_MAX = 64, ACTS_MAX = 96, SCHEDULERS = 2 };
enum { MEMORY_BYTES = 1 << 20, TURN_MS = 3, DRAFTS_MAX = 16, WORDS = 4 };

typedef struct {
    simulation     *sim;
    actor          *drafter, *schedulers[SCHEDULERS];
    drafter_options options;
    uint32_t        n_asked, n_answered;
    arena          *memory;
    fuzz_input      in;
} stage;

static player_class scheduler;

static void on_reply(void *self, const message *m)
{
    stage             *t = self;
    const draft_reply *r = m->body;
    t->n_answered++;
    assert(r->n_tokens <= DRAFTS_MAX && r->known <= TOKENS_MAX);
    assert(r->n_tokens == 0 || r->known == r->length);
}

static actor *join(stage *t)
{
    return fuzz_join(t->sim, &scheduler.class, t, (actor_options){.connect = {"inproc://drafter"}});
}

static bool is_connected(void *arg)
{
    stage *t = arg;
    return fuzz_all_know_each_other(t->schedulers, SCHEDULERS, t->drafter);
}

static void start(stage *t)
{
    player_class_fill(&scheduler, ROLE_SCHEDULER);
    player_class_take(&scheduler, MSG_DRAFT_REPLY, on_reply);
    fuzz_open(&t->sim, &t->memory, MEMORY_BYTES);
    t->options = (drafter_options){.max_num_seqs = PLACES, .max_model_len = TOKENS_MAX};
    t->drafter = fuzz_join(t->sim, &drafter_class, &t->options, (actor_options){.bind = {"inproc://drafter"}});
    for (int i = 0; i < SCHEDULERS; i++)
        t->schedulers[i] = join(t);
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

static void act_request(stage *t, actor *from)
{
    envelope       about = fuzz_about(&t->in, IDS, ATTEMPTS);
    draft_request *body  = take_message(&t->in, MSG_DRAFT_REQUEST, t->memory);
    uint8_t        how   = take(&t->in);
    peer          *to    = actor_find_peer(from, span_of(actor_name(t->drafter)));
    body->choice         = how & 1 ? body->choice : body->choice % CHOICES;
    body->index          = how & 2 ? body->index : body->index % TOKENS_MAX;
    uint32_t *tokens     = arena_take_array(t->memory, TOKENS_MAX, sizeof *tokens);
    if (how & 4 && tokens) { /* text that repeats itself, so that there are drafts */
        body->n_tokens = take(&t->in) % TOKENS_MAX;
        for (uint32_t i = 0; i < body->n_tokens; i++)
            tokens[i] = (body->index + i) % WORDS;
        body->tokens = tokens;
    }
    t->n_asked += to && actor_send(from, to, MSG_DRAFT_REQUEST, body, &about, NULL);
}

static void act(void *arg)
{
    stage   *t    = arg;
    uint8_t  what = take(&t->in);
    actor  **from = &t->schedulers[what / 8 % SCHEDULERS];
    envelope about;
    switch (what % 8) {
    case 0:
        about = fuzz_about(&t->in, IDS, ATTEMPTS);
        fuzz_say(*from, t->drafter, MSG_DRAFT_FORGET, take_message(&t->in, MSG_DRAFT_FORGET, t->memory), &about);
        break;
    case 1:
        if (take(&t->in) > 240) {
            fuzz_run_ms(t->sim, 100); /* what is on its way arrives, so that the count is right */
            simulation_kill(t->sim, *from);
            *from = join(t);
        }
        fuzz_run_ms(t->sim, take(&t->in));
        break;
    default:
        act_request(t, *from);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stage t = {.in = {data, size}};
    start(&t);
    fuzz_act(t.sim, t.memory, &t.in, ACTS_MAX, TURN_MS, act, &t);
    assert(simulation_run_until(t.sim, is_connected, &t, 30 * NS_PER_S));
    fuzz_run_ms(t.sim, 1000);
    assert(t.n_answered == t.n_asked);
    for (int i = 0; i < SCHEDULERS; i++)
        assert(actor_find_peer(t.schedulers[i], span_of(actor_name(t.drafter)))->credits == PLAYER_CREDITS);
    fuzz_close(&t.sim, &t.memory);
    return 0;
}
