/* A simulated deployment for tests: a scheduler, executors with a tiny model, drafters, a collector of tokens (in the
 * postprocessor's place on the bus), a tokenizer that is given token ids, and the gateway that owns the requests.
 * Everything real but the network and the clock.
 */
#ifndef TROUPE_TESTS_SIM_SUPPORT_GENERATION_H
#define TROUPE_TESTS_SIM_SUPPORT_GENERATION_H

#include "actor/simulation.h"
#include "drafter/drafter.h"
#include "executor/executor.h"
#include "scheduler/scheduler.h"

enum {
    GENERATION_REQUESTS_MAX  = 4096,
    GENERATION_TOKENS_MAX    = 256,
    GENERATION_CHOICES_MAX   = 4,
    GENERATION_EXECUTORS_MAX = 4
};

/* What became of one request. */
typedef struct {
    gen_request   body; /* as sent; prompt points into `prompt` */
    uint32_t      prompt[GENERATION_TOKENS_MAX];
    uint32_t      attempt;
    uint32_t      tokens[GENERATION_CHOICES_MAX][GENERATION_TOKENS_MAX];
    float         logprobs[GENERATION_CHOICES_MAX][GENERATION_TOKENS_MAX];
    uint32_t      n_tokens[GENERATION_CHOICES_MAX];
    uint32_t      n_top_logprobs[GENERATION_CHOICES_MAX]; /* of the last token that came with any */
    finish_reason finish[GENERATION_CHOICES_MAX];
    float         prompt_logprobs[GENERATION_TOKENS_MAX];
    uint32_t      n_prompt_logprobs, n_cached, n_drafted, n_accepted;
    uint32_t      refused; /* error code, 0: not refused */
    uint32_t      n_opens, n_ends;
    uint32_t      cancel_at; /* tokens of choice 0 at which the collector cancels it; 0: never */
    bool          cancelled;
} generation;

typedef struct {
    simulation       *sim;
    actor            *scheduler, *collector, *gateway, *tokenizer;
    actor            *executors[GENERATION_EXECUTORS_MAX], *drafters[2];
    scheduler_options scheduler_options;
    executor_options  executor_options; /* of all executors, but for their roles */
    executor_role     roles[GENERATION_EXECUTORS_MAX];
    bool              kv_bind;                              /* executors exchange KV blocks */
    executor_options  options_of[GENERATION_EXECUTORS_MAX]; /* filled in by deployment_start */
    char              binds[GENERATION_EXECUTORS_MAX][32];
    drafter_options   drafter_options;
    uint32_t          n_generations;
    generation       *generations;
} deployment;

/* Defaults of the flags, small sizes, the tiny model; change d->*_options between deployment_init and deployment_start.
 */
void deployment_init(deployment *d);
void deployment_start(deployment *d, uint64_t seed, uint32_t n_executors, uint32_t n_drafters);
void deployment_end(deployment *d);

/* A request for `max_tokens` tokens after `n_prompt` tokens that follow from `prompt_seed`; to be changed before
 * deployment_send. */
generation *deployment_add(deployment *d, uint64_t prompt_seed, uint32_t n_prompt, uint32_t max_tokens);
void        deployment_send(deployment *d, generation *g);
void        deployment_cancel(deployment *d, generation *g);

bool generation_ended(const generation *g);

/* Runs until every request that was sent has ended; fails the test when that takes more than `max_s` of virtual time.
 */
void deployment_run(deployment *d, double max_s);

/* The same for one request. */
void deployment_run_one(deployment *d, generation *g, double max_s);

/* After everything ended: every block, slot and credit is back, and the gauges say so. Fails the test when not. */
void deployment_check_idle(deployment *d);

/* Executor `i` starts, or starts again after it was killed. */
void deployment_add_executor(deployment *d, uint32_t i);

/* The value of a metric that some service registered. */
double metric_of(const char *name);

#endif
