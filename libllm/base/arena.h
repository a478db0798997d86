/* A bump allocator over one block of memory of fixed size: the memory of one request, or of one load.
 *
 * Everything taken from an arena dies together in arena_reset or arena_free. Taking is a few instructions and
 * never calls the system. An arena that is full returns NULL and stays usable; the caller turns that into
 * ERR_NO_MEMORY. Not thread-safe: one owner at a time. */
#ifndef TROUPE_BASE_ARENA_H
#define TROUPE_BASE_ARENA_H

#include "base/error.h"
#include "base/span.h"

typedef struct arena arena;

/* One allocation of `bytes`, touched lazily by the system. NULL with *err set when the system refuses. */
arena *arena_new(size_t bytes, error *err);
void   arena_free(arena **a);

/* Zeroed memory aligned to 16 bytes, or NULL when fewer than `bytes` are left. */
void *arena_take(arena *a, size_t bytes);

/* arena_take without the zeroes, for what is written before it is read: pages that stay unused stay untouched. */
void *arena_take_uncleared(arena *a, size_t bytes);

/* arena_take for an array; NULL also when n * size overflows. */
void *arena_take_array(arena *a, size_t n, size_t size);

/* A copy of `text` with a NUL behind it; .data is NULL when the arena is full. */
span arena_copy(arena *a, span text);

/* A formatted string, NUL-terminated; .data is NULL when the arena is full. */
span arena_format(arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets everything taken. Pointers into the arena are dead. */
void arena_reset(arena *a);

/* A place to come back to: everything taken after arena_mark is forgotten by arena_rewind. */
size_t arena_mark(const arena *a);
void   arena_rewind(arena *a, size_t mark);

size_t arena_used(const arena *a);
size_t arena_capacity(const arena *a);

#endif
