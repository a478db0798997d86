/* Peers that are processes of their own: one that stops reading, and one that is killed. What is sent to them must
 * neither block nor abort us, and they must be found dead.
 *
 * libzmq 4.3.4 aborts the process when its own (ZMTP) heartbeats meet a full queue; so those are never switched on. */
#include "support_scene.h"

#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void be_the_worker(const char *endpoint)
{
    error         err;
    player        self    = {.answers = true};
    actor_options options = {.connect       = {endpoint},
                             .credits       = 4,
                             .bus           = bus_new(&(bus_options){.insecure = true}, &err),
                             .heartbeat_ms  = 100,
                             .dead_after_ms = 300};
    actor        *worker  = actor_new(&drafter_class, &self, &options, &err);
    if (worker)
        actor_run(worker);
    _exit(1);
}

static void flood_one_peer(void *arg, peer *p)
{
    error err;
    for (uint32_t i = 0; i < 200; i++)
        if (!actor_send(arg, p, MSG_DRAFT_FORGET, &draft_forget_defaults, NULL, &err))
            return;
}

static void flood(void *self)
{
    player *p = self;
    p->n_turns++;
    if (p->requests_to_send) /* as long as the test wants */
        actor_each_peer(p->actor, ROLE_DRAFTER, flood_one_peer, p->actor);
    actor_wake(p->actor);
}

static void a_stopped_worker_is_flooded_declared_dead_and_taken_back(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", 26000 + (int)getpid() % 3000);
    pid_t worker = fork(); /* before there is a ZeroMQ context */
    if (worker == 0)
        be_the_worker(endpoint);
    assert_true(worker > 0);
    error  err;
    player self           = {.requests_to_send = 1};
    actor_class class     = scheduler_class;
    actor_options options = {.bind          = {endpoint},
                             .bus           = bus_new(&(bus_options){.insecure = true}, &err),
                             .heartbeat_ms  = 100,
                             .dead_after_ms = 300};
    class.on_turn         = flood;
    class.on_peer_up      = drafter_class.on_peer_up;
    class.on_credit       = NULL;
    actor *scheduler      = actor_new(&class, &self, &options, &err);
    if (!scheduler)
        fail_msg("%s", err.text);
    assert_true(actor_start(scheduler, &err));
    for (uint32_t round = 1; round <= 3; round++) {
        wait_for_count(&self.n_up, round);
        kill(worker, SIGSTOP);
        wait_for_count(&self.n_down, round);
        kill(worker, SIGCONT);
    }
    wait_for_count(&self.n_up, 4);
    assert_int_equal(waitpid(worker, NULL, WNOHANG), 0); /* nor has it aborted */
    kill(worker, SIGKILL);
    waitpid(worker, NULL, 0);
    wait_for_count(&self.n_down, 4);
    actor_stop(scheduler);
    actor_join(scheduler);
    actor_free(&scheduler);
    bus_free(&options.bus);
}

__attribute__((noreturn)) static void be_the_server(const char *endpoint)
{
    error         err;
    player        self      = {0};
    actor_options options   = {.bind          = {endpoint},
                               .bus           = bus_new(&(bus_options){.insecure = true}, &err),
                               .heartbeat_ms  = 100,
                               .dead_after_ms = 300};
    actor        *scheduler = actor_new(&scheduler_class, &self, &options, &err);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (scheduler)
        actor_run(scheduler);
    _exit(1);
}

/* Runs servers one after the other and kills each but the last. It is a process of its own, for nothing may fork once
 * ZeroMQ has threads. */
__attribute__((noreturn)) static void kill_servers(const char *endpoint)
{
    for (int round = 0;; round++) {
        pid_t server = fork();
        if (server == 0)
            be_the_server(endpoint);
        if (round == 2)
            waitpid(server, NULL, 0);
        usleep(1500000);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
}

static void a_killed_server_process_is_noticed_and_found_again(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    char endpoints[2][64];
    snprintf(endpoints[0], sizeof endpoints[0], "tcp://127.0.0.1:%d", 29000 + (int)getpid() % 3000);
    snprintf(endpoints[1], sizeof endpoints[1], "ipc:///tmp/troupe-test-flood-%d", (int)getpid());
    pid_t nannies[2];
    for (size_t i = 0; i < 2; i++) {
        nannies[i] = fork();
        if (nannies[i] == 0)
            kill_servers(endpoints[i]);
        assert_true(nannies[i] > 0);
    }
    error         err;
    player        self[2]   = {{0}, {0}};
    actor        *worker[2] = {NULL, NULL};
    actor_options options   = {
          .bus = bus_new(&(bus_options){.insecure = true}, &err), .heartbeat_ms = 100, .dead_after_ms = 300};
    for (size_t i = 0; i < 2; i++) {
        options.connect[0] = endpoints[i];
        worker[i]          = actor_new(&drafter_class, &self[i], &options, &err);
        assert_non_null(worker[i]);
        assert_true(actor_start(worker[i], &err));
    }
    for (size_t i = 0; i < 2; i++)
        wait_for_count(&self[i].n_up, 3);
    for (size_t i = 0; i < 2; i++) {
        kill(nannies[i], SIGKILL); /* and with it the last server */
        waitpid(nannies[i], NULL, 0);
        wait_for_count(&self[i].n_down, 3);
        actor_stop(worker[i]);
        actor_join(worker[i]);
        actor_free(&worker[i]);
        assert_int_equal(self[i].n_up, self[i].n_down);
    }
    bus_free(&options.bus);
    unlink(endpoints[1] + strlen("ipc://"));
}

/* Split, or this file would find itself. */
static const char forbidden[] = "ZMQ_HEARTBEAT"
                                "_IVL";

static int look_for_heartbeats(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)place;
    char   line[4096];
    size_t n = strlen(path);
    if (kind != FTW_F || n < 2 || path[n - 2] != '.' || (path[n - 1] != 'c' && path[n - 1] != 'h'))
        return 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    bool found = false;
    while (!found && fgets(line, sizeof line, file))
        found = strstr(line, forbidden) != NULL;
    fclose(file);
    if (found)
        print_error("%s sets %s, which aborts the process when a queue is full\n", path, forbidden);
    return found;
}

static void no_source_switches_zmtp_heartbeats_on(void **state)
{
    (void)state;
    static const char *const folders[] = {TESTS_DIR "/../libllm", TESTS_DIR "/../services"};
    for (size_t i = 0; i < COUNT(folders); i++)
        assert_int_equal(nftw(folders[i], look_for_heartbeats, 16, FTW_PHYS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_worker_is_flooded_declared_dead_and_taken_back),
        cmocka_unit_test(a_killed_server_process_is_noticed_and_found_again),
        cmocka_unit_test(no_source_switches_zmtp_heartbeats_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
