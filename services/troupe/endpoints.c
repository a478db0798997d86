/* See endpoints.h. */
#include "troupe/endpoints.h"

#include <stdio.h>
#include <string.h>

bool cut_endpoints(char *copy, const char *text, const char **slots, uint32_t n, const char *flag, error *err)
{
    char    *rest = NULL;
    uint32_t i    = 0;
    while (i < n && slots[i])
        i++;
    uint32_t first = i;
    if (snprintf(copy, ENDPOINTS_BYTES, "%s", text) >= ENDPOINTS_BYTES)
        return error_set(err, ERR_TOO_LARGE, "%s: longer than %d bytes", flag, ENDPOINTS_BYTES - 1);
    for (char *one = strtok_r(copy, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        if (i == n)
            return error_set(err, ERR_INVALID, "%s: at most %u endpoints", flag, n);
        slots[i++] = one;
    }
    return i > first || error_set(err, ERR_INVALID, "%s: an endpoint is missing", flag);
}
