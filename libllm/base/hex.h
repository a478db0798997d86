/* Bytes as people read them: ids, digests. */
#ifndef TROUPE_BASE_HEX_H
#define TROUPE_BASE_HEX_H

#include <stddef.h>

/* Writes 2 n_bytes lower-case digits and a NUL. */
void hex_print(const void *bytes, size_t n_bytes, char *text);

#endif
