/* KV blocks that move between executors.
 *
 * Two reasons: a sequence starts where less of its prefix is warm than elsewhere, and to fetch the rest is cheaper than
 * to compute it; or its prompt is done on a prefill executor, and a decode executor goes on. Either way the sequence
 * has its slot and its blocks on the target already and is not planned until kv.loaded says how many came: the others
 * are computed there, and because tokens are a function of the request nobody can tell.
 *
 * A move holds its blocks on both sides itself. So sequences may end, give way or be lost meanwhile: nothing is written
 * into blocks that have a new owner. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

enum {
    PREFILL_ROWS_MIN = 32, /* of a step that is measured: mostly a prompt's */
    FETCH_FIXED_US   = 2000,
};

static uint32_t room_of(const executor_link *x)
{
    return x->about.n_kv_blocks < KV_MOVE_BLOCKS_MAX ? x->about.n_kv_blocks : KV_MOVE_BLOCKS_MAX;
}

bool kv_moves_take_memory(executor_link *x)
{
    size_t room    = room_of(x);
    x->move_blocks = calloc(KV_MOVES_MAX * 2 * room, sizeof *x->move_blocks);
    for (uint32_t i = 0; x->move_blocks && i < KV_MOVES_MAX; i++) {
        x->moves[i].from = x->move_blocks + 2 * i * room;
        x->moves[i].to   = x->moves[i].from + room;
    }
    return x->move_blocks != NULL;
}

void kv_moves_register_metrics(scheduler *s)
{
    s->metrics.moves = metric_counter("troupe_kv_transfers_total", "result=\"ok\"",
                                      "KV blocks fetched by one executor from another, in sets of one sequence.");
    s->metrics.moves_failed =
        metric_counter("troupe_kv_transfers_total", "result=\"failed\"",
                       "KV blocks fetched by one executor from another, in sets of one sequence.");
    s->metrics.moved_blocks = metric_counter("troupe_kv_transfer_blocks_total", "", "KV blocks fetched so.");
    s->metrics.handed_over =
        metric_counter("troupe_kv_handovers_total", "", "Sequences that went from a prefill to a decode executor.");
    s->metrics.move_time = metric_histogram("troupe_kv_transfer_seconds", "", "Time to fetch a set of KV blocks.",
                                            metric_seconds_bounds, n_metric_seconds_bounds);
}

/* ---- what is cheaper ---- */

void kv_moves_measure(executor_link *x, const planned_step *p, uint32_t elapsed_us)
{
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < p->n_entries; i++)
        n_rows += p->entries[i].n_rows + p->entries[i].n_drafts;
    if (n_rows >= PREFILL_ROWS_MIN && elapsed_us > 0)
        x->prefill_tokens_per_s = smoothed(x->prefill_tokens_per_s, n_rows / (elapsed_us / 1e6));
}

/* Whether `x` gets so many blocks sooner from another executor than by computing their tokens. What was not measured
 * yet is tried. */
bool kv_moves_fetch_is_cheaper(const executor_link *x, uint32_t n_blocks)
{
    if (x->prefill_tokens_per_s <= 0 || x->kv_bytes_per_s <= 0)
        return true;
    double fetch_s   = FETCH_FIXED_US / 1e6 + (double)n_blocks * (double)x->about.kv_block_bytes / x->kv_bytes_per_s;
    double prefill_s = (double)n_blocks * KV_BLOCK_TOKENS / x->prefill_tokens_per_s;
    return fetch_s < prefill_s;
}

/* ---- a move ---- */

static bool can_exchange(const executor_link *a, const executor_link *b)
{
    return a != b && a->about.kv_endpoint.size > 0 && b->about.kv_endpoint.size > 0 &&
           a->about.kv_block_bytes ==
               b->about.kv_block_bytes; /* their fingerprints agree, or they were not both here */
}

static kv_move *free_move(executor_link *target)
{
    for (uint32_t i = 0; i < KV_MOVES_MAX; i++)
        if (target->moves[i].number == 0)
            return &target->moves[i];
    return NULL;
}

/* Ends a move of which the first `n_there` blocks came: its sequence goes on behind them. */
static void finish(scheduler *s, executor_link *target, kv_move *m, uint32_t n_there)
{
    sequence *q = m->sequence;
    for (uint32_t i = m->n; i-- > 0;) {
        kv_pool_release(target->pool, m->to[i]);
        if (m->source)
            kv_pool_release(m->source->pool, m->from[i]);
    }
    if (q) {
        uint32_t n_blocks = q->n_computed / KV_BLOCK_TOKENS + n_there;
        q->loading        = NULL;
        q->n_computed = q->n_planned = n_there == m->n ? m->n_positions : n_blocks * KV_BLOCK_TOKENS;
        sequence_publish_blocks(s, q);
        if (q->n_tokens == q->n_prompt) {
            metric_add(s->metrics.cached_tokens, q->n_computed - q->n_cached);
            q->n_cached = q->n_computed;
        }
    }
    m->number = 0;
    target->n_moves--;
}

/* Blocks m->from[0, n) of `source`, which the caller has shared, hold the first blocks of `q`, which has just started
 * on its executor. Those that are not there already are loaded, if there is room for them. */
static void begin(scheduler *s, sequence *q, kv_move *m, executor_link *source, uint32_t n, uint32_t n_positions)
{
    executor_link *target = q->executor;
    uint32_t       n_here = q->n_blocks < n ? q->n_blocks : n, n_left = n - n_here;
    error          err;
    for (uint32_t i = 0; i < n_here; i++)
        kv_pool_release(source->pool, m->from[i]);
    memmove(m->from, m->from + n_here, n_left * sizeof *m->from);
    if (n_left == 0 || !kv_pool_take(target->pool, n_left, q->blocks + n_here)) {
        for (uint32_t i = n_left; i-- > 0;)
            kv_pool_release(source->pool, m->from[i]);
        return;
    }
    for (uint32_t i = 0; i < n_left; i++) {
        m->to[i] = q->blocks[n_here + i];
        kv_pool_share(target->pool, m->to[i]);
    }
    offload_drop_saves(target, m->to, n_left);
    m->number      = ++s->n_moves;
    m->source      = source;
    m->sequence    = q;
    m->n           = n_left;
    m->n_positions = n_positions;
    q->n_blocks    = n;
    q->loading     = m;
    target->n_moves++;
    kv_load load = {.load     = m->number,
                    .source   = span_of(source->peer->name),
                    .endpoint = source->about.kv_endpoint,
                    .term     = source->about.term,
                    .from     = m->from,
                    .n_from   = n_left,
                    .to       = m->to,
                    .n_to     = n_left};
    if (!actor_send(s->actor, target->peer, MSG_KV_LOAD, &load, NULL, &err)) {
        log_warn("KV blocks are not fetched", "node=%s why=\"%s\"", target->peer->name, err.text);
        metric_add(s->metrics.moves_failed, 1);
        finish(s, target, m, 0);
    }
}

void kv_moves_loaded(scheduler *s, executor_link *x, const kv_loaded *what)
{
    kv_move *m = NULL;
    for (uint32_t i = 0; i < KV_MOVES_MAX; i++)
        if (what->load > 0 && x->moves[i].number == what->load)
            m = &x->moves[i];
    if (!m || what->n_blocks > m->n || (what->n_blocks < m->n && what->error.size == 0)) {
        executors_wrong(s, x, "the end of a load that it was not told, or of other blocks");
        return;
    }
    if (what->error.size > 0)
        log_warn("KV blocks were not fetched", "node=%s blocks=%u of=%u why=\"%.*s\"", x->peer->name, what->n_blocks,
                 m->n, SPAN_ARG(what->error));
    metric_add(what->error.size > 0 ? s->metrics.moves_failed : s->metrics.moves, 1);
    metric_add(s->metrics.moved_blocks, what->n_blocks);
    metric_observe(s->metrics.move_time, what->elapsed_us / 1e6);
    if (what->n_blocks == m->n && what->elapsed_us > 0)
        x->kv_bytes_per_s =
            smoothed(x->kv_bytes_per_s, (double)m->n * (double)x->about.kv_block_bytes / (what->elapsed_us / 1e6));
    finish(s, x, m, what->n_blocks);
}

void kv_moves_released(sequence *q)
{
    if (q->loading)
        q->loading->sequence = NULL;
    q->loading = NULL;
}

bool kv_moves_hold_blocks(const scheduler *s, const executor_link *x)
{
    bool holds = x->n_moves > 0;
    for (const executor_link *other = s->executors; other; other = other->next)
        for (uint32_t i = 0; i < KV_MOVES_MAX; i++)
            holds = holds || (other->moves[i].number > 0 && other->moves[i].source == x);
    return holds;
}

/* Its pool goes, and so do its own moves; nothing runs there any more. Moves from there go on: their targets hear of
 * the loss themselves, and say so. */
void kv_moves_executor_lost(scheduler *s, executor_link *x)
{
    for (executor_link *other = s->executors; other; other = other->next)
        for (uint32_t i = 0; i < KV_MOVES_MAX; i++)
            if (other->moves[i].number > 0 && other->moves[i].source == x)
                other->moves[i].source = NULL;
    for (uint32_t i = 0; i < KV_MOVES_MAX; i++) {
        kv_move *m = &x->moves[i];
        for (uint32_t k = m->number > 0 && m->source ? m->n : 0; k-- > 0;)
            kv_pool_release(m->source->pool, m->from[k]);
        m->number = 0;
    }
}

/* ---- prefixes ---- */

void kv_moves_fetch_prefix(scheduler *s, sequence *q)
{
    executor_link *x = q->executor, *source = NULL;
    kv_move       *m    = free_move(x);
    uint32_t       most = q->n_blocks;
    for (executor_link *other = s->executors; m && other; other = other->next) {
        uint32_t n = can_exchange(x, other) ? sequence_cached_blocks(s, q, other) : 0;
        if (n > most) {
            most   = n;
            source = other;
        }
    }
    if (!source || q->request->beam || !kv_moves_fetch_is_cheaper(x, most - q->n_blocks))
        return;
    uint32_t n = sequence_find_cached(s, q, source, m->from);
    begin(s, q, m, source, n, n * KV_BLOCK_TOKENS);
}

/* ---- roles ---- */

bool kv_moves_may_prefill(const scheduler *s, const executor_link *x)
{
    if (x->about.serves != EXECUTOR_ROLE_DECODE)
        return true;
    for (const executor_link *other = s->executors; other; other = other->next)
        if (other->about.serves != EXECUTOR_ROLE_DECODE && other->peer->ready)
            return false;
    return true;
}

/* Where a sequence goes on: an executor for decoding, then one for both; of these where the fewest run. */
static executor_link *find_target(const scheduler *s, const sequence *q)
{
    executor_link *best = NULL;
    for (executor_link *x = s->executors; x; x = x->next) {
        if (!can_exchange(q->executor, x) || x->about.serves == EXECUTOR_ROLE_PREFILL || !x->peer->ready ||
            !request_fits(s, q->request, x) || !free_move(x) || !batch_has_room(s, x, q))
            continue;
        bool is_better = !best || (x->about.serves == best->about.serves ? x->n_running < best->n_running
                                                                         : x->about.serves == EXECUTOR_ROLE_DECODE);
        best           = is_better ? x : best;
    }
    return best;
}

/* Its prompt is done, or will be with what is in flight, and it is not over. Beams stay together. */
static bool has_prompt(const sequence *q)
{
    uint32_t n_fed = q->n_tokens + q->n_pending;
    return q->executor->about.serves == EXECUTOR_ROLE_PREFILL && !q->request->beam && !q->request->pooled &&
           !q->loading && q->n_loading == 0 && n_fed > q->n_prompt && n_fed < q->n_tokens_max &&
           q->n_planned + 1 == n_fed;
}

bool kv_moves_will_hand_over(const scheduler *s, const sequence *q)
{
    return q->n_in_flight > 0 && has_prompt(q) && find_target(s, q);
}

/* All that is computed goes along, the last block too, which is not full: nobody writes into it any more. */
static void hand_over(scheduler *s, sequence *q, executor_link *target)
{
    executor_link *source      = q->executor;
    kv_move       *m           = free_move(target);
    uint32_t       n_positions = q->n_computed, n = (n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    assert(m && n <= q->n_blocks && n <= room_of(target));
    memcpy(m->from, q->blocks, n * sizeof *m->from);
    for (uint32_t i = 0; i < n; i++)
        kv_pool_share(source->pool, m->from[i]);
    sequence_release(s, q);
    q->state = SEQUENCE_WAITING;
    queue_add(s, q);
    if (target->n_running == 0)
        target->batch_step = target->next_step + 1;
    sequence_start(s, q, target);
    metric_add(s->metrics.handed_over, 1);
    begin(s, q, m, source, n, n_positions);
}

void kv_moves_hand_over(scheduler *s)
{
    for (executor_link *x = s->executors; x; x = x->next) {
        sequence *first = x->about.serves == EXECUTOR_ROLE_PREFILL ? x->running_first : NULL;
        for (sequence *q = first, *next; q; q = next) {
            next = q->next;
            executor_link *target =
                q->n_in_flight == 0 && q->n_pending == 0 && has_prompt(q) ? find_target(s, q) : NULL;
            if (target)
                hand_over(s, q, target);
        }
    }
}
