/* Requests from their arrival to their end: admission, the queue, refusals. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>

enum { POSITIONS_MAX = 1 << 20 }; /* before an executor says less: as many as the longest prompt on the bus */

static uint32_t table_place(const request_id *id)
{
    uint32_t word;
    memcpy(&word, id->bytes, sizeof word); /* ids are random, or only hurt their own sender */
    return word % REQUEST_TABLE_SIZE;
}

request *request_find(const scheduler *s, const request_id *id)
{
    request *r = s->table[table_place(id)];
    while (r && !request_id_equal(&r->envelope.request, id))
        r = r->next_in_table;
    return r;
}

/* The earliest of all is kept as a bound, so that a turn need not look at each request. */
void request_note_deadline(scheduler *s, const request *r)
{
    if (r->envelope.deadline_unix_ms > 0 && r->envelope.deadline_unix_ms < s->deadline_unix_ms)
        s->deadline_unix_ms = r->envelope.deadline_unix_ms;
}

static void link_request(scheduler *s, request *r)
{
    request **place  = &s->table[table_place(&r->envelope.request)];
    r->next_in_table = *place;
    *place           = r;
    r->next          = s->requests;
    if (s->requests)
        s->requests->previous = r;
    s->requests = r;
    s->n_requests++;
    s->n_speculating += r->n_draft_tokens > 0;
    request_note_deadline(s, r);
}

static void unlink_request(scheduler *s, request *r)
{
    request **place = &s->table[table_place(&r->envelope.request)];
    while (*place != r)
        place = &(*place)->next_in_table;
    *place                                             = r->next_in_table;
    *(r->previous ? &r->previous->next : &s->requests) = r->next;
    if (r->next)
        r->next->previous = r->previous;
    s->n_requests--;
    s->n_speculating -= r->n_draft_tokens > 0;
}

/* ---- the queue ---- */

void queue_add(scheduler *s, sequence *q)
{
    q->previous                                                     = s->waiting_last;
    q->next                                                         = NULL;
    *(s->waiting_last ? &s->waiting_last->next : &s->waiting_first) = q;
    s->waiting_last                                                 = q;
    s->n_waiting++;
    s->n_waiting_tokens += q->n_tokens;
}

void queue_remove(scheduler *s, sequence *q)
{
    *(q->previous ? &q->previous->next : &s->waiting_first) = q->next;
    *(q->next ? &q->next->previous : &s->waiting_last)      = q->previous;
    q->previous = q->next = NULL;
    s->n_waiting--;
    s->n_waiting_tokens -= q->n_tokens;
}

/* Further choices wait until the first one has computed the prompt, and then find it in the prefix cache. A preempted
 * sequence waits until no plan in flight mentions it. */
static bool may_start(const scheduler *s, const sequence *q)
{
    const sequence *first = &q->request->sequences[0];
    if (q->n_in_flight > 0)
        return false;
    return q->choice == 0 || !s->options->prefix_caching || first->state == SEQUENCE_ENDED ||
           (first->state == SEQUENCE_RUNNING && first->n_computed + KV_BLOCK_TOKENS >= first->n_prompt);
}

/* A pooled output is computed in one pass: its prompt can't be cut. */
static uint32_t pass_tokens(const scheduler *s, const executor_link *x)
{
    uint64_t budget = s->options->max_num_batched_tokens;
    return budget > 0 && budget < x->about.n_tokens_max ? (uint32_t)budget : x->about.n_tokens_max;
}

/* Whether an executor does what is asked for at all, and in one pass where it must be. */
static bool check_task(const scheduler *s, const executor_link *x, bool pooled, uint32_t n_prompt, error *err,
                       span *field)
{
    *field = SPAN("model");
    if (!pooled && x->about.encoder)
        return error_set(err, ERR_INVALID, "this model is an encoder, which generates no text");
    if (pooled && x->about.n_pooled == 0)
        return error_set(
            err, ERR_INVALID,
            "this model generates text; for embeddings its executor is started with --pooling mean or last");
    *field = SPAN("input");
    if (pooled && n_prompt > pass_tokens(s, x))
        return error_set(
            err, ERR_INVALID,
            "the text has %u tokens; it is computed in one pass, which takes %u (--max-num-batched-tokens)", n_prompt,
            pass_tokens(s, x));
    return true;
}

bool request_fits(const scheduler *s, const request *r, const executor_link *x)
{
    uint64_t positions = (uint64_t)r->n_prompt + r->max_tokens, width = beam_width(r);
    span     field;
    return check_task(s, x, r->pooled, r->n_prompt, NULL, &field) && r->n_vocab <= x->about.n_vocab &&
           positions <= x->about.max_model_len && positions <= (uint64_t)x->about.n_kv_blocks * KV_BLOCK_TOKENS &&
           width * (positions / KV_BLOCK_TOKENS + 2) <= x->about.n_kv_blocks && 2 * width <= x->about.n_slots;
}

sequence *queue_best(const scheduler *s, const executor_link *x)
{
    sequence *best = NULL;
    for (sequence *q = s->waiting_first; q; q = q->next)
        if ((!best || q->request->turn_s < best->request->turn_s) && q->passed_in_plan != s->n_plans &&
            may_start(s, q) && request_fits(s, q->request, x))
            best = q;
    return best;
}

/* ---- arrival ---- */

static uint32_t positions_max(const scheduler *s)
{
    uint32_t most = POSITIONS_MAX;
    for (const executor_link *x = s->executors; x; x = x->next) {
        uint64_t in_cache = (uint64_t)x->about.n_kv_blocks * KV_BLOCK_TOKENS;
        most              = in_cache < most ? (uint32_t)in_cache : most;
        most              = x->about.max_model_len < most ? x->about.max_model_len : most;
    }
    return most;
}

/* Beams cannot give way, so all that a beam search may ever need must fit into one executor. */
static bool check_beams(const scheduler *s, const gen_request *body, error *err)
{
    uint32_t width  = body->sampling.beam_width;
    uint64_t blocks = (uint64_t)width * ((body->n_prompt + body->max_tokens) / KV_BLOCK_TOKENS + 2);
    for (const executor_link *x = s->executors; x; x = x->next)
        if (blocks > x->about.n_kv_blocks || 2 * width > x->about.n_slots)
            return error_set(err, ERR_INVALID,
                             "%u beams of up to %u positions need %llu KV blocks and %u slots; there are %u and %u",
                             width, body->n_prompt + body->max_tokens, (unsigned long long)blocks, 2 * width,
                             x->about.n_kv_blocks, x->about.n_slots);
    return true;
}

static bool check_request(const scheduler *s, const gen_request *body, error *err, span *field)
{
    *field = SPAN("prompt");
    if (body->n_prompt == 0)
        return error_set(err, ERR_INVALID, "the prompt has no tokens");
    if (body->pooled && (body->n != 1 || body->max_tokens != 0 || body->sampling.beam_width > 0 ||
                         body->prompt_logprobs || body->second_start >= body->n_prompt))
        return error_set(err, ERR_INVALID, "a pooled output is of one prompt, of which nothing else is wanted");
    for (const executor_link *x = s->executors; x; x = x->next)
        if (!check_task(s, x, body->pooled, body->n_prompt, err, field))
            return false;
    *field             = SPAN("prompt");
    uint64_t positions = (uint64_t)body->n_prompt + body->max_tokens;
    if (positions > positions_max(s))
        return error_set(err, ERR_INVALID, "%u prompt tokens and %u to generate are %llu positions; %u fit",
                         body->n_prompt, body->max_tokens, (unsigned long long)positions, positions_max(s));
    for (const executor_link *x = s->executors; x; x = x->next)
        for (uint32_t i = 0; i < body->n_prompt; i++)
            if (body->prompt[i] >= x->about.n_vocab)
                return error_set(err, ERR_INVALID, "prompt token %u is %u; the vocabulary has %u", i, body->prompt[i],
                                 x->about.n_vocab);
    *field = SPAN("beam_width");
    if (!check_beams(s, body, err))
        return false;
    *field = SPAN("n");
    if (s->n_waiting + body->n > s->options->max_queue)
        return error_set(err, ERR_OVERLOADED, "%u requests are waiting already", s->n_waiting);
    if (s->n_waiting_tokens + (uint64_t)body->n_prompt * body->n > s->options->max_queued_tokens)
        return error_set(err, ERR_OVERLOADED, "%llu prompt tokens are waiting already",
                         (unsigned long long)s->n_waiting_tokens);
    *field = (span){0};
    return true;
}

/* A token that the executor does not know would fail the step of everybody. */
static bool check_resume(const scheduler *s, const gen_request *body, error *err)
{
    for (uint32_t i = 0; i < body->n_resume; i++) {
        const resume_point *point = &body->resume[i];
        if (point->n_tokens > body->max_tokens || point->choice >= body->n)
            return error_set(err, ERR_INVALID, "resume: choice %u has more tokens than max_tokens", point->choice);
        for (uint32_t k = 0; s->executors && k < point->n_tokens; k++)
            if (point->tokens[k] >= s->executors->about.n_vocab)
                return error_set(err, ERR_INVALID, "resume: token %u is %u; the vocabulary has %u", k, point->tokens[k],
                                 s->executors->about.n_vocab);
    }
    return true;
}

static const resume_point *resume_of(const gen_request *body, uint32_t choice)
{
    for (uint32_t i = 0; i < body->n_resume; i++)
        if (body->resume[i].choice == choice)
            return &body->resume[i];
    return NULL;
}

/* Copies an array into the request's memory; the arena was sized for all of them. */
static void *keep(arena *memory, const void *data, size_t bytes)
{
    void *copy = arena_take(memory, bytes ? bytes : 1);
    assert(copy);
    if (bytes > 0)
        memcpy(copy, data, bytes);
    return copy;
}

/* Each choice draws from its own stream. */
static uint64_t choice_seed(uint64_t seed, uint32_t choice)
{
    return choice == 0 ? seed : seed ^ (choice * UINT64_C(0x9E3779B97F4A7C15));
}

static void init_sequence(request *r, sequence *q, uint32_t choice, const gen_request *body, const resume_point *resume)
{
    uint32_t n_resumed = resume ? resume->n_tokens : 0;
    q->request         = r;
    q->choice          = choice;
    q->n_prompt        = body->n_prompt;
    q->n_tokens        = body->n_prompt + n_resumed;
    q->n_tokens_max    = body->n_prompt + body->max_tokens;
    q->tokens          = arena_take_array(r->memory, q->n_tokens_max + 1, sizeof *q->tokens);
    q->blocks          = arena_take_array(r->memory, q->n_tokens_max / KV_BLOCK_TOKENS + 2, sizeof *q->blocks);
    q->copy_from       = KV_NO_BLOCK;
    q->seed            = choice_seed(body->sampling.seed, choice);
    assert(q->tokens && q->blocks);
    memcpy(q->tokens, body->prompt, body->n_prompt * sizeof *q->tokens);
    if (n_resumed)
        memcpy(q->tokens + body->n_prompt, resume->tokens, n_resumed * sizeof *q->tokens);
}

static size_t request_bytes(const gen_request *body, uint32_t n_sequences)
{
    size_t positions = (size_t)body->n_prompt + body->max_tokens + 1;
    size_t sequences = n_sequences * (sizeof(sequence) + positions * 4 + (positions / KV_BLOCK_TOKENS + 3) * 4 + 64);
    size_t resumed   = 0;
    for (uint32_t i = 0; i < body->n_resume; i++)
        resumed += sizeof(resume_point) + 4 * (size_t)body->resume[i].n_tokens + 16;
    size_t texts = body->session.size + body->tenant.size + body->reply_to.size;
    for (uint32_t i = 0; i < body->output.n_stop; i++)
        texts += body->output.stop[i].size + sizeof(span) + 32;
    return sizeof(request) + sequences + resumed + texts + beam_bytes(body) +
           body->sampling.n_logit_bias * sizeof(logit_bias) + 4096;
}

static void keep_output(request *r, const output_params *from)
{
    span *stops = arena_take_array(r->memory, from->n_stop ? from->n_stop : 1, sizeof *stops);
    assert(stops);
    for (uint32_t i = 0; i < from->n_stop; i++)
        stops[i] = arena_copy(r->memory, from->stop[i]);
    r->output      = *from;
    r->output.stop = stops;
}

static void keep_resume(request *r, const gen_request *body)
{
    resume_point *points = keep(r->memory, body->resume, body->n_resume * sizeof *points);
    for (uint32_t i = 0; i < body->n_resume; i++)
        points[i].tokens = keep(r->memory, body->resume[i].tokens, body->resume[i].n_tokens * sizeof(uint32_t));
    r->resume   = points;
    r->n_resume = body->n_resume;
}

static uint32_t vocabulary_of(const gen_request *body)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < body->n_prompt; i++)
        highest = body->prompt[i] > highest ? body->prompt[i] : highest;
    for (uint32_t i = 0; i < body->n_resume; i++)
        for (uint32_t k = 0; k < body->resume[i].n_tokens; k++)
            highest = body->resume[i].tokens[k] > highest ? body->resume[i].tokens[k] : highest;
    return highest < UINT32_MAX ? highest + 1 : UINT32_MAX;
}

static request *new_request(scheduler *s, const message *m, error *err)
{
    const gen_request *body        = m->body;
    uint32_t           width       = body->sampling.beam_width;
    uint32_t           n_sequences = width ? 2 * width : body->n; /* a beam's children live beside their parents */
    arena             *memory      = arena_new(request_bytes(body, n_sequences), err);
    if (!memory)
        return NULL;
    request *r         = arena_take(memory, sizeof *r);
    r->memory          = memory;
    r->envelope        = *m->envelope;
    r->tokenizer       = m->from;
    r->reply_to        = arena_copy(memory, body->reply_to);
    r->session         = arena_copy(memory, body->session);
    r->tenant          = arena_copy(memory, body->tenant);
    r->sampling        = body->sampling;
    r->stop_tokens     = keep(memory, body->stop_tokens, body->n_stop_tokens * sizeof(uint32_t));
    r->n_stop_tokens   = body->n_stop_tokens;
    r->n_prompt        = body->n_prompt;
    r->max_tokens      = body->max_tokens;
    r->n_draft_tokens  = body->draft_tokens;
    r->n_vocab         = vocabulary_of(body);
    r->prompt_logprobs = body->prompt_logprobs;
    r->pooled          = body->pooled;
    r->second_start    = body->second_start;
    r->arrived_ns      = actor_now_ns(s->actor);
    r->turn_s          = (double)r->arrived_ns / 1e9 + body->priority * s->options->priority_aging_s;
    r->n_sequences     = n_sequences;
    r->n_choices       = body->n;
    r->sequences       = arena_take_array(memory, n_sequences, sizeof *r->sequences);
    assert(r->sequences);
    r->sampling.logit_bias = keep(memory, body->sampling.logit_bias, body->sampling.n_logit_bias * sizeof(logit_bias));
    keep_output(r, &body->output);
    keep_resume(r, body);
    for (uint32_t i = 0; i < n_sequences; i++)
        init_sequence(r, &r->sequences[i], i, body, width ? NULL : resume_of(body, i));
    return r;
}

/* Queues the choices that an earlier attempt has not finished. */
static void queue_choices(scheduler *s, request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        sequence *q        = &r->sequences[i];
        bool      finished = r->beam && i > 0;
        for (uint32_t k = 0; k < r->n_resume; k++)
            finished = finished || (!r->beam && r->resume[k].choice == i && r->resume[k].finished);
        if (finished) {
            q->state = SEQUENCE_ENDED;
            continue;
        }
        r->n_live++;
        queue_add(s, q);
    }
}

static void log_admitted(const request *r)
{
    char id[33], trace[TRACE_ID_TEXT];
    request_id_print(&r->envelope.request, id);
    trace_id_print(r->envelope.trace, trace);
    log_debug("took a request", "run=%s trace=%s attempt=%u prompt_tokens=%u choices=%u", id, trace,
              r->envelope.attempt, r->n_prompt, r->n_choices);
}

bool request_admit(scheduler *s, const message *m, error *err, span *field)
{
    const gen_request *body  = m->body;
    request           *known = request_find(s, &m->envelope->request);
    if (known && known->envelope.attempt >= m->envelope->attempt) {
        log_debug("dropped a request that is here already", "attempt=%u", m->envelope->attempt);
        actor_grant(s->actor, m->from, 1); /* its gateway could not know: the tokenizer that sent the first one died */
        return true;
    }
    if (known)
        request_end_all(s, known, FINISH_REASON_CANCELLED, NULL);
    if (!check_resume(s, body, err) || !check_request(s, body, err, field))
        return false;
    request *r = new_request(s, m, err);
    if (!r)
        return false;
    if (body->sampling.beam_width && !beam_new(s, r, err, field)) {
        arena *memory = r->memory;
        arena_free(&memory);
        return false;
    }
    link_request(s, r);
    request_trace_arrived(s, r);
    log_admitted(r);
    metadata_find_session(s, r);
    queue_choices(s, r);
    if (r->n_live == 0)
        request_end_all(s, r, FINISH_REASON_STOP, NULL);
    return true;
}

/* ---- the way to the reader, and the end ---- */

bool request_open(scheduler *s, request *r)
{
    if (r->opened || r->pooled)
        return true;
    peer *to = actor_pick_peer(s->actor, ROLE_POSTPROCESSOR, NULL);
    if (!to)
        return false;
    gen_open open = {
        .n               = r->n_choices,
        .output          = r->output,
        .reply_to        = r->reply_to,
        .prompt          = r->output.echo ? r->sequences[0].tokens : NULL,
        .n_prompt        = r->output.echo ? r->n_prompt : 0,
        .n_prompt_tokens = r->n_prompt,
        .resume          = r->resume,
        .n_resume        = r->n_resume,
        .logprobs        = r->sampling.logprobs,
    };
    error err;
    if (!actor_send(s->actor, to, MSG_GEN_OPEN, &open, &r->envelope, &err)) {
        log_warn("request not opened", "node=%s why=\"%s\"", to->name, err.text);
        return false;
    }
    r->postprocessor = to;
    r->opened        = true;
    return true;
}

static uint32_t retry_after_ms(const scheduler *s)
{
    double seconds = s->tokens_per_s > 1 ? (double)s->n_waiting_tokens / s->tokens_per_s : 1;
    seconds        = seconds < 1 ? 1 : seconds > 60 ? 60 : seconds;
    return (uint32_t)(seconds * 1000);
}

void request_refuse(scheduler *s, const envelope *about, span reply_to, const error *why, span field)
{
    metric_add(s->metrics.refused, 1);
    log_debug("refuses a request", "attempt=%u why=\"%s\" to=\"%.*s\"", about->attempt, why->text, SPAN_ARG(reply_to));
    peer *owner = actor_find_peer(s->actor, reply_to);
    if (!owner)
        return; /* its gateway left, and its clients with it */
    text_refused refused = {
        .code           = why->code,
        .text           = span_of(why->text),
        .field          = field,
        .retry_after_ms = error_may_retry(why->code) ? retry_after_ms(s) : 0,
    };
    error err;
    if (!actor_send(s->actor, owner, MSG_TEXT_REFUSED, &refused, about, &err))
        log_warn("refusal not delivered", "node=%s why=\"%s\"", owner->name, err.text);
}

void request_answer(scheduler *s, request *r, const step_output *output)
{
    peer      *owner  = actor_find_peer(s->actor, r->reply_to);
    text_delta answer = text_delta_defaults;
    error      err;
    answer.pooled              = output->pooled;
    answer.n_pooled            = output->n_pooled;
    answer.finish              = FINISH_REASON_STOP;
    answer.usage.prompt_tokens = r->n_prompt;
    s->n_tokens_since_measured += r->n_prompt;
    if (owner && !actor_send(s->actor, owner, MSG_TEXT_DELTA, &answer, &r->envelope, &err))
        log_warn("an answer was not delivered", "node=%s why=\"%s\"", owner->name, err.text);
}

void request_end_all(scheduler *s, request *r, finish_reason why, const char *text)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        sequence *q        = &r->sequences[i];
        bool      was_open = q->state != SEQUENCE_ENDED;
        sequence_end(s, q);
        if (r->opened && was_open && !r->beam)
            sequence_emit(s, q, q->n_tokens, 0, NULL, 0, why, text);
    }
    for (uint32_t i = 0; r->opened && r->beam && i < r->n_choices;
         i++) { /* nothing of a beam search was handed out before its end */
        r->sequences[i].choice = i;
        sequence_emit(s, &r->sequences[i], r->n_prompt, 0, NULL, 0, why, text);
    }
    if (!r->opened && why != FINISH_REASON_CANCELLED) {
        error err;
        error_set(&err, why == FINISH_REASON_TIMEOUT ? ERR_TIMEOUT : ERR_INTERNAL, "%s",
                  text ? text : "the request ended before it began");
        request_refuse(s, &r->envelope, r->reply_to, &err, (span){0});
    }
    r->n_live = 0;
    request_settle(s, r);
}

void request_refuse_unfit(scheduler *s)
{
    for (request *r = s->requests, *next; r; r = next) {
        bool fits = r->opened || r->n_live == 0;
        next      = r->next;
        for (const executor_link *x = s->executors; x && !fits; x = x->next)
            fits = request_fits(s, r, x);
        if (fits)
            continue;
        error    err;
        uint32_t n_vocab = s->executors->about.n_vocab;
        span     field   = SPAN("prompt"), why;
        if (!check_task(s, s->executors, r->pooled, r->n_prompt, &err, &why))
            field = why;
        else if (r->n_vocab > n_vocab)
            error_set(&err, ERR_INVALID, "token %u is outside of the vocabulary of %u that came", r->n_vocab - 1,
                      n_vocab);
        else
            error_set(&err, ERR_INVALID, "%u prompt tokens and %u to generate do not fit into the executor that came",
                      r->n_prompt, r->max_tokens);
        request_refuse(s, &r->envelope, r->reply_to, &err, field);
        request_end_all(s, r, FINISH_REASON_CANCELLED, NULL);
    }
}

void request_settle(scheduler *s, request *r)
{
    uint32_t n_in_flight = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        n_in_flight += r->sequences[i].n_in_flight;
    if (r->n_live > 0 || n_in_flight > 0)
        return;
    if (r->tokenizer)
        actor_grant(s->actor, r->tokenizer, 1);
    request_trace_end(s, r);
    speculate_forget(s, r);
    metric_add(s->metrics.finished, 1);
    unlink_request(s, r);
    arena *memory = r->memory;
    arena_free(&memory);
}
