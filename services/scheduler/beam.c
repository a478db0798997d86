/* Beam search: keeps the `width` most likely continuations side by side, and hands out the best finished ones at the
 * end.
 *
 * A beam is a sequence whose entries ask for log probabilities - of what its penalties, bias and bans leave - and
 * sample nothing. Each step the beams' likeliest 2 * width tokens compete by summed log probability; a parent with
 * several children is forked - full blocks are shared, the last one is copied. A finished hypothesis scores sum /
 * length^length_penalty (Wu et al. 2016, arXiv 1609.08144, without coverage); the search ends when `width` of them are
 * finished, or at max_tokens. */
#include "scheduler/state.h"

#include <assert.h>
#include <math.h>

enum { BEAM_WIDTH_MAX = 16, CANDIDATES_MAX = BEAM_WIDTH_MAX * 2 * BEAM_WIDTH_MAX };

/* What the reader is told of one token of a beam. Beams that share a beginning share its reports. */
struct beam_report {
    const beam_report *previous;
    token_logprob      token;
};

typedef struct {
    sequence            *parent;
    uint32_t             token, rank;
    float                logprob, score;
    const token_logprob *top; /* the parent's likely tokens, when they are reported */
} candidate;

typedef struct {
    uint32_t          *tokens; /* output only */
    uint32_t           n_tokens;
    float              score;
    bool               stopped;
    const beam_report *report;
} hypothesis;

struct beam_search {
    uint32_t   width, n_reported, n_finished, n_candidates;
    size_t     mark;  /* of the request's memory: behind it is what the search has found */
    uint32_t   n_top; /* likely tokens that the client wants to see; the search looks at 2 * width of them */
    hypothesis finished[BEAM_WIDTH_MAX];
    candidate  candidates[CANDIDATES_MAX];
};

uint32_t beam_width(const request *r)
{
    return r->beam ? r->beam->width : 0;
}

/* An upper bound: every generation reports `width` beams, whose children and ends are at most 2 * width. */
size_t beam_bytes(const gen_request *body)
{
    const sampling_params *p     = &body->sampling;
    size_t                 width = p->beam_width, n_output = (size_t)body->max_tokens + 1, align = 16, bytes;
    if (width == 0)
        return 0;
    bytes = sizeof(beam_search) + width * (n_output * sizeof(uint32_t) + align) + align;
    if (p->logprobs) {
        size_t top = sizeof(token_logprob) + p->n_top_logprobs * (sizeof(uint32_t) + sizeof(float)) + 3 * align;
        bytes += n_output * (width * top + 2 * width * (sizeof(beam_report) + align));
        bytes += body->n * (n_output * sizeof(token_logprob) + align);
    }
    return bytes;
}

/* Whether log probabilities of the model and of the search differ. */
static bool has_edits(const sampling_params *p)
{
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0 ||
           p->no_repeat_ngram > 0 || p->n_logit_bias > 0 || p->min_tokens > 0;
}

bool beam_new(scheduler *s, request *r, error *err, span *field)
{
    (void)s;
    uint32_t width = r->sampling.beam_width;
    *field         = SPAN("logprobs");
    if (r->sampling.logprobs && has_edits(&r->sampling))
        return error_set(err, ERR_UNSUPPORTED,
                         "log probabilities are not reported of beams whose logits are edited: by penalties, "
                         "logit_bias, no_repeat_ngram or min_tokens");
    *field = SPAN("beam_width");
    if (r->prompt_logprobs || r->max_tokens == 0)
        return error_set(err, ERR_UNSUPPORTED, "beam search does not go with prompt log probabilities or max_tokens 0");
    r->beam = arena_take(r->memory, sizeof *r->beam);
    if (!r->beam)
        return error_set(err, ERR_NO_MEMORY, "no memory for a beam search of width %u", width);
    r->beam->width = width;
    r->beam->n_top = r->sampling.n_top_logprobs;
    for (uint32_t i = 0; i < width; i++) {
        r->beam->finished[i].tokens = arena_take_array(r->memory, r->max_tokens, sizeof(uint32_t));
        if (!r->beam->finished[i].tokens)
            return error_set(err, ERR_NO_MEMORY, "no memory for a beam search of width %u", width);
    }
    r->sampling.n_top_logprobs = r->beam->n_top > 2 * width ? r->beam->n_top : 2 * width;
    r->n_draft_tokens          = 0;
    if (r->n_choices > width)
        return error_set(err, ERR_INVALID, "%u choices from %u beams: n must not exceed the beam width", r->n_choices,
                         width);
    r->beam->mark = arena_mark(r->memory);
    return true;
}

void beam_restart(scheduler *s, request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        sequence *q = &r->sequences[i];
        if (q->state == SEQUENCE_RUNNING)
            sequence_release(s, q);
        q->state       = SEQUENCE_ENDED;
        q->n_tokens    = q->n_prompt;
        q->score       = 0;
        q->report      = NULL;
        q->append_last = false;
    }
    arena_rewind(r->memory, r->beam->mark);
    r->beam->n_finished = r->beam->n_candidates = r->beam->n_reported = 0;
    r->sequences[0].state                                             = SEQUENCE_WAITING;
    r->n_live                                                         = 1;
    queue_add(s, &r->sequences[0]);
}

static uint32_t n_running_beams(const request *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_sequences; i++)
        n += r->sequences[i].state == SEQUENCE_RUNNING;
    return n;
}

static bool is_stop(const request *r, uint32_t token)
{
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        if (r->stop_tokens[i] == token)
            return !r->sampling.ignore_eos;
    return false;
}

static float final_score(const request *r, float sum, uint32_t n_tokens)
{
    return sum / powf((float)(n_tokens ? n_tokens : 1), r->sampling.length_penalty);
}

/* Keeps a parent's likely tokens until its children are chosen. NULL when nobody wants to see them. */
static const token_logprob *keep_top(request *r, const token_logprob *from)
{
    if (!r->sampling.logprobs)
        return NULL;
    uint32_t       n        = from->n_top_tokens < r->beam->n_top ? from->n_top_tokens : r->beam->n_top;
    token_logprob *top      = arena_take(r->memory, sizeof *top);
    uint32_t      *tokens   = arena_take_array(r->memory, n, sizeof *tokens);
    float         *logprobs = arena_take_array(r->memory, n, sizeof *logprobs);
    assert(top && tokens && logprobs); /* beam_bytes counts them */
    if (n > 0) {
        memcpy(tokens, from->top_tokens, n * sizeof *tokens);
        memcpy(logprobs, from->top_logprobs, n * sizeof *logprobs);
    }
    *top = (token_logprob){.top_tokens = tokens, .n_top_tokens = n, .top_logprobs = logprobs, .n_top_logprobs = n};
    return top;
}

/* The report of a chosen candidate, behind those of its parent as that still is. */
static const beam_report *report_of(request *r, const candidate *c)
{
    if (!c->top)
        return NULL;
    beam_report *report = arena_take(r->memory, sizeof *report);
    assert(report); /* beam_bytes counts it */
    *report               = (beam_report){.previous = c->parent->report, .token = *c->top};
    report->token.token   = c->token;
    report->token.logprob = c->logprob;
    report->token.rank    = c->rank;
    return report;
}

/* Keeps a finished hypothesis if it is among the best `width`. `last` ends it, if there is one. */
static void finish_hypothesis(request *r, const sequence *q, const candidate *last)
{
    beam_search *b        = r->beam;
    uint32_t     n_output = q->n_tokens - q->n_prompt;
    float        score    = final_score(r, last ? last->score : q->score, n_output + (last != NULL));
    uint32_t     place    = b->n_finished;
    if (b->n_finished == b->width) {
        place = 0;
        for (uint32_t i = 1; i < b->width; i++)
            if (b->finished[i].score < b->finished[place].score)
                place = i;
        if (b->finished[place].score >= score)
            return;
    } else {
        b->n_finished++;
    }
    hypothesis *h = &b->finished[place];
    memcpy(h->tokens, q->tokens + q->n_prompt, n_output * sizeof *h->tokens);
    h->n_tokens = n_output;
    h->stopped  = last != NULL;
    h->score    = score;
    h->report   = last ? report_of(r, last) : q->report;
    if (last)
        h->tokens[h->n_tokens++] = last->token;
}

/* Makes `child` a copy of its parent that continues with the candidate's token. False when slot or block is not to be
 * had. */
static bool fork_beam(const candidate *c, sequence *child)
{
    sequence      *parent = c->parent;
    executor_link *x      = parent->executor;
    uint32_t       full   = parent->n_computed / KV_BLOCK_TOKENS;
    bool           part   = parent->n_computed % KV_BLOCK_TOKENS != 0;
    uint32_t       own    = KV_NO_BLOCK;
    if (x->n_free_slots == 0 || (part && !kv_pool_take(x->pool, 1, &own)))
        return false;
    child->state          = SEQUENCE_RUNNING;
    child->executor       = x;
    child->slot           = x->free_slots[--x->n_free_slots];
    child->opened         = false;
    child->previous       = x->running_last;
    child->next           = NULL;
    x->running_last->next = child;
    x->running_last       = child;
    x->n_running++;
    memcpy(child->tokens, parent->tokens, parent->n_tokens * sizeof *child->tokens);
    for (uint32_t i = 0; i < full; i++) {
        child->blocks[i] = parent->blocks[i];
        kv_pool_share(x->pool, child->blocks[i]);
    }
    if (part) {
        child->blocks[full] = own;
        child->copy_from    = parent->blocks[full];
        kv_pool_share(x->pool, child->copy_from);
    }
    child->n_blocks        = full + part;
    child->n_blocks_sent   = 0;
    child->n_blocks_hashed = parent->n_blocks_hashed < full ? parent->n_blocks_hashed : full;
    child->last_hash       = parent->last_hash;
    child->n_tokens        = parent->n_tokens;
    child->n_computed = child->n_planned = parent->n_computed;
    child->n_pending                     = 0;
    child->n_in_flight                   = 0;
    child->tokens[child->n_tokens++]     = c->token;
    child->append_last                   = false; /* its slot opens with the whole history */
    child->score                         = c->score;
    child->report                        = report_of(child->request, c);
    child->request->n_live++;
    return true;
}

static sequence *unused_sequence(request *r)
{
    for (uint32_t i = 0; i < r->n_sequences; i++)
        if (r->sequences[i].state == SEQUENCE_ENDED && r->sequences[i].n_in_flight == 0)
            return &r->sequences[i];
    return NULL;
}

/* Higher scores first; then the lower token, then the earlier beam: one order, whatever came when. */
static bool comes_before(const candidate *a, const candidate *b)
{
    if (a->score != b->score)
        return a->score > b->score;
    return a->token != b->token ? a->token < b->token : a->parent->choice < b->parent->choice;
}

static void sort_candidates(candidate *c, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        candidate moving = c[i];
        uint32_t  k      = i;
        for (; k > 0 && comes_before(&moving, &c[k - 1]); k--)
            c[k] = c[k - 1];
        c[k] = moving;
    }
}

/* In slices, each of which fits into a message whatever is reported of a token. */
static void emit_hypothesis(scheduler *s, sequence *q, const hypothesis *h)
{
    enum { AT_ONCE = 4096 };
    request           *r        = q->request;
    const beam_report *report   = h->report;
    token_logprob     *logprobs = report ? arena_take_array(r->memory, h->n_tokens, sizeof *logprobs) : NULL;
    assert(logprobs || !report);
    for (uint32_t i = h->n_tokens; report && i-- > 0; report = report->previous)
        logprobs[i] = report->token;
    memcpy(q->tokens + q->n_prompt, h->tokens, h->n_tokens * sizeof *q->tokens);
    uint32_t done = 0, n;
    do {
        bool is_last = h->n_tokens - done <= AT_ONCE;
        n            = is_last ? h->n_tokens - done : AT_ONCE;
        sequence_emit(s, q, q->n_prompt + done, n, logprobs ? logprobs + done : NULL, logprobs ? n : 0,
                      !is_last     ? FINISH_REASON_NONE
                      : h->stopped ? FINISH_REASON_STOP
                                   : FINISH_REASON_LENGTH,
                      NULL);
        done += n;
    } while (done < h->n_tokens);
}

/* Hands out the best hypotheses as choices 0.. and ends the request. At the length limit the running beams compete too.
 */
static void end_search(scheduler *s, request *r, bool at_limit)
{
    beam_search *b = r->beam;
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        sequence *q = &r->sequences[i];
        if (q->state != SEQUENCE_RUNNING)
            continue;
        if (at_limit)
            finish_hypothesis(r, q, NULL);
        sequence_end(s, q);
    }
    for (uint32_t choice = 0; choice < r->n_choices; choice++) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < b->n_finished; i++)
            if (b->finished[i].score > b->finished[best].score)
                best = i;
        r->sequences[choice].choice = choice;
        emit_hypothesis(s, &r->sequences[choice], &b->finished[best]);
        b->finished[best].score = -INFINITY;
    }
    r->n_live = 0;
    request_settle(s, r);
}

/* Picks the next generation of beams among the candidates of this one. */
static void advance(scheduler *s, request *r)
{
    beam_search *b        = r->beam;
    uint32_t     n_chosen = 0;
    candidate    chosen[BEAM_WIDTH_MAX];
    sort_candidates(b->candidates, b->n_candidates);
    for (uint32_t i = 0; i < b->n_candidates && n_chosen < b->width; i++) {
        candidate *c = &b->candidates[i];
        if (is_stop(r, c->token)) {
            if (i < b->width)
                finish_hypothesis(r, c->parent, c);
        } else {
            chosen[n_chosen++] = *c;
        }
    }
    b->n_candidates = b->n_reported = 0;
    if (n_chosen == 0 || b->n_finished == b->width) {
        end_search(s, r, b->n_finished == 0);
        return;
    }
    bool lost = false;
    for (uint32_t i = 0; i < n_chosen && !lost; i++) {
        bool is_first_child = true;
        for (uint32_t k = 0; k < i; k++)
            is_first_child = is_first_child && chosen[k].parent != chosen[i].parent;
        sequence *child = is_first_child ? NULL : unused_sequence(r);
        if (!is_first_child && (!child || !fork_beam(&chosen[i], child)))
            lost = true;
    }
    for (uint32_t i = 0; i < r->n_sequences; i++) {
        sequence  *q    = &r->sequences[i];
        candidate *mine = NULL;
        for (uint32_t k = n_chosen; k-- > 0;)
            if (chosen[k].parent == q)
                mine = &chosen[k]; /* the first of its children lives on in its place */
        bool is_child = q->state == SEQUENCE_RUNNING && !q->opened;
        if (mine) {
            q->tokens[q->n_tokens++] = mine->token;
            q->score                 = mine->score;
            q->report                = report_of(r, mine);
            q->append_last           = true;
        } else if (q->state == SEQUENCE_RUNNING && !is_child) {
            sequence_end(s, q);
        }
    }
    if (lost)
        request_end_all(s, r, FINISH_REASON_ERROR, "no KV blocks left for the beams");
    else if (chosen[0].parent->n_tokens == r->sequences[0].n_tokens_max)
        end_search(s, r, true);
}

void beam_scored(scheduler *s, sequence *q, const step_output *output)
{
    request     *r = q->request;
    beam_search *b = r->beam;
    if (output->n_logprobs != 1 || output->logprobs[0].n_top_tokens != output->logprobs[0].n_top_logprobs) {
        request_end_all(s, r, FINISH_REASON_ERROR, "the executor reported no likely tokens for a beam");
        return;
    }
    const token_logprob *top  = &output->logprobs[0];
    const token_logprob *kept = keep_top(r, top);
    uint32_t             n    = top->n_top_tokens < 2 * b->width ? top->n_top_tokens : 2 * b->width;
    for (uint32_t i = 0; i < n && b->n_candidates < CANDIDATES_MAX; i++)
        b->candidates[b->n_candidates++] = (candidate){.parent  = q,
                                                       .token   = top->top_tokens[i],
                                                       .rank    = i,
                                                       .logprob = top->top_logprobs[i],
                                                       .score   = q->score + top->top_logprobs[i],
                                                       .top     = kept};
    if (++b->n_reported == n_running_beams(r))
        advance(s, r);
}
