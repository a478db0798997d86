// links: llm_store
/* Any bytes as a server's reply to each operation: what is read stays inside the reply. */
#include "store/redis_commands.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static redis_lists lists;
    redis_reader_guard guard;
    redisReader       *reader = redisReaderCreate();
    void              *answer = NULL;
    redis_guard_reader(&guard, reader);
    redisReaderFeed(reader, (const char *)data, size);
    while (redisReaderGetReply(reader, &answer) == REDIS_OK && answer) {
        for (int op = 0; op < N_STORE_OPS; op++) {
            store_reply reply;
            if (redis_reply_read(&(store_request){.op = (store_op)op}, answer, &lists, &reply) &&
                reply.n_workers > STORE_WORKERS_MAX)
                __builtin_trap();
        }
        freeReplyObject(answer);
    }
    redisReaderFree(reader);
    return 0;
}
