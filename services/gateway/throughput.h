/* How long a request would take, from how many were finished lately: what lets a gateway refuse at once what would miss
 * its deadline anyway, so that overload doesn't make everybody late.
 *
 * By Little's law (1961) n requests in hand take n / rate. The rate is that of completions over the time in which there
 * was something in hand, with older ones forgotten exponentially; one completion is always assumed, so that without any
 * yet the rate falls with the time that passes. An idle gateway has no queue to wait in: it takes what comes. */
#ifndef TROUPE_GATEWAY_THROUGHPUT_H
#define TROUPE_GATEWAY_THROUGHPUT_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised: nothing is known. */
typedef struct {
    double  n_completed, busy_s; /* both forgotten alike */
    int64_t at_ns;
} throughput;

/* Time passed, in which requests were in hand (`busy`) or not. Called before their number changes. */
void throughput_pass(throughput *t, int64_t now_ns, bool busy);

void throughput_complete(throughput *t);

/* Seconds that a request takes which comes to n others. */
double throughput_expect_s(const throughput *t, uint32_t n);

#endif
