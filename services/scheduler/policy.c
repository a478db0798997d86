/* When waiting sequences may join an executor's batch. The policies differ in nothing else, so that their cost can be
 * compared.
 *
 *   continuous  at any step (Yu et al. 2022, "Orca")
 *   dynamic     only into an empty batch: what has gathered since its first request waited batch_wait_ms
 *   static      only into an empty batch: when batch_size wait, or the first has waited batch_wait_ms */
#include "scheduler/state.h"

int64_t policy_due_ns(const scheduler *s)
{
    if (s->options->policy == POLICY_CONTINUOUS || !s->waiting_first)
        return INT64_MAX;
    return s->waiting_first->request->arrived_ns + (int64_t)s->options->batch_wait_ms * NS_PER_MS;
}

/* Nothing runs, or what runs was started in the plan that is being filled. */
static bool batch_is_open(const executor_link *x)
{
    return x->n_running == 0 || x->batch_step == x->next_step + 1;
}

bool policy_may_admit(const scheduler *s, const executor_link *x)
{
    bool waited_enough = actor_now_ns(s->actor) >= policy_due_ns(s);
    switch ((scheduler_policy)s->options->policy) {
    case POLICY_CONTINUOUS:
        return true;
    case POLICY_DYNAMIC:
        return batch_is_open(x) && (x->n_running > 0 || waited_enough);
    case POLICY_STATIC:
        return batch_is_open(x) && (x->n_running > 0 || waited_enough || s->n_waiting >= s->options->batch_size);
    }
    return true;
}
