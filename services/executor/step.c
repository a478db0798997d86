/* Plan -> ragged batch -> forward -> sampled tokens. See step.h. */
#include "executor/step.h"

#include "base/hash.h"
#include "base/log.h"
#include "executor/kv_offload.h"
#include "kv/block_pool.h"
#include "sample/logit_edits.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static_assert((int)KV_BLOCK_TOKENS == (int)KERN_KV_BLOCK_TOKENS, "scheduler and kernels must agree on the block size");

enum { DRAFTS_MAX = 16, STOP_TOKENS_MAX = 64, LOGIT_BIAS_MAX = 1024, EDIT_ROOM_MIN = 1 << 16 };

typedef struct {
    bool            open;
    bool            failed; /* its last row gave no token, so what plans in flight say of it can't be run */
    uint32_t       *tokens; /* room for positions_max and drafts */
    uint32_t        n_tokens, n_prompt;
    uint32_t       *blocks; /* block table; KV_NO_BLOCK where there is none yet */
    sampling_params sampling;
    logit_bias     *bias;
    uint32_t        stop_tokens[STOP_TOKENS_MAX];
    uint32_t        n_stop_tokens;
    uint64_t        seed;
    uint32_t        second_start; /* of the tokens of type 1; 0: there are none */
} slot;

/* A row whose logits are wanted: of which entry, and which token follows it when that is known. */
typedef struct {
    uint32_t entry, position, target;
    uint32_t draft; /* rows behind the last known token: 1.. */
} logit_row;

struct engine {
    kern_device   *device;
    model         *model;
    forward       *forward;
    kern_kv_cache *cache;
    kv_offload    *offload; /* NULL: none */
    kern_dtype     kv_dtype;
    logit_editor  *editor;
    uint32_t       n_slots, n_blocks, n_tokens_max, n_logit_rows_max, positions_max, blocks_per_sequence, n_vocab;
    uint32_t       edit_room; /* logit edits of one sampling call; any one row's fit */
    model_pooling  pooling;   /* NONE: no pooled outputs */
    bool           encoder, has_types;
    char           name[256];
    slot          *slots;
    /* one step's batch, on the host */
    uint32_t           *tokens, *positions, *kv_slots, *tables, *rows;
    uint32_t           *types, *pooled_sequences;
    float              *pooled; /* [n_slots][model_n_pooled] outputs of a step */
    kern_sequence      *sequences;
    logit_row          *logit_rows;
    kern_sample_row    *sample_rows;
    kern_logit_edit    *edits;
    kern_sample_result *results;
    /* and on the device, where that is another memory */
    kern_sample_row    *device_rows;
    kern_logit_edit    *device_edits;
    kern_sample_result *device_results;
};

/* ---- start and end ---- */

static bool open_model(engine *e, const executor_options *o, error *err)
{
    char                why[KERN_WHY_BYTES];
    kern_device_options device = {.backend = o->backend, .variant = o->variant, .n_threads = (uint32_t)o->n_threads};
    e->device                  = kern_device_open(&device, why);
    if (!e->device)
        return error_set(err, ERR_UNSUPPORTED, "%s", why);
    model_options load = {.quantization = (model_quantization)o->quantization,
                          .n_threads    = (uint32_t)o->n_threads,
                          .weight_cache = o->weight_cache};
    e->model           = model_open_with(o->model, e->device, &load, err);
    return e->model != NULL;
}

static kern_dtype kv_dtype(const engine *e, const executor_options *o)
{
    static const kern_dtype by_choice[] = {KERN_F16, KERN_F32, KERN_F16, KERN_BF16, KERN_Q8_0, KERN_Q4_1};
    bool                    is_auto     = o->kv_cache_dtype == 0;
    return is_auto && model_get_config(e->model)->encoder ? KERN_F32 : by_choice[o->kv_cache_dtype];
}

static bool choose_pooling(engine *e, const executor_options *o, error *err)
{
    static const model_pooling by_choice[] = {MODEL_POOLING_NONE, MODEL_POOLING_MEAN, MODEL_POOLING_CLS,
                                              MODEL_POOLING_LAST};
    const model_config        *config      = model_get_config(e->model);
    model_pooling              asked       = by_choice[o->pooling];
    e->encoder                             = config->encoder;
    e->has_types                           = config->n_types > 1;
    e->pooling                             = asked ? asked : config->pooling;
    return config->n_labels == 0 || e->pooling == config->pooling ||
           error_set(err, ERR_INVALID, "--pooling: a model that scores pairs of texts does so from their first token");
}

/* Sizes follow from the model and the flags; each is named in the error that it may cause. */
static bool plan_sizes(engine *e, const executor_options *o, error *err)
{
    const model_config *config   = model_get_config(e->model);
    kern_kv_shape       shape    = model_kv_shape(e->model, 1, e->kv_dtype);
    size_t              block    = kern_kv_block_bytes(&shape);
    uint64_t            n_blocks = o->kv_cache_memory / block;
    e->n_vocab                   = config->n_vocab;
    e->edit_room                 = e->n_vocab > EDIT_ROOM_MIN ? e->n_vocab : EDIT_ROOM_MIN;
    e->n_slots          = 2 * (uint32_t)o->max_num_seqs; /* slots that close and slots that open overlap by a plan */
    e->n_tokens_max     = (uint32_t)o->max_num_batched_tokens;
    e->n_logit_rows_max = (uint32_t)o->max_logit_rows;
    if (o->max_model_len > config->n_ctx_train)
        return error_set(err, ERR_INVALID, "--max-model-len %llu: the model was trained for %u positions",
                         (unsigned long long)o->max_model_len, config->n_ctx_train);
    e->positions_max = o->max_model_len ? (uint32_t)o->max_model_len : config->n_ctx_train;
    if (n_blocks < 2)
        return error_set(err, ERR_INVALID,
                         "--kv-cache-memory %llu: one block of %d positions takes %zu bytes; two are needed",
                         (unsigned long long)o->kv_cache_memory, KV_BLOCK_TOKENS, block);
    e->n_blocks = n_blocks < KV_BLOCKS_MAX ? (uint32_t)n_blocks : KV_BLOCKS_MAX;
    if ((uint64_t)e->n_blocks * KV_BLOCK_TOKENS < e->positions_max) {
        e->positions_max = e->n_blocks * KV_BLOCK_TOKENS;
        log_warn("the KV cache is smaller than the model's context", "max_model_len=%u kv_cache_memory=%llu",
                 e->positions_max, (unsigned long long)o->kv_cache_memory);
    }
    e->blocks_per_sequence = (e->positions_max + DRAFTS_MAX) / KV_BLOCK_TOKENS + 1;
    return true;
}

/* Numbers of a pooled output; 0: this engine gives none. */
static uint32_t n_pooled(const engine *e)
{
    return e->pooling ? model_n_pooled(e->model) : 0;
}

/* calloc that remembers failure in *ok. */
static void *take(bool *ok, size_t n, size_t size)
{
    void *memory = calloc(n, size);
    *ok          = *ok && memory;
    return memory;
}

static bool take_host_memory(engine *e, error *err)
{
    bool ok  = true;
    e->slots = take(&ok, e->n_slots, sizeof *e->slots);
    for (uint32_t i = 0; ok && i < e->n_slots; i++) {
        e->slots[i].tokens = take(&ok, e->positions_max + DRAFTS_MAX + 1, sizeof(uint32_t));
        e->slots[i].blocks = take(&ok, e->blocks_per_sequence, sizeof(uint32_t));
        e->slots[i].bias   = take(&ok, LOGIT_BIAS_MAX, sizeof(logit_bias));
    }
    uint32_t n_rows     = e->n_tokens_max;
    e->tokens           = take(&ok, n_rows, sizeof *e->tokens);
    e->positions        = take(&ok, n_rows, sizeof *e->positions);
    e->types            = take(&ok, n_rows, sizeof *e->types);
    e->pooled_sequences = take(&ok, e->n_slots, sizeof *e->pooled_sequences);
    e->pooled           = take(&ok, (size_t)e->n_slots * n_pooled(e) + 1, sizeof *e->pooled);
    e->kv_slots         = take(&ok, n_rows, sizeof *e->kv_slots);
    e->sequences        = take(&ok, e->n_slots, sizeof *e->sequences);
    e->tables           = take(&ok, (size_t)e->n_slots * e->blocks_per_sequence, sizeof *e->tables);
    e->rows             = take(&ok, e->n_logit_rows_max, sizeof *e->rows);
    e->logit_rows       = take(&ok, e->n_logit_rows_max, sizeof *e->logit_rows);
    e->sample_rows      = take(&ok, e->n_logit_rows_max, sizeof *e->sample_rows);
    e->results          = take(&ok, e->n_logit_rows_max, sizeof *e->results);
    e->edits            = take(&ok, e->edit_room, sizeof *e->edits);
    return ok || error_set(err, ERR_NO_MEMORY, "no memory for %u slots of %u positions", e->n_slots, e->positions_max);
}

static bool take_device_memory(engine *e, error *err)
{
    char           why[KERN_WHY_BYTES];
    forward_limits limits = {
        .n_tokens_max        = e->n_tokens_max,
        .n_sequences_max     = e->n_slots,
        .n_logit_rows_max    = e->n_logit_rows_max,
        .n_table_entries_max = e->n_slots * e->blocks_per_sequence,
        .pooling             = e->pooling,
    };
    kern_kv_shape shape = model_kv_shape(e->model, e->n_blocks, e->kv_dtype);
    e->forward          = forward_new(e->model, &limits, err);
    if (!e->forward)
        return false;
    e->cache = kern_kv_cache_new(e->device, &shape, why);
    if (!e->cache)
        return error_set(err, ERR_NO_MEMORY, "--kv-cache-memory, --kv-cache-dtype: %s", why);
    e->editor = logit_editor_new(e->n_vocab, err);
    if (!e->editor)
        return false;
    if (!kern_is_host(e->device)) {
        e->device_rows    = kern_alloc(e->device, e->n_logit_rows_max * sizeof *e->device_rows);
        e->device_edits   = kern_alloc(e->device, e->edit_room * sizeof *e->device_edits);
        e->device_results = kern_alloc(e->device, e->n_logit_rows_max * sizeof *e->device_results);
        if (!e->device_rows || !e->device_edits || !e->device_results)
            return error_set(err, ERR_NO_MEMORY, "no device memory for sampling");
    }
    return true;
}

/* The second tier of the KV cache, where the flags ask for one. An encoder has no prefixes to keep. */
static bool open_offload(engine *e, const executor_options *o, error *err)
{
    kv_offload_options options = {.memory_bytes   = o->kv_offload_memory,
                                  .disk_bytes     = o->kv_offload_disk,
                                  .folder         = o->kv_offload_dir,
                                  .without_thread = o->compute_inline};
    if (e->encoder || (options.memory_bytes == 0 && options.disk_bytes == 0 && !options.folder))
        return true;
    e->offload = kv_offload_new(&options, e->device, e->cache, engine_block_bytes(e), err);
    return e->offload != NULL;
}

engine *engine_new(const executor_options *options, error *err)
{
    engine *e = calloc(1, sizeof *e);
    if (!e) {
        error_set(err, ERR_NO_MEMORY, "no memory for the engine");
        return NULL;
    }
    if (!open_model(e, options, err) || !choose_pooling(e, options, err)) {
        engine_free(&e);
        return NULL;
    }
    e->kv_dtype = kv_dtype(e, options);
    if (!plan_sizes(e, options, err) || !take_host_memory(e, err) || !take_device_memory(e, err) ||
        !open_offload(e, options, err)) {
        engine_free(&e);
        return NULL;
    }
    snprintf(e->name, sizeof e->name, "%s",
             options->model_name ? options->model_name : model_get_config(e->model)->name);
    return e;
}

void engine_free(engine **engine_to_free)
{
    engine *e = *engine_to_free;
    if (!e)
        return;
    if (e->device_rows)
        kern_free(e->device, e->device_rows);
    if (e->device_edits)
        kern_free(e->device, e->device_edits);
    if (e->device_results)
        kern_free(e->device, e->device_results);
    for (uint32_t i = 0; e->slots && i < e->n_slots; i++) {
        free(e->slots[i].tokens);
        free(e->slots[i].blocks);
        free(e->slots[i].bias);
    }
    void *owned[] = {
        e->slots, e->tokens,     e->positions,   e->kv_slots, e->sequences, e->tables,           e->types,
        e->rows,  e->logit_rows, e->sample_rows, e->results,  e->edits,     e->pooled_sequences, e->pooled};
    for (size_t i = 0; i < COUNT(owned); i++)
        free(owned[i]);
    logit_editor_free(&e->editor);
    kv_offload_free(&e->offload);
    forward_free(&e->forward);
    if (e->cache)
        kern_kv_cache_free(e->device, &e->cache);
    model_free(&e->model);
    kern_device_close(&e->device);
    free(e);
    *engine_to_free = NULL;
}

/* Of all that decides a token's bits: a request may go on at any executor that agrees. */
static uint64_t fingerprint_of(const engine *e)
{
    const char *arithmetic = kern_device_arithmetic(e->device), *numbers = kern_dtype_name(e->kv_dtype);
    uint64_t    hash = hash_64((hash_key){model_fingerprint(e->model), e->pooling}, arithmetic, strlen(arithmetic));
    return hash_64((hash_key){hash, 1}, numbers, strlen(numbers));
}

executor_ready engine_about(const engine *e)
{
    return (executor_ready){
        .model            = span_of(e->name),
        .fingerprint      = fingerprint_of(e),
        .n_kv_blocks      = e->n_blocks,
        .kv_block_tokens  = KV_BLOCK_TOKENS,
        .n_slots          = e->n_slots,
        .n_tokens_max     = e->n_tokens_max,
        .n_vocab          = e->n_vocab,
        .max_model_len    = e->positions_max,
        .device           = span_of(kern_device_name(e->device)),
        .n_logit_rows_max = e->n_logit_rows_max,
        .n_pooled         = n_pooled(e),
        .encoder          = e->encoder,
        .n_offload_slots  = e->offload ? kv_offload_n_slots(e->offload) : 0,
    };
}

void engine_reset(engine *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++)
        e->slots[i].open = false;
    if (e->offload)
        kv_offload_forget(e->offload);
}

/* ---- KV blocks as bytes ---- */

size_t engine_block_bytes(const engine *e)
{
    kern_kv_shape shape = model_kv_shape(e->model, 1, e->kv_dtype);
    return kern_kv_block_bytes(&shape);
}

void engine_read_block(engine *e, uint32_t block, void *bytes)
{
    kern_kv_block(e->device, &(kern_kv_block_args){.cache = e->cache, .block = block, .host = bytes});
}

void engine_write_block(engine *e, uint32_t block, const void *bytes)
{
    kern_kv_block(
        e->device,
        &(kern_kv_block_args){.cache = e->cache, .block = block, .host = (void *)(uintptr_t)bytes, .into_cache = true});
}

/* ---- what a plan says of slots ---- */

static bool open_slot(engine *e, const slot_open *o, error *err)
{
    if (o->slot >= e->n_slots)
        return error_set(err, ERR_INVALID, "slot %u of %u", o->slot, e->n_slots);
    slot *q = &e->slots[o->slot];
    if (q->open)
        return error_set(err, ERR_INVALID, "slot %u is open already", o->slot);
    if (o->n_tokens > e->positions_max || o->n_prompt_tokens > o->n_tokens)
        return error_set(err, ERR_INVALID, "slot %u: %u tokens, %u of them prompt, %u positions", o->slot, o->n_tokens,
                         o->n_prompt_tokens, e->positions_max);
    for (uint32_t i = 0; i < o->n_tokens; i++)
        if (o->tokens[i] >= e->n_vocab)
            return error_set(err, ERR_INVALID, "slot %u: token %u of a vocabulary of %u", o->slot, o->tokens[i],
                             e->n_vocab);
    if (o->n_tokens > 0)
        memcpy(q->tokens, o->tokens, o->n_tokens * sizeof *q->tokens);
    q->n_tokens      = o->n_tokens;
    q->n_prompt      = o->n_prompt_tokens;
    q->sampling      = o->sampling;
    q->n_stop_tokens = o->n_stop_tokens; /* at most STOP_TOKENS_MAX and LOGIT_BIAS_MAX: the schema's limits */
    q->seed          = o->seed;
    q->second_start  = o->second_start;
    q->open          = true;
    q->failed        = false;
    if (o->n_stop_tokens > 0)
        memcpy(q->stop_tokens, o->stop_tokens, o->n_stop_tokens * sizeof *q->stop_tokens);
    if (o->sampling.n_logit_bias > 0)
        memcpy(q->bias, o->sampling.logit_bias, o->sampling.n_logit_bias * sizeof *q->bias);
    q->sampling.logit_bias = q->bias;
    memset(q->blocks, 0xff, e->blocks_per_sequence * sizeof *q->blocks);
    return true;
}

static bool copy_blocks(engine *e, const step_plan *plan, error *err)
{
    if (plan->n_copy_from != plan->n_copy_to)
        return error_set(err, ERR_INVALID, "%u blocks to copy to %u", plan->n_copy_from, plan->n_copy_to);
    for (uint32_t i = 0; i < plan->n_copy_from; i++)
        if (plan->copy_from[i] >= e->n_blocks || plan->copy_to[i] >= e->n_blocks ||
            plan->copy_from[i] == plan->copy_to[i])
            return error_set(err, ERR_INVALID, "a copy of KV block %u to %u; there are %u", plan->copy_from[i],
                             plan->copy_to[i], e->n_blocks);
    if (plan->n_copy_from > 0)
        kern_kv_copy(e->device, &(kern_kv_copy_args){.cache     = e->cache,
                                                     .host_from = plan->copy_from,
                                                     .host_to   = plan->copy_to,
                                                     .n_blocks  = plan->n_copy_from});
    return true;
}

/* Whether an earlier pass failed for the sequence of this entry. */
static bool is_failed(const engine *e, const step_entry *entry)
{
    return entry->slot < e->n_slots && e->slots[entry->slot].open && e->slots[entry->slot].failed;
}

/* A pooled output needs all of its sequence, and an encoder has no other. */
static bool check_pooled(const engine *e, const step_entry *entry, error *err)
{
    const slot *q      = &e->slots[entry->slot];
    bool        pooled = entry->logits == LOGITS_WANTED_POOLED;
    if (e->encoder && !pooled)
        return error_set(err, ERR_INVALID, "slot %u: an encoder gives pooled outputs alone", entry->slot);
    if (pooled && e->pooling == MODEL_POOLING_NONE)
        return error_set(err, ERR_INVALID, "slot %u: this executor gives no pooled outputs", entry->slot);
    if (pooled && (entry->position != 0 || entry->n_tokens != q->n_tokens || entry->n_drafts > 0))
        return error_set(err, ERR_INVALID, "slot %u: a pooled output of %u of %u tokens", entry->slot, entry->n_tokens,
                         q->n_tokens);
    return true;
}

/* Extends history and block table of an entry's slot, and checks that its rows can be run. */
static bool update_slot(engine *e, const step_entry *entry, error *err)
{
    if (entry->slot >= e->n_slots || !e->slots[entry->slot].open)
        return error_set(err, ERR_INVALID, "slot %u is not open", entry->slot);
    slot *q = &e->slots[entry->slot];
    if ((uint64_t)q->n_tokens + entry->n_append > e->positions_max)
        return error_set(err, ERR_INVALID, "slot %u: more than %u positions", entry->slot, e->positions_max);
    for (uint32_t i = 0; i < entry->n_append; i++) {
        if (entry->append[i] >= e->n_vocab)
            return error_set(err, ERR_INVALID, "slot %u: token %u of a vocabulary of %u", entry->slot, entry->append[i],
                             e->n_vocab);
        q->tokens[q->n_tokens++] = entry->append[i];
    }
    if ((uint64_t)entry->block_start + entry->n_blocks > e->blocks_per_sequence)
        return error_set(err, ERR_INVALID, "slot %u: block table entry %llu of %u", entry->slot,
                         (unsigned long long)entry->block_start + entry->n_blocks, e->blocks_per_sequence);
    for (uint32_t i = 0; i < entry->n_blocks; i++) {
        if (entry->blocks[i] >= e->n_blocks)
            return error_set(err, ERR_INVALID, "slot %u: KV block %u of %u", entry->slot, entry->blocks[i],
                             e->n_blocks);
        q->blocks[entry->block_start + i] = entry->blocks[i];
    }
    uint64_t end    = (uint64_t)entry->position + entry->n_tokens;
    bool     at_end = entry->n_drafts > 0 || entry->logits == LOGITS_WANTED_LAST; /* what is sampled comes last */
    if (end > q->n_tokens || (at_end && end != q->n_tokens))
        return error_set(err, ERR_INVALID, "slot %u: rows up to position %llu of %u known tokens", entry->slot,
                         (unsigned long long)end, q->n_tokens);
    for (uint64_t block = 0; block * KV_BLOCK_TOKENS < end + entry->n_drafts; block++)
        if (q->blocks[block] == KV_NO_BLOCK)
            return error_set(err, ERR_INVALID, "slot %u: no KV block for position %llu", entry->slot,
                             (unsigned long long)(block * KV_BLOCK_TOKENS));
    for (uint32_t i = 0; i < entry->n_drafts; i++)
        if (entry->drafts[i] >= e->n_vocab)
            return error_set(err, ERR_INVALID, "slot %u: draft %u of a vocabulary of %u", entry->slot, entry->drafts[i],
                             e->n_vocab);
    return check_pooled(e, entry, err);
}

/* ---- the batch ---- */

static bool add_logit_row(engine *e, forward_batch *b, uint32_t row, logit_row what, error *err)
{
    if (b->n_logit_rows == e->n_logit_rows_max)
        return error_set(err, ERR_INVALID, "more than %u rows of logits", e->n_logit_rows_max);
    e->rows[b->n_logit_rows]         = row;
    e->logit_rows[b->n_logit_rows++] = what;
    return true;
}

/* Appends an entry's rows. Drafts stand behind the known tokens in the slot's history, where penalties see them. */
static bool add_entry(engine *e, forward_batch *b, const step_entry *entry, uint32_t index, error *err)
{
    slot    *q      = &e->slots[entry->slot];
    uint32_t n_rows = entry->n_tokens + entry->n_drafts;
    if ((uint64_t)b->n_tokens + n_rows > e->n_tokens_max || b->n_sequences == e->n_slots)
        return error_set(err, ERR_INVALID, "more than %u tokens in a step", e->n_tokens_max);
    for (uint32_t i = 0; i < entry->n_drafts; i++)
        q->tokens[q->n_tokens + i] = entry->drafts[i];
    if (entry->logits == LOGITS_WANTED_POOLED)
        e->pooled_sequences[b->n_pooled++] = b->n_sequences;
    e->sequences[b->n_sequences++] = (kern_sequence){
        .q_start = b->n_tokens, .n_q = n_rows, .position = entry->position, .table_start = b->n_table_entries};
    uint32_t n_blocks = (entry->position + n_rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    memcpy(e->tables + b->n_table_entries, q->blocks, n_blocks * sizeof *e->tables);
    b->n_table_entries += n_blocks;
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t position = entry->position + i, row = b->n_tokens++;
        e->tokens[row]    = q->tokens[position];
        e->positions[row] = position;
        e->types[row]     = e->has_types && q->second_start > 0 && position >= q->second_start;
        e->kv_slots[row]  = q->blocks[position / KV_BLOCK_TOKENS] * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS;
        bool wanted =
            entry->logits == LOGITS_WANTED_ALL || (entry->logits == LOGITS_WANTED_LAST && i + 1 >= entry->n_tokens);
        logit_row what = {
            .entry    = index,
            .position = position,
            .target   = position + 1 < q->n_tokens ? q->tokens[position + 1] : UINT32_MAX,
            .draft    = i + 1 > entry->n_tokens ? i + 1 - entry->n_tokens : 0,
        };
        if (wanted && !add_logit_row(e, b, row, what, err))
            return false;
    }
    return true;
}

/* ---- sampling ---- */

static logit_history history_of(const engine *e, const logit_row *row, const step_entry *entry)
{
    const slot *q = &e->slots[entry->slot];
    return (logit_history){
        .sampling      = &q->sampling,
        .tokens        = q->tokens,
        .n_tokens      = row->position + 1,
        .n_prompt      = q->n_prompt < row->position + 1 ? q->n_prompt : row->position + 1,
        .stop_tokens   = q->stop_tokens,
        .n_stop_tokens = q->n_stop_tokens,
    };
}

static bool is_sampled(const logit_row *row, const step_entry *entry)
{
    return row->target == UINT32_MAX && !entry->no_sample;
}

/* A beam's newest row: nothing is sampled, but its likely tokens are those that its logit edits leave. */
static bool is_beam(const engine *e, const logit_row *row, const step_entry *entry)
{
    return entry->no_sample && row->target == UINT32_MAX && e->slots[entry->slot].sampling.beam_width > 0;
}

static kern_sample_row sample_row_of(const engine *e, const logit_row *row, const step_entry *entry)
{
    const slot            *q    = &e->slots[entry->slot];
    const sampling_params *p    = &q->sampling;
    bool                   beam = is_beam(e, row, entry);
    if (!is_sampled(row, entry) && !beam) /* for its log probabilities alone */
        return (kern_sample_row){
            .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .n_top = p->n_top_logprobs, .target = row->target};
    return (kern_sample_row){
        .reports_edited     = beam,
        .temperature        = beam ? 0 : p->temperature, /* the token is not used */
        .top_p              = p->top_p,
        .min_p              = p->min_p,
        .typical_p          = p->typical_p,
        .repetition_penalty = p->repetition_penalty,
        .frequency_penalty  = p->frequency_penalty,
        .presence_penalty   = p->presence_penalty,
        .top_k              = p->top_k,
        .seed               = q->seed,
        .position           = row->position + 1,
        .n_top              = p->n_top_logprobs,
        .target             = UINT32_MAX,
    };
}

/* Samples rows [first, last) with `n_edits` edits. */
static void sample_rows(engine *e, float *logits, uint32_t first, uint32_t last, uint32_t n_edits)
{
    uint32_t         n    = last - first;
    kern_sample_args args = {
        .logits  = logits + (size_t)first * e->n_vocab,
        .rows    = e->sample_rows + first,
        .edits   = e->edits,
        .results = e->results + first,
        .n_rows  = n,
        .n_vocab = e->n_vocab,
    };
    if (e->device_rows) {
        kern_upload(e->device, e->device_rows, args.rows, n * sizeof *args.rows);
        kern_upload(e->device, e->device_edits, args.edits, n_edits * sizeof *args.edits);
        args.rows    = e->device_rows;
        args.edits   = e->device_edits;
        args.results = e->device_results;
    }
    kern_sample(e->device, &args);
    if (e->device_rows)
        kern_download(e->device, e->results + first, e->device_results, n * sizeof *e->results);
}

/* All wanted rows, in as many calls as the room for edits asks for. */
static void sample_all(engine *e, const step_plan *plan, float *logits, uint32_t n_rows)
{
    uint32_t first = 0, n_edits = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        const logit_row  *row     = &e->logit_rows[i];
        const step_entry *entry   = &plan->entries[row->entry];
        logit_history     history = history_of(e, row, entry);
        bool              edited  = is_sampled(row, entry) || is_beam(e, row, entry);
        uint32_t          n_max   = edited ? logit_edits_max(e->editor, &history) : 0;
        if (n_edits + n_max > e->edit_room) {
            sample_rows(e, logits, first, i, n_edits);
            first   = i;
            n_edits = 0;
        }
        e->sample_rows[i]             = sample_row_of(e, row, entry);
        e->sample_rows[i].edits_start = n_edits;
        if (edited)
            e->sample_rows[i].n_edits = logit_edits_build(e->editor, &history, e->edits + n_edits);
        n_edits += e->sample_rows[i].n_edits;
    }
    if (n_rows > first)
        sample_rows(e, logits, first, n_rows, n_edits);
    kern_synchronize(e->device);
}

/* ---- the result ---- */

static bool keep_logprob(const kern_sample_result *r, bool target, uint32_t token, arena *memory, token_logprob *out)
{
    uint32_t *tokens   = arena_take_array(memory, r->n_top + 1, sizeof *tokens);
    float    *logprobs = arena_take_array(memory, r->n_top + 1, sizeof *logprobs);
    if (!tokens || !logprobs)
        return false;
    memcpy(tokens, r->top_tokens, r->n_top * sizeof *tokens);
    memcpy(logprobs, r->top_logprobs, r->n_top * sizeof *logprobs);
    *out = (token_logprob){
        .token          = token,
        .logprob        = target ? r->target_logprob : r->logprob,
        .rank           = target ? r->target_rank : r->rank,
        .top_tokens     = tokens,
        .n_top_tokens   = r->n_top,
        .top_logprobs   = logprobs,
        .n_top_logprobs = r->n_top,
    };
    return true;
}

/* A sequence that has no next token; the pass goes on without it. */
static step_output failed_output(const step_entry *entry)
{
    return (step_output){.slot = entry->slot, .error = SPAN("the model gave no finite logit")};
}

/* An embedding gets length 1, so that inner products of two are cosines; a score stays as it is. */
static bool pooled_output(const engine *e, const step_entry *entry, const float *pooled, arena *memory,
                          step_output *out)
{
    uint32_t n     = n_pooled(e);
    bool     scale = model_get_config(e->model)->n_labels == 0;
    double   sum   = 0;
    float   *own   = arena_take_array(memory, n, sizeof *own);
    if (!own)
        return false;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)pooled[i] * pooled[i];
    for (uint32_t i = 0; i < n; i++)
        own[i] = scale && sum > 0 ? (float)(pooled[i] / sqrt(sum)) : pooled[i];
    *out = isfinite(sum) ? (step_output){.slot = entry->slot, .pooled = own, .n_pooled = n}
                         : (step_output){.slot = entry->slot, .error = SPAN("the model gave no finite number")};
    return true;
}

/* What one entry's rows [first, first + n) gave. Drafts are accepted as long as each is the token that was sampled in
 * its place. */
static bool entry_output(engine *e, const step_entry *entry, uint32_t first, uint32_t n, arena *memory,
                         step_output *out)
{
    slot          *q        = &e->slots[entry->slot];
    uint32_t      *tokens   = arena_take_array(memory, entry->n_drafts + 1, sizeof *tokens);
    token_logprob *logprobs = arena_take_array(memory, entry->n_drafts + 1, sizeof *logprobs);
    token_logprob *scores   = arena_take_array(memory, n, sizeof *scores);
    if (!tokens || !logprobs || !scores)
        return false;
    *out               = (step_output){.slot            = entry->slot,
                                       .position        = q->n_tokens,
                                       .tokens          = tokens,
                                       .logprobs        = logprobs,
                                       .prompt_logprobs = scores};
    bool with_logprobs = q->sampling.logprobs || q->sampling.n_top_logprobs > 0;
    bool open          = true; /* every draft so far was right */
    for (uint32_t i = first; i < first + n; i++) {
        const logit_row          *row = &e->logit_rows[i];
        const kern_sample_result *r   = &e->results[i];
        if (r->no_finite) {
            *out      = failed_output(entry);
            q->failed = true;
            return true;
        }
        if (row->target != UINT32_MAX && row->draft == 0 && entry->logits == LOGITS_WANTED_ALL) {
            if (out->n_prompt_logprobs == 0)
                out->position = row->position;
            if (!keep_logprob(r, true, row->target, memory, &scores[out->n_prompt_logprobs++]))
                return false;
            continue;
        }
        if (!open)
            continue;
        if (with_logprobs && !keep_logprob(r, false, r->token, memory, &logprobs[out->n_logprobs++]))
            return false;
        if (entry->no_sample)
            continue;
        tokens[out->n_tokens++] = r->token;
        open                    = row->draft < entry->n_drafts && entry->drafts[row->draft] == r->token;
    }
    if ((uint64_t)q->n_tokens + out->n_tokens <= e->positions_max)
        memcpy(q->tokens + q->n_tokens, tokens, out->n_tokens * sizeof *tokens);
    q->n_tokens += out->n_tokens;
    q->n_tokens = q->n_tokens < e->positions_max ? q->n_tokens : e->positions_max;
    return true;
}

static bool build_outputs(engine *e, const step_plan *plan, uint32_t n_rows, arena *memory, step_result *result,
                          error *err)
{
    step_output *outputs = arena_take_array(memory, plan->n_entries, sizeof *outputs);
    result->outputs      = outputs;
    bool         ok      = outputs != NULL;
    const float *pooled  = e->pooled;
    for (uint32_t i = 0, first = 0, n; ok && i < plan->n_entries; i++, first += n) {
        const step_entry *entry = &plan->entries[i];
        for (n = 0; first + n < n_rows && e->logit_rows[first + n].entry == i; n++)
            ;
        if (is_failed(e, entry) && n == 0) {
            if (entry->logits != LOGITS_WANTED_NONE)
                outputs[result->n_outputs++] = failed_output(entry);
        } else if (entry->logits == LOGITS_WANTED_POOLED) {
            ok = pooled_output(e, entry, pooled, memory, &outputs[result->n_outputs++]);
            pooled += n_pooled(e);
        } else if (n > 0) {
            ok = entry_output(e, entry, first, n, memory, &outputs[result->n_outputs++]);
        }
    }
    return ok || error_set(err, ERR_NO_MEMORY, "the step's result does not fit into its memory");
}

size_t engine_result_bytes(const engine *e)
{
    size_t row =
        2 * sizeof(token_logprob) + 2 * (KERN_TOP_MAX + 4) * 4 + 64; /* a token, a score, their likeliest tokens */
    size_t pooled = n_pooled(e) * sizeof(float);
    return e->n_logit_rows_max * row + e->n_slots * (sizeof(step_output) + pooled + 256) + sizeof(kv_offload_report) +
           4096;
}

/* Makes the batch of all entries but those of sequences that failed in a pass of which the scheduler had yet to hear:
 * to fail the whole plan for one of them would strike its neighbours. */
static bool build_batch(engine *e, const step_plan *plan, forward_batch *batch, error *err)
{
    for (uint32_t i = 0; i < plan->n_entries; i++) {
        const step_entry *entry = &plan->entries[i];
        if (!is_failed(e, entry) && (!update_slot(e, entry, err) || !add_entry(e, batch, entry, i, err)))
            return false;
    }
    return true;
}

static bool run(engine *e, const step_plan *plan, arena *memory, step_result *result, error *err)
{
    if (!kv_offload_follow(e->offload, plan, e->n_blocks, err))
        return false;
    for (uint32_t i = 0; i < plan->n_closes; i++)
        if (plan->closes[i] < e->n_slots)
            e->slots[plan->closes[i]].open = false;
    for (uint32_t i = 0; i < plan->n_opens; i++)
        if (!open_slot(e, &plan->opens[i], err))
            return false;
    if (!copy_blocks(e, plan, err))
        return false;
    forward_batch batch = {.tokens       = e->tokens,
                           .positions    = e->positions,
                           .slots        = e->kv_slots,
                           .sequences    = e->sequences,
                           .block_tables = e->tables,
                           .logit_rows   = e->rows,
                           .types        = e->types,
                           .pooled       = e->pooled_sequences};
    if (!build_batch(e, plan, &batch, err))
        return false;
    if (batch.n_tokens > 0) {
        float *logits = forward_run(e->forward, e->cache, &batch);
        sample_all(e, plan, logits, batch.n_logit_rows);
        if (batch.n_pooled > 0)
            kern_download(e->device, e->pooled, forward_pooled(e->forward),
                          (size_t)batch.n_pooled * n_pooled(e) * sizeof *e->pooled);
    }
    return plan->n_entries == 0 || build_outputs(e, plan, batch.n_logit_rows, memory, result, err);
}

step_result engine_run(engine *e, const step_plan *plan, arena *memory)
{
    step_result result = {.step = plan->step};
    error       err    = {0};
    if (!run(e, plan, memory, &result, &err)) {
        result       = (step_result){.step = plan->step};
        result.error = arena_copy(memory, span_of(err.text));
        if (!result.error.data)
            result.error = SPAN("the step failed, and there is no memory to say why");
    }
    if (!kv_offload_answer(e->offload, plan, memory, &result))
        result = (step_result){.step = plan->step, .error = SPAN("no memory to say which KV blocks were loaded")};
    return result;
}
