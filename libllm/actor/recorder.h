/* The flight recorder of a process: every message that its actors take in and send, in a bounded log on disk.
 *
 * Prompts and answers are in it. Actors copy messages into a buffer of fixed size, under a lock that is never held
 * while anything is written; a thread writes them out. A disk that is slow or full costs records, never time: what
 * does not fit is counted (troupe_recorder_lost_total) and marked as a gap in the log. Heartbeats and credits are left
 * out. What was written survives the process's death; that is all but the last FLUSH_MS or so. */
#ifndef TROUPE_ACTOR_RECORDER_H
#define TROUPE_ACTOR_RECORDER_H

#include "actor/recording.h"

typedef struct recorder recorder;

typedef struct {
    const char *folder;
    const char *service;   /* "serve", "executor": begins the files' names */
    uint64_t    bytes_max; /* of all the files of the ring; RECORDER_BYTES_MIN at least */
} recorder_options;

enum { RECORDER_BYTES_MIN = 1 << 20 };

/* Starts the thread. NULL with *err set when the folder can't be used; see record_files_new. */
recorder *recorder_new(const recorder_options *options, error *err);

/* Writes what is left, and ends. Nobody may call recorder_take any more. */
void recorder_free(recorder **r);

/* From any thread: `node` took `envelope` and `body` in from `peer`, or sent them to it. Copies; never waits for the
 * disk. */
void recorder_take(recorder *r, record_kind kind, const char *node, const char *peer, span envelope, span body);

/* From any thread: waits until what was taken before is written, or lost. For tests. */
void recorder_flush(recorder *r);

#endif
