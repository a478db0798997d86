/* A borrowed run of bytes: pointer and length, no terminator, no ownership. */
#ifndef TROUPE_BASE_SPAN_H
#define TROUPE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *data;
    size_t      size;
} span;

/* For printf: printf("%.*s", SPAN_ARG(text)). */
#define SPAN_ARG(s) (int)(s).size, (s).data
#define SPAN(literal) ((span){(literal), sizeof(literal) - 1})

static inline span span_of(const char *text)
{
    return (span){text, text ? strlen(text) : 0};
}

static inline bool span_equal(span a, span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool span_is(span a, const char *text)
{
    return span_equal(a, span_of(text));
}

#endif
