// links: service_scheduler
/* Valid messages in any order into a scheduler, from every kind of node that talks to it. Input: a byte that picks an
 * act, and what it takes. Requests, cancels and results mostly mean something (an id that exists, the plan that is
 * next), and any field of them may be anything the schema allows. The invariants hold after every turn; a plan is one
 * that its executor takes; and when the executors then answer and the clients cancel, nothing is left. */
#include "scheduler/state.h"
#include "tests/fuzz/support_players.h"

enum {
    VOCABULARY   = 100,
    IDS          = 6,
    ATTEMPTS     = 3,
    EXECUTORS    = 2,
    PLANS        = 8,
    LOADS        = 4, /* as many as the scheduler has under way to one executor */
    ENTRIES      = 64,
    TURN_MS      = 3,
    ACTS_MAX     = 64,
    PROMPT_MAX   = 80,
    TOP          = 4,
    POOLED_MAX   = 8,
    MEMORY_BYTES = 8 << 20
};

typedef enum {
    GATEWAY,
    TOKENIZER,
    POSTPROCESSOR,
    DRAFTER,
    CLIENT,
    EXECUTOR,
    N_PLAYERS = EXECUTOR + EXECUTORS
} player_id;

typedef struct {
    uint32_t slot, position, n_rows, n_drafts;
    bool     samples, scores, is_beam, pools;
} wanted;

/* Whom the fuzzer plays. An executor keeps the plans that it has not answered. */
typedef struct {
    actor         *actor;
    executor_ready said, about; /* last; and what it is since the scheduler's reset */
    bool           open[ENTRIES];
    uint32_t       n_opened[ENTRIES]; /* tokens */
    uint64_t       steps[PLANS];
    wanted         plans[PLANS][ENTRIES];
    uint32_t       n_entries[PLANS], n_plans;
    uint64_t       loads[LOADS]; /* of KV blocks, not answered; 0: none */
    uint32_t       n_load_blocks[LOADS];
} player;

typedef struct {
    simulation       *sim;
    actor            *scheduler;
    scheduler_options options;
    player            players[N_PLAYERS];
    arena            *memory;
    fuzz_input        in;
} stage;

/* ---- the players ---- */

static void destroy(void *self)
{
    *(player *)self = (player){0};
}

static void on_reset(void *self, const message *m)
{
    player *x = self;
    (void)m;
    x->about = x->said;
    memset(x->open, 0, sizeof x->open);
    memset(x->loads, 0, sizeof x->loads);
}

static bool are_below(const uint32_t *values, uint32_t n, uint32_t bound)
{
    for (uint32_t i = 0; i < n; i++)
        if (values[i] >= bound)
            return false;
    return true;
}

/* What services/executor/step.c would refuse. */
static void check_plan(player *x, const step_plan *plan)
{
    const executor_ready *about  = &x->about;
    uint64_t              n_rows = 0, n_logit_rows = 0;
    assert(plan->n_copy_from == plan->n_copy_to);
    assert(are_below(plan->closes, plan->n_closes, about->n_slots));
    assert(are_below(plan->copy_from, plan->n_copy_from, about->n_kv_blocks));
    assert(are_below(plan->copy_to, plan->n_copy_to, about->n_kv_blocks));
    for (uint32_t i = 0; i < plan->n_closes; i++) {
        assert(x->open[plan->closes[i]]);
        x->open[plan->closes[i]] = false;
    }
    for (uint32_t i = 0; i < plan->n_opens; i++) {
        const slot_open *o = &plan->opens[i];
        assert(o->slot < about->n_slots && !x->open[o->slot]);
        assert(o->n_tokens <= about->max_model_len && o->n_prompt_tokens <= o->n_tokens);
        assert(are_below(o->tokens, o->n_tokens, about->n_vocab));
        x->open[o->slot]     = true;
        x->n_opened[o->slot] = o->n_tokens;
    }
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const step_entry *e = &plan->entries[i];
        assert(e->slot < about->n_slots && x->open[e->slot]);
        assert(are_below(e->append, e->n_append, about->n_vocab) && are_below(e->drafts, e->n_drafts, about->n_vocab));
        assert(are_below(e->blocks, e->n_blocks, about->n_kv_blocks));
        assert((uint64_t)e->position + e->n_tokens + e->n_drafts <= about->max_model_len);
        assert(e->logits == LOGITS_WANTED_POOLED
                   ? about->n_pooled > 0 && e->position == 0 && e->n_tokens == x->n_opened[e->slot]
                   : !about->encoder);
        n_rows += e->n_tokens + e->n_drafts;
        n_logit_rows += e->logits == LOGITS_WANTED_ALL    ? e->n_tokens
                        : e->logits == LOGITS_WANTED_LAST ? 1 + e->n_drafts
                                                          : 0;
    }
    assert(n_rows <= about->n_tokens_max && n_logit_rows <= about->n_logit_rows_max);
}

static void on_plan(void *self, const message *m)
{
    player          *x    = self;
    const step_plan *plan = m->body;
    uint32_t         at   = x->n_plans++;
    assert(at < PLANS && plan->n_entries <= ENTRIES);
    check_plan(x, plan);
    x->steps[at]     = plan->step;
    x->n_entries[at] = plan->n_entries;
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const step_entry *e = &plan->entries[i];
        x->plans[at][i] =
            (wanted){.slot     = e->slot,
                     .position = e->position,
                     .n_rows   = e->n_tokens,
                     .n_drafts = e->n_drafts,
                     .samples  = e->logits != LOGITS_WANTED_NONE && !e->no_sample,
                     .scores   = e->logits == LOGITS_WANTED_ALL,
                     .pools    = e->logits == LOGITS_WANTED_POOLED,
                     .is_beam  = e->logits != LOGITS_WANTED_NONE && e->logits != LOGITS_WANTED_POOLED && e->no_sample};
    }
}

static void on_load(void *self, const message *m)
{
    player        *x    = self;
    const kv_load *body = m->body;
    uint32_t       i    = 0;
    assert(body->n_from > 0 && body->n_from == body->n_to);
    assert(are_below(body->to, body->n_to, x->about.n_kv_blocks));
    while (i < LOADS && x->loads[i])
        i++;
    assert(i < LOADS);
    x->loads[i]         = body->load;
    x->n_load_blocks[i] = body->n_to;
}

static const role roles[N_PLAYERS] = {
    [GATEWAY] = ROLE_GATEWAY,       [TOKENIZER] = ROLE_TOKENIZER, [POSTPROCESSOR] = ROLE_POSTPROCESSOR,
    [DRAFTER] = ROLE_DRAFTER,       [CLIENT] = ROLE_CLIENT,       [EXECUTOR] = ROLE_EXECUTOR,
    [EXECUTOR + 1] = ROLE_EXECUTOR,
};
static player_class classes[N_PLAYERS];

static void fill_classes(void)
{
    for (int i = 0; i < N_PLAYERS; i++) {
        player_class_fill(&classes[i], roles[i]);
        player_class_take(&classes[i], MSG_EXECUTOR_RESET, on_reset);
        player_class_take(&classes[i], MSG_STEP_PLAN, on_plan);
        player_class_take(&classes[i], MSG_KV_LOAD, on_load);
        classes[i].class.destroy = destroy;
    }
}

static void join(stage *t, player_id who)
{
    t->players[who].actor =
        fuzz_join(t->sim, &classes[who].class, &t->players[who],
                  (actor_options){.connect = {"inproc://scheduler"}, .credits = who >= EXECUTOR ? 2 : PLAYER_CREDITS});
}

static void say(stage *t, player_id who, uint16_t type, const void *body, const envelope *about)
{
    fuzz_say(t->players[who].actor, t->scheduler, type, body, about);
}

/* ---- acts ---- */

static void act_request(stage *t)
{
    static uint32_t prompt[PROMPT_MAX];
    envelope        about    = fuzz_about(&t->in, IDS, ATTEMPTS);
    gen_request    *body     = take_message(&t->in, MSG_GEN_REQUEST, t->memory);
    uint8_t         how      = take(&t->in);
    uint8_t         deadline = take(&t->in);
    for (uint32_t i = 0; i < PROMPT_MAX; i++)
        prompt[i] = i * 7 % VOCABULARY;
    if (how & 2 || body->n_prompt == 0) {
        body->prompt   = prompt;
        body->n_prompt = 1 + take(&t->in) % PROMPT_MAX;
    }
    if (how & 4)
        body->max_tokens = take(&t->in) % 32;
    if (how & 16) { /* an embedding, perhaps of a pair */
        body->pooled              = true;
        body->max_tokens          = 0;
        body->n                   = 1;
        body->second_start        = how & 32 ? body->n_prompt / 2 : 0;
        body->sampling.beam_width = 0;
        body->prompt_logprobs     = false;
    }
    body->reply_to = span_of(actor_name(t->players[how & 8 ? CLIENT : GATEWAY].actor));
    if (deadline > 128)
        about.deadline_unix_ms = clock_unix_ms(simulation_clock(t->sim)) + deadline - 128;
    say(t, TOKENIZER, MSG_GEN_REQUEST, body, &about);
}

static void act_cancel(stage *t)
{
    static const player_id who[] = {GATEWAY, POSTPROCESSOR, TOKENIZER};
    envelope               about = fuzz_about(&t->in, IDS, ATTEMPTS);
    uint8_t                which = take(&t->in);
    if (which > 240)
        say(t, GATEWAY, MSG_GEN_FIND, take_message(&t->in, MSG_GEN_FIND, t->memory), NULL);
    else if (which > 225)
        say(t, GATEWAY, MSG_STATUS_GET, take_message(&t->in, MSG_STATUS_GET, t->memory), NULL);
    else
        say(t, who[which % COUNT(who)], MSG_GEN_CANCEL, take_message(&t->in, MSG_GEN_CANCEL, t->memory), &about);
}

static void act_ready(stage *t)
{
    player_id       who  = EXECUTOR + take(&t->in) % EXECUTORS;
    executor_ready *body = take_message(&t->in, MSG_EXECUTOR_READY, t->memory);
    uint8_t         how  = take(&t->in);
    if (how == 0xff) {
        say(t, who, MSG_EXECUTOR_LEAVE, take_message(&t->in, MSG_EXECUTOR_LEAVE, t->memory), NULL);
        return;
    }
    body->fingerprint = how & 0x80 ? body->fingerprint : 0;
    if (how & 1)
        body->n_kv_blocks = 1 + take(&t->in) % 64;
    if (how & 2)
        body->n_slots = 1 + take(&t->in) % 32;
    if (body->n_slots > ENTRIES)
        body->n_slots = ENTRIES; /* what a player can write down */
    body->kv_block_tokens = how & 4 ? body->kv_block_tokens : KV_BLOCK_TOKENS;
    body->n_tokens_max    = how & 8 ? body->n_tokens_max : 1 + take(&t->in) % 128;
    body->n_vocab         = how & 16 ? body->n_vocab : VOCABULARY;
    body->max_model_len   = how & 32 ? body->max_model_len : 256;
    body->n_pooled %= POOLED_MAX + 1;
    body->kv_endpoint      = how & 0x80 ? body->kv_endpoint : SPAN("inproc://blocks"); /* and its role is as it comes */
    body->kv_block_bytes   = how & 0x80 ? body->kv_block_bytes : 1000;
    body->n_logit_rows_max = how & 64 ? body->n_logit_rows_max : 1 + take(&t->in) % 64;
    t->players[who].said   = *body;
    say(t, who, MSG_EXECUTOR_READY, body, NULL);
}

static token_logprob *likely(stage *t, uint32_t n)
{
    token_logprob *l = arena_take_array(t->memory, n ? n : 1, sizeof *l);
    for (uint32_t i = 0; l && i < n; i++) {
        uint32_t *tokens   = arena_take_array(t->memory, TOP, sizeof *tokens);
        float    *logprobs = arena_take_array(t->memory, TOP, sizeof *logprobs);
        if (!tokens || !logprobs)
            return NULL;
        for (uint32_t k = 0; k < TOP; k++) {
            tokens[k]   = (take(&t->in) + k) % VOCABULARY;
            logprobs[k] = -0.25f * (float)k - take(&t->in) / 64.0f;
        }
        l[i] = (token_logprob){.token          = tokens[0],
                               .logprob        = logprobs[0],
                               .top_tokens     = tokens,
                               .n_top_tokens   = TOP,
                               .top_logprobs   = logprobs,
                               .n_top_logprobs = TOP};
    }
    return l;
}

/* What the plan asked for: for drafts, some of them are right. */
static step_output honest_output(stage *t, const player *x, const wanted *w)
{
    static const float pooled[POOLED_MAX];
    step_output        o      = {.slot = w->slot, .position = w->position + w->n_rows};
    uint32_t          *tokens = arena_take_array(t->memory, w->n_drafts + 1, sizeof *tokens);
    if (w->samples && tokens) {
        o.tokens   = tokens;
        o.n_tokens = 1 + take(&t->in) % (w->n_drafts + 1);
        for (uint32_t i = 0; i < o.n_tokens; i++)
            tokens[i] = take(&t->in) % VOCABULARY;
        o.n_logprobs = o.n_tokens;
        o.logprobs   = likely(t, o.n_logprobs);
    }
    if (w->pools) {
        o.pooled   = pooled;
        o.n_pooled = x->about.n_pooled;
    }
    if (w->is_beam && (o.logprobs = likely(t, 1)))
        o.n_logprobs = 1;
    if (w->scores) {
        o.position          = w->position;
        o.n_prompt_logprobs = w->n_rows;
        o.prompt_logprobs   = likely(t, w->n_rows);
    }
    return o;
}

/* Answers an executor's oldest plan; honestly, or with some output made anew. */
static void answer(stage *t, player_id who, bool honest)
{
    player *x  = &t->players[who];
    peer   *to = x->actor ? actor_find_peer(x->actor, span_of(actor_name(t->scheduler))) : NULL;
    if (!to || x->n_plans == 0)
        return;
    step_output *outputs = arena_take_array(t->memory, ENTRIES + 1, sizeof *outputs);
    step_result  result  = {.step = x->steps[0], .outputs = outputs};
    for (uint32_t i = 0; outputs && i < x->n_entries[0]; i++) {
        const wanted *w = &x->plans[0][i];
        if (!w->samples && !w->scores && !w->is_beam && !w->pools)
            continue;
        step_output *o   = &outputs[result.n_outputs++];
        uint8_t      lie = honest ? 0 : take(&t->in);
        *o               = honest_output(t, x, w);
        if (lie > 224)
            o->error = SPAN("no finite logit");
        else if (lie > 192)
            o->position = (uint32_t)take_wide(&t->in);
        else if (lie > 160)
            o->n_logprobs = o->n_prompt_logprobs = o->n_pooled = 0;
    }
    if (!honest && take(&t->in) > 240)
        result.error = SPAN("out of memory");
    if (!honest && take(&t->in) > 240) {
        uint64_t step = result.step;
        result        = *(step_result *)take_message(&t->in, MSG_STEP_RESULT, t->memory);
        result.step   = step;
    }
    (void)!actor_send(x->actor, to, MSG_STEP_RESULT, &result, NULL, NULL);
    actor_grant(x->actor, to, 1);
    x->n_plans--;
    memmove(x->steps, x->steps + 1, sizeof x->steps - sizeof x->steps[0]);
    memmove(x->plans, x->plans + 1, sizeof x->plans - sizeof x->plans[0]);
    memmove(x->n_entries, x->n_entries + 1, sizeof x->n_entries - sizeof x->n_entries[0]);
}

/* Ends the loads of an executor; some of them with fewer blocks, or with more than were asked for. */
static void end_loads(stage *t, player_id who, bool honest)
{
    player *x = &t->players[who];
    for (uint32_t i = 0; i < LOADS; i++) {
        if (!x->loads[i])
            continue;
        kv_loaded end = {.load = x->loads[i], .n_blocks = x->n_load_blocks[i], .elapsed_us = 100};
        uint8_t   how = honest ? 0 : take(&t->in);
        if (how > 128) {
            end.n_blocks = how % (x->n_load_blocks[i] + 2);
            end.error    = how > 192 ? SPAN("the source left") : (span){0};
        }
        x->loads[i] = 0;
        say(t, who, MSG_KV_LOADED, &end, NULL);
    }
}

static void act_draft(stage *t)
{
    envelope     about = fuzz_about(&t->in, IDS, ATTEMPTS);
    draft_reply *body  = take_message(&t->in, MSG_DRAFT_REPLY, t->memory);
    uint8_t      how   = take(&t->in);
    if (how & 1) /* the length that the sequence has, so that the drafts are taken */
        for (const request *r = ((const scheduler *)actor_self(t->scheduler))->requests; r; r = r->next)
            if (request_id_equal(&r->envelope.request, &about.request) && body->choice < r->n_sequences)
                body->length = r->sequences[body->choice].n_tokens;
    say(t, DRAFTER, MSG_DRAFT_REPLY, body, &about);
}

static void act_leave(stage *t)
{
    player_id who = take(&t->in) % N_PLAYERS;
    simulation_kill(t->sim, t->players[who].actor);
    join(t, who);
    fuzz_run_ms(t->sim, take(&t->in) * 16);
}

static void act(void *arg)
{
    stage *t = arg;
    switch (take(&t->in) % 8) {
    case 0:
    case 1:
        act_request(t);
        break;
    case 2:
        act_cancel(t);
        break;
    case 3:
        act_ready(t);
        break;
    case 4:
    case 5:
        answer(t, EXECUTOR + take(&t->in) % EXECUTORS, false);
        break;
    case 6:
        if (take(&t->in) > 160)
            end_loads(t, EXECUTOR + take(&t->in) % EXECUTORS, false);
        else
            act_draft(t);
        break;
    case 7:
        if (take(&t->in) > 200)
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
    for (int i = 0; i < N_PLAYERS; i++)
        if (!fuzz_know_each_other(t->players[i].actor, t->scheduler))
            return false;
    return true;
}

static void start(stage *t)
{
    option_group group = {"scheduler", scheduler_option_rows, n_scheduler_option_rows, &t->options};
    uint8_t      how   = take(&t->in);
    fill_classes();
    fuzz_open(&t->sim, &t->memory, MEMORY_BYTES);
    if (!option_parse(&group, 1, 0, NULL, NULL, NULL))
        abort();
    t->options.hash_seed         = 7;
    t->options.policy            = how % 3;
    t->options.prefix_caching    = !(how & 4);
    t->options.max_num_seqs      = how & 8 ? 2 : 16;
    t->options.max_prefill_chunk = how & 16 ? 8 : 0;
    t->scheduler = fuzz_join(t->sim, &scheduler_class, &t->options, (actor_options){.bind = {"inproc://scheduler"}});
    for (int i = 0; i < N_PLAYERS; i++)
        join(t, (player_id)i);
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
}

/* Everybody cancels, and what is in flight is answered. */
static void expect_nothing_left(stage *t)
{
    const scheduler *s   = actor_self(t->scheduler);
    gen_cancel       all = {.all = true, .reason = CANCEL_REASON_CLIENT_LEFT};
    t->in.size           = 0; /* what they say from here on is the same for all inputs */
    assert(simulation_run_until(t->sim, is_connected, t, 30 * NS_PER_S));
    for (int round = 0; round < 4 * PLANS && s->n_requests > 0; round++) {
        arena_reset(t->memory);
        for (const request *r = s->requests; r; r = r->next)
            say(t, GATEWAY, MSG_GEN_CANCEL, &all, &r->envelope);
        for (int i = 0; i < EXECUTORS; i++)
            answer(t, EXECUTOR + i, true);
        fuzz_run_ms(t->sim, 100);
    }
    for (int i = 0; i < EXECUTORS; i++)
        end_loads(t, EXECUTOR + i, true);
    fuzz_run_ms(t->sim, 100);
    assert(s->n_requests == 0 && s->n_waiting == 0 && s->n_waiting_tokens == 0);
    for (const executor_link *x = s->executors; x; x = x->next)
        assert(x->n_running == 0 && kv_pool_n_available(x->pool) == kv_pool_n_blocks(x->pool));
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
