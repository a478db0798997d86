/* The scheduler: owns the queue of requests and every executor that connects to it.
 *
 * Each turn it fills step plans for executors that can take one: decode tokens, chunks of prefill and drafts to verify
 * share one token budget (continuous batching; Yu et al. 2022 "Orca"; Agrawal et al. 2024, arXiv 2403.02310). It owns
 * the paged KV block tables (Kwon et al. 2023, arXiv 2309.06180), the prefix cache and preemption. */
#ifndef TROUPE_SCHEDULER_SCHEDULER_H
#define TROUPE_SCHEDULER_SCHEDULER_H

#include "actor/actor.h"
#include "base/option.h"

typedef enum { POLICY_CONTINUOUS, POLICY_DYNAMIC, POLICY_STATIC } scheduler_policy;

typedef struct {
    uint32_t    policy;                 /* scheduler_policy */
    uint64_t    max_num_seqs;           /* sequences that run at once on one executor */
    uint64_t    max_num_batched_tokens; /* tokens a step; 0: what the executor takes */
    uint64_t    max_prefill_chunk;      /* tokens of one prompt in one step; 0: no bound but the budget */
    uint64_t    max_queue;              /* sequences that wait, at most */
    uint64_t    max_queued_tokens;      /* prompt tokens that wait, at most */
    uint64_t    batch_wait_ms;          /* dynamic and static policy: how long the first request waits for others */
    uint64_t    batch_size;             /* static policy: start when so many wait */
    uint64_t    step_timeout_ms;        /* an executor without a result for so long is given up; 0: never */
    double      priority_aging_s;       /* what a level of priority is worth, in waiting */
    uint64_t    draft_wait_ms;          /* a step goes on without drafts that are later than this */
    bool        prefix_caching;
    const char *store_url;           /* "memory:" or "redis://host:port/db": see store/store.h */
    const char *store_password_file; /* NULL: none */
    uint64_t    hash_seed;           /* simulations only: fixes the key of block hashes; 0: random */
} scheduler_options;

extern const option_row scheduler_option_rows[];
extern const size_t     n_scheduler_option_rows;

extern const actor_class scheduler_class;

#endif
