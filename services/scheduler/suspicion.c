/* Who is at fault when executors die or fail.
 *
 * A sequence that kills executors does so whenever the same rows are computed, wherever that is; all others that were
 * in hand are innocent. So a loss counts against a sequence only when it may have happened at the same rows as the ones
 * before, and is forgotten once these have been computed. Whoever was there twice is a suspect: its suspicious rows
 * come alone among those of other suspects, and so the third loss convicts one sequence. */
#include "scheduler/state.h"

enum {
    SUSPECT_FAILURES    = 2,
    SEQUENCE_LOSSES_MAX = 16, /* wherever they happened: nobody has such bad luck */
};

/* The beams of a search stand for each other. */
static sequence *responsible(const sequence *q)
{
    return q->request->beam ? &q->request->sequences[0] : (sequence *)q;
}

static bool is_suspicious(const sequence *who, uint32_t first, uint32_t end)
{
    return who->n_failures > 0 && first < who->suspect_end && end > who->suspect_first;
}

bool suspicion_of_loss(const sequence *q)
{
    sequence *who   = responsible(q);
    uint32_t  first = q->n_computed, end = q->n_planned;
    if (first >= end)
        return false; /* nothing of it was being computed */
    if (is_suspicious(who, first, end)) {
        who->suspect_first = first > who->suspect_first ? first : who->suspect_first;
        who->suspect_end   = end < who->suspect_end ? end : who->suspect_end;
        who->n_failures++;
    } else {
        who->suspect_first = first;
        who->suspect_end   = end;
        who->n_failures    = 1;
    }
    return who->n_failures >= SEQUENCE_FAILURES_MAX || ++who->n_losses >= SEQUENCE_LOSSES_MAX;
}

bool suspicion_may_plan(const executor_link *x, const sequence *q, uint32_t n_rows)
{
    const sequence *who = responsible(q);
    return who->n_failures < SUSPECT_FAILURES || !x->suspect || x->suspect == who ||
           !is_suspicious(who, q->n_planned, q->n_planned + n_rows);
}

void suspicion_planned(executor_link *x, const sequence *q)
{
    sequence *who = responsible(q);
    if (who->n_failures >= SUSPECT_FAILURES && is_suspicious(who, q->n_computed, q->n_planned))
        x->suspect = who;
}

void suspicion_computed(executor_link *x, const sequence *q)
{
    sequence *who = responsible(q);
    if (who->n_failures == 0 || q->n_computed < who->suspect_end)
        return;
    who->n_failures = 0;
    if (x->suspect == who)
        x->suspect = NULL;
}

void suspicion_released(executor_link *x, const sequence *q)
{
    if (x->suspect == responsible(q))
        x->suspect = NULL;
}
