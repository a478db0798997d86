/* qsort and bsearch over the leading name. */
#include "model/name_table.h"

#include <stdlib.h>

static int by_name(const void *a, const void *b)
{
    span   left = *(const span *)a, right = *(const span *)b;
    size_t shorter = left.size < right.size ? left.size : right.size;
    int    order   = memcmp(left.data, right.data, shorter);
    return order ? order : (left.size > right.size) - (left.size < right.size);
}

const void *name_table_sort(void *items, size_t n, size_t item_bytes)
{
    if (n < 2)
        return NULL;
    qsort(items, n, item_bytes, by_name);
    for (const char *item = (const char *)items + item_bytes; --n; item += item_bytes)
        if (by_name(item - item_bytes, item) == 0)
            return item;
    return NULL;
}

const void *name_table_find(const void *items, size_t n, size_t item_bytes, const char *name)
{
    span wanted = span_of(name);
    return n ? bsearch(&wanted, items, n, item_bytes, by_name) : NULL;
}
