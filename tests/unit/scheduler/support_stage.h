/* A stage for the scheduler: executors, a postprocessor, a gateway and a tokenizer played by the test on a simulated
 * network. The executors compute nothing: the token at a position is `stage_token` of it, and a pooled output tells how
 * many tokens it is of, and in which plan, unless a test has them lie.
 */
#ifndef TROUPE_TESTS_SCHEDULER_SUPPORT_STAGE_H
#define TROUPE_TESTS_SCHEDULER_SUPPORT_STAGE_H

#include "actor/simulation.h"
#include "scheduler/state.h"

enum {
    STAGE_VOCAB     = 100,
    STAGE_SLOTS     = 16,
    STAGE_BLOCKS    = 64,
    STAGE_EXECUTORS = 2,
    STAGE_PLANS     = 1024,
    STAGE_TOKENS    = 450,
    STAGE_POOLED    = 3,
    STAGE_CREDITS   = 64
};

typedef struct stage stage;

/* Changes a result before it is sent: what a broken executor may say. Arrays come from `memory`. */
typedef void stage_lie(step_result *result, step_output *outputs, arena *memory);

typedef struct {
    stage     *stage;
    actor     *actor;
    peer      *scheduler;
    stage_lie *lie;                  /* NULL: none */
    bool       hangs;                /* computes for ever; heartbeats go on */
    uint64_t   hangs_in;             /* the step that it computes then */
    uint32_t   n_plans;              /* with entries */
    uint32_t   entries[STAGE_PLANS]; /* of each of them */
    uint32_t   opens[STAGE_PLANS], tokens_opened[STAGE_PLANS];
    int64_t    at_ms[STAGE_PLANS];
    uint32_t   n_loads, n_load_blocks;       /* of KV blocks, and how many blocks the last one has */
    uint64_t   load;                         /* the last one's number */
    uint32_t   n_loaded_max;                 /* more do not come */
    bool       keeps_loads;                  /* is not answered until stage_end_load */
    uint32_t   first_positions[STAGE_PLANS]; /* of the first entry of each plan */
    arena     *memory;
} stage_executor;

/* What the gateway and the postprocessor saw of one request. */
typedef struct {
    gen_request   body;
    int64_t       deadline_unix_ms;
    uint32_t      attempt; /* sent last; what older ones say is dropped */
    uint32_t      prompt[64], tokens[STAGE_TOKENS], n_tokens, n_cached, n_opens, n_refusals, refused;
    float         pooled[STAGE_POOLED];
    uint32_t      n_answers; /* with pooled numbers */
    finish_reason finish;
    char          why[ERROR_TEXT_BYTES], field[64];
    uint8_t       trace[TRACE_CONTEXT_BYTES]; /* sent with it */
} stage_request;

struct stage {
    simulation       *sim;
    scheduler_options options;
    executor_ready    about; /* every executor that joins from now on */
    actor            *scheduler, *postprocessor, *gateway, *tokenizer;
    stage_executor    executors[STAGE_EXECUTORS];
    stage_request     requests[64];
    status_report     report; /* the gateway heard last; its lists are gone */
    executor_status   report_executor;
    uint32_t          n_reports;
    uint32_t          n_requests;
};

/* Defaults of the flags and small executors; change t->options before stage_start. */
void stage_init(stage *t);
void stage_start(stage *t, uint64_t seed);
void stage_end(stage *t);

/* Joins and is ready when it returns. */
stage_executor *stage_add_executor(stage *t, stage_lie *lie);

/* An executor that hangs goes on: its result comes at last. */
void stage_wake(stage_executor *x);

/* Says of the last load that so many blocks came. */
void stage_end_load(stage_executor *x, uint32_t n_blocks);

/* A request with `n_prompt` tokens of prompt; change it, then send it. */
stage_request *stage_add(stage *t, uint32_t n_prompt, uint32_t max_tokens);
void           stage_send(stage *t, stage_request *q, uint32_t attempt);

/* Runs until every request that was sent has its end; fails the test when that takes over `max_s` of virtual time. */
void stage_run(stage *t, double max_s);
void stage_wait_ms(stage *t, int64_t ms);

bool stage_has_ended(const stage_request *q);

/* Tokens of `q` from place `first` on are those that honest executors say. */
void stage_check_tokens(const stage_request *q, uint32_t first, uint32_t n);

uint32_t   stage_token(uint32_t position);
scheduler *stage_scheduler(const stage *t);

#endif
