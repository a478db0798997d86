/* Tables sorted by name, for names that outsiders choose.
 *
 * Items are structs whose first member is `span name`. Sorting, not hashing, so that no choice of names is slow; a name
 * that stands twice is then its own neighbour. */
#ifndef TROUPE_MODEL_NAME_TABLE_H
#define TROUPE_MODEL_NAME_TABLE_H

#include "base/span.h"

/* Returns the first item whose name stands twice, or NULL when all differ. O(n log n). */
const void *name_table_sort(void *items, size_t n, size_t item_bytes);

/* NULL when absent. O(log n). */
const void *name_table_find(const void *items, size_t n, size_t item_bytes, const char *name);

#endif
