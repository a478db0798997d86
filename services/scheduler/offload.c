/* The second tier of executors' KV caches: blocks that the pool gives up are saved in offload slots, and come back when
 * a sequence has their prefix and loading is cheaper than computing.
 *
 * The order of things, with two plans in flight: the pool gives a block away while a plan is filled, and nothing is
 * written to it before that plan runs, because plans run in order. So its save travels in this very plan, and an
 * executor saves before it does anything else. It loads next, and a sequence is planned only after a result has said
 * that its loads are done; until then the load keeps a reference to its block and a pin on its slot, so that neither
 * becomes another's while the executor may still write or read it. A block that another executor's will fill
 * (kv_moves.c) may be written before the plan: its save is dropped (offload_drop_saves). When a plan is lost on its
 * way, its saves never happened: the stamp that travels with saves and loads tells, and the load is a miss. */
#include "scheduler/state.h"

#include <assert.h>
#include <stdlib.h>

enum { OFFLOAD_SAVES_MAX = 16384, OFFLOAD_LOADS_MAX = 1024 };

/* ---- saving ---- */

static void save_evicted(void *arg, uint32_t block, kv_hash hash)
{
    offload_tier *t = arg;
    bool          is_new;
    if (t->n_saves == OFFLOAD_SAVES_MAX)
        return;
    uint32_t slot = kv_offload_index_put(t->index, hash, &is_new);
    if (slot != KV_NO_SLOT && is_new)
        t->saves[t->n_saves++] =
            (kv_offload_move){.block = block, .slot = slot, .stamp = kv_offload_index_stamp(t->index, slot)};
}

bool offload_new(executor_link *x, error *err)
{
    offload_tier *t       = &x->offload;
    uint32_t      n_slots = x->about.n_offload_slots;
    if (n_slots == 0)
        return true;
    t->index = kv_offload_index_new(n_slots < KV_BLOCKS_MAX ? n_slots : KV_BLOCKS_MAX, err);
    t->saves = calloc(OFFLOAD_SAVES_MAX, sizeof *t->saves);
    t->loads = calloc(OFFLOAD_LOADS_MAX, sizeof *t->loads);
    t->moves = calloc(OFFLOAD_LOADS_MAX, sizeof *t->moves);
    if (!t->index || !t->saves || !t->loads || !t->moves)
        return false;
    kv_pool_on_evict(x->pool, save_evicted, t);
    return true;
}

void offload_free(executor_link *x)
{
    offload_tier *t = &x->offload;
    kv_offload_index_free(&t->index);
    free(t->saves);
    free(t->loads);
    free(t->moves);
    *t = (offload_tier){0};
}

void offload_drop_saves(executor_link *x, const uint32_t *blocks, uint32_t n)
{
    offload_tier *t = &x->offload;
    for (uint32_t i = t->n_saves; i-- > 0;) {
        for (uint32_t k = 0; k < n; k++) {
            if (t->saves[i].block != blocks[k])
                continue;
            t->saves[i] = t->saves[--t->n_saves]; /* its slot's stamp was never written: a load of it is a miss */
            break;
        }
    }
}

/* ---- loading ---- */

/* What was measured as too dear is tried again after a while. */
static bool is_cheaper(executor_link *x)
{
    if (x->offload.load_us * x->prefill_tokens_per_s <= KV_BLOCK_TOKENS * 1e6)
        return true;
    x->offload.load_us *= 0.98;
    return false;
}

void offload_load_prefix(scheduler *s, sequence *q)
{
    executor_link *x = q->executor;
    offload_tier  *t = &x->offload;
    if (!t->index || !sequence_uses_prefixes(s, q) || q->request->beam)
        return;
    uint32_t n_full  = (q->n_tokens - 1) / KV_BLOCK_TOKENS;
    kv_hash  hash    = q->last_hash;
    q->n_blocks_good = n_full;
    while (q->n_blocks < n_full && t->n_loads < OFFLOAD_LOADS_MAX) {
        hash          = kv_hash_block(s->key, hash, q->tokens + q->n_blocks * KV_BLOCK_TOKENS);
        uint32_t slot = kv_offload_index_find(t->index, hash);
        if (slot == KV_NO_SLOT || (q->n_loading == 0 && !is_cheaper(x)))
            return;
        kv_offload_index_pin(t->index, slot); /* before a block is taken: what that evicts wants a slot */
        if (!kv_pool_take(x->pool, 1, &q->blocks[q->n_blocks])) {
            kv_offload_index_unpin(t->index, slot);
            return;
        }
        kv_pool_share(x->pool, q->blocks[q->n_blocks]);
        t->loads[t->n_loads++] =
            (block_load){.sequence = q, .place = q->n_blocks, .block = q->blocks[q->n_blocks], .slot = slot};
        q->n_blocks++;
        q->n_loading++;
    }
}

void offload_released(executor_link *x, sequence *q)
{
    for (uint32_t i = 0; q->n_loading > 0 && i < x->offload.n_loads; i++)
        if (x->offload.loads[i].sequence == q)
            x->offload.loads[i].sequence = NULL;
    q->n_loading = 0;
}

/* All loads of `q` are done: it goes on behind the blocks that came. What did not come is computed. */
static void go_on(scheduler *s, sequence *q)
{
    uint32_t before = q->n_computed;
    uint32_t n_good = q->n_blocks_good < q->n_blocks ? q->n_blocks_good : q->n_blocks;
    q->n_computed = q->n_planned = n_good * KV_BLOCK_TOKENS;
    if (q->n_tokens == q->n_prompt)
        q->n_cached = q->n_computed;
    metric_add(s->metrics.cached_tokens, q->n_computed - before);
    metric_add(s->metrics.offload_hits, q->n_computed - before);
    sequence_publish_blocks(s, q);
}

static void finish_load(scheduler *s, executor_link *x, uint32_t index, bool ok)
{
    offload_tier *t    = &x->offload;
    block_load    load = t->loads[index];
    sequence     *q    = load.sequence;
    t->loads[index]    = t->loads[--t->n_loads];
    if (ok)
        kv_offload_index_unpin(t->index, load.slot);
    else
        kv_offload_index_drop(t->index, load.slot);
    if (q && !ok && load.place < q->n_blocks_good)
        q->n_blocks_good = load.place;
    if (q && --q->n_loading == 0)
        go_on(s, q);
    kv_pool_release(x->pool, load.block);
}

/* ---- plans and results ---- */

static bool has_unsent(const offload_tier *t)
{
    for (uint32_t i = 0; i < t->n_loads; i++)
        if (t->loads[i].step == 0)
            return true;
    return false;
}

bool offload_wants_plan(const executor_link *x)
{
    return has_unsent(&x->offload) || (x->offload.n_loads > 0 && x->n_plans == 0);
}

void offload_fill_plan(executor_link *x, step_plan *plan)
{
    offload_tier *t = &x->offload;
    plan->saves     = t->saves;
    plan->n_saves   = t->n_saves;
    plan->loads     = t->moves;
    for (uint32_t i = 0; i < t->n_loads; i++)
        if (t->loads[i].step == 0)
            t->moves[plan->n_loads++] = (kv_offload_move){.block = t->loads[i].block,
                                                          .slot  = t->loads[i].slot,
                                                          .stamp = kv_offload_index_stamp(t->index, t->loads[i].slot)};
}

void offload_plan_sent(executor_link *x, uint64_t step)
{
    x->offload.n_saves = 0;
    for (uint32_t i = 0; i < x->offload.n_loads; i++)
        if (x->offload.loads[i].step == 0)
            x->offload.loads[i].step = step;
}

/* Of a load that was sent, or OFFLOAD_LOADS_MAX. */
static uint32_t find_load(const offload_tier *t, uint32_t slot)
{
    for (uint32_t i = 0; i < t->n_loads; i++)
        if (t->loads[i].slot == slot && t->loads[i].step > 0)
            return i;
    return OFFLOAD_LOADS_MAX;
}

const char *offload_find_fault(const executor_link *x, const step_result *result)
{
    for (uint32_t i = 0; i < result->n_loaded; i++)
        if (find_load(&x->offload, result->loaded[i]) == OFFLOAD_LOADS_MAX)
            return "a KV block that no plan asked to load";
    for (uint32_t i = 0; i < result->n_not_loaded; i++)
        if (find_load(&x->offload, result->not_loaded[i]) == OFFLOAD_LOADS_MAX)
            return "a failure to load a KV block that no plan asked for";
    return NULL;
}

void offload_apply(scheduler *s, executor_link *x, const planned_step *p, const step_result *result)
{
    offload_tier *t = &x->offload;
    uint32_t      at;
    if (!t->index)
        return;
    if (result->n_loaded > 0)
        t->load_us = smoothed(t->load_us, (double)result->load_us / result->n_loaded);
    for (uint32_t i = 0; i < result->n_loaded; i++)
        if ((at = find_load(t, result->loaded[i])) < OFFLOAD_LOADS_MAX)
            finish_load(s, x, at, true);
    for (uint32_t i = 0; i < result->n_not_loaded; i++)
        if ((at = find_load(t, result->not_loaded[i])) < OFFLOAD_LOADS_MAX)
            finish_load(s, x, at, false);
    for (uint32_t i = t->n_loads; p->n_entries == 0 && i-- > 0;) /* it waited for all that it knows of */
        if (t->loads[i].step > 0 && t->loads[i].step <= p->step)
            finish_load(s, x, i, false);
}

void offload_check(const executor_link *x)
{
    const offload_tier *t = &x->offload;
    if (!t->index)
        return;
    kv_offload_index_check(t->index);
    for (uint32_t i = 0; i < t->n_loads; i++) {
        const block_load *load = &t->loads[i];
        assert(!load->sequence || (load->sequence->executor == x && load->sequence->n_loading > 0 &&
                                   load->sequence->blocks[load->place] == load->block));
        (void)load;
    }
}
