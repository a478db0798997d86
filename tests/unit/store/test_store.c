/* What every store promises: the same tests run against memory (with a virtual clock) and against a real Redis. */
#include "support_calls.h"
#include "support_redis.h"

#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>

static redis_server     server;
static clock_source     virtual_clock;
static store_under_test under_test;

static store_under_test *of(void **state)
{
    return *state;
}

static int open_memory(void **state)
{
    error err;
    virtual_clock            = clock_virtual(INT64_C(1795812601123) * NS_PER_MS);
    under_test.virtual_clock = &virtual_clock;
    under_test.store         = store_open(&(store_options){.url = "memory:", .clock = &virtual_clock}, &err);
    *state                   = &under_test;
    return under_test.store ? 0 : -1;
}

static int open_redis(void **state)
{
    error err;
    redis_server_command(&server, NULL, 0, "FLUSHALL");
    under_test.virtual_clock = NULL;
    under_test.store         = store_open(&(store_options){.url = server.url, .deadline_ms = 2000}, &err);
    *state                   = &under_test;
    return under_test.store ? 0 : -1;
}

static int close_store(void **state)
{
    assert_int_equal(store_n_pending(of(state)->store), 0);
    store_free(&of(state)->store);
    assert_null(of(state)->store);
    store_free(&of(state)->store);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- workers */

static void a_worker_is_listed_while_its_lease_runs(void **state)
{
    answer   a     = {0};
    uint64_t epoch = 0;
    assert_int_equal(do_list(of(state), "executor", &a), STORE_OK);
    assert_int_equal(a.n_workers, 0);
    assert_int_equal(do_register(of(state), "executor-1", "executor", 500, &epoch), STORE_OK);
    assert_int_equal(do_list(of(state), "executor", &a), STORE_OK);
    assert_int_equal(a.n_workers, 1);
    assert_string_equal(a.workers[0].id, "executor-1");
    assert_string_equal(a.workers[0].address, "tcp://10.0.0.1:7001");
    assert_int_equal(a.workers[0].n_capability_bytes, 8);
    assert_memory_equal(a.workers[0].capabilities, "caps\0\xff\r\n", 8);
    assert_true(a.workers[0].epoch == epoch && epoch > 0);
    let_pass_ms(of(state), 700);
    assert_int_equal(do_list(of(state), "executor", &a), STORE_OK);
    assert_int_equal(a.n_workers, 0);
    assert_int_equal(do_renew(of(state), "executor-1", "executor", epoch, 500), STORE_REFUSED);
}

static void renewing_keeps_a_lease(void **state)
{
    answer   a = {0};
    uint64_t epoch;
    do_register(of(state), "w", "executor", 600, &epoch);
    for (int i = 0; i < 3; i++) {
        let_pass_ms(of(state), 250);
        assert_int_equal(do_renew(of(state), "w", "executor", epoch, 600), STORE_OK);
    }
    do_list(of(state), "executor", &a);
    assert_int_equal(a.n_workers, 1);
}

static void a_stale_epoch_can_neither_renew_nor_release(void **state)
{
    answer   a = {0};
    uint64_t first, second;
    do_register(of(state), "w", "executor", 5000, &first);
    do_register(of(state), "w", "executor", 5000, &second);
    assert_true(second > first);
    assert_int_equal(do_renew(of(state), "w", "executor", first, 5000), STORE_REFUSED);
    assert_int_equal(do_release(of(state), "w", "executor", first), STORE_REFUSED);
    assert_int_equal(do_renew(of(state), "w", "executor", second, 5000), STORE_OK);
    do_list(of(state), "executor", &a);
    assert_int_equal(a.n_workers, 1);
    assert_int_equal(do_release(of(state), "w", "executor", second), STORE_OK);
    assert_int_equal(do_release(of(state), "w", "executor", second), STORE_REFUSED);
    assert_int_equal(do_renew(of(state), "unknown", "executor", second, 5000), STORE_REFUSED);
    do_list(of(state), "executor", &a);
    assert_int_equal(a.n_workers, 0);
}

static void epochs_rise_over_all_workers_and_above_what_a_worker_remembers(void **state)
{
    uint64_t epoch, last = 0;
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "w%d", i % 5);
        do_register(of(state), id, i % 2 ? "executor" : "drafter", 5000, &epoch);
        assert_true(epoch > last);
        last = epoch;
    }
    answer      a     = {0};
    store_lease lease = {.id = SPAN("w"), .role = SPAN("executor"), .last_epoch = last + 1000000, .ttl_ms = 100};
    assert_true(store_register(of(state)->store, &lease, on_answer, &a, NULL));
    assert_int_equal(wait_for(of(state), &a), STORE_OK);
    assert_true(a.epoch == last + 1000001);
}

static void a_list_holds_one_role_by_id(void **state)
{
    static const char *const ids[] = {"e-9", "e-10", "e", "d-1", "e-1"};
    answer                   a     = {0};
    for (size_t i = 0; i < COUNT(ids); i++)
        do_register(of(state), ids[i], ids[i][0] == 'd' ? "drafter" : "executor", 5000, NULL);
    do_list(of(state), "executor", &a);
    assert_int_equal(a.n_workers, 4);
    assert_string_equal(a.workers[0].id, "e");
    assert_string_equal(a.workers[1].id, "e-1");
    assert_string_equal(a.workers[2].id, "e-10");
    assert_string_equal(a.workers[3].id, "e-9");
    /* A worker that comes back in another role is in that one only. */
    do_register(of(state), "e-9", "drafter", 5000, NULL);
    do_list(of(state), "executor", &a);
    assert_int_equal(a.n_workers, 3);
    do_list(of(state), "drafter", &a);
    assert_int_equal(a.n_workers, 2);
}

/* --------------------------------------------------------------------------------------------------- sessions */

static void a_session_is_found_where_it_was_left(void **state)
{
    answer a = {0};
    assert_int_equal(do_session_get(of(state), "chat", 5000, &a), STORE_NOT_FOUND);
    assert_int_equal(do_session_set(of(state), "chat", 7, "executor-1", 5000), STORE_OK);
    assert_int_equal(do_session_get(of(state), "chat", 5000, &a), STORE_OK);
    assert_string_equal(a.session_worker, "executor-1");
    assert_true(a.session.epoch == 1795812601123);
    assert_true(a.session.fence == 7);
    assert_true(a.session.n_blocks == 1234);
    assert_true(a.session.last_hash == UINT64_MAX - 1);
}

static void an_older_fence_is_refused_an_equal_or_newer_one_is_not(void **state)
{
    answer a = {0};
    assert_int_equal(do_session_set(of(state), "chat", 9, "new", 5000), STORE_OK);
    assert_int_equal(do_session_set(of(state), "chat", 8, "old", 5000), STORE_REFUSED);
    do_session_get(of(state), "chat", 5000, &a);
    assert_string_equal(a.session_worker, "new");
    assert_int_equal(do_session_set(of(state), "chat", 9, "same", 5000), STORE_OK);
    assert_int_equal(do_session_set(of(state), "chat", 10, "newer", 5000), STORE_OK);
    assert_int_equal(do_session_set(of(state), "chat", STORE_NUMBER_MAX, "newest", 5000), STORE_OK);
    assert_int_equal(do_session_set(of(state), "chat", STORE_NUMBER_MAX - 1, "older", 5000), STORE_REFUSED);
    do_session_get(of(state), "chat", 5000, &a);
    assert_string_equal(a.session_worker, "newest");
}

static void a_session_lives_on_while_it_is_read(void **state)
{
    answer a = {0};
    do_session_set(of(state), "chat", 1, "w", 600);
    for (int i = 0; i < 3; i++) {
        let_pass_ms(of(state), 250);
        assert_int_equal(do_session_get(of(state), "chat", 600, &a), STORE_OK);
    }
    let_pass_ms(of(state), 800);
    assert_int_equal(do_session_get(of(state), "chat", 600, &a), STORE_NOT_FOUND);
    /* What has expired fences nobody. */
    assert_int_equal(do_session_set(of(state), "chat", 0, "w", 600), STORE_OK);
}

static void names_may_be_any_bytes(void **state)
{
    static const span names[] = {SPAN("a b"),        SPAN("a\0b"), SPAN("a\r\nDEL x"),
                                 SPAN("{wk}:epoch"), SPAN("%s%n"), SPAN("\xff\xfe")};
    for (size_t i = 0; i < COUNT(names); i++) {
        answer        set = {0}, get = {0};
        store_session session = {.worker = SPAN("w"), .fence = i};
        assert_true(store_session_set(of(state)->store, names[i], &session, 5000, on_answer, &set, NULL));
        assert_int_equal(wait_for(of(state), &set), STORE_OK);
        assert_true(store_session_get(of(state)->store, names[i], 5000, on_answer, &get, NULL));
        assert_int_equal(wait_for(of(state), &get), STORE_OK);
        assert_int_equal(get.session.fence, i);
    }
}

/* ------------------------------------------------------------------------------------------------------ blocks */

static const store_inventory inventory = {
    .model = SPAN("org/model:7b {q4}"), .worker = SPAN("executor-1"), .epoch = 12};

static void publish(void **state, const store_inventory *where, const uint64_t *hashes, uint32_t n, uint8_t tier,
                    uint32_t ttl_ms)
{
    answer a = {0};
    assert_true(store_blocks_publish(of(state)->store, where, hashes, n, tier, ttl_ms, on_answer, &a, NULL));
    assert_int_equal(wait_for(of(state), &a), STORE_OK);
}

static void forget(void **state, const store_inventory *where, const uint64_t *hashes, uint32_t n)
{
    answer a = {0};
    assert_true(store_blocks_forget(of(state)->store, where, hashes, n, on_answer, &a, NULL));
    assert_int_equal(wait_for(of(state), &a), STORE_OK);
}

/* Reads all buckets; `tiers` gets 1 + the tier of each of the n wanted hashes, 0 when it is not there. Returns how many
 * blocks there are in all. */
static uint32_t read_all(void **state, const store_inventory *where, const uint64_t *hashes, uint32_t n, uint8_t *tiers)
{
    static answer a;
    uint32_t      n_blocks = 0;
    memset(tiers, 0, n);
    for (uint32_t bucket = 0; bucket < STORE_BLOCK_BUCKETS; bucket++) {
        a.n_calls = 0;
        assert_true(store_blocks_read(of(state)->store, where, bucket, on_answer, &a, NULL));
        assert_int_equal(wait_for(of(state), &a), STORE_OK);
        for (uint32_t i = 0; i < a.n_blocks; i++) {
            assert_int_equal(a.blocks[i].hash % STORE_BLOCK_BUCKETS, bucket);
            for (uint32_t h = 0; h < n; h++) {
                if (hashes[h] == a.blocks[i].hash)
                    tiers[h] = (uint8_t)(1 + a.blocks[i].tier);
            }
        }
        n_blocks += a.n_blocks;
    }
    return n_blocks;
}

static void an_inventory_is_read_back_bucket_by_bucket(void **state)
{
    uint64_t      hashes[STORE_BLOCKS_MAX];
    uint8_t       tiers[STORE_BLOCKS_MAX];
    random_seeded r = random_from_seed(5);
    for (int i = 0; i < STORE_BLOCKS_MAX; i++)
        hashes[i] = random_u64(&r);
    publish(state, &inventory, hashes, STORE_BLOCKS_MAX, 0, 5000);
    publish(state, &inventory, hashes, 10, 2, 5000); /* these moved to another tier */
    assert_int_equal(read_all(state, &inventory, hashes, STORE_BLOCKS_MAX, tiers), STORE_BLOCKS_MAX);
    for (int i = 0; i < STORE_BLOCKS_MAX; i++)
        assert_int_equal(tiers[i], i < 10 ? 3 : 1);
    forget(state, &inventory, hashes, 100);
    assert_int_equal(read_all(state, &inventory, hashes, STORE_BLOCKS_MAX, tiers), STORE_BLOCKS_MAX - 100);
    assert_int_equal(tiers[99], 0);
    assert_int_equal(tiers[100], 1);
    forget(state, &inventory, NULL, 0);
    assert_int_equal(read_all(state, &inventory, hashes, STORE_BLOCKS_MAX, tiers), 0);
}

static void another_epoch_worker_or_model_is_another_inventory(void **state)
{
    uint64_t        hash = 42;
    uint8_t         tier;
    store_inventory others[] = {inventory, inventory, inventory};
    others[0].epoch++;
    others[1].worker = SPAN("executor-2");
    others[2].model  = SPAN("org/model");
    publish(state, &inventory, &hash, 1, 0, 5000);
    for (size_t i = 0; i < COUNT(others); i++) {
        assert_int_equal(read_all(state, &others[i], &hash, 1, &tier), 0);
        forget(state, &others[i], &hash, 1);
        forget(state, &others[i], NULL, 0);
    }
    assert_int_equal(read_all(state, &inventory, &hash, 1, &tier), 1);
}

static void publishing_nothing_keeps_the_whole_inventory(void **state)
{
    uint64_t hashes[] = {1, 2, 3 + STORE_BLOCK_BUCKETS};
    uint8_t  tiers[3];
    publish(state, &inventory, hashes, 3, 0, 600);
    for (int i = 0; i < 3; i++) {
        let_pass_ms(of(state), 250);
        publish(state, &inventory, NULL, 0, 0, 600);
    }
    assert_int_equal(read_all(state, &inventory, hashes, 3, tiers), 3);
    let_pass_ms(of(state), 800);
    assert_int_equal(read_all(state, &inventory, hashes, 3, tiers), 0);
    publish(state, &inventory, hashes, 1, 0, 5000);
    assert_int_equal(read_all(state, &inventory, hashes, 3, tiers), 1);
}

/* ---------------------------------------------------------------------------------------------------- counters */

static void a_counter_counts_until_its_time_is_over(void **state)
{
    int64_t value;
    assert_int_equal(do_count(of(state), "requests", 1, 800, &value), STORE_OK);
    assert_int_equal(value, 1);
    let_pass_ms(of(state), 500);
    do_count(of(state), "requests", 41, 800, &value);
    assert_int_equal(value, 42);
    let_pass_ms(of(state), 500); /* adding did not extend its life */
    do_count(of(state), "requests", -3, 800, &value);
    assert_int_equal(value, -3);
    do_count(of(state), "big", INT64_MAX - 1, 1000, &value);
    assert_true(value == INT64_MAX - 1);
    do_count(of(state), "big", 1, 1000, &value);
    assert_true(value == INT64_MAX);
    assert_int_equal(do_count(of(state), "big", 1, 1000, &value), STORE_DEGRADED);
    do_count(of(state), "big", -1, 1000, &value);
    assert_true(value == INT64_MAX - 1);
}

/* -------------------------------------------------------------------------------------------------------- logs */

enum { LEASE_MS = 300, LOG_TTL_MS = 800 };

static store_status open_log(void **state, const char *key, const char *fingerprint, answer *a)
{
    store_log_claim claim = {.key         = span_of(key),
                             .fingerprint = span_of(fingerprint),
                             .note        = -77,
                             .lease_ms    = LEASE_MS,
                             .ttl_ms      = LOG_TTL_MS};
    *a                    = (answer){0};
    assert_true(store_log_open(of(state)->store, &claim, on_answer, a, NULL));
    return wait_for(of(state), a);
}

static store_status append(void **state, const char *key, uint64_t fence, uint64_t n_before, span entry, bool is_last)
{
    answer          a = {0};
    store_log_entry e = {.key      = span_of(key),
                         .fence    = fence,
                         .n_before = n_before,
                         .entry    = entry,
                         .is_last  = is_last,
                         .lease_ms = LEASE_MS,
                         .ttl_ms   = LOG_TTL_MS};
    assert_true(store_log_append(of(state)->store, &e, on_answer, &a, NULL));
    return wait_for(of(state), &a);
}

static store_status read_log(void **state, const char *key, uint64_t n_before, answer *a)
{
    *a = (answer){0};
    assert_true(store_log_read(of(state)->store, span_of(key), n_before, on_answer, a, NULL));
    return wait_for(of(state), a);
}

static store_status release_log(void **state, const char *key, uint64_t fence, bool forget)
{
    answer a = {0};
    assert_true(store_log_release(of(state)->store, span_of(key), fence, forget, on_answer, &a, NULL));
    return wait_for(of(state), &a);
}

static void a_log_is_read_behind_its_writer(void **state)
{
    answer a, found;
    assert_int_equal(read_log(state, "log", 0, &found), STORE_NOT_FOUND);
    assert_int_equal(open_log(state, "log", "print", &a), STORE_OK);
    assert_true(a.log.is_granted && !a.log.is_done && a.log.note == -77 && a.log.n_entries == 0);
    assert_int_equal(append(state, "log", a.log.fence, 0, SPAN("one"), false), STORE_OK);
    assert_int_equal(append(state, "log", a.log.fence, 1, SPAN("two\0\xff"), false), STORE_OK);
    assert_int_equal(open_log(state, "log", "print", &found), STORE_OK);
    assert_true(!found.log.is_granted && found.log.is_held && found.log.n_entries == 2 && found.log.note == -77);
    assert_int_equal(read_log(state, "log", 0, &found), STORE_OK);
    assert_int_equal(found.n_entries, 2);
    assert_string_equal(found.first_entry, "one");
    assert_string_equal(found.last_entry, "two");
    assert_int_equal(read_log(state, "log", 2, &found), STORE_OK);
    assert_true(found.n_entries == 0 && found.log.is_held && !found.log.is_done);
    assert_int_equal(append(state, "log", a.log.fence, 2, SPAN("three"), true), STORE_OK);
    assert_int_equal(read_log(state, "log", 2, &found), STORE_OK);
    assert_string_equal(found.first_entry, "three");
    assert_true(found.log.is_done && !found.log.is_held && found.log.n_entries == 3);
    let_pass_ms(of(state), LEASE_MS + 100);
    assert_int_equal(open_log(state, "log", "print", &found), STORE_OK);
    assert_true(found.log.is_done && !found.log.is_granted);
    let_pass_ms(of(state), LOG_TTL_MS + 100);
    assert_int_equal(read_log(state, "log", 0, &found), STORE_NOT_FOUND);
}

static void a_log_about_something_else_is_refused(void **state)
{
    answer a, other;
    open_log(state, "log", "print", &a);
    assert_int_equal(open_log(state, "log", "another", &other), STORE_REFUSED);
    assert_int_equal(open_log(state, "log2", "another", &other), STORE_OK);
}

static void a_writer_whose_lease_ran_out_writes_nothing_more_once_another_writes(void **state)
{
    answer first, second, found;
    open_log(state, "log", "print", &first);
    append(state, "log", first.log.fence, 0, SPAN("one"), false);
    let_pass_ms(of(state), LEASE_MS + 100);
    assert_int_equal(append(state, "log", first.log.fence, 1, SPAN(""), false),
                     STORE_OK); /* late, but nobody else came */
    let_pass_ms(of(state), LEASE_MS / 2);
    assert_int_equal(open_log(state, "log", "print", &second), STORE_OK);
    assert_false(second.log.is_granted);
    let_pass_ms(of(state), LEASE_MS);
    assert_int_equal(open_log(state, "log", "print", &second), STORE_OK);
    assert_true(second.log.is_granted && second.log.n_entries == 1 && second.log.fence > first.log.fence);
    assert_int_equal(append(state, "log", first.log.fence, 1, SPAN("stale"), false), STORE_REFUSED);
    assert_int_equal(append(state, "log", first.log.fence, 1, SPAN(""), false), STORE_REFUSED);
    assert_int_equal(release_log(state, "log", first.log.fence, true), STORE_REFUSED);
    assert_int_equal(append(state, "log", second.log.fence, 1, SPAN("fresh"), false), STORE_OK);
    read_log(state, "log", 1, &found);
    assert_string_equal(found.last_entry, "fresh");
    assert_int_equal(found.n_entries, 1);
}

static void a_log_that_was_given_back_is_taken_at_once(void **state)
{
    answer first, second, found;
    open_log(state, "log", "print", &first);
    append(state, "log", first.log.fence, 0, SPAN("one"), false);
    assert_int_equal(release_log(state, "log", first.log.fence, false), STORE_OK);
    open_log(state, "log", "print", &second);
    assert_true(second.log.is_granted && second.log.n_entries == 1);
    assert_int_equal(release_log(state, "log", second.log.fence, true), STORE_OK);
    assert_int_equal(read_log(state, "log", 0, &found), STORE_NOT_FOUND);
    open_log(state, "log", "another", &first);
    assert_true(first.log.is_granted && first.log.n_entries == 0 && first.log.fence > second.log.fence);
}

static void an_entry_is_there_once_however_often_it_is_said(void **state)
{
    answer a, found;
    open_log(state, "log", "print", &a);
    for (int i = 0; i < 3; i++)
        assert_int_equal(append(state, "log", a.log.fence, 0, SPAN("one"), false), STORE_OK);
    assert_int_equal(append(state, "log", a.log.fence, 2, SPAN("three"), false), STORE_NOT_FOUND); /* a hole */
    read_log(state, "log", 0, &found);
    assert_int_equal(found.n_entries, 1);
}

static void a_log_is_bounded_and_read_in_parts(void **state)
{
    static char big[STORE_LOG_READ_BYTES / 2];
    answer      a, found;
    uint64_t    n = 0;
    memset(big, 'x', sizeof big);
    open_log(state, "log", "print", &a);
    while (append(state, "log", a.log.fence, n, (span){big, sizeof big}, false) == STORE_OK)
        n++;
    assert_int_equal(n, STORE_LOG_BYTES / sizeof big);
    read_log(state, "log", 1, &found);
    assert_true(found.n_entries >= 2 && found.n_entries < n - 1 && found.log.n_entries == n);
}

static void a_log_without_its_head_or_its_entries_is_lost(void **state)
{
    static const char *const keys[] = {"troupe:log:{log}", "troupe:log:{log}:e"};
    answer                   a, found;
    if (of(state)->virtual_clock)
        return; /* there is no way to evict half a log in memory */
    for (size_t i = 0; i < COUNT(keys); i++) {
        char text[64];
        open_log(state, "log", "print", &a);
        append(state, "log", a.log.fence, 0, SPAN("one"), false);
        snprintf(text, sizeof text, "DEL %s", keys[i]);
        redis_server_command(&server, NULL, 0, text);
        assert_int_equal(read_log(state, "log", 0, &found), STORE_NOT_FOUND);
        append(state, "log", a.log.fence, 1, SPAN("two"), false);
        assert_int_equal(read_log(state, "log", 0, &found), STORE_NOT_FOUND);
        redis_server_command(&server, NULL, 0, "FLUSHALL");
    }
}

/* ---------------------------------------------------------------------------------------- calls and callbacks */

static void arguments_over_a_limit_are_refused_without_a_callback(void **state)
{
    store *s = of(state)->store;
    error  err;
    answer a = {0};
    char   text[STORE_CAPABILITY_BYTES + 1];
    memset(text, 'x', sizeof text);
    span          too_long   = {text, STORE_NAME_BYTES + 1};
    store_lease   good_lease = {.id = SPAN("w"), .role = SPAN("executor"), .ttl_ms = 100}, lease;
    store_session good       = {.worker = SPAN("w")}, session;
#define REFUSED(call, says)                                                                                            \
    do {                                                                                                               \
        err = (error){0};                                                                                              \
        assert_false(call);                                                                                            \
        assert_int_equal(err.code, ERR_INVALID);                                                                       \
        if (!strstr(err.text, says))                                                                                   \
            fail_msg("\"%s\" does not say \"%s\"", err.text, says);                                                    \
    } while (0)
#define LEASE(field, value, says)                                                                                      \
    do {                                                                                                               \
        lease       = good_lease;                                                                                      \
        lease.field = value;                                                                                           \
        REFUSED(store_register(s, &lease, on_answer, &a, &err), says);                                                 \
    } while (0)
    LEASE(id, SPAN(""), "worker id is empty");
    LEASE(id, SPAN("a b"), "letters, digits");
    LEASE(id, SPAN("a:b"), "letters, digits");
    LEASE(id, too_long, "129 bytes");
    LEASE(role, ((span){text, STORE_ROLE_BYTES + 1}), "33 bytes");
    LEASE(address, too_long, "address");
    LEASE(capabilities, ((span){text, sizeof text}), "capabilities");
    LEASE(last_epoch, STORE_NUMBER_MAX + 1, "2^53");
    LEASE(ttl_ms, 0, "time to live");
    REFUSED(store_session_set(s, SPAN(""), &good, 1, on_answer, &a, &err), "session id is empty");
    REFUSED(store_session_set(s, too_long, &good, 1, on_answer, &a, &err), "session id");
    session       = good;
    session.fence = UINT64_MAX;
    REFUSED(store_session_set(s, SPAN("s"), &session, 1, on_answer, &a, &err), "fence");
    REFUSED(store_session_get(s, SPAN("s"), 0, on_answer, &a, &err), "time to live");
    uint64_t hashes[STORE_BLOCKS_MAX + 1] = {0};
    REFUSED(store_blocks_publish(s, &inventory, hashes, STORE_BLOCKS_MAX + 1, 0, 1, on_answer, &a, &err), "257");
    REFUSED(store_blocks_read(s, &inventory, STORE_BLOCK_BUCKETS, on_answer, &a, &err), "bucket 64");
    REFUSED(store_count(s, SPAN(""), 1, 1, on_answer, &a, &err), "counter");
    REFUSED(store_list(s, SPAN("a/b"), on_answer, &a, &err), "role");
    let_pass_ms(of(state), 20);
    assert_int_equal(a.n_calls, 0);
    assert_int_equal(store_n_pending(s), 0);
}

static void the_longest_arguments_work(void **state)
{
    char text[STORE_CAPABILITY_BYTES];
    memset(text, 'x', sizeof text);
    span        name  = {text, STORE_NAME_BYTES};
    answer      a     = {0};
    error       err   = {0};
    store_lease lease = {.id           = name,
                         .role         = {text, STORE_ROLE_BYTES},
                         .address      = name,
                         .capabilities = {text, sizeof text},
                         .last_epoch   = STORE_NUMBER_MAX - 1,
                         .ttl_ms       = UINT32_MAX};
    assert_true(store_register(of(state)->store, &lease, on_answer, &a, &err));
    assert_int_equal(wait_for(of(state), &a), STORE_OK);
    assert_true(a.epoch == STORE_NUMBER_MAX);
    store_inventory longest                  = {name, name, STORE_NUMBER_MAX};
    uint64_t        hashes[STORE_BLOCKS_MAX] = {0};
    publish(state, &longest, hashes, STORE_BLOCKS_MAX, 255, UINT32_MAX);
    uint8_t tier;
    assert_int_equal(read_all(state, &longest, hashes, 1, &tier), 1);
}

static void operations_over_the_bound_are_refused_and_the_others_all_answered(void **state)
{
    static answer answers[STORE_PENDING_MAX + 1];
    memset(answers, 0, sizeof answers);
    do_session_set(of(state), "warm-up", 0, "w", 5000); /* connected */
    error err;
    for (int i = 0; i < STORE_PENDING_MAX; i++)
        assert_true(store_count(of(state)->store, SPAN("n"), 1, 5000, on_answer, &answers[i], &err));
    assert_false(store_count(of(state)->store, SPAN("n"), 1, 5000, on_answer, &answers[STORE_PENDING_MAX], &err));
    assert_int_equal(err.code, ERR_OVERLOADED);
    for (int i = 0; i < STORE_PENDING_MAX; i++)
        assert_int_equal(answers[i].n_calls, 0); /* never from inside an operation */
    for (int i = 0; i < STORE_PENDING_MAX; i++) {
        assert_int_equal(wait_for(of(state), &answers[i]), STORE_OK);
        assert_int_equal(answers[i].value, i + 1);
    }
    assert_int_equal(answers[STORE_PENDING_MAX].n_calls, 0);
    assert_int_equal(store_n_pending(of(state)->store), 0);
}

typedef struct {
    store *store;
    answer last;
    int    left;
} chain;

static void count_again(void *arg, const store_reply *reply)
{
    chain *c = arg;
    assert_int_equal(reply->status, STORE_OK);
    bool is_last = --c->left == 0;
    assert_true(store_count(c->store, SPAN("chain"), 1, 5000, is_last ? on_answer : count_again,
                            is_last ? (void *)&c->last : c, NULL));
}

static void callbacks_may_hand_in_operations_and_may_be_left_out(void **state)
{
    chain c = {.store = of(state)->store, .left = 20};
    assert_true(store_count(c.store, SPAN("chain"), 1, 5000, NULL, NULL, NULL));
    assert_true(store_count(c.store, SPAN("chain"), 1, 5000, count_again, &c, NULL));
    assert_int_equal(wait_for(of(state), &c.last), STORE_OK);
    assert_int_equal(c.last.value, 22);
}

static void closing_with_operations_in_hand_makes_no_callback(void **state)
{
    answer a = {0};
    error  err;
    store *s = store_open(
        &(store_options){.url = of(state)->virtual_clock ? "memory:" : server.url, .clock = of(state)->virtual_clock},
        &err);
    assert_non_null(s);
    assert_true(store_list(s, SPAN("executor"), on_answer, &a, NULL));
    store_turn(s);
    a.n_calls = 0;
    assert_true(store_list(s, SPAN("executor"), on_answer, &a, NULL));
    store_free(&s);
    assert_int_equal(a.n_calls, 0);
}

static int run(const char *name, CMFixtureFunction open)
{
#define TEST(f)                                                                                                        \
    {                                                                                                                  \
#f, f, open, close_store, NULL                                                                                 \
    }
    const struct CMUnitTest tests[] = {
        TEST(a_worker_is_listed_while_its_lease_runs),
        TEST(renewing_keeps_a_lease),
        TEST(a_stale_epoch_can_neither_renew_nor_release),
        TEST(epochs_rise_over_all_workers_and_above_what_a_worker_remembers),
        TEST(a_list_holds_one_role_by_id),
        TEST(a_session_is_found_where_it_was_left),
        TEST(an_older_fence_is_refused_an_equal_or_newer_one_is_not),
        TEST(a_session_lives_on_while_it_is_read),
        TEST(names_may_be_any_bytes),
        TEST(an_inventory_is_read_back_bucket_by_bucket),
        TEST(another_epoch_worker_or_model_is_another_inventory),
        TEST(publishing_nothing_keeps_the_whole_inventory),
        TEST(a_counter_counts_until_its_time_is_over),
        TEST(a_log_is_read_behind_its_writer),
        TEST(a_log_about_something_else_is_refused),
        TEST(a_writer_whose_lease_ran_out_writes_nothing_more_once_another_writes),
        TEST(a_log_that_was_given_back_is_taken_at_once),
        TEST(an_entry_is_there_once_however_often_it_is_said),
        TEST(a_log_is_bounded_and_read_in_parts),
        TEST(a_log_without_its_head_or_its_entries_is_lost),
        TEST(arguments_over_a_limit_are_refused_without_a_callback),
        TEST(the_longest_arguments_work),
        TEST(operations_over_the_bound_are_refused_and_the_others_all_answered),
        TEST(callbacks_may_hand_in_operations_and_may_be_left_out),
        TEST(closing_with_operations_in_hand_makes_no_callback),
    };
    return _cmocka_run_group_tests(name, tests, COUNT(tests), NULL, NULL);
}

int main(void)
{
    int failures = run("memory", open_memory);
    redis_server_start(&server);
    failures += run("redis", open_redis);
    redis_server_end(&server);
    return failures;
}
