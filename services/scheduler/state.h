/* What the scheduler knows: requests, their sequences, executors and the plans in flight. Internal to
 * services/scheduler. */
#ifndef TROUPE_SCHEDULER_STATE_H
#define TROUPE_SCHEDULER_STATE_H

#include "base/metric.h"
#include "kv/block_pool.h"
#include "kv/offload_index.h"
#include "scheduler/scheduler.h"
#include "store/store.h"
#include "trace/trace.h"

enum { PLANS_IN_FLIGHT_MAX = 2, SEQUENCE_FAILURES_MAX = 3, REQUEST_TABLE_SIZE = 4096, EXECUTOR_FAULTS_MAX = 16 };

typedef struct scheduler     scheduler;
typedef struct request       request;
typedef struct executor_link executor_link;
typedef struct beam_search   beam_search;
typedef struct beam_report   beam_report;
typedef struct metadata      metadata;
typedef struct kv_move       kv_move;

typedef enum {
    SEQUENCE_WAITING, /* in the queue; holds no slot and no block */
    SEQUENCE_RUNNING, /* has a slot on `executor` */
    SEQUENCE_ENDED,
} sequence_state;

typedef enum {
    DRAFT_OFF,     /* plan it as usual */
    DRAFT_WANTED,  /* ask a drafter at the next turn */
    DRAFT_WAITING, /* asked; not planned until the reply or the timeout */
    DRAFT_READY,   /* drafts[] may be planned */
} draft_state;

/* One choice (or one beam) of a request.
 *
 *   0 ........ n_computed ........ n_planned ........ n_tokens .. n_tokens + n_pending
 *   keys/values are there | plans in flight | known, not planned | being sampled in a plan in flight */
typedef struct sequence {
    request         *request;
    struct sequence *previous, *next; /* in the waiting queue, or in its executor's running list */
    executor_link   *executor;
    sequence_state   state;
    uint32_t         choice, slot;
    uint32_t         generation; /* rises at preemption: results of plans made before are dropped */
    uint32_t        *tokens;     /* prompt and output; room for n_tokens_max */
    uint32_t         n_tokens, n_tokens_max, n_prompt;
    uint32_t         n_computed, n_planned, n_pending;
    uint32_t         n_in_flight; /* plans in flight that mention it */
    uint32_t        *blocks;      /* block table; room for n_tokens_max positions */
    uint32_t         n_blocks, n_blocks_sent, n_blocks_hashed;
    uint32_t    copy_from; /* block to copy into the last one before the next pass, or KV_NO_BLOCK (a beam's fork) */
    kv_hash     last_hash; /* of the first n_blocks_hashed blocks */
    uint32_t    n_cached, n_drafted, n_accepted;
    uint32_t    n_failures, n_losses;       /* executors lost or steps failed with the same rows, and in all */
    uint32_t    suspect_first, suspect_end; /* those rows */
    uint64_t    seed;
    bool        opened;          /* the executor knows the slot */
    bool        append_last;     /* a beam's newest token, which the executor does not know yet */
    uint64_t    planned_in_step; /* newest step of its executor that has rows of it */
    uint64_t    passed_in_plan;  /* in the plan of this number it waits for another executor */
    kv_move    *loading;         /* brings blocks of it; it is not planned until then. NULL: none */
    uint32_t    n_loading;       /* blocks that are to come from offload slots; it is not planned until then */
    uint32_t    n_blocks_good;   /* of those that came, up to the first that did not */
    draft_state draft;
    uint32_t    n_drafts, n_drafter_knows;
    uint32_t    drafts[16];
    int64_t     draft_asked_ns;
    float       score;         /* a beam's sum of log probabilities */
    const beam_report *report; /* of its newest token, when the client wants log probabilities of a beam */
} sequence;

/* When a traced request passed from phase to phase, monotonic; 0: not yet. */
typedef struct {
    int64_t     arrived_ns, planned_ns, first_token_ns, last_token_ns;
    uint32_t    n_events; /* also those beyond the room */
    trace_event events[TRACE_EVENTS_MAX];
} request_trace;

struct request {
    request            *next_in_table;
    request            *previous, *next; /* in the list of all */
    arena              *memory;          /* of everything below */
    envelope            envelope;
    peer               *tokenizer;     /* gets its credit back at the end; NULL when it left */
    peer               *postprocessor; /* NULL until the request is opened */
    span                reply_to, session, tenant;
    sampling_params     sampling;
    output_params       output;
    uint32_t           *stop_tokens;
    uint32_t            n_stop_tokens, n_prompt, max_tokens, n_draft_tokens;
    uint32_t            n_vocab; /* one more than the highest token of all choices: an executor must know as many */
    uint32_t            second_start; /* where the second text of a pair begins; 0: there is one text */
    bool                prompt_logprobs, opened;
    bool                pooled; /* its prompt's pooled output is wanted: one sequence, one pass, no postprocessor */
    const resume_point *resume;
    uint32_t            n_resume;
    int64_t             arrived_ns;
    double              turn_s; /* arrival, later by priority_aging_s a level of priority. Lower comes first, always */
    uint32_t            n_sequences, n_live; /* choices; those that have not ended */
    uint32_t            n_choices;           /* that the client wants */
    sequence           *sequences;
    beam_search        *beam;                              /* NULL unless beam search */
    char                warm_executor[BUS_NAME_BYTES + 1]; /* where its session's blocks may be; \"\" unknown */
    request_trace       trace;
};

/* One entry of a plan in flight: whose rows they are. */
typedef struct {
    sequence *sequence;
    uint32_t  generation, slot, n_rows, n_drafts;
    bool      samples, scores; /* an output comes back: a token; log probabilities */
    bool      pools;           /* the same: a pooled output */
} planned_entry;

typedef struct {
    uint64_t       step;
    uint32_t       n_entries;
    planned_entry *entries; /* room for the executor's n_slots */
} planned_step;

/* KV blocks on their way from one executor to another. It holds them on both sides, whatever becomes of the sequence
 * that wants them. */
struct kv_move {
    uint64_t       number;         /* 0: unused */
    executor_link *source;         /* NULL: it was lost, and its blocks with it */
    sequence      *sequence;       /* NULL: it goes on without them */
    uint32_t       n, n_positions; /* blocks; what the sequence has computed when all are there */
    uint32_t      *from, *to;      /* room for KV_MOVE_BLOCKS_MAX, or all of the target's */
};

enum { KV_MOVES_MAX = 4, KV_MOVE_BLOCKS_MAX = 65536 };

/* A block of the pool on its way from an offload slot. It holds the block, and its slot is pinned, until the executor
 * says that it writes to it no more, whatever becomes of the sequence. */
typedef struct {
    sequence *sequence; /* NULL: it ended, or gave way */
    uint32_t  place;    /* in its block table */
    uint32_t  block, slot;
    uint64_t  step; /* of the plan that asks for it; 0: not sent yet */
} block_load;

/* The second tier of an executor's KV cache. */
typedef struct {
    kv_offload_index *index; /* NULL: it has none */
    kv_offload_move  *saves; /* of the next plan; room for OFFLOAD_SAVES_MAX */
    kv_offload_move  *moves; /* loads of the plan being sent */
    block_load       *loads; /* under way; room for OFFLOAD_LOADS_MAX, as moves */
    uint32_t          n_saves, n_loads;
    double            load_us; /* of a block, as measured lately; 0: not yet */
} offload_tier;

struct executor_link {
    peer          *peer;
    executor_link *next;
    executor_ready about;
    kv_pool       *pool;
    offload_tier   offload;
    sequence      *running_first, *running_last; /* in order of admission */
    uint32_t       n_running;
    sequence      *suspect; /* whose suspicious rows are being computed; NULL: nobody's */
    uint32_t      *free_slots, *pending_closes;
    uint32_t       n_free_slots, n_pending_closes;
    uint64_t       next_step;
    uint64_t       batch_step;      /* in which the first of those that run now was started */
    int64_t        oldest_since_ns; /* when plans[0] was sent, or the one before it was answered */
    uint32_t       n_plans;         /* in flight: plans[0] is the oldest */
    double         tokens_per_s;    /* recent, like the scheduler's */
    uint64_t       n_tokens_since_measured;
    planned_step   plans[PLANS_IN_FLIGHT_MAX];
    slot_open     *opens; /* of the plan being filled; room for n_slots each */
    step_entry    *entries;
    uint32_t      *closes, *copy_from, *copy_to;
    kv_move        moves[KV_MOVES_MAX]; /* to here */
    uint32_t       n_moves;
    uint32_t      *move_blocks;                          /* their memory */
    double         prefill_tokens_per_s, kv_bytes_per_s; /* measured; 0: not yet */
    char           model[256], device[128], kv_endpoint[257];
};

/* An executor that gave wrong results, and until when it is not used. */
typedef struct {
    char     name[BUS_NAME_BYTES + 1];
    uint32_t n;
    int64_t  rest_until_ns;
} executor_fault;

/* What is measured again and again; before 0: it was not yet. */
static inline double smoothed(double before, double now)
{
    return before > 0 ? 0.75 * before + 0.25 * now : now;
}

struct scheduler {
    actor                   *actor;
    const scheduler_options *options;
    hash_key                 key;
    request                 *table[REQUEST_TABLE_SIZE];
    request                 *requests;                     /* all, newest first */
    uint32_t                 n_requests, n_speculating;    /* of them, those that want drafts */
    int64_t                  deadline_unix_ms;             /* no request has an earlier one; INT64_MAX: none has any */
    sequence                *waiting_first, *waiting_last; /* in order of arrival */
    uint32_t                 n_waiting;
    uint64_t                 n_waiting_tokens;
    executor_link           *executors;
    executor_fault           faults[EXECUTOR_FAULTS_MAX];
    int64_t                  idle_since_ns; /* others have all executors, and requests wait; 0: not so */
    uint64_t                 n_plans;       /* that were begun; numbers them */
    uint64_t                 n_moves;       /* of KV blocks; numbers them */
    metadata                *metadata;
    actor_timer              tick;
    double                   tokens_per_s; /* recent, for Retry-After */
    uint64_t                 n_tokens_since_measured;
    int64_t                  measured_ns;
    struct {
        metric *running, *waiting, *blocks_used, *blocks_cached, *prompt_tokens, *cached_tokens, *generated, *drafted,
            *accepted, *preempted, *refused, *finished, *steps, *queue_wait, *step_time, *moves, *moves_failed,
            *moved_blocks, *handed_over, *move_time, *offload_used, *offload_hits;
    } metrics;
};

/* request_queue.c: requests from arrival to end. */
bool      request_admit(scheduler *s, const message *m, error *err, span *field) MUST_CHECK;
request  *request_find(const scheduler *s, const request_id *id);
void      request_note_deadline(scheduler *s, const request *r);
bool      request_open(scheduler *s, request *r); /* tells a postprocessor; false when none can take it now */
void      request_refuse(scheduler *s, const envelope *about, span reply_to, const error *why, span field);
void      request_answer(scheduler *s, request *r, const step_output *output); /* a pooled one */
void      request_end_all(scheduler *s, request *r, finish_reason why, const char *text);
void      request_settle(scheduler *s, request *r); /* forgets it when nothing refers to it any more */
bool      request_fits(const scheduler *s, const request *r, const executor_link *x); /* however long it gets */
void      request_refuse_unfit(scheduler *s); /* those that wait for their start and fit into no executor */
sequence *queue_best(const scheduler *s, const executor_link *x); /* whose turn it is on x */
void      queue_add(scheduler *s, sequence *q);
void      queue_remove(scheduler *s, sequence *q);

/* sequence.c: what one sequence holds, says and becomes. */
void     sequence_emit(scheduler *s, sequence *q, uint32_t first, uint32_t n, const token_logprob *logprobs,
                       uint32_t n_logprobs, finish_reason finish, const char *text);
void     sequence_end(scheduler *s, sequence *q);
void     sequence_release(scheduler *s, sequence *q); /* gives slot and blocks back; forgets what was computed */
void     sequence_preempt(scheduler *s, sequence *q);
void     sequence_start(scheduler *s, sequence *q, executor_link *x); /* takes a slot and the cached prefix */
void     sequence_publish_blocks(scheduler *s, sequence *q);
bool     sequence_uses_prefixes(const scheduler *s, const sequence *q); /* that others have computed */
uint32_t sequence_cached_blocks(scheduler *s, const sequence *q, const executor_link *x);
uint32_t sequence_find_cached(scheduler *s, const sequence *q, const executor_link *x, uint32_t *blocks); /* shares */

/* suspicion.c */
bool suspicion_of_loss(const sequence *q); /* with what is in flight of it; true: it is convicted, and must end */
bool suspicion_may_plan(const executor_link *x, const sequence *q, uint32_t n_rows); /* the next rows of it */
void suspicion_planned(executor_link *x, const sequence *q);
void suspicion_computed(executor_link *x, const sequence *q);
void suspicion_released(executor_link *x, const sequence *q);

/* executors.c */
void           executors_add(scheduler *s, peer *p, const executor_ready *about);
void           executors_lost(scheduler *s, executor_link *x, const char *why, bool failed);
void           executors_start_over(scheduler *s, executor_link *x, const char *why); /* lost; it comes back anew */
void           executors_wrong(scheduler *s, executor_link *x, const char *why);      /* the same, after a rest */
void           executors_check_timeouts(scheduler *s);
void           executors_late_result(scheduler *s, peer *p); /* of one that is not used */
void           executors_hand_back(scheduler *s); /* the requests, when others have had all executors for a while */
int64_t        executors_hand_back_due_ns(const scheduler *s); /* INT64_MAX: not by time */
executor_link *executors_find(scheduler *s, const peer *p);

/* batch.c */
bool batch_plan(scheduler *s, executor_link *x); /* sends one plan; false when there is nothing to do */
bool batch_has_room(const scheduler *s, const executor_link *x, const sequence *q); /* q can start on x */

/* kv_moves.c: KV blocks that move between executors, and which executor is for what */
void kv_moves_register_metrics(scheduler *s);
bool kv_moves_take_memory(executor_link *x); /* once x->about is known */
void kv_moves_measure(executor_link *x, const planned_step *p, uint32_t elapsed_us);
bool kv_moves_fetch_is_cheaper(const executor_link *x, uint32_t n_blocks);
bool kv_moves_may_prefill(const scheduler *s, const executor_link *x);
bool kv_moves_will_hand_over(const scheduler *s, const sequence *q); /* so its next token is computed elsewhere */
void kv_moves_fetch_prefix(scheduler *s, sequence *q);               /* it has just started where it is */
void kv_moves_hand_over(scheduler *s); /* sequences whose prompt is done leave prefill executors */
void kv_moves_loaded(scheduler *s, executor_link *x, const kv_loaded *what);
void kv_moves_released(sequence *q);
bool kv_moves_hold_blocks(const scheduler *s, const executor_link *x); /* to there or from there */
void kv_moves_executor_lost(scheduler *s, executor_link *x);

/* offload.c: the second tier of executors' KV caches */
bool offload_new(executor_link *x, error *err) MUST_CHECK; /* as x->about says; before x->pool is used */
void offload_free(executor_link *x);
/* Of blocks that another executor's will fill, perhaps before the next plan: what they held is not saved. */
void offload_drop_saves(executor_link *x, const uint32_t *blocks, uint32_t n);
void offload_load_prefix(scheduler *s, sequence *q); /* begins to load what continues its prefix, where it runs */
bool offload_wants_plan(const executor_link *x);     /* even without rows */
void offload_fill_plan(executor_link *x, step_plan *plan);
void offload_plan_sent(executor_link *x, uint64_t step);
const char *offload_find_fault(const executor_link *x, const step_result *result);
void        offload_apply(scheduler *s, executor_link *x, const planned_step *p, const step_result *result);
void        offload_released(executor_link *x, sequence *q); /* it lets go of its blocks */
void        offload_check(const executor_link *x);

/* results.c */
void results_apply(scheduler *s, executor_link *x, const step_result *result);

/* status.c */
void status_answer(scheduler *s, const message *m); /* m is a status.get */

/* policy.c */
bool    policy_may_admit(const scheduler *s, const executor_link *x);
int64_t policy_due_ns(const scheduler *s); /* when the first that waits has waited enough; INT64_MAX: not by time */

/* speculate.c */
void    speculate_turn(scheduler *s); /* asks for drafts, and goes on without late ones */
int64_t speculate_due_ns(const scheduler *s, const executor_link *x); /* when drafts are late; INT64_MAX: none asked */
void    speculate_reply(scheduler *s, const envelope *e, const draft_reply *reply);
void    speculate_after_result(scheduler *s, sequence *q);
void    speculate_forget(scheduler *s, const request *r);
bool    speculate_is_on(const scheduler *s, const sequence *q);

/* metadata.c: leases and session hints in the store */
bool   metadata_new(scheduler *s, error *err) MUST_CHECK;
void   metadata_start(scheduler *s);
void   metadata_turn(scheduler *s);
bool   metadata_leave(scheduler *s); /* gives the lease back; false until the store has answered, milliseconds */
void   metadata_free(scheduler *s);
store *metadata_store(const scheduler *s); /* for tests to look into */
void   metadata_find_session(scheduler *s, request *r);
void   metadata_keep_session(scheduler *s, const sequence *q);

/* request_trace.c: the spans of a request. All of these do nothing when nobody wants them. */
void request_trace_arrived(const scheduler *s, request *r);
void request_trace_started(const scheduler *s, const sequence *q); /* its first plan, or the first after a pause */
void request_trace_token(const scheduler *s, request *r);
void request_trace_event(const scheduler *s, request *r, const char *name);
void request_trace_end(const scheduler *s, const request *r);

/* beam.c */
bool     beam_new(scheduler *s, request *r, error *err, span *field) MUST_CHECK;
size_t   beam_bytes(const gen_request *body); /* of the request's memory, beside its sequences */
void     beam_scored(scheduler *s, sequence *q, const step_output *output);
void     beam_restart(scheduler *s, request *r); /* from the prompt: nothing was said yet */
uint32_t beam_width(const request *r);           /* 0: no beam search */

#endif
