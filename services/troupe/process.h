/* A process with one or all services in it: actors on threads, signals, draining. */
#ifndef TROUPE_TROUPE_PROCESS_H
#define TROUPE_TROUPE_PROCESS_H

#include "troupe/services.h"

typedef struct process process;

/* Starts all services on inproc, or (only >= 0) one service on its own endpoints, each on a thread of its own. Options
 * are borrowed. NULL with *err set when one of them cannot start; nothing runs then. */
process *process_new(const process_options *options, const all_options *services_options, int only, error *err);

/* Starts one more actor, which calls this process' gateway. */
bool process_add_client(process *p, const actor_class *class, const void *options, error *err) MUST_CHECK;

/* Waits for SIGTERM or SIGINT (or process_quit), drains, and returns: 0 when every actor ended in time. A second signal
 * stops at once. */
int process_wait(process *p);

/* From any thread: as SIGTERM. */
void process_quit(process *p);

void process_free(process **p);

#endif
