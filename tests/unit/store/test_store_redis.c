/* Redis going away, pausing, filling up and coming back: every operation is answered in time, and serving never waits.
 */
#include "support_calls.h"
#include "support_redis.h"

#include "base/log.h"
#include "base/metric.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A busy machine must not make a healthy server look late. An answer may be later than its deadline by a slow turn. */
enum { DEADLINE_MS = 400, SLACK_MS = 250 };

static redis_server     server;
static store_under_test t;

static int start_server(void **state)
{
    (void)state;
    server.password = NULL;
    redis_server_start(&server);
    return 0;
}

static int end_all(void **state)
{
    (void)state;
    store_free(&t.store);
    redis_server_end(&server);
    return 0;
}

static void open_store(const store_options *options)
{
    error         err;
    store_options patient = *options;
    patient.deadline_ms   = DEADLINE_MS;
    t.store               = store_open(&patient, &err);
    if (!t.store)
        fail_msg("%s", err.text);
}

static void open_default(void)
{
    open_store(&(store_options){.url = server.url});
}

static double metric_now(const char *name)
{
    return metric_value(metric_find(name, ""));
}

static void command(const char *text)
{
    redis_server_command(&server, NULL, 0, text);
}

/* Hands in one operation of each kind and waits for all. Returns how long the slowest took, and in *n_ok how many were
 * STORE_OK. */
static int64_t one_of_each(int *n_ok)
{
    static answer         answers[7];
    store_lease           lease     = {.id = SPAN("w"), .role = SPAN("executor"), .ttl_ms = 5000};
    store_session         session   = {.worker = SPAN("w")};
    store_inventory       inventory = {.model = SPAN("m"), .worker = SPAN("w"), .epoch = 1};
    static const uint64_t hash      = 7;
    int64_t               start_ms  = real_ms();
    memset(answers, 0, sizeof answers);
    assert_true(store_register(t.store, &lease, on_answer, &answers[0], NULL));
    assert_true(store_list(t.store, SPAN("executor"), on_answer, &answers[1], NULL));
    assert_true(store_session_set(t.store, SPAN("s"), &session, 5000, on_answer, &answers[2], NULL));
    assert_true(store_session_get(t.store, SPAN("s"), 5000, on_answer, &answers[3], NULL));
    assert_true(store_blocks_publish(t.store, &inventory, &hash, 1, 0, 5000, on_answer, &answers[4], NULL));
    assert_true(store_blocks_read(t.store, &inventory, 7, on_answer, &answers[5], NULL));
    assert_true(store_count(t.store, SPAN("n"), 1, 5000, on_answer, &answers[6], NULL));
    *n_ok = 0;
    for (size_t i = 0; i < COUNT(answers); i++)
        *n_ok += wait_for(&t, &answers[i]) == STORE_OK;
    return real_ms() - start_ms;
}

static void expect_all_ok(void)
{
    int n_ok;
    one_of_each(&n_ok);
    assert_int_equal(n_ok, 7);
}

static void expect_all_degraded_within(int64_t ms)
{
    int     n_ok;
    int64_t took_ms = one_of_each(&n_ok);
    assert_int_equal(n_ok, 0);
    if (took_ms > ms)
        fail_msg("took %lld ms, not %lld", (long long)took_ms, (long long)ms);
}

/* --------------------------------------------------------------------------------------------- gone and back */

static void epochs_keep_rising_across_flushall(void **state)
{
    (void)state;
    uint64_t before, after;
    open_default();
    assert_int_equal(do_register(&t, "w", "executor", 5000, &before), STORE_OK);
    command("FLUSHALL");
    assert_int_equal(do_renew(&t, "w", "executor", before, 5000), STORE_REFUSED);
    assert_int_equal(do_register(&t, "w", "executor", 5000, &after), STORE_OK);
    assert_true(after > before);
    /* Far ahead of the clock, and the counter lost: only what the worker remembers helps. */
    answer      a     = {0};
    store_lease lease = {.id = SPAN("w"), .role = SPAN("executor"), .last_epoch = after + 1000000000, .ttl_ms = 5000};
    command("FLUSHALL");
    assert_true(store_register(t.store, &lease, on_answer, &a, NULL));
    assert_int_equal(wait_for(&t, &a), STORE_OK);
    assert_true(a.epoch > lease.last_epoch);
}

static void a_killed_server_degrades_and_a_restarted_one_is_found_again(void **state)
{
    (void)state;
    uint64_t before, after;
    open_default();
    expect_all_ok();
    assert_int_equal(do_register(&t, "w", "executor", 60000, &before), STORE_OK);
    assert_true(metric_now("troupe_store_degraded") == 0);
    double outages = metric_now("troupe_store_outages_total");

    redis_server_kill(&server);
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    assert_true(store_is_degraded(t.store));
    assert_true(metric_now("troupe_store_degraded") == 1);
    for (int i = 0; i < 50; i++) {
        expect_all_degraded_within(20 + SLACK_MS);
        let_pass_ms(&t, 10);
    }
    assert_true(metric_now("troupe_store_outages_total") == outages + 1);

    redis_server_start(&server);
    wait_until_degraded_is(&t, false);
    assert_true(metric_now("troupe_store_degraded") == 0);
    assert_true(metric_now("troupe_store_outages_total") == outages + 1);
    assert_int_equal(do_renew(&t, "w", "executor", before, 5000), STORE_REFUSED);
    assert_int_equal(do_register(&t, "w", "executor", 5000, &after), STORE_OK);
    assert_true(after > before);
    expect_all_ok();
}

static void operations_in_hand_when_the_server_dies_are_all_answered(void **state)
{
    (void)state;
    static answer answers[200];
    open_default();
    expect_all_ok();
    memset(answers, 0, sizeof answers);
    kill(server.pid, SIGSTOP);
    for (size_t i = 0; i < COUNT(answers); i++)
        assert_true(store_count(t.store, SPAN("n"), 1, 5000, on_answer, &answers[i], NULL));
    for (int i = 0; i < 5; i++)
        store_turn(t.store); /* sent, unanswered */
    redis_server_kill(&server);
    int64_t start_ms = real_ms();
    for (size_t i = 0; i < COUNT(answers); i++)
        assert_int_equal(wait_for(&t, &answers[i]), STORE_DEGRADED);
    assert_true(real_ms() - start_ms < DEADLINE_MS + SLACK_MS);
    assert_int_equal(store_n_pending(t.store), 0);
}

static void an_outage_is_logged_once_and_so_is_its_end(void **state)
{
    (void)state;
    char text[65536];
    int  ends[2], saved = dup(STDERR_FILENO);
    open_default();
    expect_all_ok();
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    dup2(ends[1], STDERR_FILENO);
    redis_server_kill(&server);
    for (int i = 0; i < 30; i++) {
        int n_ok;
        one_of_each(&n_ok);
        let_pass_ms(&t, 20);
    }
    redis_server_start(&server);
    wait_until_degraded_is(&t, false);
    expect_all_ok();
    dup2(saved, STDERR_FILENO);
    ssize_t n           = read(ends[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    close(saved);
    close(ends[0]);
    close(ends[1]);
    const char *down = strstr(text, "the store is down; going on without it");
    assert_non_null(down);
    assert_null(strstr(down + 1, "the store is down"));
    const char *back = strstr(text, "the store is back");
    assert_non_null(back);
    assert_non_null(strstr(back, "outage_ms"));
    assert_null(strstr(back + 1, "the store is"));
}

static void a_server_that_never_was_there_degrades_at_once(void **state)
{
    (void)state;
    char url[64];
    snprintf(url, sizeof url, "redis://127.0.0.1:%u", free_port());
    open_store(&(store_options){.url = url});
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    assert_true(store_is_degraded(t.store));
    store_free(&t.store);
    open_store(&(store_options){.url = "unix:/nonexistent/socket"});
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    assert_true(store_is_degraded(t.store));
}

/* ------------------------------------------------------------------------------------------ there but not well */

static void a_paused_server_is_given_up_at_the_deadline(void **state)
{
    (void)state;
    static const char *const modes[] = {"CLIENT PAUSE 2500 ALL", "CLIENT PAUSE 2500 WRITE"};
    for (size_t i = 0; i < COUNT(modes); i++) {
        open_default();
        expect_all_ok();
        double outages = metric_now("troupe_store_outages_total");
        command(modes[i]);
        int64_t start_ms = real_ms();
        answer  a        = {0};
        assert_true(store_count(t.store, SPAN("n"), 1, 5000, on_answer, &a, NULL));
        assert_int_equal(wait_for(&t, &a), STORE_DEGRADED);
        int64_t took_ms = real_ms() - start_ms;
        assert_in_range(took_ms, DEADLINE_MS - 1, DEADLINE_MS + SLACK_MS);
        while (real_ms() < start_ms + 2000) {
            expect_all_degraded_within(20 + SLACK_MS);
            let_pass_ms(&t, 50);
        }
        wait_until_degraded_is(&t, false);
        expect_all_ok();
        assert_true(metric_now("troupe_store_outages_total") == outages + 1);
        store_free(&t.store);
    }
}

static void a_stopped_process_is_given_up_and_taken_back(void **state)
{
    (void)state;
    open_default();
    expect_all_ok();
    kill(server.pid, SIGSTOP);
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    for (int i = 0; i < 30; i++) {
        expect_all_degraded_within(20 + SLACK_MS);
        let_pass_ms(&t, 50); /* past the time that setting up may take */
    }
    kill(server.pid, SIGCONT);
    wait_until_degraded_is(&t, false);
    expect_all_ok();
}

static void a_full_server_degrades_writes_without_losing_the_connection(void **state)
{
    (void)state;
    answer a = {0};
    open_default();
    expect_all_ok();
    double outages = metric_now("troupe_store_outages_total"), errors = metric_now("troupe_store_errors_total");
    command("CONFIG SET maxmemory-policy noeviction");
    command("CONFIG SET maxmemory 1");
    assert_int_equal(do_register(&t, "w2", "executor", 5000, NULL), STORE_DEGRADED);
    assert_int_equal(do_session_set(&t, "s2", 1, "w", 5000), STORE_DEGRADED);
    assert_true(store_is_degraded(t.store));
    assert_int_equal(do_session_get(&t, "s", 5000, &a), STORE_OK);
    assert_true(metric_now("troupe_store_errors_total") == errors + 2);
    assert_true(metric_now("troupe_store_outages_total") == outages);
    command("CONFIG SET maxmemory 0");
    expect_all_ok();
    assert_false(store_is_degraded(t.store));
    assert_true(metric_now("troupe_store_degraded") == 0);
}

static void flushed_scripts_are_loaded_again(void **state)
{
    (void)state;
    open_default();
    expect_all_ok();
    command("SCRIPT FLUSH");
    expect_all_ok();
    assert_false(store_is_degraded(t.store));
}

static void a_connection_killed_by_the_server_is_made_anew(void **state)
{
    (void)state;
    open_default();
    expect_all_ok();
    command("CLIENT KILL TYPE normal");
    let_pass_ms(&t, 20);
    wait_until_degraded_is(&t, false);
    expect_all_ok();
}

/* A listening socket of our own that accepts one connection at a time and says `greeting` to it. */
static int listener(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          length  = sizeof address;
    int                fd      = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void without_another_deadline_an_answer_comes_within_50_ms(void **state)
{
    (void)state;
    uint16_t port;
    int      fd = listener(&port);
    char     url[64];
    answer   a = {0};
    error    err;
    snprintf(url, sizeof url, "redis://127.0.0.1:%u", port);
    t.store          = store_open(&(store_options){.url = url}, &err);
    int64_t start_ms = real_ms();
    assert_true(store_list(t.store, SPAN("executor"), on_answer, &a, NULL));
    assert_int_equal(wait_for(&t, &a), STORE_DEGRADED);
    int64_t took_ms = real_ms() - start_ms;
    assert_in_range(took_ms, 49, 50 + SLACK_MS);
    close(fd);
}

static void a_peer_that_is_silent_or_talks_nonsense_only_degrades(void **state)
{
    (void)state;
    static const char *const greetings[] = {
        "",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "-ERR max number of clients reached\r\n",
        "*-7\r\n$999999999999\r\n",
        ":1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n", /* good set-up, odd replies */
        "*1184467440\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    };
    for (size_t i = 0; i < COUNT(greetings); i++) {
        uint16_t port;
        int      fd = listener(&port), peer = -1;
        char     url[64];
        answer   a = {0};
        snprintf(url, sizeof url, "redis://127.0.0.1:%u", port);
        open_store(&(store_options){.url = url});
        for (int round = 0; round < 10; round++) {
            a.n_calls = 0;
            assert_true(store_list(t.store, SPAN("executor"), on_answer, &a, NULL));
            let_pass_ms(&t, 5);
            int next = accept(fd, NULL, NULL);
            if (next >= 0) {
                close(peer);
                peer = next;
                assert_int_equal(write(peer, greetings[i], strlen(greetings[i])), strlen(greetings[i]));
            }
            assert_int_equal(wait_for(&t, &a), STORE_DEGRADED);
        }
        store_free(&t.store);
        close(peer);
        close(fd);
    }
}

/* ------------------------------------------------------------------------------------------- finding and proving */

static void a_host_name_is_looked_up_without_blocking_a_turn(void **state)
{
    (void)state;
    char url[96];
    snprintf(url, sizeof url, "redis://localhost:%u", server.port);
    open_store(&(store_options){.url = url});
    let_pass_ms(&t, 200);
    expect_all_ok();
    store_free(&t.store);
    open_store(&(store_options){.url = "redis://no-such-host.invalid:6379"});
    for (int i = 0; i < 20; i++) {
        int64_t start_ms = real_ms();
        store_turn(t.store);
        assert_true(real_ms() - start_ms < SLACK_MS);
        let_pass_ms(&t, 5);
    }
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
}

static void a_unix_socket_and_a_database_number_work(void **state)
{
    (void)state;
    char url[128];
    snprintf(url, sizeof url, "unix:%s", server.socket_path);
    open_store(&(store_options){.url = url});
    expect_all_ok();
    store_free(&t.store);
    command("FLUSHALL");
    snprintf(url, sizeof url, "%s/3", server.url);
    open_store(&(store_options){.url = url, .key_prefix = "blue"});
    expect_all_ok();
    assert_int_equal(redis_server_command(&server, NULL, 0, "DBSIZE"), 0);
    char text[64];
    redis_server_command(&server, text, sizeof text,
                         "EVAL redis.call('SELECT',3)return(redis.call('GET','blue:{wk}:epoch')) 0");
    assert_true(strtoull(text, NULL, 10) > 0);
    store_free(&t.store);
    snprintf(url, sizeof url, "%s/99", server.url); /* there are 16 */
    open_store(&(store_options){.url = url});
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    wait_until_degraded_is(&t, true);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_password_comes_from_a_file_that_may_be_corrected(void **state)
{
    (void)state;
    char  path[128], url[96];
    error err;
    snprintf(path, sizeof path, "%s/log", server.folder);
    unlink(path); /* the only name the server's folder is cleaned of */
    command("CONFIG SET requirepass s3cret");
    server.password = "s3cret";

    open_default(); /* without a password */
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    store_free(&t.store);

    write_file(path, "wrong\n");
    open_store(&(store_options){.url = server.url, .password_file = path});
    expect_all_degraded_within(DEADLINE_MS + SLACK_MS);
    wait_until_degraded_is(&t, true);
    write_file(path, "s3cret\n");
    wait_until_degraded_is(&t, false);
    expect_all_ok();
    store_free(&t.store);

    command("ACL SETUSER troupe on >w0rd ~* &* +@all");
    write_file(path, "w0rd");
    snprintf(url, sizeof url, "redis://troupe@127.0.0.1:%u", server.port);
    open_store(&(store_options){.url = url, .password_file = path});
    expect_all_ok();
    store_free(&t.store);

    unlink(path);
    assert_null(store_open(&(store_options){.url = server.url, .password_file = path}, &err));
    assert_non_null(strstr(err.text, path));
    write_file(path, "\n");
    assert_null(store_open(&(store_options){.url = server.url, .password_file = path}, &err));
    assert_non_null(strstr(err.text, "empty"));
    assert_null(store_open(&(store_options){.url = url}, &err));
    assert_non_null(strstr(err.text, "password file"));
}

/* ------------------------------------------------------------------------------------------------ what is kept */

static void every_key_but_the_epoch_counter_dies_by_itself(void **state)
{
    (void)state;
    open_default();
    expect_all_ok();
    char      key[256];
    long long n_keys = redis_server_command(&server, NULL, 0, "KEYS *");
    assert_int_equal(n_keys, 6);
    static const char *const keys[] = {"troupe:{wk}:id:w", "troupe:{wk}:role:executor", "troupe:ss:s",
                                       "troupe:inv:{m:w.1}:7", "troupe:n:n"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        snprintf(key, sizeof key, "PTTL %s", keys[i]);
        assert_in_range(redis_server_command(&server, NULL, 0, key), 1, 5000);
    }
    assert_int_equal(redis_server_command(&server, NULL, 0, "PTTL troupe:{wk}:epoch"), -1);
}

static void a_bucket_of_128_blocks_stays_a_compact_listpack(void **state)
{
    (void)state;
    uint64_t        hashes[STORE_BLOCKS_MAX];
    store_inventory inventory = {.model = SPAN("m"), .worker = SPAN("w"), .epoch = 1};
    answer          a         = {0};
    char            encoding[32];
    open_default();
    for (uint64_t i = 0; i < 128; i++)
        hashes[i] = (i << 32 | 0x9E3779B9) * STORE_BLOCK_BUCKETS;
    assert_true(store_blocks_publish(t.store, &inventory, hashes, 128, 0, 5000, on_answer, &a, NULL));
    assert_int_equal(wait_for(&t, &a), STORE_OK);
    assert_int_equal(redis_server_command(&server, NULL, 0, "HLEN troupe:inv:{m:w.1}:0"), 128);
    redis_server_command(&server, encoding, sizeof encoding, "OBJECT ENCODING troupe:inv:{m:w.1}:0");
    assert_string_equal(encoding, "listpack");
    assert_true(redis_server_command(&server, NULL, 0, "MEMORY USAGE troupe:inv:{m:w.1}:0") / 128 < 20);
}

static void two_stores_see_each_other(void **state)
{
    (void)state;
    answer           a = {0};
    error            err;
    store_under_test other = {.store =
                                  store_open(&(store_options){.url = server.url, .deadline_ms = DEADLINE_MS}, &err)};
    uint64_t         epoch, newer;
    open_default();
    assert_int_equal(do_register(&t, "w", "executor", 5000, &epoch), STORE_OK);
    assert_int_equal(do_list(&other, "executor", &a), STORE_OK);
    assert_int_equal(a.n_workers, 1);
    assert_true(a.workers[0].epoch == epoch);
    assert_int_equal(do_register(&other, "w", "executor", 5000, &newer), STORE_OK);
    assert_int_equal(do_renew(&t, "w", "executor", epoch, 5000), STORE_REFUSED);
    assert_int_equal(do_session_set(&t, "s", 2, "w", 5000), STORE_OK);
    assert_int_equal(do_session_set(&other, "s", 1, "x", 5000), STORE_REFUSED);
    store_free(&other.store);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start_server, end_all)
    const struct CMUnitTest tests[] = {
        TEST(epochs_keep_rising_across_flushall),
        TEST(a_killed_server_degrades_and_a_restarted_one_is_found_again),
        TEST(operations_in_hand_when_the_server_dies_are_all_answered),
        TEST(an_outage_is_logged_once_and_so_is_its_end),
        TEST(a_server_that_never_was_there_degrades_at_once),
        TEST(a_paused_server_is_given_up_at_the_deadline),
        TEST(a_stopped_process_is_given_up_and_taken_back),
        TEST(a_full_server_degrades_writes_without_losing_the_connection),
        TEST(flushed_scripts_are_loaded_again),
        TEST(a_connection_killed_by_the_server_is_made_anew),
        TEST(without_another_deadline_an_answer_comes_within_50_ms),
        TEST(a_peer_that_is_silent_or_talks_nonsense_only_degrades),
        TEST(a_host_name_is_looked_up_without_blocking_a_turn),
        TEST(a_unix_socket_and_a_database_number_work),
        TEST(a_password_comes_from_a_file_that_may_be_corrected),
        TEST(every_key_but_the_epoch_counter_dies_by_itself),
        TEST(a_bucket_of_128_blocks_stays_a_compact_listpack),
        TEST(two_stores_see_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
