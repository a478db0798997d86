/* Endpoints as flags name them: several, separated by commas. */
#ifndef TROUPE_TROUPE_ENDPOINTS_H
#define TROUPE_TROUPE_ENDPOINTS_H

#include "base/error.h"

#include <stdint.h>

enum { ENDPOINTS_BYTES = 1024 };

/* Cuts "a,b" at its commas into those of slots[0..n) that are still NULL; they point into `copy`, of ENDPOINTS_BYTES.
 * False when there is none in it, or more than slots. `flag` stands in the message. */
bool cut_endpoints(char *copy, const char *text, const char **slots, uint32_t n, const char *flag,
                   error *err) MUST_CHECK;

#endif
