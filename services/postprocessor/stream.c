/* A hash table of places with an arena each; see stream.h. Ids are random, or only hurt their own sender. */
#include "postprocessor/stream.h"

#include <assert.h>
#include <stdlib.h>

enum { BUCKETS = 4096 };

struct stream_table {
    stream  *streams, *free, *first;
    stream  *buckets[BUCKETS];
    uint32_t n_max, n;
};

stream_table *stream_table_new(uint32_t n_max, size_t bytes, error *err)
{
    stream_table *t = calloc(1, sizeof *t);
    if (t)
        t->streams = calloc(n_max, sizeof *t->streams);
    if (!t || !t->streams) {
        error_set(err, ERR_NO_MEMORY, "no memory for %u streams", n_max);
        stream_table_free(&t);
        return NULL;
    }
    for (; t->n_max < n_max; t->n_max++) {
        stream *s = &t->streams[t->n_max];
        s->memory = arena_new(bytes, err);
        if (!s->memory) {
            stream_table_free(&t);
            return NULL;
        }
        s->next_in_table = t->free;
        t->free          = s;
    }
    return t;
}

void stream_table_free(stream_table **t)
{
    stream_table *old = *t;
    *t                = NULL;
    if (!old)
        return;
    while (old->first)
        stream_close(old, old->first);
    for (uint32_t i = 0; i < old->n_max; i++)
        arena_free(&old->streams[i].memory);
    free(old->streams);
    free(old);
}

uint32_t stream_table_n(const stream_table *t)
{
    return t->n;
}

stream *stream_table_first(const stream_table *t)
{
    return t->first;
}

static uint32_t bucket_of(const request_id *id)
{
    uint32_t word;
    memcpy(&word, id->bytes, sizeof word);
    return word % BUCKETS;
}

stream *stream_find(const stream_table *t, const request_id *id)
{
    stream *s = t->buckets[bucket_of(id)];
    while (s && !request_id_equal(&s->envelope.request, id))
        s = s->next_in_table;
    return s;
}

stream *stream_open(stream_table *t, const envelope *e)
{
    stream *s = t->free;
    if (!s)
        return NULL;
    stream **bucket = &t->buckets[bucket_of(&e->request)];
    t->free         = s->next_in_table;
    *s              = (stream){.memory = s->memory, .envelope = *e, .next_in_table = *bucket, .next = t->first};
    *bucket         = s;
    if (s->next)
        s->next->previous = s;
    t->first = s;
    t->n++;
    return s;
}

void stream_close(stream_table *t, stream *s)
{
    stream **place = &t->buckets[bucket_of(&s->envelope.request)];
    while (*place != s)
        place = &(*place)->next_in_table;
    *place                                          = s->next_in_table;
    *(s->previous ? &s->previous->next : &t->first) = s->next;
    if (s->next)
        s->next->previous = s->previous;
    output_filter_release(&s->filter);
    arena_free(&s->logprob_memory);
    arena_reset(s->memory);
    s->next_in_table = t->free;
    t->free          = s;
    t->n--;
}

void stream_table_check(const stream_table *t)
{
    uint32_t n = 0, n_free = 0;
    for (const stream *s = t->first; s; s = s->next, n++) {
        assert(stream_find(t, &s->envelope.request) == s);
        assert(s->scheduler && s->n_open > 0 && s->n_open <= s->n_choices && s->n_choices <= STREAM_CHOICES_MAX);
        uint32_t n_open = 0;
        for (uint32_t i = 0; i < s->n_choices; i++) {
            n_open += !s->choices[i].ended;
            assert(s->choices[i].n_held <= s->choices[i].n_tokens && s->choices[i].n_held <= CHOICE_HELD_MAX);
            if (!s->choices[i].ended)
                detokenizer_check(s->choices[i].detokenizer);
            if (s->choices[i].filter)
                filter_stream_check(s->choices[i].filter);
        }
        assert(n_open == s->n_open);
    }
    for (const stream *s = t->free; s; s = s->next_in_table)
        n_free++;
    assert(n == t->n && n + n_free == t->n_max);
}
