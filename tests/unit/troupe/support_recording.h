/* A recording in memory, as the flight recorder would write it. */
#ifndef TROUPE_TESTS_UNIT_TROUPE_SUPPORT_RECORDING_H
#define TROUPE_TESTS_UNIT_TROUPE_SUPPORT_RECORDING_H

#include "bus/bus.h"
#include "bus/messages.h"

enum { RECORDING_BYTES = 64 << 10 };

typedef struct {
    uint8_t bytes[RECORDING_BYTES];
    size_t  size;
} recording;

void recording_begin(recording *r);

/* A message regarding request `id` (its first byte). */
void recording_say(recording *r, uint8_t id, uint32_t attempt, uint16_t type, const void *body);
void recording_say_tokens(recording *r, uint8_t id, uint32_t choice, uint32_t index, const uint32_t *tokens, uint32_t n,
                          finish_reason finish);
void recording_gap(recording *r, uint64_t n_lost);

span recording_file(const recording *r);

#endif
