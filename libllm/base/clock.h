/* Time behind one interface, so that a simulation can drive it.
 *
 * Everything that waits or judges lateness takes a `const clock_source *`. The real one reads the system; a virtual one
 * moves only when its owner says so. */
#ifndef TROUPE_BASE_CLOCK_H
#define TROUPE_BASE_CLOCK_H

#include <stdint.h>

typedef struct clock_source {
    int64_t (*monotonic_ns)(const struct clock_source *self); /* never goes back; zero is arbitrary */
    int64_t (*unix_ms)(const struct clock_source *self);      /* wall clock; may jump; for deadlines on the wire */
    int64_t virtual_ns;                                       /* virtual clocks only: the time they show */
} clock_source;

/* The system's clocks. */
const clock_source *clock_system(void);

/* A clock that stands still at `start_ns` until clock_advance; its unix time is start_ns / 1e6. */
clock_source clock_virtual(int64_t start_ns);
void         clock_advance(clock_source *virtual_clock, int64_t ns);

static inline int64_t clock_now_ns(const clock_source *clock)
{
    return clock->monotonic_ns(clock);
}

static inline int64_t clock_unix_ms(const clock_source *clock)
{
    return clock->unix_ms(clock);
}

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

#endif
