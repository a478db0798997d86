/* What a server's bytes may make a client allocate. Commands and replies proper: test_store_redis.c. */
#include "store/redis_commands.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* Whether a guarded reader makes a reply of these bytes; *refused: whether the guard is why not. */
static bool reads(const char *bytes, bool *refused)
{
    redis_reader_guard guard;
    void              *answer = NULL;
    redisReader       *reader = redisReaderCreate();
    redis_guard_reader(&guard, reader);
    redisReaderFeed(reader, bytes, strlen(bytes));
    bool made = redisReaderGetReply(reader, &answer) == REDIS_OK && answer;
    *refused  = guard.refused;
    if (answer)
        freeReplyObject(answer);
    redisReaderFree(reader);
    return made;
}

static void arrays_are_made_of_what_commands_ask_for_and_no_larger(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool        is_made, is_refused;
    } cases[] = {
        {":1\r\n", true, false},
        {"*0\r\n", true, false},
        {"*2\r\n$1\r\na\r\n$1\r\nb\r\n", true, false},
        {"*1\r\n*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n", true, false},
        {"*1048576\r\n", false, false}, /* the rest may still come */
        {"*1048577\r\n", false, true},
        {"*1184467440\r\n", false, true},
        {"*2147483647\r\n", false, true},
        {"*1\r\n*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n", false, true},
        {"*1\r\n*1\r\n*1\r\n:1\r\n", false, true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool refused;
        assert_int_equal(reads(cases[i].bytes, &refused), cases[i].is_made);
        assert_int_equal(refused, cases[i].is_refused);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_made_of_what_commands_ask_for_and_no_larger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
