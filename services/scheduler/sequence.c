/* What one sequence holds, says and becomes. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>

/* Hands tokens[first, first + n) to the postprocessor, with what ends the choice. */
void sequence_emit(scheduler *s, sequence *q, uint32_t first, uint32_t n, const token_logprob *logprobs,
                   uint32_t n_logprobs, finish_reason finish, const char *text)
{
    request *r = q->request;
    if (!r->postprocessor)
        return;
    gen_tokens out = {
        .choice          = q->choice,
        .index           = first - q->n_prompt,
        .tokens          = q->tokens + first,
        .n_tokens        = n,
        .finish          = finish,
        .logprobs        = logprobs,
        .n_logprobs      = n_logprobs,
        .cached_tokens   = q->n_cached,
        .drafted_tokens  = q->n_drafted,
        .accepted_tokens = q->n_accepted,
        .error           = text ? span_of(text) : (span){0},
    };
    error err;
    if (!actor_send(s->actor, r->postprocessor, MSG_GEN_TOKENS, &out, &r->envelope, &err))
        log_warn("tokens not delivered", "node=%s why=\"%s\"", r->postprocessor->name, err.text);
}

static void leave_running_list(sequence *q)
{
    executor_link *x                                        = q->executor;
    *(q->previous ? &q->previous->next : &x->running_first) = q->next;
    *(q->next ? &q->next->previous : &x->running_last)      = q->previous;
    q->previous = q->next = NULL;
    x->n_running--;
}

void sequence_release(scheduler *s, sequence *q)
{
    (void)s;
    executor_link *x = q->executor;
    assert(q->state == SEQUENCE_RUNNING && x);
    for (uint32_t i = q->n_blocks; i-- > 0;) /* the end first: that is forgotten first, and is worth nothing alone */
        kv_pool_release(x->pool, q->blocks[i]);
    if (q->copy_from != KV_NO_BLOCK)
        kv_pool_release(x->pool, q->copy_from);
    if (q->opened)
        x->pending_closes[x->n_pending_closes++] = q->slot;
    else
        x->free_slots[x->n_free_slots++] = q->slot;
    suspicion_released(x, q);
    kv_moves_released(q);
    offload_released(x, q);
    leave_running_list(q);
    q->executor  = NULL;
    q->opened    = false;
    q->copy_from = KV_NO_BLOCK;
    q->n_blocks = q->n_blocks_sent = q->n_blocks_hashed = 0;
    q->n_computed = q->n_planned = q->n_pending = 0;
    q->draft                                    = DRAFT_OFF;
    q->n_drafts                                 = 0;
    q->generation++;
}

void sequence_end(scheduler *s, sequence *q)
{
    if (q->state == SEQUENCE_ENDED)
        return;
    if (q->choice == 0)
        metadata_keep_session(s, q);
    if (q->state == SEQUENCE_RUNNING)
        sequence_release(s, q);
    else
        queue_remove(s, q);
    q->state = SEQUENCE_ENDED;
    q->request->n_live--;
}

/* Preemption by recompute: nothing is saved, and because tokens are a function of the request alone, nothing changes.
 */
void sequence_preempt(scheduler *s, sequence *q)
{
    metric_add(s->metrics.preempted, 1);
    if (q->request->beam) {
        beam_restart(s, q->request);
        return;
    }
    sequence_release(s, q);
    q->state = SEQUENCE_WAITING;
    queue_add(s, q);
}

bool sequence_uses_prefixes(const scheduler *s, const sequence *q)
{
    return s->options->prefix_caching && !q->request->prompt_logprobs && !q->request->pooled;
}

/* Walks the prefix that is cached on `x`: calls `share` for its blocks when set. At least one token stays to be
 * computed. */
static uint32_t walk_cached_prefix(scheduler *s, const sequence *q, const executor_link *x, uint32_t *blocks,
                                   kv_hash *last)
{
    if (!sequence_uses_prefixes(s, q))
        return 0;
    uint32_t n_full = (q->n_tokens - 1) / KV_BLOCK_TOKENS;
    kv_hash  hash   = kv_hash_root(s->key, q->request->tenant);
    for (uint32_t i = 0; i < n_full; i++) {
        hash           = kv_hash_block(s->key, hash, q->tokens + i * KV_BLOCK_TOKENS);
        uint32_t block = kv_pool_find(x->pool, hash);
        if (block == KV_NO_BLOCK)
            return i;
        if (blocks) {
            kv_pool_share(x->pool, block);
            blocks[i] = block;
            *last     = hash;
        }
    }
    return n_full;
}

uint32_t sequence_cached_blocks(scheduler *s, const sequence *q, const executor_link *x)
{
    return walk_cached_prefix(s, q, x, NULL, NULL);
}

uint32_t sequence_find_cached(scheduler *s, const sequence *q, const executor_link *x, uint32_t *blocks)
{
    kv_hash last;
    return walk_cached_prefix(s, q, x, blocks, &last);
}

void sequence_start(scheduler *s, sequence *q, executor_link *x)
{
    assert(q->state == SEQUENCE_WAITING && x->n_free_slots > 0);
    queue_remove(s, q);
    q->planned_in_step                                              = 0; /* steps are each executor's own */
    q->state                                                        = SEQUENCE_RUNNING;
    q->executor                                                     = x;
    q->slot                                                         = x->free_slots[--x->n_free_slots];
    q->previous                                                     = x->running_last;
    q->next                                                         = NULL;
    *(x->running_last ? &x->running_last->next : &x->running_first) = q;
    x->running_last                                                 = q;
    x->n_running++;
    q->last_hash       = kv_hash_root(s->key, q->request->tenant);
    q->n_blocks        = walk_cached_prefix(s, q, x, q->blocks, &q->last_hash);
    q->n_blocks_hashed = q->n_blocks;
    q->n_computed = q->n_planned = q->n_blocks * KV_BLOCK_TOKENS;
    if (q->n_tokens == q->n_prompt)
        q->n_cached = q->n_computed;
    request_trace_started(s, q);
    metric_add(s->metrics.cached_tokens, q->n_computed);
    metric_add(s->metrics.prompt_tokens, q->n_tokens);
}

void sequence_publish_blocks(scheduler *s, sequence *q)
{
    if (!s->options->prefix_caching)
        return;
    while ((q->n_blocks_hashed + 1) * KV_BLOCK_TOKENS <= q->n_computed) {
        uint32_t i   = q->n_blocks_hashed++;
        q->last_hash = kv_hash_block(s->key, q->last_hash, q->tokens + i * KV_BLOCK_TOKENS);
        kv_pool_publish(q->executor->pool, q->blocks[i], q->last_hash);
    }
}
