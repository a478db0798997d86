/* `troupe replay`: what the flight recorder's files hold, and whether a request gives the same tokens again. */
#ifndef TROUPE_TROUPE_REPLAY_H
#define TROUPE_TROUPE_REPLAY_H

#include "troupe/recorded_requests.h"
#include "troupe/replay_run.h"
#include "troupe/services.h"

/* The command's exit status. */
enum { REPLAY_SAME = 0, REPLAY_DIFFERS = 1, REPLAY_CANNOT = 2 };

/* The first place where a choice is not what was recorded. */
typedef struct {
    uint32_t index;
    bool     recorded_ends, now_ends; /* there is no token at the index */
    uint32_t recorded, now;
} token_difference;

/* Compares what was recorded of one choice with what it gave now. Recorded tokens are compared wherever they are there;
 * *n_compared gets how many those are. A choice that was cut off, by a stop string or a client that left, may go on
 * now; one that ended by itself must end in the same place. True when nothing differs. */
bool replay_compare(const recorded_request *r, uint32_t choice, const replayed_choice *now, uint32_t *n_compared,
                    token_difference *d);

/* Prints the requests of a folder, oldest first. */
int replay_list(const char *folder, FILE *out);

/* Runs the request whose id begins with `digits` again, and prints what differs. */
int replay_request(const all_options *options, const char *folder, const char *digits, FILE *out);

#endif
