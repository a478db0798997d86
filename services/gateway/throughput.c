/* See throughput.h. */
#include "services/gateway/throughput.h"

#include <math.h>

static const double memory_s = 10; /* of busy time */

void throughput_pass(throughput *t, int64_t now_ns, bool busy)
{
    double passed_s = t->at_ns ? (double)(now_ns - t->at_ns) / 1e9 : 0;
    t->at_ns        = now_ns;
    if (!busy || passed_s <= 0)
        return;
    double kept = exp(-passed_s / memory_s);
    t->n_completed *= kept;
    t->busy_s = t->busy_s * kept + memory_s * (1 - kept); /* the integral of what is kept of each moment */
}

void throughput_complete(throughput *t)
{
    t->n_completed += 1;
}

double throughput_expect_s(const throughput *t, uint32_t n)
{
    return n * t->busy_s / (t->n_completed + 1);
}
