/* See replay.h. */
#include "troupe/replay.h"

#include "base/json_out.h"
#include "tokenizer/prompt.h"

#include <stdlib.h>
#include <time.h>

static int cannot(const error *why)
{
    fprintf(stderr, "troupe: replay: %s\n", why->text);
    return REPLAY_CANNOT;
}

/* ---- the list ---- */

static const gen_request *decode_gen(const recorded_request *r, arena *memory, error *err)
{
    const void *body;
    arena_reset(memory);
    return r->gen.size && message_decode(MSG_GEN_REQUEST, r->gen, memory, &body, err) ? body : NULL;
}

static uint32_t last_choice(const recorded_request *r)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < RECORDED_CHOICES_MAX; i++)
        n = r->ends[i] || r->finish[i] ? i + 1 : n;
    return n;
}

static void print_row(const recorded_request *r, arena *memory, FILE *out)
{
    const gen_request *gen = decode_gen(r, memory, NULL);
    char               id[33], when[32], n_prompt[16] = "-";
    time_t             seconds  = (time_t)(r->unix_ms / 1000);
    uint64_t           n_tokens = 0;
    struct tm          utc;
    request_id_print(&r->id, id);
    if (!gmtime_r(&seconds, &utc) || strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        snprintf(when, sizeof when, "-");
    if (gen)
        snprintf(n_prompt, sizeof n_prompt, "%u", gen->n_prompt);
    for (uint32_t i = 0; i < RECORDED_CHOICES_MAX; i++)
        n_tokens += r->ends[i];
    fprintf(out, "%s  %s.%03dZ  %8s  %8llu  ", id, when, (int)(((r->unix_ms % 1000) + 1000) % 1000), n_prompt,
            (unsigned long long)n_tokens);
    for (uint32_t i = 0; i < last_choice(r); i++)
        fprintf(out, "%s%s", i ? "," : "", finish_reason_name((finish_reason)r->finish[i]));
    fputc('\n', out);
}

int replay_list(const char *folder, FILE *out)
{
    error              err;
    recorded_requests *all    = recorded_requests_read(folder, stderr, &err);
    arena             *memory = all ? arena_new(2 * (size_t)BUS_MESSAGE_BYTES_MAX, &err) : NULL;
    int                status = memory ? REPLAY_SAME : cannot(&err);
    if (memory) {
        fprintf(out, "%-32s  %-24s  %8s  %8s  %s\n", "request", "time", "prompt", "output", "finish");
        for (uint32_t i = 0; i < recorded_requests_n(all); i++)
            print_row(recorded_requests_at(all, i), memory, out);
        if (recorded_requests_n_lost(all) > 0)
            fprintf(stderr, "troupe: replay: %llu messages are not in the recording (see troupe_recorder_lost_total)\n",
                    (unsigned long long)recorded_requests_n_lost(all));
    }
    arena_free(&memory);
    recorded_requests_free(&all);
    return status;
}

/* ---- comparing ---- */

/* Looks at every copy of every token; `seen` counts each index once. */
static void compare_pieces(const recorded_request *r, uint32_t choice, const replayed_choice *now, bool *seen,
                           token_difference *d)
{
    for (const recorded_tokens *piece = r->tokens; piece; piece = piece->next)
        for (uint32_t i = 0; piece->choice == choice && i < piece->n_tokens; i++) {
            uint32_t at    = piece->index + i;
            bool     there = at < now->n_tokens;
            seen[at]       = true;
            if (at < d->index && (!there || now->tokens[at] != piece->tokens[i]))
                *d = (token_difference){
                    .index = at, .now_ends = !there, .recorded = piece->tokens[i], .now = there ? now->tokens[at] : 0};
        }
}

bool replay_compare(const recorded_request *r, uint32_t choice, const replayed_choice *now, uint32_t *n_compared,
                    token_difference *d)
{
    uint32_t end  = r->ends[choice];
    bool    *seen = calloc((size_t)end + 1, sizeof *seen);
    *n_compared   = 0;
    *d            = (token_difference){.index = UINT32_MAX};
    if (!seen)
        abort(); /* a megabyte */
    compare_pieces(r, choice, now, seen, d);
    for (uint32_t i = 0; i < end; i++)
        *n_compared += seen[i];
    free(seen);
    if (d->index == UINT32_MAX && r->whole[choice] && now->n_tokens > end)
        *d = (token_difference){.index = end, .recorded_ends = true, .now = now->tokens[end]};
    return d->index == UINT32_MAX;
}

static void print_token(const tokenizer *t, bool ends, uint32_t token, FILE *out)
{
    char     memory[4096];
    json_out j = json_out_into(memory, sizeof memory);
    span     text;
    error    err;
    if (ends) {
        fputs("its end", out);
        return;
    }
    fprintf(out, "%u", token);
    json_out_string(&j, t ? tokenizer_token_bytes(t, token) : (span){0});
    if (t && json_out_finish(&j, &text, &err))
        fprintf(out, " %.*s", SPAN_ARG(text));
}

static void print_difference(const tokenizer *t, uint32_t choice, const token_difference *d, FILE *out)
{
    fprintf(out, "differs: choice %u, token %u: recorded ", choice, d->index);
    print_token(t, d->recorded_ends, d->recorded, out);
    fputs(", now ", out);
    print_token(t, d->now_ends, d->now, out);
    fputc('\n', out);
}

/* ---- the request ---- */

/* What the gateway asked, made into tokens by this model: without a recording of tokenizer or scheduler. */
static bool request_from_text(const recorded_request *r, prompt_maker *prompts, arena *memory, gen_request *out,
                              error *err)
{
    const void   *body;
    request_field field;
    if (!message_decode(MSG_TEXT_REQUEST, r->text, memory, &body, err))
        return error_wrap(err, "the recorded text.request");
    const text_request *text = body;
    if (text->sampling.seed == 0 && text->sampling.temperature > 0)
        fputs("troupe: replay: the recorded request has seed 0: if its gateway drew another, tokens will differ\n",
              stderr);
    return prompt_make_request(prompts, text, r->text_unix_ms / 1000, out, &field, err);
}

/* Nobody waits for what comes behind a client that left: as many tokens as were recorded are enough. */
static void bound_tokens(const recorded_request *r, gen_request *g)
{
    uint32_t longest = 1;
    for (uint32_t i = 0; i < g->n; i++) {
        if (r->whole[i])
            return;
        longest = r->ends[i] > longest ? r->ends[i] : longest;
    }
    for (uint32_t i = 0; i < g->n_resume; i++)
        longest = g->resume[i].n_tokens > longest ? g->resume[i].n_tokens : longest;
    if (g->sampling.beam_width == 0 && longest < g->max_tokens)
        g->max_tokens = longest;
}

static bool has_something(const recorded_request *r)
{
    bool any = r->tokens != NULL;
    for (uint32_t i = 0; i < RECORDED_CHOICES_MAX; i++)
        any = any || r->whole[i];
    return any;
}

static int report(const recorded_request *r, const replayed *now, const char *model, FILE *out)
{
    tokenizer *t          = NULL; /* for the text of what differs; ids alone where the model has none */
    uint32_t   n_compared = 0, n_differ = 0;
    if (r->fingerprint && r->fingerprint != now->fingerprint)
        fprintf(stderr, "troupe: replay: another model: %016llx was recorded, this is %016llx\n",
                (unsigned long long)r->fingerprint, (unsigned long long)now->fingerprint);
    for (uint32_t i = 0; i < now->n_choices; i++) {
        token_difference d;
        uint32_t         n;
        if (!replay_compare(r, i, &now->choices[i], &n, &d)) {
            t = t ? t : tokenizer_open(model, NULL);
            print_difference(t, i, &d, out);
            n_differ++;
        }
        n_compared += n;
    }
    tokenizer_free(&t);
    if (n_differ > 0)
        return REPLAY_DIFFERS;
    fprintf(out, "same: %u tokens", n_compared);
    if (now->n_choices > 1)
        fprintf(out, " of %u choices", now->n_choices);
    fputc('\n', out);
    return REPLAY_SAME;
}

static int run_and_report(const all_options *options, const recorded_request *r, prompt_maker *prompts, arena *memory,
                          FILE *out)
{
    error       err;
    const void *body;
    gen_request request;
    replayed    now;
    envelope    about = {.request = r->id};
    if (r->gen.size == 0 && !request_from_text(r, prompts, memory, &request, &err))
        return cannot(&err);
    if (r->gen.size > 0) {
        if (!message_decode(MSG_GEN_REQUEST, r->gen, memory, &body, &err))
            return cannot(&err);
        request = *(const gen_request *)body;
    }
    bound_tokens(r, &request);
    arena *tokens = arena_new(request.n * (((uint64_t)request.max_tokens + 1) * sizeof(uint32_t) + 64), &err);
    int    status = REPLAY_CANNOT;
    if (tokens && replay_run(&options->scheduler, &options->executor, &about, &request, tokens, &now, &err))
        status = report(r, &now, options->executor.model, out);
    else
        cannot(&err);
    arena_free(&tokens);
    return status;
}

int replay_request(const all_options *options, const char *folder, const char *digits, FILE *out)
{
    error                   err;
    prompt_maker           *prompts = NULL;
    arena                  *memory  = NULL;
    recorded_requests      *all     = recorded_requests_read(folder, stderr, &err);
    const recorded_request *r       = all ? recorded_requests_find(all, digits, &err) : NULL;
    bool                    can     = false;
    if (r && r->gen.size == 0 && r->text.size == 0)
        error_set(&err, ERR_NOT_FOUND, "%s: what was asked is not in the recording any more", digits);
    else if (r && !has_something(r))
        error_set(&err, ERR_NOT_FOUND,
                  "%s: none of its tokens are in the recording: record the scheduler, the postprocessor or the gateway",
                  digits);
    else if (r && (memory = arena_new(2 * (size_t)BUS_MESSAGE_BYTES_MAX, &err)) &&
             (r->gen.size > 0 || (prompts = prompt_maker_new(&options->tokenizer, &err))))
        can = true;
    int status = can ? run_and_report(options, r, prompts, memory, out) : cannot(&err);
    prompt_maker_free(&prompts);
    arena_free(&memory);
    recorded_requests_free(&all);
    return status;
}
