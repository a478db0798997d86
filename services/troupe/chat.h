/* A conversation in the terminal: a client on the bus, like any other program could be. */
#ifndef TROUPE_TROUPE_CHAT_H
#define TROUPE_TROUPE_CHAT_H

#include "actor/actor.h"
#include "base/option.h"

typedef struct {
    const char *once;   /* answer this and end; NULL: read lines from standard input */
    const char *system; /* the system message; NULL: the template's own */
    double      temperature;
    uint64_t    max_tokens, seed;
    void (*on_end)(void *arg, int status); /* called once, on the actor's thread: 0 when the answer was whole */
    void *end_arg;
} chat_options;

extern const option_row chat_option_rows[];
extern const size_t     n_chat_option_rows;

extern const actor_class chat_class;

#endif
