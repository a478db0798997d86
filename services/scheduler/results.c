/* What an executor's step gave: tokens are appended, handed on, and judged; full blocks become findable. */
#include "scheduler/state.h"

#include "base/log.h"

#include <assert.h>
#include <math.h>

static bool is_stop_token(const request *r, uint32_t token)
{
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        if (r->stop_tokens[i] == token)
            return !r->sampling.ignore_eos;
    return false;
}

static void end_choice(scheduler *s, sequence *q)
{
    request *r = q->request;
    sequence_end(s, q);
    request_settle(s, r);
}

/* Appends what was sampled, up to a stop token or the limit, and hands it on. */
static void append_tokens(scheduler *s, sequence *q, const step_output *output)
{
    uint32_t      first = q->n_tokens, n = 0;
    finish_reason finish = FINISH_REASON_NONE;
    while (n < output->n_tokens && finish == FINISH_REASON_NONE) {
        uint32_t token           = output->tokens[n++];
        q->tokens[q->n_tokens++] = token;
        q->request->n_vocab      = token >= q->request->n_vocab ? token + 1 : q->request->n_vocab;
        if (is_stop_token(q->request, token) && q->n_tokens - q->n_prompt > q->request->sampling.min_tokens)
            finish = FINISH_REASON_STOP;
        else if (q->n_tokens == q->n_tokens_max)
            finish = FINISH_REASON_LENGTH;
    }
    s->n_tokens_since_measured += n;
    q->executor->n_tokens_since_measured += n;
    metric_add(s->metrics.generated, n);
    uint32_t n_logprobs = q->request->sampling.logprobs || q->request->sampling.n_top_logprobs ? output->n_logprobs : 0;
    sequence_emit(s, q, first, n, output->logprobs, n_logprobs < n ? n_logprobs : n, finish, NULL);
    if (finish != FINISH_REASON_NONE)
        end_choice(s, q);
    else
        speculate_after_result(s, q);
}

static void emit_prompt_logprobs(scheduler *s, sequence *q, const step_output *output)
{
    uint32_t left = output->position + 1 < q->n_prompt ? q->n_prompt - output->position - 1 : 0; /* then its output */
    uint32_t n    = output->n_prompt_logprobs < left ? output->n_prompt_logprobs : left;
    if (n == 0 || !q->request->postprocessor || q->choice > 0)
        return;
    gen_prompt out = {.index = output->position + 1, .logprobs = output->prompt_logprobs, .n_logprobs = n};
    error      err;
    if (!actor_send(s->actor, q->request->postprocessor, MSG_GEN_PROMPT, &out, &q->request->envelope, &err))
        log_warn("prompt log probabilities not delivered", "why=\"%s\"", err.text);
}

static void apply_entry(scheduler *s, const planned_entry *e, const step_output *output)
{
    sequence *q = e->sequence;
    q->n_in_flight--;
    if (q->state == SEQUENCE_ENDED) {
        request_settle(s, q->request);
        return;
    }
    if (q->generation != e->generation)
        return; /* preempted since: the same tokens will come again */
    uint32_t n_new      = e->samples && output ? output->n_tokens : 0;
    uint32_t n_accepted = n_new > 0 ? n_new - 1 : 0;
    q->n_computed += e->n_rows + n_accepted;
    suspicion_computed(q->executor, q);
    if (e->n_drafts > 0) {
        q->n_planned = q->n_computed; /* what was refused is written again */
        q->n_drafted += e->n_drafts;
        q->n_accepted += n_accepted;
        metric_add(s->metrics.drafted, e->n_drafts);
        metric_add(s->metrics.accepted, n_accepted);
    }
    if (output && output->error.size > 0) {
        char text[401];
        snprintf(text, sizeof text, "%.*s", SPAN_ARG(output->error));
        if (q->request->beam || q->request->pooled) { /* the others would wait for its candidates; nothing is open */
            request_end_all(s, q->request, FINISH_REASON_ERROR, text);
            return;
        }
        sequence_emit(s, q, q->n_tokens, 0, NULL, 0, FINISH_REASON_ERROR, text);
        end_choice(s, q);
        return;
    }
    if (e->pools) {
        request_answer(s, q->request, output);
        end_choice(s, q);
        return;
    }
    if (n_new > 0 || (q->request->beam && e->samples && output))
        request_trace_token(s, q->request);
    if (e->scores && output)
        emit_prompt_logprobs(s, q, output);
    if (q->request->beam) {
        sequence_publish_blocks(s, q);
        if (e->samples && output)
            beam_scored(s, q, output);
        return;
    }
    if (n_new > 0) {
        /* the tokens first: the hash of a block of accepted drafts covers them */
        for (uint32_t i = 0; i < n_new && q->n_tokens + i < q->n_tokens_max; i++)
            q->tokens[q->n_tokens + i] = output->tokens[i];
        sequence_publish_blocks(s, q);
        q->n_pending--;
        append_tokens(s, q, output);
    } else {
        sequence_publish_blocks(s, q);
        if (q->request->max_tokens == 0 && q->n_computed == q->n_prompt) {
            sequence_emit(s, q, q->n_tokens, 0, NULL, 0, FINISH_REASON_LENGTH, NULL);
            end_choice(s, q);
        }
    }
}

static bool logprobs_are_sound(const token_logprob *logprobs, uint32_t n, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n; i++) {
        if (logprobs[i].token >= n_vocab || logprobs[i].n_top_tokens != logprobs[i].n_top_logprobs)
            return false;
        for (uint32_t k = 0; k < logprobs[i].n_top_tokens; k++)
            if (logprobs[i].top_tokens[k] >= n_vocab)
                return false;
    }
    return true;
}

static bool pooled_is_sound(const step_output *output, uint32_t n_pooled)
{
    for (uint32_t i = 0; i < output->n_pooled; i++)
        if (!isfinite(output->pooled[i]))
            return false;
    return output->n_pooled == n_pooled;
}

/* An executor is a process of ours, but it may be of another version, or broken: its numbers are checked like
 * anybody's. */
static const char *find_fault(const executor_link *x, const step_result *result)
{
    if (x->n_plans == 0 || x->plans[0].step != result->step)
        return "a result for another step than the oldest in flight";
    const planned_step *p = &x->plans[0];
    uint32_t            k = 0;
    for (uint32_t i = 0; i < p->n_entries; i++) {
        const planned_entry *e = &p->entries[i];
        if (!e->samples && !e->scores && !e->pools)
            continue;
        if (k == result->n_outputs || result->outputs[k].slot != e->slot)
            return "a result without an output that its plan asked for";
        const step_output *output  = &result->outputs[k++];
        bool               is_beam = e->sequence->request->beam != NULL;
        if (e->pools && output->error.size == 0 && !pooled_is_sound(output, x->about.n_pooled))
            return "another pooled output than its plan asked for";
        if (output->error.size == 0 && e->samples && !is_beam &&
            (output->n_tokens == 0 || output->n_tokens > e->n_drafts + 1))
            return "a result with more or fewer tokens than its plan asked for";
        for (uint32_t t = 0; t < output->n_tokens; t++)
            if (output->tokens[t] >= x->about.n_vocab)
                return "a token outside of the vocabulary";
        if (output->n_prompt_logprobs > e->n_rows ||
            !logprobs_are_sound(output->logprobs, output->n_logprobs, x->about.n_vocab) ||
            !logprobs_are_sound(output->prompt_logprobs, output->n_prompt_logprobs, x->about.n_vocab))
            return "log probabilities that its plan did not ask for, or of no token";
    }
    return k == result->n_outputs ? offload_find_fault(x, result)
                                  : "a result with outputs that its plan did not ask for";
}

/* The pass as a whole failed: its sequences are computed again from the start, a few times at most. */
static void step_failed(scheduler *s, planned_step *p, span why)
{
    log_error("step failed", "why=\"%.*s\" sequences=%u", SPAN_ARG(why), p->n_entries);
    for (uint32_t i = 0; i < p->n_entries; i++) {
        planned_entry *e = &p->entries[i];
        sequence      *q = e->sequence;
        q->n_in_flight--;
        request_trace_event(s, q->request, "step failed");
        if (q->state == SEQUENCE_ENDED)
            request_settle(s, q->request);
        else if (q->generation != e->generation)
            continue;
        else if (suspicion_of_loss(q))
            request_end_all(s, q->request, FINISH_REASON_ERROR, "the executor failed on this request");
        else
            sequence_preempt(s, q);
    }
}

void results_apply(scheduler *s, executor_link *x, const step_result *result)
{
    const char *fault = result->error.size > 0 ? offload_find_fault(x, result) : find_fault(x, result);
    if (fault || x->n_plans == 0) {
        executors_wrong(s, x, fault ? fault : "an error without a plan");
        return;
    }
    metric_observe(s->metrics.step_time, result->elapsed_us / 1e6);
    kv_moves_measure(x, &x->plans[0], result->elapsed_us);
    planned_step p = x->plans[0];
    x->plans[0]    = x->plans[1];
    x->plans[1]    = p; /* keeps its memory for the next plan; read until then */
    x->n_plans--;
    x->oldest_since_ns = actor_now_ns(s->actor);
    offload_apply(s, x, &p, result);
    if (result->error.size > 0) {
        step_failed(s, &p, result->error);
        return;
    }
    uint32_t k = 0;
    for (uint32_t i = 0; i < p.n_entries; i++) {
        bool wants = p.entries[i].samples || p.entries[i].scores || p.entries[i].pools;
        apply_entry(s, &p.entries[i], wants ? &result->outputs[k] : NULL);
        k += wants;
    }
}
