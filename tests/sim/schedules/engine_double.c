/* See engine_double.h. Checks of plans follow executor/step.c: what it refuses is refused here. */
#include "sim/schedules/engine_double.h"

#include "base/random.h"
#include "executor/step.h"
#include "kv/block_pool.h"

#include <assert.h>
#include <stdlib.h>

enum { POSITIONS_MAX = 256, TABLE_MAX = POSITIONS_MAX / KV_BLOCK_TOKENS + 1, TOP_MAX = 64 };

typedef struct {
    bool            open;
    uint32_t        tokens[POSITIONS_MAX + 16];
    uint32_t        n_tokens;
    uint32_t        blocks[TABLE_MAX];
    sampling_params sampling;
    uint64_t        seed;
} slot;

struct engine {
    double_options *options;
    uint32_t        n_slots, n_blocks;
    slot           *slots;
    uint64_t       *cache; /* [n_blocks][KV_BLOCK_TOKENS] */
};

engine *engine_new(const executor_options *options, error *err)
{
    engine *e = calloc(1, sizeof *e);
    (void)err;
    assert(e);
    e->options  = (double_options *)(uintptr_t)options;
    e->n_slots  = (uint32_t)options->max_num_seqs * 2;
    e->n_blocks = (uint32_t)(options->kv_cache_memory / DOUBLE_BLOCK_BYTES);
    e->slots    = calloc(e->n_slots, sizeof *e->slots);
    e->cache    = calloc((size_t)e->n_blocks * KV_BLOCK_TOKENS, sizeof *e->cache);
    assert(e->slots && e->cache);
    return e;
}

void engine_free(engine **e)
{
    if (!*e)
        return;
    free((*e)->slots);
    free((*e)->cache);
    free(*e);
    *e = NULL;
}

executor_ready engine_about(const engine *e)
{
    return (executor_ready){
        .model            = SPAN("double"),
        .fingerprint      = 1,
        .n_kv_blocks      = e->n_blocks,
        .kv_block_tokens  = KV_BLOCK_TOKENS,
        .n_slots          = e->n_slots,
        .n_tokens_max     = (uint32_t)e->options->executor.max_num_batched_tokens,
        .n_vocab          = DOUBLE_VOCAB,
        .max_model_len    = POSITIONS_MAX,
        .device           = SPAN("hash"),
        .n_logit_rows_max = (uint32_t)e->options->executor.max_logit_rows,
    };
}

void engine_reset(engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        e->slots[i].open = false;
}

size_t engine_result_bytes(const engine *e)
{
    return e->options->executor.max_logit_rows * (2 * sizeof(token_logprob) + (TOP_MAX + 4) * 16) +
           e->n_slots * (sizeof(step_output) + 256) + 4096;
}

size_t engine_block_bytes(const engine *e)
{
    return KV_BLOCK_TOKENS * sizeof *e->cache;
}

void engine_read_block(engine *e, uint32_t block, void *bytes)
{
    memcpy(bytes, &e->cache[(size_t)block * KV_BLOCK_TOKENS], engine_block_bytes(e));
}

void engine_write_block(engine *e, uint32_t block, const void *bytes)
{
    memcpy(&e->cache[(size_t)block * KV_BLOCK_TOKENS], bytes, engine_block_bytes(e));
}

/* ---- the model ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) ^ (b + UINT64_C(0x632be59bd9b4e019));
    z          = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z          = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t *cache_of(engine *e, const slot *q, uint32_t position)
{
    return &e->cache[(size_t)q->blocks[position / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS];
}

/* Three of four tokens repeat a pattern, so that drafts are right now and then; one in 128 is the end of text. */
static uint32_t token_of(uint64_t entry, uint32_t position)
{
    uint64_t h = mix(entry, 7);
    if (h % 128 == 0)
        return 0;
    return DOUBLE_TOKEN_FIRST + (uint32_t)(h % 4 ? position % 6 * 11 : h / 4 % DOUBLE_TOKENS);
}

static float logprob_of(uint64_t entry, uint32_t token)
{
    return -(float)(mix(entry, token) % (1 << 20) + 1) / (1 << 17);
}

static uint64_t noise(uint64_t entry, const slot *q, uint32_t position)
{
    return q->sampling.temperature > 0 ? mix(entry, mix(q->seed, position)) : entry;
}

/* The likeliest of so many tokens that follow from the entry. */
static void fill_logprob(uint64_t entry, uint32_t token, uint32_t n_top, arena *memory, token_logprob *out)
{
    uint32_t *tokens   = arena_take_array(memory, n_top + 1, sizeof *tokens);
    float    *logprobs = arena_take_array(memory, n_top + 1, sizeof *logprobs);
    assert(tokens && logprobs);
    for (uint32_t i = 0; i < n_top; i++) {
        uint32_t t = DOUBLE_TOKEN_FIRST + (uint32_t)(mix(entry, 3) + i * 17) % DOUBLE_TOKENS, k = i;
        float    l = logprob_of(entry, t);
        for (; k > 0 && logprobs[k - 1] < l; k--) {
            logprobs[k] = logprobs[k - 1];
            tokens[k]   = tokens[k - 1];
        }
        logprobs[k] = l;
        tokens[k]   = t;
    }
    *out = (token_logprob){.token          = token,
                           .logprob        = logprob_of(entry, token),
                           .top_tokens     = tokens,
                           .n_top_tokens   = n_top,
                           .top_logprobs   = logprobs,
                           .n_top_logprobs = n_top};
}

/* ---- a plan ---- */

static bool open_slot(engine *e, const slot_open *o, error *err)
{
    if (o->slot >= e->n_slots || e->slots[o->slot].open || o->n_tokens > POSITIONS_MAX)
        return error_set(err, ERR_INVALID, "slot %u can't be opened", o->slot);
    slot *q     = &e->slots[o->slot];
    q->open     = true;
    q->n_tokens = o->n_tokens;
    q->sampling = o->sampling;
    q->seed     = o->seed;
    memcpy(q->tokens, o->tokens, o->n_tokens * sizeof *q->tokens);
    memset(q->blocks, 0xff, sizeof q->blocks);
    return true;
}

static bool update_slot(engine *e, const step_entry *entry, error *err)
{
    slot *q = &e->slots[entry->slot];
    if (entry->slot >= e->n_slots || !q->open)
        return error_set(err, ERR_INVALID, "slot %u is not open", entry->slot);
    for (uint32_t i = 0; i < entry->n_append; i++)
        q->tokens[q->n_tokens++] = entry->append[i];
    for (uint32_t i = 0; i < entry->n_blocks; i++) {
        if (entry->block_start + i >= TABLE_MAX || entry->blocks[i] >= e->n_blocks)
            return error_set(err, ERR_INVALID, "slot %u: block %u is not there", entry->slot, entry->blocks[i]);
        q->blocks[entry->block_start + i] = entry->blocks[i];
    }
    uint32_t end    = entry->position + entry->n_tokens;
    bool     at_end = entry->n_drafts > 0 || entry->logits == LOGITS_WANTED_LAST;
    if (end > q->n_tokens || (at_end && end != q->n_tokens))
        return error_set(err, ERR_INVALID, "slot %u: rows to %u of %u", entry->slot, end, q->n_tokens);
    for (uint32_t i = 0; i < end + entry->n_drafts; i += KV_BLOCK_TOKENS)
        if (q->blocks[i / KV_BLOCK_TOKENS] == KV_NO_BLOCK)
            return error_set(err, ERR_INVALID, "slot %u: no block for position %u", entry->slot, i);
    return true;
}

static uint64_t compute_row(engine *e, const slot *q, uint32_t position, uint32_t token)
{
    uint64_t before                  = position > 0 ? *cache_of(e, q, position - 1) : 0;
    return *cache_of(e, q, position) = mix(before, token + 1);
}

/* True when the entry wanted an output. */
static bool run_entry(engine *e, const step_entry *entry, arena *memory, step_output *out)
{
    slot          *q      = &e->slots[entry->slot];
    uint32_t       n_rows = entry->n_tokens + entry->n_drafts, n_top = q->sampling.n_top_logprobs;
    bool           logs = q->sampling.logprobs || n_top > 0, open = true;
    uint32_t      *tokens   = arena_take_array(memory, entry->n_drafts + 1, sizeof *tokens);
    token_logprob *logprobs = arena_take_array(memory, entry->n_drafts + 1, sizeof *logprobs);
    token_logprob *scores   = arena_take_array(memory, n_rows, sizeof *scores);
    assert(tokens && logprobs && scores);
    *out = (step_output){.slot            = entry->slot,
                         .position        = q->n_tokens,
                         .tokens          = tokens,
                         .logprobs        = logprobs,
                         .prompt_logprobs = scores};
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t position = entry->position + i;
        bool     is_draft = i >= entry->n_tokens;
        uint64_t row = compute_row(e, q, position, is_draft ? entry->drafts[i - entry->n_tokens] : q->tokens[position]);
        bool     last = i + 1 >= entry->n_tokens;
        if (entry->logits == LOGITS_WANTED_ALL && !is_draft && position + 1 < q->n_tokens) {
            fill_logprob(row, q->tokens[position + 1], n_top, memory, &scores[out->n_prompt_logprobs++]);
            continue;
        }
        if (entry->logits == LOGITS_WANTED_NONE || !last || !open)
            continue;
        uint32_t token = token_of(noise(row, q, position + 1), position + 1);
        if (logs)
            fill_logprob(row, token, n_top, memory, &logprobs[out->n_logprobs++]);
        if (entry->no_sample)
            continue;
        tokens[out->n_tokens++] = token;
        uint32_t draft          = i + 1 - entry->n_tokens;
        open                    = draft < entry->n_drafts && entry->drafts[draft] == token;
    }
    memcpy(q->tokens + q->n_tokens, tokens, out->n_tokens * sizeof *tokens);
    q->n_tokens += out->n_tokens;
    return entry->logits != LOGITS_WANTED_NONE;
}

static bool run(engine *e, const step_plan *plan, arena *memory, step_result *result, error *err)
{
    for (uint32_t i = 0; i < plan->n_closes; i++)
        e->slots[plan->closes[i]].open = false;
    for (uint32_t i = 0; i < plan->n_copy_from; i++)
        memcpy(&e->cache[(size_t)plan->copy_to[i] * KV_BLOCK_TOKENS],
               &e->cache[(size_t)plan->copy_from[i] * KV_BLOCK_TOKENS], KV_BLOCK_TOKENS * sizeof *e->cache);
    for (uint32_t i = 0; i < plan->n_opens; i++)
        if (!open_slot(e, &plan->opens[i], err))
            return false;
    step_output *outputs = arena_take_array(memory, plan->n_entries + 1, sizeof *outputs);
    uint64_t     n_rows  = 0;
    assert(outputs);
    result->outputs = outputs;
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        if (!update_slot(e, &plan->entries[i], err))
            return false;
        n_rows += plan->entries[i].n_tokens + plan->entries[i].n_drafts;
        result->n_outputs += run_entry(e, &plan->entries[i], memory, &outputs[result->n_outputs]);
    }
    result->elapsed_us  = e->options->step_us + (uint32_t)(n_rows * e->options->token_us) + e->options->hang_us;
    e->options->hang_us = 0;
    return true;
}

step_result engine_run(engine *e, const step_plan *plan, arena *memory)
{
    step_result result = {.step = plan->step};
    error       err    = {0};
    if (!run(e, plan, memory, &result, &err)) {
        result       = (step_result){.step = plan->step, .elapsed_us = e->options->step_us + 1};
        result.error = arena_copy(memory, span_of(err.text));
    }
    return result;
}
