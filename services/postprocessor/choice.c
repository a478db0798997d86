/* The order of judges: what the filter blocks is never said, whatever else would have ended the choice. */
#include "postprocessor/choice.h"

#include <assert.h>

/* A detokenizer's own memory: see detokenizer.h. Text it keeps back and hands out at once, three bytes a byte. */
static size_t detokenizer_text_bytes(const tokenizer *t)
{
    return DETOKENIZER_STOP_BYTES_MAX + 3 * (UTF8_BYTES_MAX + tokenizer_longest_token(t));
}

size_t choice_bytes(const tokenizer *t)
{
    size_t stop = 3 * (DETOKENIZER_STOP_BYTES_MAX + 1) + 64; /* the string, and two bytes of automaton for each */
    return sizeof(choice) + 2048 + detokenizer_text_bytes(t) + DETOKENIZER_STOPS_MAX * stop + FILTER_STREAM_BYTES_MAX;
}

size_t choice_output_bytes_max(const tokenizer *t)
{
    return 2 * filter_output_bytes_max(detokenizer_text_bytes(t));
}

static void on_said(void *self, bool is_covered)
{
    choice *c = self;
    if (is_covered && c->held_logprobs)
        held_logprobs_cover(c->held_logprobs, c->n_said);
    c->n_said++;
}

bool choice_init(choice *c, arena *memory, const choice_options *options, error *err)
{
    const output_params *output = options->output;
    detokenizer_options  how    = {.tokenizer    = options->tokenizer,
                                   .stops        = output->stop,
                                   .n_stops      = output->n_stop,
                                   .include_stop = output->include_stop,
                                   .specials     = output->special_tokens,
                                   .continues    = output->echo};
    c->options                  = *options;
    c->detokenizer              = detokenizer_new(memory, &how, err);
    if (!c->detokenizer)
        return false;
    if (options->filter)
        c->filter = filter_stream_new(memory, options->filter, err);
    if (c->filter)
        filter_stream_watch(c->filter, on_said, c);
    return !options->filter || c->filter;
}

span choice_printed(const choice *c, const text_position *at, uint32_t token)
{
    if (!c->options.output->special_tokens && tokenizer_is_special(c->options.tokenizer, token))
        return (span){0};
    bool is_first = at->n_characters == 0 && at->n_partial == 0;
    return is_first ? tokenizer_first_bytes(c->options.tokenizer, token)
                    : tokenizer_token_bytes(c->options.tokenizer, token);
}

/* ---- log probabilities ---- */

bool choice_holds_logprobs(const choice *c)
{
    return c->filter || c->options.output->n_stop > 0;
}

/* A token that ends inside a character has a part in it. */
void choice_hold_logprob(choice *c, const token_logprob *scored, bool is_printed)
{
    text_position end = c->position;
    if (is_printed)
        text_position_advance(&end, choice_printed(c, &c->position, scored->token));
    bool is_part = is_printed && end.n_partial > 0;
    held_logprobs_add(c->held_logprobs, scored, c->position.n_characters, end.n_characters + is_part);
}

const held_logprob *choice_next_logprob(choice *c)
{
    return c->held_logprobs ? held_logprobs_next(c->held_logprobs, c->n_said) : NULL;
}

uint32_t choice_n_unsettled(const choice *c)
{
    uint32_t n = c->held_logprobs ? held_logprobs_n(c->held_logprobs) : 0;
    return n < CHOICE_HELD_MAX ? n : CHOICE_HELD_MAX;
}

/* ---- text ---- */

/* Leaves out what an earlier attempt said of out[from..]. */
static void skip(choice *c, filter_output *out, size_t from)
{
    size_t n_new = out->size - from, n = n_new < c->n_skipped ? n_new : c->n_skipped;
    memmove(out->data + from, out->data + from + n, n_new - n);
    out->size -= n;
    c->n_skipped -= (uint32_t)n;
}

/* False when the filter blocks. */
static bool say(choice *c, span text, filter_output *out)
{
    if (c->filter)
        return filter_stream_push(c->filter, text, out);
    assert(out->capacity - out->size >= text.size);
    if (text.size > 0)
        memcpy(out->data + out->size, text.data, text.size);
    out->size += text.size;
    text_position said = {0};
    text_position_advance(&said, text);
    c->n_said += said.n_characters;
    return true;
}

static choice_end blocked(choice *c)
{
    c->ended         = true;
    const char *rule = output_filter_rule_name(c->options.filter, filter_stream_blocked_by(c->filter));
    return (choice_end){FINISH_REASON_CONTENT_FILTER, span_of(rule)};
}

static choice_end finish(choice *c, finish_reason reason, filter_output *out)
{
    bool passes = say(c, detokenizer_finish(c->detokenizer), out);
    if (!passes || (c->filter && !filter_stream_finish(c->filter, out)))
        return blocked(c);
    c->ended = true;
    return (choice_end){reason, {0}};
}

static choice_end push(choice *c, uint32_t token, filter_output *out)
{
    span     text;
    uint32_t stop;
    c->n_tokens++;
    text_position_advance(&c->position, choice_printed(c, &c->position, token));
    bool stopped = detokenizer_push(c->detokenizer, token, &text, &stop);
    if (!say(c, text, out))
        return blocked(c);
    if (stopped) {
        choice_end end = finish(c, FINISH_REASON_STOP, out);
        if (end.reason == FINISH_REASON_STOP)
            end.stop_reason = c->options.output->stop[stop];
        return end;
    }
    if (c->options.repetition_limit && repetition_add(&c->repetition, token, c->options.repetition_limit))
        return finish(c, FINISH_REASON_REPETITION, out);
    return (choice_end){FINISH_REASON_NONE, {0}};
}

choice_end choice_push(choice *c, uint32_t token, filter_output *out)
{
    size_t     from = out->size;
    choice_end end  = push(c, token, out);
    skip(c, out, from);
    return end;
}

choice_end choice_finish(choice *c, finish_reason reason, filter_output *out)
{
    size_t     from = out->size;
    choice_end end  = finish(c, reason, out);
    skip(c, out, from);
    return end;
}
