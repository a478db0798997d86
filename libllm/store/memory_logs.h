/* The logs of the in-process store: bounded in number and in bytes; the one touched longest ago makes room. */
#ifndef TROUPE_STORE_MEMORY_LOGS_H
#define TROUPE_STORE_MEMORY_LOGS_H

#include "store/request.h"

typedef struct memory_logs memory_logs;

/* `clock` is borrowed: fences follow it. */
memory_logs *memory_logs_new(const clock_source *clock, error *err);
void         memory_logs_free(memory_logs **logs);

/* Does one of the operations STORE_OP_LOG_*. What *reply points to lives until the next call. */
void memory_logs_execute(memory_logs *logs, const store_request *r, int64_t now_ns, store_reply *reply);

#endif
