/* The postprocessor actor: a stream a request, from gen.open until each of its choices ended. See README.md. */
#include "postprocessor/postprocessor.h"

#include "actor/find.h"
#include "base/log.h"
#include "base/metric.h"
#include "postprocessor/delta.h"
#include "postprocessor/live_filter.h"
#include "trace/trace.h"

#include <stdio.h>
#include <stdlib.h>

enum { FILTER_POLL_MS = 1000, RETRY_AFTER_MS = 1000 };

typedef struct {
    actor                       *actor;
    const postprocessor_options *options;
    tokenizer                   *tokenizer;
    live_filter                 *filter; /* NULL: none */
    actor_timer                  filter_timer;
    stream_table                *streams;
    arena                       *memory;
    delta                        delta;
    struct {
        metric *streams, *tokens, *deltas, *refused, *stopped, *blocked, *repeating, *reloads;
    } metrics;
} postprocessor;

const option_row postprocessor_option_rows[] = {
    OPTION_STRING(postprocessor_options, model, "--model", "FILE", NULL,
                  "GGUF file, or a folder with config.json and safetensors."),
    OPTION_STRING(postprocessor_options, output_filter_file, "--output-filter", "FILE", NULL,
                  "YAML file of keywords to block, mask or replace in answers; read again when it changes."),
    OPTION_UINT(postprocessor_options, max_num_streams, "--max-num-streams", "N", 1024, 1, 65536,
                "Requests whose text is made at once; more are refused with 429."),
    OPTION_UINT(postprocessor_options, repetition_limit, "--repetition-limit", "N", 0, 0, 65536,
                "Ends an answer whose tail is one block of tokens so many times over, when its request sets no limit; "
                "0: never, else at least 2."),
};
const size_t n_postprocessor_option_rows = COUNT(postprocessor_option_rows);

/* ---- the actor's life ---- */

static void destroy(void *self)
{
    postprocessor *p = self;
    stream_table_free(&p->streams);
    live_filter_free(&p->filter);
    tokenizer_free(&p->tokenizer);
    arena_free(&p->memory);
    free(p);
}

static void register_metrics(postprocessor *p)
{
    p->metrics.streams = metric_gauge("troupe_postprocessor_streams", "", "Requests whose text is being made.");
    p->metrics.tokens  = metric_counter("troupe_postprocessor_tokens_total", "", "Tokens made into text.");
    p->metrics.deltas  = metric_counter("troupe_postprocessor_deltas_total", "", "Messages of text sent.");
    p->metrics.refused = metric_counter("troupe_postprocessor_refused_total", "", "Requests refused or given up here.");
    p->metrics.stopped = metric_counter("troupe_stop_strings_total", "", "Choices that ended at a stop string.");
    p->metrics.blocked = metric_counter("troupe_output_blocked_total", "", "Choices that the output filter ended.");
    p->metrics.repeating = metric_counter("troupe_output_repetitions_total", "", "Choices that repeated themselves.");
    p->metrics.reloads   = metric_counter("troupe_output_filter_reloads_total", "", "Times that new rules were taken.");
}

static bool open_parts(postprocessor *p, error *err)
{
    if (!p->options->model || !p->options->model[0])
        return error_set(err, ERR_INVALID, "--model is missing: the GGUF file or folder whose tokens become text");
    if (p->options->repetition_limit == 1)
        return error_set(err, ERR_INVALID, "--repetition-limit 1 would end every answer; expected 0 or at least 2");
    p->tokenizer = tokenizer_open(p->options->model, err);
    if (!p->tokenizer)
        return false;
    if (DELTA_TEXT_SENT + choice_output_bytes_max(p->tokenizer) > DELTA_TEXT_BYTES)
        return error_set(err, ERR_UNSUPPORTED, "%s: a token of %zu bytes; the text of one must fit in a message",
                         p->options->model, tokenizer_longest_token(p->tokenizer));
    if (p->options->output_filter_file && !(p->filter = live_filter_new(p->options->output_filter_file, err)))
        return false;
    size_t bytes = STREAM_CHOICES_MAX * choice_bytes(p->tokenizer) +
                   DETOKENIZER_STOPS_MAX * (DETOKENIZER_STOP_BYTES_MAX + sizeof(span) + 32) + 4096;
    p->streams = stream_table_new((uint32_t)p->options->max_num_streams, bytes, err);
    p->memory  = p->streams ? arena_new(delta_bytes(), err) : NULL;
    return p->memory && delta_init(&p->delta, p->memory, err);
}

static void *create(actor *a, const void *options, error *err)
{
    postprocessor *p = calloc(1, sizeof *p);
    if (!p) {
        error_set(err, ERR_NO_MEMORY, "no memory for the postprocessor");
        return NULL;
    }
    p->actor   = a;
    p->options = options;
    register_metrics(p);
    if (!open_parts(p, err)) {
        destroy(p);
        return NULL;
    }
    return p;
}

static void on_reload(void *self)
{
    postprocessor *p = self;
    if (p->filter && live_filter_poll(p->filter, true))
        metric_add(p->metrics.reloads, 1);
}

static void on_filter_timer(void *self, actor_timer *timer)
{
    postprocessor *p = self;
    if (live_filter_poll(p->filter, false))
        metric_add(p->metrics.reloads, 1);
    actor_timer_set(p->actor, timer, FILTER_POLL_MS * NS_PER_MS, on_filter_timer);
}

static void on_start(void *self)
{
    postprocessor *p = self;
    if (p->filter)
        actor_timer_set(p->actor, &p->filter_timer, FILTER_POLL_MS * NS_PER_MS, on_filter_timer);
}

static void leave_when_done(postprocessor *p)
{
    if (actor_is_draining(p->actor) && stream_table_n(p->streams) == 0)
        actor_finish(p->actor);
}

static void on_drain(void *self)
{
    leave_when_done(self);
}

/* ---- ends of streams ---- */

static void trace_stream(const postprocessor *p, const stream *s)
{
    if (s->opened_ns == 0 || !trace_wants(s->envelope.trace))
        return;
    int64_t    now_ns = clock_now_ns(actor_clock(p->actor));
    trace_span t      = trace_span_under(s->envelope.trace, "postprocessor", "postprocess", s->opened_ns, now_ns);
    trace_add_number(&t, "troupe.choices", s->n_choices);
    trace_add_number(&t, "troupe.attempt", s->envelope.attempt);
    trace_record(&t);
}

static void close_stream(postprocessor *p, stream *s)
{
    trace_stream(p, s);
    if (s->scheduler)
        actor_grant(p->actor, s->scheduler, 1);
    stream_close(p->streams, s);
    metric_set(p->metrics.streams, stream_table_n(p->streams));
    leave_when_done(p);
}

static void cancel(postprocessor *p, peer *scheduler, const envelope *about, const gen_cancel *what)
{
    error err;
    if (!actor_send(p->actor, scheduler, MSG_GEN_CANCEL, what, about, &err))
        log_warn("could not cancel", "node=%s why=\"%s\"", scheduler->name, err.text);
}

static void cancel_all(postprocessor *p, peer *scheduler, const envelope *about, cancel_reason reason)
{
    cancel(p, scheduler, about, &(gen_cancel){.all = true, .reason = reason});
}

static void refuse(postprocessor *p, span reply_to, const envelope *about, const error *why, span field)
{
    error        err;
    peer        *owner = actor_find_peer(p->actor, reply_to);
    text_refused body  = {.code           = why->code,
                          .text           = span_of(why->text),
                          .field          = field,
                          .retry_after_ms = error_may_retry(why->code) ? RETRY_AFTER_MS : 0};
    metric_add(p->metrics.refused, 1);
    if (owner && !actor_send(p->actor, owner, MSG_TEXT_REFUSED, &body, about, &err))
        log_warn("a refusal was not sent", "node=%s why=\"%s\"", owner->name, err.text);
}

/* Ends a stream whose text cannot go on; its owner is told, and may send the request again. */
static void give_up(postprocessor *p, stream *s, const error *why)
{
    refuse(p, span_of(s->reply_to), &s->envelope, why, (span){0});
    cancel_all(p, s->scheduler, &s->envelope, CANCEL_REASON_ERROR);
    close_stream(p, s);
}

/* ---- text.delta ---- */

/* Sends what p->delta holds for a choice. False: the stream is gone. */
static bool send_delta(postprocessor *p, stream *s, uint32_t choice_index, const choice_end *end, span error_text)
{
    const delta *d      = &p->delta;
    choice      *c      = &s->choices[choice_index];
    bool         settle = d->prompt || end->reason != FINISH_REASON_NONE;
    uint32_t     n_kept = settle ? 0 : choice_n_unsettled(c);
    peer        *owner  = actor_find_peer(p->actor, span_of(s->reply_to));
    if (n_kept > d->n_tokens)
        n_kept = d->n_tokens;
    text_delta body = {.choice      = choice_index,
                       .index       = d->index,
                       .text        = {d->text.data, d->text.size},
                       .finish      = end->reason,
                       .n_logprobs  = d->n_logprobs,
                       .logprobs    = d->logprobs,
                       .usage       = {s->n_prompt_tokens, c->n_tokens, c->n_cached, c->n_drafted, c->n_accepted},
                       .n_tokens    = d->n_tokens - n_kept,
                       .tokens      = d->tokens,
                       .stop_reason = end->stop_reason,
                       .error       = error_text,
                       .prompt      = d->prompt};
    error      err;
    if (!owner) { /* its gateway left, and its clients with it */
        cancel_all(p, s->scheduler, &s->envelope, CANCEL_REASON_CLIENT_LEFT);
        close_stream(p, s);
        return false;
    }
    if (!actor_send(p->actor, owner, MSG_TEXT_DELTA, &body, &s->envelope, &err)) {
        give_up(p, s, &err);
        return false;
    }
    metric_add(p->metrics.deltas, 1);
    if (!settle) {
        memcpy(c->held, d->tokens + d->n_tokens - n_kept, n_kept * sizeof *c->held);
        c->n_held = n_kept;
    }
    return true;
}

static const choice_end goes_on = {FINISH_REASON_NONE, {0}};

static void count_end(postprocessor *p, const choice_end *end)
{
    if (end->reason == FINISH_REASON_CONTENT_FILTER)
        metric_add(p->metrics.blocked, 1);
    else if (end->reason == FINISH_REASON_REPETITION)
        metric_add(p->metrics.repeating, 1);
    else if (end->stop_reason.size > 0)
        metric_add(p->metrics.stopped, 1);
}

/* The choice's last delta; tells the scheduler when it is not the scheduler who ended it. */
static void end_choice(postprocessor *p, stream *s, uint32_t choice_index, const choice_end *end, bool known,
                       span error_text)
{
    gen_cancel stop = {.choice = choice_index, .reason = CANCEL_REASON_STOP_STRING};
    if (end->reason == FINISH_REASON_CONTENT_FILTER)
        stop.reason = CANCEL_REASON_CONTENT_FILTER;
    else if (end->reason == FINISH_REASON_REPETITION)
        stop.reason = CANCEL_REASON_REPETITION;
    count_end(p, end);
    s->choices[choice_index].n_held = 0;
    if (!send_delta(p, s, choice_index, end, error_text))
        return;
    if (!known)
        cancel(p, s->scheduler, &s->envelope, &stop);
    if (--s->n_open == 0)
        close_stream(p, s);
}

/* ---- gen.open ---- */

/* Copies what the choices refer to. */
static bool keep_output(stream *s, const output_params *from, error *err)
{
    span *stops = arena_take_array(s->memory, from->n_stop ? from->n_stop : 1, sizeof *stops);
    for (uint32_t i = 0; stops && i < from->n_stop; i++) {
        stops[i] = arena_copy(s->memory, from->stop[i]);
        stops    = stops[i].data ? stops : NULL;
    }
    s->output      = *from;
    s->output.stop = stops;
    return stops || error_set(err, ERR_INVALID, "stop: too many or too long strings");
}

static bool init_choices(postprocessor *p, stream *s, error *err)
{
    uint32_t limit = s->output.repetition_limit ? s->output.repetition_limit : (uint32_t)p->options->repetition_limit;
    choice_options options = {p->tokenizer, &s->output, s->filter, limit};
    s->choices             = arena_take_array(s->memory, s->n_choices, sizeof *s->choices);
    if (!s->choices)
        return error_set(err, ERR_NO_MEMORY, "no memory for %u choices", s->n_choices);
    for (uint32_t i = 0; i < s->n_choices; i++)
        if (!choice_init(&s->choices[i], s->memory, &options, err))
            return false;
    return true;
}

/* Fails with *field set when the request is at fault. */
static bool fill_stream(postprocessor *p, stream *s, const message *m, span *field, error *err)
{
    const gen_open *body = m->body;
    s->scheduler         = m->from;
    s->n_prompt_tokens   = body->n_prompt_tokens;
    *field               = SPAN("n");
    if (body->n == 0 || body->n > STREAM_CHOICES_MAX)
        return error_set(err, ERR_INVALID, "%u choices; expected 1 to %d", body->n, STREAM_CHOICES_MAX);
    *field = SPAN("repetition_limit");
    if (body->output.repetition_limit == 1)
        return error_set(err, ERR_INVALID, "a limit of 1 would end every answer; expected 0 or at least 2");
    *field       = SPAN("stop");
    s->n_choices = s->n_open = body->n;
    memcpy(s->reply_to, body->reply_to.data, body->reply_to.size); /* the schema's bound is the array's */
    if (p->filter && body->output.filter)
        s->filter = output_filter_hold(live_filter_rules(p->filter));
    return keep_output(s, &body->output, err) && init_choices(p, s, err);
}

/* The prompt's text into p->delta. */
static bool write_echo(postprocessor *p, stream *s, const gen_open *body, error *err)
{
    delta              *d    = &p->delta;
    size_t              mark = arena_mark(s->memory);
    detokenizer_options how  = {.tokenizer = p->tokenizer, .specials = s->output.special_tokens};
    detokenizer        *text = detokenizer_new(s->memory, &how, err);
    bool                done = text != NULL;
    for (uint32_t i = 0; done && i <= body->n_prompt; i++) {
        span     piece;
        uint32_t stop;
        if (i < body->n_prompt)
            detokenizer_push(text, body->prompt[i], &piece, &stop);
        else
            piece = detokenizer_finish(text);
        if (piece.size > d->text.capacity - d->text.size) {
            done = error_set(err, ERR_TOO_LARGE, "the prompt's text is over %zu bytes; it can't be echoed",
                             d->text.capacity);
        } else if (piece.size > 0) {
            memcpy(d->text.data + d->text.size, piece.data, piece.size);
            d->text.size += piece.size;
        }
    }
    arena_rewind(s->memory, mark);
    return done;
}

/* The prompt stands before each choice's text, and offsets count over it. False: the stream is gone. */
static bool send_echo(postprocessor *p, stream *s, const gen_open *body)
{
    error         err;
    text_position whole = {0};
    delta_begin(&p->delta, 0, true);
    if (!write_echo(p, s, body, &err)) {
        give_up(p, s, &err);
        return false;
    }
    text_position_advance(&whole, (span){p->delta.text.data, p->delta.text.size});
    if (body->logprobs && body->n_prompt > 0) {
        delta_add_logprob(&p->delta, p->tokenizer, body->prompt[0], NULL, 0);
        text_position_advance(&s->prompt_position,
                              choice_printed(&s->choices[0], &s->prompt_position, body->prompt[0]));
    }
    for (uint32_t i = 0; i < s->n_choices; i++) {
        s->choices[i].position.n_characters = s->choices[i].n_said = whole.n_characters;
        if (!s->choices[i].ended && !send_delta(p, s, i, &goes_on, (span){0}))
            return false;
    }
    return true;
}

/* Says again, to itself, what an earlier attempt said, so that the state is what it was. False: the stream is gone. */
static bool resume_choice(postprocessor *p, stream *s, const resume_point *r)
{
    choice    *c   = &s->choices[r->choice];
    choice_end end = goes_on;
    c->n_skipped   = r->text_bytes;
    for (uint32_t i = 0; i < r->n_tokens && end.reason == FINISH_REASON_NONE; i++) {
        delta_begin(&p->delta, 0, false);
        end = choice_push(c, r->tokens[i], &p->delta.text);
    }
    if (end.reason == FINISH_REASON_NONE)
        return true;
    delta_begin(&p->delta, r->n_tokens, false); /* the rules are stricter than the first attempt's were */
    c->n_tokens = r->n_tokens;
    bool last   = s->n_open == 1;
    end_choice(p, s, r->choice, &end, false, (span){0});
    return !last;
}

static bool resume(postprocessor *p, stream *s, const gen_open *body)
{
    for (uint32_t i = 0; i < body->n_resume; i++) {
        const resume_point *r = &body->resume[i];
        if (r->choice < s->n_choices && r->finished && !s->choices[r->choice].ended) {
            s->choices[r->choice].ended = true;
            s->n_open--;
        }
    }
    if (s->n_open == 0) {
        close_stream(p, s);
        return false;
    }
    if (body->output.echo && !send_echo(p, s, body))
        return false;
    for (uint32_t i = 0; i < body->n_resume; i++) {
        const resume_point *r = &body->resume[i];
        if (r->choice < s->n_choices && !s->choices[r->choice].ended && s->choices[r->choice].n_tokens == 0 &&
            !resume_choice(p, s, r))
            return false;
    }
    return true;
}

static void refuse_open(postprocessor *p, const message *m, const error *why, span field)
{
    const gen_open *body = m->body;
    refuse(p, body->reply_to, m->envelope, why, field);
    cancel_all(p, m->from, m->envelope, CANCEL_REASON_ERROR);
    actor_grant(p->actor, m->from, 1);
}

static void on_gen_open(void *self, const message *m)
{
    postprocessor *p     = self;
    stream        *known = stream_find(p->streams, &m->envelope->request);
    span           field = {0};
    error          err;
    if (known && known->envelope.attempt >= m->envelope->attempt) {
        actor_grant(p->actor, m->from, 1); /* late, or again */
        return;
    }
    if (actor_is_draining(p->actor)) {
        error_set(&err, ERR_GONE, "the postprocessor is leaving");
        refuse_open(p, m, &err, field);
        return;
    }
    if (known)
        close_stream(p, known);
    stream *s = stream_open(p->streams, m->envelope);
    if (!s) {
        error_set(&err, ERR_OVERLOADED, "the postprocessor makes the text of %llu requests already",
                  (unsigned long long)p->options->max_num_streams);
        refuse_open(p, m, &err, field);
        return;
    }
    if (!fill_stream(p, s, m, &field, &err)) {
        stream_close(p->streams, s);
        refuse_open(p, m, &err, field);
        return;
    }
    char id[33], trace[TRACE_ID_TEXT];
    request_id_print(&m->envelope->request, id);
    trace_id_print(m->envelope->trace, trace);
    s->opened_ns = clock_now_ns(actor_clock(p->actor));
    log_debug("opened a stream", "run=%s trace=%s attempt=%u choices=%u for=%s", id, trace, m->envelope->attempt,
              s->n_choices, s->reply_to);
    metric_set(p->metrics.streams, stream_table_n(p->streams));
    resume(p, s, m->body);
}

/* ---- gen.tokens ---- */

/* The stream and choice that a message of the scheduler is for; NULL when nobody waits for it. */
static stream *find_stream(const postprocessor *p, const message *m)
{
    stream *s = stream_find(p->streams, &m->envelope->request);
    return s && s->envelope.attempt == m->envelope->attempt && s->scheduler == m->from ? s : NULL;
}

/* Begins a delta with the tokens that are still unaccounted for. */
static void begin_with_held(postprocessor *p, choice *c)
{
    delta_begin(&p->delta, c->n_tokens - c->n_held, false);
    memcpy(p->delta.tokens, c->held, c->n_held * sizeof *c->held);
    p->delta.n_tokens = c->n_held;
    c->n_held         = 0;
}

/* Without new text a delta can wait, its tokens with it. */
static bool hold(postprocessor *p, choice *c)
{
    const delta *d = &p->delta;
    if (d->text.size > 0 || d->n_logprobs > 0 || d->n_tokens > CHOICE_HELD_MAX)
        return false;
    memcpy(c->held, d->tokens, d->n_tokens * sizeof *c->held);
    c->n_held = d->n_tokens;
    return true;
}

/* What the model would rather have said never went through the filter: nobody behind one is told. */
static token_logprob without_unfiltered(const stream *s, const token_logprob *scored)
{
    token_logprob out = *scored;
    if (s->filter)
        out.n_top_tokens = out.n_top_logprobs = 0;
    return out;
}

static bool make_logprob_memory(stream *s, error *err)
{
    s->logprob_memory = arena_new(s->n_choices * held_logprobs_bytes(), err);
    for (uint32_t i = 0; s->logprob_memory && i < s->n_choices; i++)
        s->choices[i].held_logprobs = held_logprobs_new(s->logprob_memory);
    return s->logprob_memory != NULL;
}

/* A log probability tells its token's text, and waits while that may wait. False: the stream is gone. */
static bool take_logprob(postprocessor *p, stream *s, choice *c, const gen_tokens *body, uint32_t i, bool is_printed)
{
    error         err;
    token_logprob scored = without_unfiltered(s, &body->logprobs[i]);
    scored.token         = body->tokens[i];
    if (!choice_holds_logprobs(c)) {
        delta_add_logprob(&p->delta, p->tokenizer, scored.token, &scored, c->position.n_characters);
        return true;
    }
    if (!c->held_logprobs && !make_logprob_memory(s, &err)) {
        give_up(p, s, &err);
        return false;
    }
    choice_hold_logprob(c, &scored, is_printed);
    return true;
}

/* False: the stream is gone. */
static bool hand_out_logprobs(postprocessor *p, stream *s, uint32_t choice_index)
{
    choice *c = &s->choices[choice_index];
    for (const held_logprob *l; (l = choice_next_logprob(c));) {
        if (delta_is_full(&p->delta)) {
            if (!send_delta(p, s, choice_index, &goes_on, (span){0}))
                return false;
            begin_with_held(p, c);
        }
        delta_add_logprob(&p->delta, p->tokenizer, l->scored.token, &l->scored, l->first);
    }
    return true;
}

/* Pushes body->tokens[first..]. False: the stream is gone. */
static bool push_tokens(postprocessor *p, stream *s, const gen_tokens *body, uint32_t first, choice_end *end)
{
    choice *c = &s->choices[body->choice];
    for (uint32_t i = first; i < body->n_tokens && end->reason == FINISH_REASON_NONE; i++) {
        bool     is_stop_token = body->finish == FINISH_REASON_STOP && i + 1 == body->n_tokens;
        uint32_t token         = body->tokens[i];
        if (delta_is_full(&p->delta)) {
            if (!send_delta(p, s, body->choice, &goes_on, (span){0}))
                return false;
            begin_with_held(p, c);
        }
        if (i < body->n_logprobs && !take_logprob(p, s, c, body, i, !is_stop_token))
            return false;
        p->delta.tokens[p->delta.n_tokens++] = token;
        if (is_stop_token)
            c->n_tokens++;
        else
            *end = choice_push(c, token, &p->delta.text);
        metric_add(p->metrics.tokens, 1);
        if (!hand_out_logprobs(p, s, body->choice))
            return false;
    }
    return true;
}

static void on_gen_tokens(void *self, const message *m)
{
    postprocessor    *p    = self;
    const gen_tokens *body = m->body;
    stream           *s    = find_stream(p, m);
    choice_end        end  = goes_on;
    if (!s || body->choice >= s->n_choices || s->choices[body->choice].ended)
        return;
    choice *c = &s->choices[body->choice];
    if (body->index > c->n_tokens) {
        error err;
        error_set(&err, ERR_GONE, "tokens were lost on their way: choice %u goes on at %u, %u are there", body->choice,
                  body->index, c->n_tokens);
        give_up(p, s, &err);
        return;
    }
    c->n_cached   = body->cached_tokens;
    c->n_drafted  = body->drafted_tokens;
    c->n_accepted = body->accepted_tokens;
    begin_with_held(p, c);
    if (!push_tokens(p, s, body, c->n_tokens - body->index, &end))
        return;
    bool ended_here = end.reason != FINISH_REASON_NONE;
    if (!ended_here && body->finish != FINISH_REASON_NONE)
        end = choice_finish(c, body->finish, &p->delta.text);
    if (!hand_out_logprobs(p, s, body->choice))
        return;
    if (end.reason != FINISH_REASON_NONE)
        end_choice(p, s, body->choice, &end, body->finish != FINISH_REASON_NONE, ended_here ? (span){0} : body->error);
    else if (p->delta.n_tokens > 0 && !hold(p, c))
        send_delta(p, s, body->choice, &goes_on, (span){0});
}

/* ---- gen.prompt ---- */

/* Sends p->delta to every choice that goes on. False: the stream is gone. */
static bool send_to_all(postprocessor *p, stream *s)
{
    for (uint32_t i = 0; i < s->n_choices; i++)
        if (!s->choices[i].ended && !send_delta(p, s, i, &goes_on, (span){0}))
            return false;
    return true;
}

static void on_gen_prompt(void *self, const message *m)
{
    postprocessor    *p    = self;
    const gen_prompt *body = m->body;
    stream           *s    = find_stream(p, m);
    if (!s)
        return;
    uint32_t next = s->n_prompt_scored > 0 ? s->n_prompt_scored : 1; /* the first has no log probability */
    uint32_t i    = next > body->index ? next - body->index : 0;
    if (i >= body->n_logprobs)
        return;
    delta_begin(&p->delta, body->index + i, true);
    for (; i < body->n_logprobs; i++) {
        uint32_t token = body->logprobs[i].token;
        if (delta_is_full(&p->delta)) {
            if (!send_to_all(p, s))
                return;
            delta_begin(&p->delta, body->index + i, true);
        }
        token_logprob scored = without_unfiltered(s, &body->logprobs[i]);
        delta_add_logprob(&p->delta, p->tokenizer, token, &scored, s->prompt_position.n_characters);
        text_position_advance(&s->prompt_position, choice_printed(&s->choices[0], &s->prompt_position, token));
    }
    s->n_prompt_scored = body->index + body->n_logprobs;
    send_to_all(p, s);
}

/* ---- cancels, refusals, peers ---- */

static void on_gen_cancel(void *self, const message *m)
{
    postprocessor    *p    = self;
    const gen_cancel *body = m->body;
    stream           *s    = stream_find(p->streams, &m->envelope->request);
    if (!s || s->envelope.attempt != m->envelope->attempt)
        return;
    if (body->all) {
        close_stream(p, s);
    } else if (body->choice < s->n_choices && !s->choices[body->choice].ended) {
        s->choices[body->choice].ended = true;
        if (--s->n_open == 0)
            close_stream(p, s);
    }
}

static bool has_stream(void *self, const request_id *id, uint32_t attempt)
{
    const stream *s = stream_find(((postprocessor *)self)->streams, id);
    return s && s->envelope.attempt == attempt;
}

static void on_gen_find(void *self, const message *m)
{
    actor_answer_find(((postprocessor *)self)->actor, m, has_stream, self);
}

/* The owner's bus would not take our text: it will not take the rest either. */
static void on_refused(void *self, const message *m)
{
    postprocessor      *p       = self;
    const node_refused *refused = m->body;
    stream             *s       = stream_find(p->streams, &m->envelope->request);
    log_warn("a message was refused", "node=%s type=%u why=\"%.*s\"", m->from->name, refused->type,
             SPAN_ARG(refused->text));
    if (refused->type != MSG_TEXT_DELTA || !s || s->envelope.attempt != m->envelope->attempt)
        return;
    cancel_all(p, s->scheduler, &s->envelope, CANCEL_REASON_ERROR);
    close_stream(p, s);
}

/* What a scheduler had is lost with it: the owners are told, and send the requests again, elsewhere. */
static void on_peer_down(void *self, peer *gone)
{
    postprocessor *p = self;
    error          why;
    error_set(&why, ERR_GONE, "the scheduler of this request left");
    for (stream *s = stream_table_first(p->streams), *next; s; s = next) {
        next = s->next;
        if (s->scheduler == gone) {
            s->scheduler = NULL;
            refuse(p, span_of(s->reply_to), &s->envelope, &why, (span){0});
            close_stream(p, s);
        }
    }
}

static uint32_t load(const void *self)
{
    return stream_table_n(((const postprocessor *)self)->streams);
}

static void check(const void *self)
{
    stream_table_check(((const postprocessor *)self)->streams);
}

static void dump(const void *self)
{
    const postprocessor *p = self;
    fprintf(stderr, "postprocessor: %u streams\n", stream_table_n(p->streams));
    for (const stream *s = stream_table_first(p->streams); s; s = s->next) {
        char id[33];
        request_id_print(&s->envelope.request, id);
        fprintf(stderr, "  request %s attempt %u for %s\n", id, s->envelope.attempt, s->reply_to);
        for (uint32_t i = 0; i < s->n_choices; i++)
            fprintf(stderr, "    choice %u: %u tokens, %u held, %s\n", i, s->choices[i].n_tokens, s->choices[i].n_held,
                    s->choices[i].ended ? "ended" : "goes on");
    }
}

static const actor_route routes[] = {
    {MSG_GEN_OPEN, on_gen_open},     /* a request whose tokens will come */
    {MSG_GEN_TOKENS, on_gen_tokens}, /* they come */
    {MSG_GEN_PROMPT, on_gen_prompt}, /* log probabilities of its prompt */
    {MSG_GEN_FIND, on_gen_find},     /* its gateway has heard nothing of it for a while */
    {MSG_GEN_CANCEL, on_gen_cancel}, /* nobody waits for it any more */
};

const actor_class postprocessor_class = {
    .name         = "postprocessor",
    .role         = ROLE_POSTPROCESSOR,
    .routes       = routes,
    .n_routes     = COUNT(routes),
    .create       = create,
    .destroy      = destroy,
    .on_start     = on_start,
    .on_peer_down = on_peer_down,
    .on_refused   = on_refused,
    .on_reload    = on_reload,
    .on_drain     = on_drain,
    .load         = load,
    .check        = check,
    .dump         = dump,
};
