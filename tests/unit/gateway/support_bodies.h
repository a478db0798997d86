/* What tests of request bodies share: one arena, for all that a test program parses. */
#ifndef TROUPE_GATEWAY_SUPPORT_BODIES_H
#define TROUPE_GATEWAY_SUPPORT_BODIES_H

#include "base/arena.h"

extern arena *memory;

int bodies_prepare(void **state);
int bodies_clean_up(void **state);

#endif
