/* Between operations and Redis' protocol: a request as a command's arguments, a reply as what the caller asked for. */
#ifndef TROUPE_STORE_REDIS_COMMANDS_H
#define TROUPE_STORE_REDIS_COMMANDS_H

#include "store/redis_scripts.h"
#include "store/request.h"

#include <hiredis/hiredis.h>

enum {
    REDIS_ARGUMENTS_MAX = 16,
    /* Numbers and keys, longest in an inventory: prefix, model, worker and epoch. Hashes as bytes. */
    REDIS_TEXT_BYTES = 1024 + STORE_BLOCKS_MAX * 8,
};

typedef struct {
    int         n_arguments;
    const char *arguments[REDIS_ARGUMENTS_MAX];
    size_t      sizes[REDIS_ARGUMENTS_MAX];
    size_t      n_text_bytes;
    char        text[REDIS_TEXT_BYTES]; /* what the arguments point to, if not into the request */
} redis_command;

typedef struct {
    const char *key_prefix;
    char        shas[N_STORE_OPS][REDIS_SHA_BYTES + 1];
} redis_names;

/* The command of a request. Its arguments point into the request, the names and the command itself. */
void redis_command_make(redis_command *command, const redis_names *names, const store_request *request);

/* hiredis allocates as many elements as a reply's header claims. A guarded reader makes arrays only of what the
 * operations ask for: lists of up to REDIS_ELEMENTS_MAX, in them lists of up to REDIS_INNER_ELEMENTS_MAX, in those
 * none. Anything else is the reader's error, and sets `refused`. The guard outlives the reader. */
typedef struct {
    redisReplyObjectFunctions functions;
    void *(*create_array)(const redisReadTask *task, int n_elements);
    bool refused;
} redis_reader_guard;

enum { REDIS_ELEMENTS_MAX = 1 << 20, REDIS_INNER_ELEMENTS_MAX = 4 };

void redis_guard_reader(redis_reader_guard *guard, redisReader *reader);

/* Room for what one reply lists. */
typedef struct {
    store_worker workers[STORE_WORKERS_MAX];
    store_block  blocks[STORE_BUCKET_BLOCKS];
    span         entries[STORE_LOG_READ_ENTRIES];
} redis_lists;

/* Reads the reply to `request` into *reply, whose spans point into `answer`. False when it has not the shape that the
 * operation's script returns. */
bool redis_reply_read(const store_request *request, const redisReply *answer, redis_lists *lists,
                      store_reply *reply) MUST_CHECK;

#endif
