/* Fills a step plan: running sequences first - one decode row each, then chunks of prompts - and then, when the policy
 * allows, sequences from the queue. All share one budget of tokens a step (chunked prefill mixed into decode: Agrawal
 * et al. 2024, arXiv 2403.02310). */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>

typedef struct {
    scheduler     *s;
    executor_link *x;
    step_plan      plan;
    uint32_t       tokens_left, logit_rows_left;
    uint32_t       reserved_blocks, reserved_slots; /* that running beam searches may still need */
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
    if (q->draft == DRAFT_WAITING || q->draft == DRAFT_WANTED)
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
            (!victim || q->request->priority >= victim->request->priority))
            victim = q;
    return victim;
}

static uint32_t blocks_of_beams(const request *r)
{
    return beam_width(r) * (r->sequences[0].n_tokens_max / KV_BLOCK_TOKENS + 2);
}

/* Beams neither give way nor wait: what they may still take is kept from all others. They grow in step, so each needs
 * at most what the shortest of them does. */
static void reserve_for_beams(builder *b)
{
    b->reserved_blocks = b->reserved_slots = 0;
    for (const sequence *q = b->x->running_first; q; q = q->next) {
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
            b->reserved_blocks += blocks_of_beams(r) - beam_width(r) * n_blocks;
            b->reserved_slots += 2 * beam_width(r) - n_running;
        }
    }
}

/* Extends the block table to cover `n_positions`. Preempts others when the pool is empty; false when `q` itself must
 * give way. */
static bool cover_positions(builder *b, sequence *q, uint32_t n_positions)
{
    uint32_t n_blocks = (n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    while (q->n_blocks < n_blocks) {
        bool may_take = q->request->beam || kv_pool_n_available(b->x->pool) > b->reserved_blocks;
        if (may_take && kv_pool_take(b->x->pool, 1, &q->blocks[q->n_blocks])) {
            q->n_blocks++;
            if (q->request->beam)
                reserve_for_beams(b);
            continue;
        }
        sequence *victim = find_victim(b, q);
        if (!victim || victim->request->priority < q->request->priority)
            return false;
        sequence_preempt(b->s, victim);
    }
    return true;
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
    };
    q->opened      = true;
    q->append_last = false;
}

/* Adds `n_rows` rows of `q`, and the drafts behind them; the blocks are there. */
static void add_entry(builder *b, sequence *q, uint32_t n_rows, uint32_t n_drafts)
{
    bool ends    = q->n_planned + n_rows == n_fed(q);
    bool samples = ends && q->request->max_tokens > 0;
    bool scores  = q->request->prompt_logprobs && q->n_planned < q->n_prompt;
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
                   .logits      = scores    ? LOGITS_WANTED_ALL
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
                                                      .scores     = scores};
    q->append_last                  = false;
    q->n_blocks_sent                = q->n_blocks;
    q->n_planned += n_rows + n_drafts;
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
    if (n_rows == 0 || b->plan.n_entries == b->x->about.n_slots)
        return;
    uint32_t n_drafts = 0;
    if (q->draft == DRAFT_READY && q->n_planned + n_rows == n_fed(q)) {
        n_drafts = least(q->n_drafts, b->tokens_left - n_rows);
        n_drafts = least(n_drafts, q->n_tokens_max - q->n_tokens - 1);
        n_drafts = least(n_drafts, b->logit_rows_left - 1);
    }
    if (!cover_positions(b, q, q->n_planned + n_rows + n_drafts)) {
        uint32_t covered = q->n_blocks * KV_BLOCK_TOKENS;
        if (covered <= q->n_planned) {
            if (!q->request->beam && q->n_in_flight == 0)
                sequence_preempt(b->s, q);
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

static void plan_running(builder *b, bool decoding)
{
    for (sequence *q = b->x->running_first, *next; q && b->tokens_left > 0; q = next) {
        next = q->next;
        if (q->planned_in_step != b->plan.step && wants_rows(b->s, q) && is_decoding(q) == decoding) {
            plan_sequence(b, q);
            if (next && next->state != SEQUENCE_RUNNING)
                next = NULL; /* it was preempted meanwhile; the rest waits for the next step */
        }
    }
}

/* Whether `q` should rather wait for another executor: one that has more of its prefix, or that its session was on. */
static bool prefers_another(scheduler *s, const sequence *q, const executor_link *x)
{
    uint32_t here = sequence_cached_blocks(s, q, x);
    for (const executor_link *other = s->executors; other; other = other->next)
        if (other != x && request_fits(q->request, other) && other->n_running < x->n_running + 4 &&
            other->n_free_slots + other->n_pending_closes > 0 &&
            (sequence_cached_blocks(s, q, other) > here ||
             (here == 0 && strcmp(q->request->warm_executor, other->peer->name) == 0)))
            return true;
    return false;
}

static bool has_room(const builder *b, const sequence *q)
{
    const executor_link *x     = b->x;
    uint32_t             slots = beam_width(q->request) ? 2 * beam_width(q->request) : 1;
    if (x->n_free_slots < slots + b->reserved_slots ||
        x->n_running + slots > b->s->options->max_num_seqs + (slots > 1 ? slots : 0))
        return false;
    /* room for what is known and one more, and a block in hand for each that runs; beams cannot give way, so they get
     * all they may need */
    uint32_t width    = beam_width(q->request);
    uint32_t n_blocks = width ? blocks_of_beams(q->request) : q->n_tokens / KV_BLOCK_TOKENS + 1;
    return n_blocks + x->n_running + b->reserved_blocks <= kv_pool_n_available(x->pool) ||
           (x->n_running == 0 && !width);
}

/* Makes room for a waiting sequence that is strictly more urgent than a running one. */
static bool make_room(builder *b, const sequence *q)
{
    while (!has_room(b, q)) {
        sequence *victim = find_victim(b, q);
        if (!victim || victim->request->priority <= q->request->priority)
            return false;
        sequence_preempt(b->s, victim);
    }
    return true;
}

/* All its tokens came with an earlier attempt, of which only the end was lost. */
static bool has_all_tokens(const sequence *q)
{
    return q->request->max_tokens > 0 && q->n_tokens == q->n_tokens_max;
}

static void admit_waiting(builder *b)
{
    while (b->tokens_left > 0 && b->logit_rows_left > 0 && b->plan.n_entries < b->x->about.n_slots &&
           policy_may_admit(b->s, b->x)) {
        sequence *q = queue_best(b->s, b->x);
        if (q && has_all_tokens(q) && request_open(b->s, q->request)) {
            sequence_emit(b->s, q, q->n_tokens, 0, NULL, 0, FINISH_REASON_LENGTH, NULL);
            sequence_end(b->s, q);
            request_settle(b->s, q->request);
            continue;
        }
        if (!q || has_all_tokens(q) || prefers_another(b->s, q, b->x) || !make_room(b, q) ||
            !request_open(b->s, q->request))
            return;
        if (q->n_tokens == q->n_prompt && q->choice == 0)
            metric_observe(b->s->metrics.queue_wait,
                           (double)(actor_now_ns(b->s->actor) - q->request->arrived_ns) / 1e9);
        if (b->x->n_running == 0)
            b->x->batch_step = b->plan.step;
        sequence_start(b->s, q, b->x);
        reserve_for_beams(b);
        plan_sequence(b, q);
        if (q->state != SEQUENCE_RUNNING || q->planned_in_step != b->plan.step)
            return; /* no room after all */
    }
}

/* Slots to forget are free for this very plan: an executor closes before it opens. */
static void take_closes(builder *b)
{
    executor_link *x = b->x;
    for (uint32_t i = 0; i < x->n_pending_closes; i++) {
        x->closes[i]                     = x->pending_closes[i];
        x->free_slots[x->n_free_slots++] = x->pending_closes[i];
    }
    b->plan.closes      = x->closes;
    b->plan.n_closes    = x->n_pending_closes;
    x->n_pending_closes = 0;
}

bool batch_plan(scheduler *s, executor_link *x)
{
    uint64_t budget = s->options->max_num_batched_tokens;
    builder  b      = {
              .s               = s,
              .x               = x,
              .plan            = {.step      = x->next_step + 1,
                                  .opens     = x->opens,
                                  .entries   = x->entries,
                                  .copy_from = x->copy_from,
                                  .copy_to   = x->copy_to},
              .tokens_left     = budget > 0 && budget < x->about.n_tokens_max ? (uint32_t)budget : x->about.n_tokens_max,
              .logit_rows_left = x->about.n_logit_rows_max,
    };
    take_closes(&b);
    reserve_for_beams(&b);
    plan_running(&b, true);
    plan_running(&b, false);
    admit_waiting(&b);
    if (b.plan.n_entries == 0 && b.plan.n_closes == 0)
        return false;
    planned_step *p = &x->plans[x->n_plans++];
    p->step         = ++x->next_step;
    p->n_entries    = b.plan.n_entries;
    metric_add(s->metrics.steps, 1);
    error err;
    if (!actor_send(s->actor, x->peer, MSG_STEP_PLAN, &b.plan, NULL, &err)) {
        executors_lost(s, x, err.text);
        return false;
    }
    return true;
}
