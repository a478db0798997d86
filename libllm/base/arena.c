/* The bump allocator: one mmap, a cursor, and the rule that memory handed out is zero.
 *
 * Fresh pages are zero by the system's promise, so arena_take clears only what an earlier life of the arena may have
 * dirtied: everything below `high_water`. */
#include "base/arena.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { ARENA_ALIGN = 16 };

struct arena {
    char  *memory;
    size_t capacity;   /* bytes the caller asked for */
    size_t used;       /* the cursor; always a multiple of ARENA_ALIGN, or the capacity */
    size_t high_water; /* bytes below this may be dirty */
};

arena *arena_new(size_t bytes, error *err)
{
    arena *a      = calloc(1, sizeof *a);
    void  *memory = MAP_FAILED;
    if (a)
        memory =
            mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        error_set(err, ERR_NO_MEMORY, "an arena of %zu bytes: the system has no memory for it (%s)", bytes,
                  strerror(errno));
        free(a);
        return NULL;
    }
    a->memory   = memory;
    a->capacity = bytes;
    return a;
}

void arena_free(arena **a)
{
    if (!*a)
        return;
    munmap((*a)->memory, (*a)->capacity ? (*a)->capacity : 1);
    free(*a);
    *a = NULL;
}

static char *take(arena *a, size_t bytes, size_t *n_dirty)
{
    size_t left = a->capacity - a->used;
    if (bytes > left)
        return NULL;
    char  *taken   = a->memory + a->used;
    size_t rounded = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    size_t dirty   = a->high_water > a->used ? a->high_water - a->used : 0;
    *n_dirty       = dirty < bytes ? dirty : bytes;
    a->used += rounded <= left ? rounded : left;
    if (a->used > a->high_water)
        a->high_water = a->used;
    return taken;
}

void *arena_take(arena *a, size_t bytes)
{
    size_t n_dirty;
    char  *taken = take(a, bytes, &n_dirty);
    if (taken)
        memset(taken, 0, n_dirty);
    return taken;
}

void *arena_take_uncleared(arena *a, size_t bytes)
{
    size_t n_dirty;
    return take(a, bytes, &n_dirty);
}

void *arena_take_array(arena *a, size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? NULL : arena_take(a, bytes);
}

span arena_copy(arena *a, span text)
{
    char *copy = text.size < SIZE_MAX ? arena_take(a, text.size + 1) : NULL;
    if (!copy)
        return (span){NULL, 0};
    if (text.size)
        memcpy(copy, text.data, text.size);
    return (span){copy, text.size};
}

span arena_format(arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int   length = vsnprintf(NULL, 0, format, args);
    char *text   = length >= 0 ? arena_take(a, (size_t)length + 1) : NULL;
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(args);
    return (span){text, text ? (size_t)length : 0};
}

void arena_reset(arena *a)
{
    a->used = 0;
}

size_t arena_mark(const arena *a)
{
    return a->used;
}

void arena_rewind(arena *a, size_t mark)
{
    a->used = mark < a->used ? mark : a->used;
}

size_t arena_used(const arena *a)
{
    return a->used;
}

size_t arena_capacity(const arena *a)
{
    return a->capacity;
}
