/* The runtime on real threads, over the in-process transports. */
#include "support_scene.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    bus   *bus;
    player scheduler, drafter;
    actor *listening, *calling;
} scene;

#ifdef __SANITIZE_THREAD__
static const char *const endpoints[] = {"queue://drafts"}; /* libzmq is not instrumented: its locks are invisible */
#else
static const char *const endpoints[] = {"queue://drafts", "inproc://drafts"};
#endif

static void open_drafter(scene *s, const char *endpoint)
{
    error         err;
    actor_options options = {.connect = {endpoint}, .credits = 16, .bus = s->bus};
    s->drafter.answers    = true;
    s->calling            = actor_new(&drafter_class, &s->drafter, &options, &err);
    assert_non_null(s->calling);
    assert_true(actor_start(s->calling, &err));
}

static void open_scheduler(scene *s, const char *endpoint)
{
    error         err;
    actor_options options = {.bind = {endpoint}, .credits = 4, .bus = s->bus};
    s->listening          = actor_new(&scheduler_class, &s->scheduler, &options, &err);
    if (!s->listening)
        fail_msg("%s", err.text);
    assert_true(actor_start(s->listening, &err));
}

static void close_actor(actor **a)
{
    if (*a) {
        actor_stop(*a);
        actor_join(*a);
        actor_free(a);
    }
}

static void close_scene(scene *s)
{
    close_actor(&s->calling);
    close_actor(&s->listening);
    assert_int_equal(s->scheduler.n_up, s->scheduler.n_down);
    assert_int_equal(s->drafter.n_up, s->drafter.n_down);
    bus_free(&s->bus);
}

static void open_bus(scene *s)
{
    *s     = (scene){0};
    s->bus = bus_new(NULL, NULL);
    assert_non_null(s->bus);
}

static void requests_and_replies_arrive_in_order_under_credit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(endpoints); i++) {
        scene s;
        open_bus(&s);
        s.scheduler.requests_to_send = 5000;
        open_drafter(&s, endpoints[i]); /* before there is anybody to connect to */
        open_scheduler(&s, endpoints[i]);
        wait_for_count(&s.scheduler.n_replies, 5000);
        close_scene(&s);
        assert_int_equal(s.drafter.n_requests, 5000);
        assert_int_equal(s.drafter.n_out_of_order, 0);
        assert_int_equal(s.scheduler.n_out_of_order, 0);
        assert_int_equal(s.scheduler.n_up, 1);
        assert_int_equal(s.drafter.n_refused, 0);
        assert_int_equal(s.scheduler.n_refused, 0);
    }
}

static void a_round_trip_waits_for_no_timer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(endpoints); i++) {
        scene s;
        open_bus(&s);
        s.scheduler.requests_to_send = 20000;
        open_scheduler(&s, endpoints[i]);
        error         err;
        actor_options options = {
            .connect = {endpoints[i]}, .credits = 1, .bus = s.bus}; /* one in flight: a ping-pong */
        s.drafter.answers = true;
        s.calling         = actor_new(&drafter_class, &s.drafter, &options, &err);
        assert_non_null(s.calling);
        assert_true(actor_start(s.calling, &err));
        wait_for_count(&s.scheduler.n_replies, 1);
        struct timespec before, after;
        uint32_t        first = s.scheduler.n_replies;
        clock_gettime(CLOCK_MONOTONIC, &before);
        wait_for_count(&s.scheduler.n_replies, 20000);
        clock_gettime(CLOCK_MONOTONIC, &after);
        double us = ((double)(after.tv_sec - before.tv_sec) * 1e9 + (double)(after.tv_nsec - before.tv_nsec)) / 1e3 /
                    (20000 - first);
        print_message("%s: %.1f us a request, reply and credit\n", endpoints[i], us);
        assert_true(us < 5000);
        close_scene(&s);
    }
}

static void a_server_that_comes_back_is_found_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(endpoints); i++) {
        scene s;
        open_bus(&s);
        open_scheduler(&s, endpoints[i]);
        open_drafter(&s, endpoints[i]);
        for (uint32_t round = 1; round <= 3; round++) {
            wait_for_count(&s.drafter.n_up, round);
            close_actor(&s.listening);
            wait_for_count(&s.drafter.n_down, round);
            open_scheduler(&s, endpoints[i]);
        }
        wait_for_count(&s.drafter.n_up, 4);
        close_scene(&s);
    }
}

static void draining_waits_for_the_service_and_says_bye(void **state)
{
    (void)state;
    scene s;
    open_bus(&s);
    open_scheduler(&s, endpoints[0]);
    s.drafter.keeps_requests = true;
    open_drafter(&s, endpoints[0]);
    wait_for_count(&s.scheduler.n_up, 1);
    actor_drain(s.calling);
    wait_for_count(&s.drafter.n_drains, 1);
    assert_int_equal(s.scheduler.n_down, 0);
    actor_stop(s.calling); /* the second Ctrl-C */
    wait_for_count(&s.scheduler.n_down, 1);
    close_scene(&s);
}

static void a_missing_route_is_an_error_at_start(void **state)
{
    (void)state;
    static const actor_route routes[] = {{MSG_DRAFT_REQUEST, actor_ignore}};
    actor_class class                 = drafter_class;
    player        p                   = {0};
    error         err;
    actor_options options = {.bus = bus_new(NULL, NULL)};
    class.routes          = routes;
    class.n_routes        = COUNT(routes);
    assert_null(actor_new(&class, &p, &options, &err));
    assert_non_null(strstr(err.text, "draft.forget"));
    static const actor_route wrong[] = {
        {MSG_DRAFT_REQUEST, actor_ignore}, {MSG_DRAFT_FORGET, actor_ignore}, {MSG_STEP_PLAN, actor_ignore}};
    class.routes   = wrong;
    class.n_routes = COUNT(wrong);
    assert_null(actor_new(&class, &p, &options, &err));
    assert_non_null(strstr(err.text, "no drafter receives"));
    bus_free(&options.bus);
}

static void what_cannot_be_opened_or_created_is_an_error(void **state)
{
    (void)state;
    error         err;
    player        p = {.fails_to_create = true}, q = {0};
    actor_options options = {.bus = bus_new(NULL, NULL), .bind = {"queue://taken"}};
    assert_null(actor_new(&drafter_class, &p, &options, &err));
    assert_string_equal(err.text, "told to fail");
    actor *first = actor_new(&drafter_class, &q, &options, &err);
    assert_non_null(first);
    assert_null(actor_new(&drafter_class, &q, &options, &err));
    assert_non_null(strstr(err.text, "queue://taken is bound already"));
    options.bind[0] = "smoke://signals";
    assert_null(actor_new(&drafter_class, &q, &options, &err));
    options.bind[0] = "tcp://127.0.0.1:*";
    assert_null(actor_new(&drafter_class, &q, &options, &err));
    assert_int_equal(err.code, ERR_UNAUTHORIZED); /* no keys, and nobody said insecure */
    actor_free(&first);
    bus_free(&options.bus);
}

static void note_readable(void *arg, short events)
{
    uint64_t n;
    assert_int_equal(events & POLLIN, POLLIN);
    assert_int_equal(read(((int *)arg)[0], &n, sizeof n), sizeof n);
    ((int *)arg)[1]++;
}

static void a_watched_descriptor_is_served_until_it_is_forgotten(void **state)
{
    (void)state;
    error         err;
    player        p       = {0};
    actor_options options = {.bus = bus_new(NULL, NULL), .bind = {"queue://x"}};
    actor        *a       = actor_new(&drafter_class, &p, &options, &err);
    int           fd[2]   = {eventfd(0, EFD_NONBLOCK), 0};
    actor_watch(a, fd[0], POLLIN, note_readable, fd);
    actor_turn(a);
    assert_int_equal(fd[1], 0);
    assert_int_equal(write(fd[0], &(uint64_t){1}, 8), 8);
    actor_turn(a);
    assert_int_equal(fd[1], 1);
    actor_watch(a, fd[0], 0, NULL, NULL);
    assert_int_equal(write(fd[0], &(uint64_t){1}, 8), 8);
    actor_turn(a);
    assert_int_equal(fd[1], 1);
    close(fd[0]);
    actor_free(&a);
    bus_free(&options.bus);
}

static void a_wake_from_another_thread_gives_a_turn(void **state)
{
    (void)state;
    scene s;
    open_bus(&s);
    open_scheduler(&s, endpoints[0]);
    wait_for_count(&s.scheduler.n_turns, 1);
    for (int i = 0; i < 100; i++) {
        uint32_t before = s.scheduler.n_turns;
        actor_wake(s.listening);
        wait_for_count(&s.scheduler.n_turns, before + 1);
    }
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    assert_true(s.scheduler.n_turns < 1000); /* and it sleeps in between */
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_replies_arrive_in_order_under_credit),
        cmocka_unit_test(a_round_trip_waits_for_no_timer),
        cmocka_unit_test(a_server_that_comes_back_is_found_again),
        cmocka_unit_test(draining_waits_for_the_service_and_says_bye),
        cmocka_unit_test(a_missing_route_is_an_error_at_start),
        cmocka_unit_test(what_cannot_be_opened_or_created_is_an_error),
        cmocka_unit_test(a_watched_descriptor_is_served_until_it_is_forgotten),
        cmocka_unit_test(a_wake_from_another_thread_gives_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
