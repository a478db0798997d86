/* What this scheduler has in hand, for people who look at a gateway's status page. */
#include "scheduler/state.h"

#include "base/log.h"

enum { EXECUTORS_MAX = 128, DRAFTERS_MAX = 32 }; /* what a status.report holds */

static node_status node_of(const scheduler *s, const peer *p)
{
    return (node_status){.name         = span_of(p->name),
                         .version      = span_of(p->version),
                         .ready        = p->ready,
                         .draining     = p->draining,
                         .connected_ms = (uint64_t)((actor_now_ns(s->actor) - p->since_ns) / NS_PER_MS),
                         .load         = p->load};
}

static executor_status executor_of(const scheduler *s, const executor_link *x)
{
    return (executor_status){.node               = node_of(s, x->peer),
                             .model              = x->about.model,
                             .device             = x->about.device,
                             .n_running          = x->n_running,
                             .n_slots            = x->about.n_slots,
                             .n_kv_blocks        = kv_pool_n_blocks(x->pool),
                             .n_kv_blocks_used   = kv_pool_n_blocks(x->pool) - kv_pool_n_available(x->pool),
                             .n_kv_blocks_cached = kv_pool_n_cached(x->pool),
                             .kv_block_tokens    = x->about.kv_block_tokens,
                             .tokens_per_s       = (float)x->tokens_per_s,
                             .plans_in_flight    = x->n_plans};
}

typedef struct {
    const scheduler *s;
    node_status      nodes[DRAFTERS_MAX];
    uint32_t         n;
} drafter_list;

static void add_drafter(void *arg, peer *p)
{
    drafter_list *list = arg;
    if (list->n < DRAFTERS_MAX)
        list->nodes[list->n++] = node_of(list->s, p);
}

void status_answer(scheduler *s, const message *m)
{
    executor_status   executors[EXECUTORS_MAX];
    drafter_list      drafters = {.s = s};
    const status_get *asked    = m->body;
    status_report     report   = {.round            = asked->round,
                                  .n_requests       = s->n_requests,
                                  .n_waiting        = s->n_waiting,
                                  .n_waiting_tokens = s->n_waiting_tokens,
                                  .executors        = executors,
                                  .tokens_per_s     = (float)s->tokens_per_s};
    error             err;
    for (const executor_link *x = s->executors; x; x = x->next, report.executors_in_all++) {
        report.n_running += x->n_running;
        if (report.n_executors < EXECUTORS_MAX)
            executors[report.n_executors++] = executor_of(s, x);
    }
    actor_each_peer(s->actor, ROLE_DRAFTER, add_drafter, &drafters);
    report.drafters   = drafters.nodes;
    report.n_drafters = drafters.n;
    if (!actor_send(s->actor, m->from, MSG_STATUS_REPORT, &report, NULL, &err))
        log_debug("not answered", "node=%s why=\"%s\"", m->from->name, err.text);
}
