/* Fills a step plan: running sequences first - one decode row each, then chunks of prompts - and then, when the policy
 * allows, sequences from the queue; but before all, urgent ones of the queue take the places of others. All share one
 * budget of tokens a step (chunked prefill mixed into decode: Agrawal et al. 2024, arXiv 2403.02310). */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>

enum {
    PASSED_MAX     = 8,       /* to see that a sequence should wait for another executor costs hashing its prompt */
    OPEN_BYTES_MAX = 4 << 20, /* of what one plan opens; an executor takes plans of twice that */
};

/* What beam searches that run may still need. */
typedef struct {
    uint32_t n_blocks, n_slots;
} reserve;

typedef struct {
    scheduler     *s;
    executor_link *x;
    step_plan      plan;
    uint32_t       tokens_left, logit_rows_left;
    size_t         opened_bytes;
    uint32_t       n_passed; /* of the queue: they wait for another executor */
    reserve        reserved;
} builder;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Positions whose token is known, or is being sampled by a plan in flight. */
static uint32_t n_fed(const sequence *q)
{
    return q->n_tokens + q->n_pending;
}

static bool wants_rows(const scheduler *s, const sequence *q)
{
    if (q->loading || q->n_loading > 0 || q->draft == DRAFT_WAITING || q->draft == DRAFT_WANTED ||
        kv_moves_will_hand_over(s, q))
        return false;
    if (q->n_in_flight > 0 && (q->request->beam || speculate_is_on(s, q)))
        return false; /* what comes next depends on the plan in flight */
    if (q->request->max_tokens > 0 && n_fed(q) >= q->n_tokens_max)
        return false; /* its last token is in flight */
    return q->n_planned < n_fed(q);
}

/* The running sequence that gives way first: the least urgent, of those the latest. Not one of this plan, and no beam.
 */
static sequence *find_victim(const builder *b, const sequence *wanting)
{
    sequence *victim = NULL;
    for (sequence *q = b->x->running_first; q; q = q->next)
        if (q->planned_in_step != b->plan.step && !q->request->beam && q != wanting &&
            (!victim || q->request->turn_s >= victim->request->turn_s))
            victim = q;
    return victim;
}

/* Slots to forget are free for this very plan: an executor closes before it opens. */
static void take_closes(builder *b)
{
    executor_link *x = b->x;
    for (uint32_t i = 0; i < x->n_pending_closes; i++) {
        x->closes[b->plan.n_closes++]    = x->pending_closes[i];
        x->free_slots[x->n_free_slots++] = x->pending_closes[i];
    }
    x->n_pending_closes = 0;
}

static void give_way(builder *b, sequence *victim)
{
    request_trace_event(b->s, victim->request, "preempted");
    sequence_preempt(b->s, victim);
    take_closes(b);
}

static uint32_t blocks_of_beams(const request *r)
{
    return beam_width(r) * (r->sequences[0].n_tokens_max / KV_BLOCK_TOKENS + 2);
}

/* Beams neither give way nor wait: what they may still take is kept from all others. They grow in step, so each needs
 * at most what the shortest of them does. */
static reserve reserve_for_beams(const executor_link *x)
{
    reserve kept = {0};
    for (const sequence *q = x->running_first; q; q = q->next) {
        const request *r         = q->request;
        uint32_t       n_running = 0, n_blocks = UINT32_MAX;
        bool           is_first = beam_width(r) > 0;
        for (uint32_t i = 0; is_first && i < r->n_sequences; i++) {
            const sequence *beam = &r->sequences[i];
            if (beam->state != SEQUENCE_RUNNING)
                continue;
            is_first = n_running++ > 0 || beam == q;
            n_blocks = least(n_blocks, beam->n_blocks);
        }
        if (is_first) {
            kept.n_blocks += blocks_of_beams(r) - beam_width(r) * n_blocks;
            kept.n_slots += 2 * beam_width(r) - n_running;
        }
    }
    return kept;
}

/* Extends the block table to cover `n_positions`. Preempts others when the pool is empty; false when `q` itself must
 * give way. */
static bool cover_positions(builder *b, sequence *q, uint32_t n_positions)
{
    uint32_t n_blocks = (n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    while (q->n_blocks < n_blocks) {
        bool may_take = q->request->beam || kv_pool_n_available(b->x->pool) > b->reserved.n_blocks;
        if (may_take && kv_pool_take(b->x->pool, 1, &q->blocks[q->n_blocks])) {
            q->n_blocks++;
            if (q->request->beam)
                b->reserved = reserve_for_beams(b->x);
            continue;
        }
        sequence *victim = find_victim(b, q);
        if (!victim || victim->request->turn_s < q->request->turn_s)
            return false;
        give_way(b, victim);
    }
    return true;
}

/* What opening the slot of `q` adds to the plan's message: its history, its block table, how it samples. */
static size_t open_bytes(const sequence *q)
{
    return sizeof(slot_open) + sizeof(step_entry) + (size_t)q->n_tokens * 4 +
           (size_t)q->n_tokens / KV_BLOCK_TOKENS * 4 + q->request->n_stop_tokens * sizeof(uint32_t) +
           q->request->sampling.n_logit_bias * 16;
}

/* A plan opens one sequence however long it is, and more as long as they fit into a message together. */
static bool may_open(const builder *b, const sequence *q)
{
    return q->opened || b->plan.n_opens == 0 || b->opened_bytes + open_bytes(q) <= OPEN_BYTES_MAX;
}

static void open_slot(builder *b, sequence *q)
{
    const request *r               = q->request;
    b->x->opens[b->plan.n_opens++] = (slot_open){
        .slot            = q->slot,
        .tokens          = q->tokens,
        .n_tokens        = q->n_tokens,
        .n_prompt_tokens = q->n_prompt,
        .sampling        = r->sampling,
        .stop_tokens     = r->stop_tokens,
        .n_stop_tokens   = r->n_stop_tokens,
        .seed            = q->seed,
        .second_start    = r->second_start,
    };
    b->opened_bytes += open_bytes(q);
    q->opened      = true;
    q->append_last = false;
}

/* Adds `n_rows` rows of `q`, and the drafts behind them; the blocks are there. */
static void add_entry(builder *b, sequence *q, uint32_t n_rows, uint32_t n_drafts)
{
    bool ends    = q->n_planned + n_rows == n_fed(q);
    bool samples = ends && q->request->max_tokens > 0;
    bool scores  = q->request->prompt_logprobs && q->n_planned < q->n_prompt;
    bool pools   = q->request->pooled;
    if (q->copy_from != KV_NO_BLOCK) {
        b->x->copy_from[b->plan.n_copy_from++] = q->copy_from;
        b->x->copy_to[b->plan.n_copy_to++]     = q->blocks[q->n_computed / KV_BLOCK_TOKENS];
        kv_pool_release(b->x->pool, q->copy_from);
        q->copy_from = KV_NO_BLOCK;
    }
    if (!q->opened)
        open_slot(b, q);
    step_entry *e = &b->x->entries[b->plan.n_entries];
    *e            = (step_entry){
                   .slot        = q->slot,
                   .position    = q->n_planned,
                   .n_tokens    = n_rows,
                   .drafts      = q->drafts,
                   .n_drafts    = n_drafts,
                   .block_start = q->n_blocks_sent,
                   .blocks      = q->blocks + q->n_blocks_sent,
                   .n_blocks    = q->n_blocks - q->n_blocks_sent,
                   .logits      = pools     ? LOGITS_WANTED_POOLED
                                  : scores  ? LOGITS_WANTED_ALL
                                  : samples ? LOGITS_WANTED_LAST
                                            : LOGITS_WANTED_NONE,
                   .append      = q->append_last ? q->tokens + q->n_tokens - 1 : NULL,
                   .n_append    = q->append_last ? 1 : 0,
                   .no_sample   = !samples || q->request->beam,
    };
    planned_step *p                 = &b->x->plans[b->x->n_plans];
    p->entries[b->plan.n_entries++] = (planned_entry){.sequence   = q,
                                                      .generation = q->generation,
                                                      .slot       = q->slot,
                                                      .n_rows     = n_rows,
                                                      .n_drafts   = n_drafts,
                                                      .samples    = samples,
                                                      .scores     = scores,
                                                      .pools      = pools};
    q->append_last                  = false;
    q->n_blocks_sent                = q->n_blocks;
    q->n_planned += n_rows + n_drafts;
    suspicion_planned(b->x, q);
    q->n_pending += samples && !q->request->beam;
    q->planned_in_step = b->plan.step;
    q->n_in_flight++;
    if (q->draft == DRAFT_READY)
        q->draft = DRAFT_OFF;
    b->tokens_left -= n_rows + n_drafts;
    b->logit_rows_left -= scores ? n_rows : samples ? 1 + n_drafts : 0;
}

/* How many rows of `q` this step can take: bounded by the budget and, when every row is scored, by the executor's rows
 * of logits. */
static uint32_t rows_that_fit(const builder *b, const sequence *q)
{
    uint32_t n = least(n_fed(q) - q->n_planned, b->tokens_left);
    if (q->request->pooled)
        return n == q->n_tokens ? n : 0; /* all in one pass */
    if (b->s->options->max_prefill_chunk > 0)
        n = least(n, (uint32_t)b->s->options->max_prefill_chunk);
    if (q->request->prompt_logprobs && q->n_planned < q->n_prompt)
        return least(n, b->logit_rows_left);
    return b->logit_rows_left > 0 ? n : 0;
}

/* Plans rows of one running sequence. A prompt's chunk shrinks to the blocks there are; a sequence that cannot go on at
 * all gives way. */
static void plan_sequence(builder *b, sequence *q)
{
    uint32_t n_rows = rows_that_fit(b, q);
    if (n_rows == 0 || b->plan.n_entries == b->x->about.n_slots || !may_open(b, q))
        return;
    uint32_t n_drafts = 0;
    if (q->draft == DRAFT_READY && q->n_planned + n_rows == n_fed(q)) {
        n_drafts = least(q->n_drafts, b->tokens_left - n_rows);
        n_drafts = least(n_drafts, q->n_tokens_max - q->n_tokens - 1);
        n_drafts = least(n_drafts, b->logit_rows_left - 1);
    }
    if (!suspicion_may_plan(b->x, q, n_rows + n_drafts))
        return;
    if (!cover_positions(b, q, q->n_planned + n_rows + n_drafts)) {
        uint32_t covered = q->n_blocks * KV_BLOCK_TOKENS;
        if (covered <= q->n_planned || q->request->pooled) {
            if (!q->request->beam && q->n_in_flight == 0)
                give_way(b, q);
            return;
        }
        n_rows   = least(n_rows, covered - q->n_planned);
        n_drafts = least(n_drafts, covered - q->n_planned - n_rows);
    }
    add_entry(b, q, n_rows, n_drafts);
}

static bool is_decoding(const sequence *q)
{
    return n_fed(q) - q->n_planned == 1;
}

/* The order in which a step's tokens go to those that run. What a pooled output did not find room for in the last step
 * comes first, or many that decode would keep it from ever finding it. */
typedef enum { KIND_POOLED, KIND_DECODING, KIND_PROMPT, N_KINDS } row_kind;

static row_kind kind_of(const sequence *q)
{
    return q->request->pooled ? KIND_POOLED : is_decoding(q) ? KIND_DECODING : KIND_PROMPT;
}

static void plan_running(builder *b, row_kind kind)
{
    for (sequence *q = b->x->running_first, *next; q && b->tokens_left > 0; q = next) {
        next = q->next;
        if (q->planned_in_step != b->plan.step && wants_rows(b->s, q) && kind_of(q) == kind) {
            plan_sequence(b, q);
            if (next && next->state != SEQUENCE_RUNNING)
                next = NULL; /* it was preempted meanwhile; the rest waits for the next step */
        }
    }
}

/* ---- from the queue ---- */

/* Whether `q` can start on `x` once `n_gone` of those that run gave way with their `n_blocks_gone` blocks: with room
 * for what is known and one more, and a block in hand for each that runs. Beams cannot give way, so they get all they
 * may need. */
static bool has_room(const scheduler *s, const executor_link *x, const sequence *q, uint32_t n_gone,
                     uint32_t n_blocks_gone)
{
    reserve  kept      = reserve_for_beams(x);
    uint32_t width     = beam_width(q->request);
    uint32_t n_slots   = width ? 2 * width : 1;
    uint32_t n_blocks  = width ? blocks_of_beams(q->request) : q->n_tokens / KV_BLOCK_TOKENS + 1;
    uint32_t n_running = x->n_running - n_gone;
    if (x->n_free_slots + x->n_pending_closes + n_gone < n_slots + kept.n_slots ||
        n_running + n_slots > s->options->max_num_seqs + (width ? n_slots : 0))
        return false;
    return n_blocks + n_running + kept.n_blocks <= kv_pool_n_available(x->pool) + n_blocks_gone ||
           (n_running == 0 && !width);
}

bool batch_has_room(const scheduler *s, const executor_link *x, const sequence *q)
{
    return has_room(s, x, q, 0, 0);
}

/* Whether `q` should rather wait for another executor, which has more of its prefix, or which its session was on: one
 * that would take it now. */
static bool prefers_another(scheduler *s, const sequence *q, const executor_link *x)
{
    uint32_t here = UINT32_MAX;
    for (const executor_link *other = s->executors; other; other = other->next) {
        if (other == x || !other->peer->ready || other->n_running >= x->n_running + 4 ||
            !request_fits(s, q->request, other) || !policy_may_admit(s, other) || !has_room(s, other, q, 0, 0) ||
            !kv_moves_may_prefill(s, other))
            continue;
        here = here == UINT32_MAX ? sequence_cached_blocks(s, q, x) : here;
        if (sequence_cached_blocks(s, q, other) > here ||
            (here == 0 && strcmp(q->request->warm_executor, other->peer->name) == 0))
            return true;
    }
    return false;
}

/* It was resumed after its last token: that needs no executor. False when nobody is there to hear it. */
static bool end_with_all_tokens(scheduler *s, sequence *q)
{
    if (!request_open(s, q->request))
        return false;
    sequence_emit(s, q, q->n_tokens, 0, NULL, 0, FINISH_REASON_LENGTH, NULL);
    sequence_end(s, q);
    request_settle(s, q->request);
    return true;
}

/* The first of the queue that should start here. Those that should wait for another executor are passed over until the
 * next plan. */
static sequence *next_in_queue(builder *b)
{
    sequence *q;
    if (!kv_moves_may_prefill(b->s, b->x))
        return NULL;
    while ((q = queue_best(b->s, b->x))) {
        bool has_all_tokens = q->request->max_tokens > 0 && q->n_tokens == q->n_tokens_max;
        if (has_all_tokens && !end_with_all_tokens(b->s, q))
            return NULL;
        if (has_all_tokens)
            continue;
        if (!prefers_another(b->s, q, b->x))
            return q;
        if (b->n_passed++ == PASSED_MAX)
            return NULL;
        q->passed_in_plan = b->s->n_plans;
    }
    return NULL;
}

static void start(builder *b, sequence *q)
{
    if (q->n_tokens == q->n_prompt && q->choice == 0)
        metric_observe(b->s->metrics.queue_wait, (double)(actor_now_ns(b->s->actor) - q->request->arrived_ns) / 1e9);
    if (b->x->n_running == 0)
        b->x->batch_step = b->plan.step;
    sequence_start(b->s, q, b->x);
    offload_load_prefix(b->s, q);
    if (q->n_loading == 0)
        kv_moves_fetch_prefix(b->s, q);
    b->reserved = reserve_for_beams(b->x);
}

/* A place is taken only by who comes a whole level of priority earlier: computing again has its price. */
static bool may_take_place(const builder *b, const sequence *q, const sequence *running)
{
    return running->request->turn_s - q->request->turn_s >= b->s->options->priority_aging_s;
}

static bool could_make_room(const builder *b, const sequence *q)
{
    uint32_t n = 0, n_blocks = 0;
    for (const sequence *other = b->x->running_first; other; other = other->next) {
        if (!other->request->beam && may_take_place(b, q, other)) {
            n++;
            n_blocks += other->n_blocks;
        }
    }
    return n > 0 && has_room(b->s, b->x, q, n, n_blocks);
}

static bool make_room(builder *b, const sequence *q)
{
    while (!has_room(b->s, b->x, q, 0, 0)) {
        sequence *victim = find_victim(b, q);
        if (!victim || !may_take_place(b, q, victim))
            return false; /* blocks that others share did not come free */
        give_way(b, victim);
    }
    return true;
}

/* The urgent take the places of others, before these are planned: what is in a plan can't give way any more, and all
 * that decodes is in every plan. As many start as the step has tokens for. */
static void start_urgent(builder *b)
{
    uint32_t n_rows = 0;
    while (b->x->n_running > 0 && n_rows < b->tokens_left && policy_may_admit(b->s, b->x)) {
        sequence *q = next_in_queue(b);
        if (!q || has_room(b->s, b->x, q, 0, 0) || !could_make_room(b, q) || !request_open(b->s, q->request) ||
            !make_room(b, q))
            return;
        start(b, q);
        n_rows += n_fed(q) - q->n_planned;
    }
}

static void admit_waiting(builder *b)
{
    while (b->tokens_left > 0 && b->logit_rows_left > 0 && b->plan.n_entries < b->x->about.n_slots &&
           policy_may_admit(b->s, b->x)) {
        sequence *q = next_in_queue(b);
        if (!q || !may_open(b, q) || !has_room(b->s, b->x, q, 0, 0) || !request_open(b->s, q->request))
            return;
        start(b, q);
        if (q->loading || q->n_loading > 0)
            continue;
        plan_sequence(b, q);
        if (q->state != SEQUENCE_RUNNING || q->planned_in_step != b->plan.step)
            return; /* no room after all */
    }
}

bool batch_plan(scheduler *s, executor_link *x)
{
    uint64_t budget = s->options->max_num_batched_tokens;
    builder  b      = {
              .s               = s,
              .x               = x,
              .plan            = {.step      = x->next_step + 1,
                                  .opens     = x->opens,
                                  .closes    = x->closes,
                                  .entries   = x->entries,
                                  .copy_from = x->copy_from,
                                  .copy_to   = x->copy_to},
              .tokens_left     = budget > 0 && budget < x->about.n_tokens_max ? (uint32_t)budget : x->about.n_tokens_max,
              .logit_rows_left = x->about.n_logit_rows_max,
    };
    s->n_plans++;
    take_closes(&b);
    b.reserved = reserve_for_beams(x);
    start_urgent(&b);
    for (row_kind kind = 0; kind < N_KINDS; kind++)
        plan_running(&b, kind);
    admit_waiting(&b);
    if (b.plan.n_entries == 0 && b.plan.n_closes == 0 && !offload_wants_plan(x))
        return false;
    offload_fill_plan(x, &b.plan);
    if (x->n_plans == 0)
        x->oldest_since_ns = actor_now_ns(s->actor);
    planned_step *p = &x->plans[x->n_plans++];
    p->step         = ++x->next_step;
    p->n_entries    = b.plan.n_entries;
    metric_add(s->metrics.steps, 1);
    error err;
    if (!actor_send(s->actor, x->peer, MSG_STEP_PLAN, &b.plan, NULL, &err)) {
        executors_start_over(s, x, err.text); /* it is well, and would not say again what it holds */
        return false;
    }
    offload_plan_sent(x, b.plan.step);
    return true;
}
