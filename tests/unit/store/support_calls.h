/* Calls to a store that wait for their answer, with a real clock or a virtual one. */
#ifndef TROUPE_STORE_SUPPORT_CALLS_H
#define TROUPE_STORE_SUPPORT_CALLS_H

#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct {
    store        *store;
    clock_source *virtual_clock; /* NULL: the system's */
} store_under_test;

/* A reply, copied out of the callback. */
typedef struct {
    int           n_calls;
    store_status  status;
    uint64_t      epoch;
    int64_t       value;
    store_session session;
    char          session_worker[STORE_NAME_BYTES];
    uint32_t      n_workers, n_blocks;
    struct {
        char     id[STORE_NAME_BYTES + 1], address[STORE_NAME_BYTES + 1];
        char     capabilities[STORE_CAPABILITY_BYTES];
        size_t   n_capability_bytes;
        uint64_t epoch;
    } workers[16];
    store_block blocks[STORE_BUCKET_BLOCKS];
    store_log   log;
    uint32_t    n_entries;
    char        first_entry[64], last_entry[64];
} answer;

void on_answer(void *arg, const store_reply *reply);

/* Waits until the answer came; fails the test after 3 s. Returns its status. */
store_status wait_for(store_under_test *t, answer *a);

/* Lets time pass, with turns of the store. */
void let_pass_ms(store_under_test *t, int ms);

int64_t real_ms(void);

/* Waits up to 5 s for store_is_degraded to be `wanted`. */
void wait_until_degraded_is(store_under_test *t, bool wanted);

/* One operation each, waited for. */
store_status do_register(store_under_test *t, const char *id, const char *role, uint32_t ttl_ms, uint64_t *epoch);
store_status do_renew(store_under_test *t, const char *id, const char *role, uint64_t epoch, uint32_t ttl_ms);
store_status do_release(store_under_test *t, const char *id, const char *role, uint64_t epoch);
store_status do_list(store_under_test *t, const char *role, answer *a);
store_status do_session_set(store_under_test *t, const char *id, uint64_t fence, const char *worker, uint32_t ttl_ms);
store_status do_session_get(store_under_test *t, const char *id, uint32_t ttl_ms, answer *a);
store_status do_count(store_under_test *t, const char *name, int64_t amount, uint32_t ttl_ms, int64_t *value);

#endif
