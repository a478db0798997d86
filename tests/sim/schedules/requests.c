/* See requests.h. */
#include "sim/schedules/requests.h"

#include "base/random.h"
#include "sim/schedules/world.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

kind kinds[KINDS];

static const uint64_t catalogue_seed = 20;

static bool chance(random_seeded *rng, uint64_t one_in)
{
    return random_below(rng, one_in) == 0;
}

/* Some prompts share their beginning, for the prefix cache. */
static void draw_prompt(random_seeded *rng, kind *k, uint32_t i)
{
    random_seeded shared = random_from_seed(i % 7);
    uint32_t      n = 1 + (uint32_t)random_below(rng, KIND_PROMPT_MAX), n_shared = i % 3 ? 40 : 0;
    for (uint32_t t = 0; t < n; t++)
        k->prompt[t] = DOUBLE_TOKEN_FIRST + (uint32_t)random_below(t < n_shared ? &shared : rng, DOUBLE_TOKENS);
    k->body.kind            = PROMPT_KIND_TOKENS;
    k->body.prompt_tokens   = k->prompt;
    k->body.n_prompt_tokens = n;
}

/* Greedy and seeded, several choices, beams, log probabilities, scores of the prompt, drafts, priorities. */
static void draw_kind(random_seeded *rng, kind *k, uint32_t i)
{
    text_request *b = &k->body;
    *k              = (kind){.body = text_request_defaults};
    draw_prompt(rng, k, i);
    b->max_tokens           = 1 + (uint32_t)random_below(rng, KIND_TOKENS_MAX);
    b->n                    = chance(rng, 4) ? 1 + (uint32_t)random_below(rng, KIND_CHOICES_MAX) : 1;
    b->sampling.temperature = (float)random_below(rng, 2);
    b->sampling.seed        = random_u64(rng) | 1;
    b->sampling.logprobs    = chance(rng, 4);
    b->sampling.ignore_eos  = chance(rng, 4);
    b->draft_tokens         = chance(rng, 3) ? 4 : 0;
    b->priority             = (int32_t)random_below(rng, 3);
    if (b->sampling.logprobs)
        b->sampling.n_top_logprobs = (uint32_t)random_below(rng, 4);
    if (chance(rng, 8)) {
        b->sampling.beam_width = 2 + (uint32_t)random_below(rng, 2);
        b->n                   = 1 + (uint32_t)random_below(rng, b->sampling.beam_width);
        b->max_tokens          = 1 + b->max_tokens / 2;
    } else if (chance(rng, 8)) {
        b->prompt_logprobs = true;
    }
}

/* Two characters out of the middle of what it said. */
static void draw_stop(random_seeded *rng, kind *k)
{
    const choice_outcome *c = &k->expected.choices[0];
    if (c->text_bytes < 4)
        return;
    uint32_t first = (uint32_t)random_below(rng, c->text_bytes - 3);
    for (uint32_t i = 0; i < 2; i++)
        if (!isascii(c->text[first + i]) || !isprint(c->text[first + i]))
            return;
    memcpy(k->stop_text, c->text + first, 2);
    k->stop               = (span){k->stop_text, 2};
    k->body.output.stop   = &k->stop;
    k->body.output.n_stop = 1;
}

static void ask_undisturbed(uint32_t first, uint32_t step)
{
    static const world_shape shape = {.n_gateways       = 1,
                                      .n_schedulers     = 1,
                                      .n_tokenizers     = 1,
                                      .n_postprocessors = 1,
                                      .n_executors      = 1,
                                      .n_kv_blocks_min  = 256,
                                      .n_kv_blocks_max  = 256,
                                      .step_us          = 1000,
                                      .delay_min_ns     = 10000,
                                      .delay_max_ns     = 20000};
    world                    w;
    world_init(&w, catalogue_seed);
    w.options.scheduler.prefix_caching = false;
    world_start(&w, &shape);
    simulation_run_until(w.sim, NULL, NULL, NS_PER_S);
    for (uint32_t i = first; i < KINDS; i += step) { /* one after the other */
        ask *a = world_ask(&w, &kinds[i], world_now_ns(&w));
        if (!simulation_run_until(w.sim, world_all_ended, &w, 10 * NS_PER_S)) {
            fprintf(stderr, "the catalogue's request %u does not end\n", i);
            abort();
        }
        kinds[i].expected = a->got;
    }
    world_free(&w);
}

void requests_prepare(void)
{
    random_seeded rng = random_from_seed(catalogue_seed);
    for (uint32_t i = 0; i < KINDS; i++)
        draw_kind(&rng, &kinds[i], i);
    ask_undisturbed(0, 1);
    for (uint32_t i = 0; i < KINDS; i += 3)
        draw_stop(&rng, &kinds[i]);
    ask_undisturbed(0, 3);
}

static const char *compare_choice(const choice_outcome *want, const choice_outcome *got, bool cancelled)
{
    uint32_t n = got->n_tokens;
    if (n > want->n_tokens || got->n_logprobs > want->n_logprobs || got->text_bytes > want->text_bytes ||
        got->n_prompt_logprobs > want->n_prompt_logprobs)
        return "more than undisturbed";
    if (memcmp(want->tokens, got->tokens, n * sizeof *want->tokens) != 0)
        return "tokens differ";
    if (memcmp(want->text, got->text, got->text_bytes) != 0)
        return "text differs";
    if (memcmp(want->logprobs, got->logprobs, got->n_logprobs * sizeof *want->logprobs) != 0 ||
        memcmp(want->prompt_logprobs, got->prompt_logprobs, got->n_prompt_logprobs * sizeof *want->logprobs) != 0)
        return "log probabilities differ";
    if (cancelled)
        return NULL;
    if (n != want->n_tokens || got->n_logprobs != want->n_logprobs || got->text_bytes != want->text_bytes ||
        got->n_prompt_logprobs != want->n_prompt_logprobs)
        return "less than undisturbed";
    if (got->finish != want->finish)
        return "it finished for another reason";
    if (got->prompt_tokens != want->prompt_tokens || got->completion_tokens != want->completion_tokens)
        return "its usage differs";
    return NULL;
}

const char *requests_compare(const kind *k, const outcome *got, bool cancelled)
{
    for (uint32_t i = 0; i < k->body.n; i++) {
        const char *why = compare_choice(&k->expected.choices[i], &got->choices[i], cancelled);
        if (why)
            return why;
    }
    return NULL;
}
