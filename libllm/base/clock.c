/* The system's clocks, and one that its owner moves by hand. */
#include "base/clock.h"

#include <assert.h>
#include <time.h>

static int64_t system_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int64_t system_monotonic_ns(const clock_source *self)
{
    (void)self;
    return system_ns(CLOCK_MONOTONIC);
}

static int64_t system_unix_ms(const clock_source *self)
{
    (void)self;
    return system_ns(CLOCK_REALTIME) / NS_PER_MS;
}

static int64_t virtual_monotonic_ns(const clock_source *self)
{
    return self->virtual_ns;
}

static int64_t virtual_unix_ms(const clock_source *self)
{
    return self->virtual_ns / NS_PER_MS;
}

const clock_source *clock_system(void)
{
    static const clock_source system_clock = {.monotonic_ns = system_monotonic_ns, .unix_ms = system_unix_ms};
    return &system_clock;
}

clock_source clock_virtual(int64_t start_ns)
{
    return (clock_source){.monotonic_ns = virtual_monotonic_ns, .unix_ms = virtual_unix_ms, .virtual_ns = start_ns};
}

void clock_advance(clock_source *virtual_clock, int64_t ns)
{
    assert(virtual_clock->monotonic_ns == virtual_monotonic_ns && ns >= 0);
    virtual_clock->virtual_ns += ns;
}
