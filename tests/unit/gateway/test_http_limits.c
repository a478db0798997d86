/* Clients that leave, drip, crowd or stay too long, and a server that leaves. */
#include "support_http.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

static void on_drained(void *context)
{
    ((fixture *)context)->n_drained++;
}

/* ---- clients that leave ---- */

static void a_client_that_leaves_while_its_request_waits_is_noticed(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    pump_until(f, c, 1000, f->last != 0);
    pump_for(f, c, 20);
    assert_int_equal(0, f->n_gone);
    int64_t left_ns = clock_now_ns(clock_system());
    close(c->fd);
    c->fd = -1;
    pump_until(f, NULL, 1000, f->n_gone == 1);
    assert_in_range((f->gone_at_ns - left_ns) / NS_PER_MS, 0, 100);
    assert_int_equal(HTTP_GONE_LEFT, f->gone_why);
    assert_ptr_equal(&owner_of_all, f->gone_owner);
    assert_int_equal(f->last, f->gone_handle);
    assert_false(http_respond(f->server, f->last, &(http_reply){.status = 200}));
    assert_false(http_attach(f->server, f->last, NULL));
    assert_int_equal(HTTP_WRITE_GONE, http_stream_write(f->server, f->last, SPAN("x")));
    client_free(c);
}

static void a_client_that_leaves_behind_a_full_pipeline_is_noticed(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    char    more[90000]; /* over what is read ahead, so that reading has stopped */
    memset(more, 'x', sizeof more);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, f->last != 0);
    send_bytes(c, more, sizeof more);
    pump_for(f, c, 20);
    int64_t left_ns = clock_now_ns(clock_system());
    shutdown(c->fd, SHUT_WR);
    pump_until(f, NULL, 1000, f->n_gone == 1);
    assert_in_range((f->gone_at_ns - left_ns) / NS_PER_MS, 0, 100);
    client_free(c);
}

static void a_client_that_resets_while_it_streams_is_noticed(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n"));
    assert_int_equal(HTTP_WRITE_OK, http_stream_write(f->server, f->last, SPAN("data: 1\n\n")));
    pump_until(f, c, 1000, has(c, "data: 1"));
    struct linger reset = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->fd);
    c->fd = -1;
    pump_until(f, NULL, 100, f->n_gone == 1);
    assert_int_equal(HTTP_GONE_LEFT, f->gone_why);
    client_free(c);
}

static void a_half_close_is_gone_unless_the_option_says_otherwise(void **state)
{
    fixture *f                    = *state;
    f->options.half_close_is_gone = false;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(c->fd, SHUT_WR);
    pump_for(f, c, 50);
    assert_int_equal(0, f->n_gone);
    assert_true(http_respond(f->server, f->last, &(http_reply){.status = 200, .body = SPAN("late")}));
    pump_until(f, c, 1000, c->closed);
    assert_true(has(c, "late") && has(c, "GET /next?"));
    client_free(c);
}

static void a_request_whose_client_left_at_once_is_not_delivered(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    shutdown(c->fd, SHUT_WR);
    pump_until(f, c, 1000, c->closed);
    assert_int_equal(f->n_requests, f->n_gone); /* or it was, and then it was taken back */
    client_free(c);
}

/* ---- deadlines ---- */

static void a_dripping_head_is_cut_at_the_absolute_deadline(void **state)
{
    fixture *f         = *state;
    f->options.head_ms = 200;
    start(f);
    client           *c      = client_new(f);
    static const char head[] = "GET / HTTP/1.1\r\nHost: a\r\nX-Long: 0123456789012345678901234567890123456789";
    int64_t           begun  = clock_now_ns(clock_system());
    for (size_t i = 0; i < sizeof head - 1 && !c->closed; i++) {
        send(c->fd, head + i, 1, MSG_NOSIGNAL); /* never silent for long */
        pump_for(f, c, 10);
    }
    assert_true(c->closed);
    assert_in_range(ms_since(begun), 190, 2000);
    assert_true(has(c, "HTTP/1.1 408 Request Timeout\r\n"));
    assert_int_equal(0, f->n_requests);
    client_free(c);
}

static void a_dripping_body_is_cut_and_a_steady_one_passes(void **state)
{
    fixture *f                  = *state;
    f->options.body_ms          = 100;
    f->options.body_bytes_per_s = 10000;
    start(f);
    static const char head[] = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n";
    char              bytes[500];
    memset(bytes, 'x', sizeof bytes);
    client *drip  = client_new(f);
    int64_t begun = clock_now_ns(clock_system());
    send_text(drip, head);
    while (!drip->closed && ms_since(begun) < 1000) {
        send(drip->fd, "x", 1, MSG_NOSIGNAL);
        pump_for(f, drip, 5);
    }
    assert_true(has(drip, "HTTP/1.1 408 "));
    assert_in_range(ms_since(begun), 90, 2000);
    client_free(drip);

    client *steady = client_new(f);
    begun          = clock_now_ns(clock_system());
    send_text(steady, head);
    for (int i = 0; i < 20; i++) {
        send_bytes(steady, bytes, sizeof bytes);
        pump_for(f, steady, 20); /* 25 kB/s */
    }
    pump_until(f, steady, 1000, f->n_requests == 1);
    assert_true(ms_since(begun) > 200); /* it took longer than body_ms */
    client_free(steady);
}

static void silent_connections_are_closed_without_a_word(void **state)
{
    fixture *f         = *state;
    f->options.head_ms = f->options.idle_ms = 100;
    start(f);
    client *mute = client_new(f);
    pump_until(f, mute, 1000, mute->closed);
    assert_int_equal(0, mute->in_size);
    client_free(mute);

    client *idle = client_new(f);
    send_text(idle, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, idle, 1000, has(idle, "GET /a?"));
    size_t  answered = idle->in_size;
    int64_t begun    = clock_now_ns(clock_system());
    pump_until(f, idle, 1000, idle->closed);
    assert_in_range(ms_since(begun), 80, 2000);
    assert_int_equal(answered, idle->in_size);
    client_free(idle);
}

static void a_waiting_request_has_no_deadline_of_the_connection(void **state)
{
    fixture *f         = *state;
    f->options.head_ms = f->options.body_ms = f->options.idle_ms = f->options.stall_ms = 40;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_for(f, c, 200);
    assert_true(http_respond(f->server, f->last, &(http_reply){.status = 200, .body = SPAN("late")}));
    pump_until(f, c, 1000, has(c, "late"));
    client_free(c);
}

/* ---- limits ---- */

static void at_the_connection_limit_new_ones_wait_until_one_closes(void **state)
{
    fixture *f             = *state;
    f->options.connections = 3;
    start(f);
    client *c[5];
    for (size_t i = 0; i < COUNT(c); i++) {
        c[i] = client_new(f); /* the kernel completes these connections */
        send_text(c[i], "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        pump_for(f, c[i], 20);
        assert_int_equal(i < 3, has(c[i], "GET /a?"));
    }
    assert_int_equal(3, http_server_n_connections(f->server));
    client_free(c[0]);
    pump_until(f, c[3], 1000, has(c[3], "GET /a?"));
    client_free(c[1]);
    pump_until(f, c[4], 1000, has(c[4], "GET /a?"));
    for (size_t i = 2; i < COUNT(c); i++)
        client_free(c[i]);
}

static void running_out_of_file_descriptors_only_pauses_accepting(void **state)
{
    fixture *f = *state;
    start(f);
    metric       *paused = metric_find("troupe_http_accept_paused_total", "cause=\"system\"");
    double        before = metric_value(paused);
    struct rlimit usual, none;
    client       *c = client_new(f); /* its connection waits in the kernel */
    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &usual));
    none          = usual;
    none.rlim_cur = (rlim_t)c->fd + 1;
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &none));
    log_set_level(LOG_OFF);
    pump_for(f, NULL, 50);
    log_set_level(LOG_INFO);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &usual));
    assert_true(metric_value(paused) == before + 1);
    assert_int_equal(0, http_server_n_connections(f->server));
    send_text(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "GET /a?"));
    client_free(c);
}

static void one_peer_gets_only_its_share_of_connections(void **state)
{
    fixture *f                      = *state;
    f->options.connections_per_peer = 2;
    start(f);
    client *c[3];
    for (size_t i = 0; i < COUNT(c); i++) {
        c[i] = client_new(f);
        pump_for(f, c[i], 10);
        assert_int_equal(i == 2, c[i]->closed);
    }
    client_free(c[0]);
    pump_until(f, NULL, 1000, http_server_n_connections(f->server) == 1);
    client *late = client_new(f);
    send_text(late, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, late, 1000, has(late, "GET /a?"));
    client_free(c[1]), client_free(c[2]), client_free(late);
}

static void request_memory_is_bounded_for_all_connections_together(void **state)
{
    fixture *f                      = *state;
    f->options.request_memory_bytes = 50000;
    start(f);
    static const char head[] = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 45000\r\n\r\n";
    char              part[40000];
    memset(part, 'x', sizeof part);
    client *first = client_new(f), *second = client_new(f);
    send_text(first, head);
    send_bytes(first, part, 30000);
    pump_for(f, first, 20);
    send_text(second, head);
    send_bytes(second, part, 30000);
    pump_until(f, second, 1000, has(second, "HTTP/1.1 503 Service Unavailable\r\n"));
    assert_true(has(second, "Retry-After: 1\r\n"));
    client_free(first);
    pump_until(f, second, 1000, second->closed);
    client_free(second);
    /* and it is given back */
    client *third = client_new(f);
    send_text(third, head);
    send_bytes(third, part, 40000);
    send_bytes(third, part, 5000);
    pump_until(f, third, 1000, f->n_requests == 1);
    client_free(third);
}

static void many_clients_stream_at_once(void **state)
{
    enum { CLIENTS = 500 };
    fixture *f = *state;
    start(f);
    static int        fds[CLIENTS];
    http_handle       handles[CLIENTS];
    static const char request[] = "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = connect_to(f);
        assert_int_equal(sizeof request - 1, send(fds[i], request, sizeof request - 1, 0));
        pump_until(f, NULL, 1000, f->n_requests == (uint32_t)i + 1);
        handles[i] = f->last;
    }
    for (int turn_number = 0; turn_number < 20; turn_number++) {
        for (int i = 0; i < CLIENTS; i++)
            http_stream_write(f->server, handles[i], SPAN("data: token\n\n"));
        pump_for(f, NULL, 0);
    }
    for (int i = 0; i < CLIENTS; i += 2)
        close(fds[i]);
    pump_until(f, NULL, 2000, f->n_gone == CLIENTS / 2);
    for (int i = 1; i < CLIENTS; i += 2) {
        char in[4096];
        assert_true(http_stream_end(f->server, handles[i]));
        pump_for(f, NULL, 0);
        ssize_t n = recv(fds[i], in, sizeof in - 1, 0);
        assert_true(n > 20 * 13);
        assert_memory_equal("0\r\n\r\n", in + n - 5, 5);
        close(fds[i]);
    }
    pump_until(f, NULL, 2000, http_server_n_connections(f->server) == 0);
}

/* ---- draining and freeing ---- */

static void draining_closes_the_idle_and_lets_the_running_finish(void **state)
{
    fixture *f = *state;
    start(f);
    client *idle = client_new(f), *fresh = client_new(f), *waiting = client_new(f);
    send_text(idle, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, idle, 1000, has(idle, "GET /a?"));
    send_text(waiting, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, waiting, 1000, f->last != 0);
    http_server_drain(f->server, on_drained, f);
    pump_until(f, idle, 1000, idle->closed);
    pump_until(f, fresh, 1000, fresh->closed);
    assert_int_equal(0, f->n_drained);
    int                fd      = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family      = AF_INET,
                                  .sin_port        = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(-1, connect(fd, (struct sockaddr *)&address, sizeof address));
    close(fd);

    assert_true(http_respond(f->server, f->last, &(http_reply){.status = 200, .body = SPAN("late")}));
    pump_until(f, waiting, 1000, waiting->closed);
    assert_true(has(waiting, "late") && has(waiting, "Connection: close"));
    client_free(waiting);
    pump_until(f, NULL, 1000, f->n_drained == 1);
    client_free(idle), client_free(fresh);
}

static void draining_an_empty_server_is_told_at_once(void **state)
{
    fixture *f = *state;
    start(f);
    http_server_drain(f->server, on_drained, f);
    pump_until(f, NULL, 1000, f->n_drained == 1);
}

static void freeing_the_server_gives_back_every_request(void **state)
{
    fixture *f = *state;
    start(f);
    client *waiting = client_new(f), *streaming = client_new(f);
    send_text(waiting, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    send_text(streaming, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, NULL, 1000, f->n_requests == 2);
    http_server_free(&f->server);
    assert_int_equal(2, f->n_gone);
    assert_int_equal(HTTP_GONE_SHUTDOWN, f->gone_why);
    client_free(waiting), client_free(streaming);
}

static void servers_share_a_port_only_when_asked(void **state)
{
    fixture *f            = *state;
    f->options.reuse_port = true;
    start(f);
    error               err;
    http_server_options same    = f->options;
    http_handler        handler = handler_of(f);
    same.port                   = http_server_port(f->server);
    http_server *second         = http_server_new(f->base, &same, &handler, &err);
    assert_non_null(second);
    assert_int_equal(same.port, http_server_port(second));
    http_server_free(&second);
    same.reuse_port = false;
    assert_null(http_server_new(f->base, &same, &handler, &err));
    assert_non_null(strstr(err.text, "can't listen on 127.0.0.1 port"));
    same.address = "localhost.example";
    assert_null(http_server_new(f->base, &same, &handler, &err));
    assert_non_null(strstr(err.text, "\"localhost.example\" is not an IPv4 or IPv6 address"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_client_that_leaves_while_its_request_waits_is_noticed),
        TEST(a_client_that_leaves_behind_a_full_pipeline_is_noticed),
        TEST(a_client_that_resets_while_it_streams_is_noticed),
        TEST(a_half_close_is_gone_unless_the_option_says_otherwise),
        TEST(a_request_whose_client_left_at_once_is_not_delivered),
        TEST(a_dripping_head_is_cut_at_the_absolute_deadline),
        TEST(a_dripping_body_is_cut_and_a_steady_one_passes),
        TEST(silent_connections_are_closed_without_a_word),
        TEST(a_waiting_request_has_no_deadline_of_the_connection),
        TEST(at_the_connection_limit_new_ones_wait_until_one_closes),
        TEST(running_out_of_file_descriptors_only_pauses_accepting),
        TEST(one_peer_gets_only_its_share_of_connections),
        TEST(request_memory_is_bounded_for_all_connections_together),
        TEST(many_clients_stream_at_once),
        TEST(draining_closes_the_idle_and_lets_the_running_finish),
        TEST(draining_an_empty_server_is_told_at_once),
        TEST(freeing_the_server_gives_back_every_request),
        TEST(servers_share_a_port_only_when_asked),
    };
    return cmocka_run_group_tests_name("http_limits", tests, NULL, NULL);
}
