/* Requests, responses and event streams over real sockets. */
#include "support_http.h"

#include "base/log.h"

#include <stdlib.h>
#include <sys/socket.h>

static double refused(const char *labels)
{
    metric *m = metric_find("troupe_http_refused_total", labels);
    return m ? metric_value(m) : 0;
}

/* ---- requests and responses ---- */

static void a_request_is_answered_and_the_connection_kept(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    for (int i = 0; i < 3; i++) {
        c->in_size = 0;
        send_text(c, "POST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Tell: news\r\nContent-Length: 5\r\n\r\nhello");
        pump_until(f, c, 1000, has(c, "POST /a?b=c [news] hello"));
        assert_true(has(c, "HTTP/1.1 200 OK\r\nDate: "));
        assert_true(has(c, "\r\nContent-Type: text/plain\r\nX-Peer: 127.0.0.1:"));
        assert_true(has(c, "\r\nContent-Length: 24\r\n\r\n"));
        assert_false(has(c, "Connection: close"));
    }
    assert_int_equal(1, http_server_n_connections(f->server));
    client_free(c);
    pump_until(f, NULL, 1000, http_server_n_connections(f->server) == 0);
    assert_int_equal(0, f->n_gone); /* nothing was left unanswered */
}

static void head_is_answered_without_a_body_and_close_is_obeyed(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    pump_until(f, c, 1000, c->closed);
    assert_false(c->reset);
    assert_true(has(c, "\r\nConnection: close\r\nContent-Length: 12\r\n\r\n"));
    assert_memory_equal("\r\n\r\n", c->in + c->in_size - 4, 4);
    client_free(c);

    c = client_new(f);
    send_text(c, "GET /a HTTP/1.0\r\n\r\n");
    pump_until(f, c, 1000, c->closed);
    assert_true(has(c, "GET /a?"));
    client_free(c);
}

static void chunked_bodies_are_joined_and_trailers_dropped(void **state)
{
    fixture *f = *state;
    start(f);
    client            *c        = client_new(f);
    static const char *pieces[] = {"POST /a HTTP/1.1\r\nHo", "st: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r",
                                   "\nhel", "lo\r\n6\r\n world\r\n0\r\nX-T: 1\r\n",
                                   "\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < COUNT(pieces); i++) {
        send_text(c, pieces[i]);
        pump_for(f, c, 5);
    }
    pump_until(f, c, 1000, has(c, "GET /next?"));
    assert_true(has(c, "POST /a? [] hello world"));
    client_free(c);
}

static void a_large_body_arrives_whole(void **state)
{
    fixture *f = *state;
    start(f);
    client *c    = client_new(f);
    char   *body = malloc(100000);
    assert_non_null(body);
    for (int i = 0; i < 100000; i++)
        body[i] = (char)('a' + i * 7 % 26);
    send_text(c, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    for (int i = 0; i < 100000; i += 20000) {
        send_bytes(c, body + i, 20000);
        pump_for(f, c, 2);
    }
    pump_until(f, c, 1000, f->n_requests == 1);
    assert_int_equal(100000, f->body_size);
    assert_memory_equal(body, f->body, 100000);
    free(body);
    client_free(c);
}

static void expect_continue_is_answered_before_the_body_comes(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    pump_until(f, c, 1000, has(c, "HTTP/1.1 100 Continue\r\n\r\n"));
    assert_int_equal(0, f->n_requests);
    send_text(c, "hello");
    pump_until(f, c, 1000, has(c, "POST /a? [] hello"));
    client_free(c);

    c = client_new(f);
    send_text(c, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n");
    pump_until(f, c, 1000, c->closed);
    assert_true(has(c, "HTTP/1.1 413 Content Too Large\r\n"));
    assert_false(has(c, "100 Continue"));
    client_free(c);
}

static void pipelined_requests_are_answered_one_by_one_in_order(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /wait HTTP/1.1\r\nHost: a\r\n\r\n"
                 "POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET /4 HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_for(f, c, 30);
    assert_int_equal(2, f->n_requests); /* /3 waits for the answer to /wait */
    assert_true(http_respond(f->server, f->last, &(http_reply){.status = 200, .body = SPAN("two")}));
    pump_until(f, c, 1000, has(c, "GET /4?"));
    assert_true(strstr(c->in, "GET /1?") < strstr(c->in, "two"));
    assert_true(strstr(c->in, "two") < strstr(c->in, "POST /3? [] {}"));
    assert_true(strstr(c->in, "POST /3?") < strstr(c->in, "GET /4?"));
    client_free(c);
}

static void a_refused_request_gets_its_status_and_sentence_although_more_was_sent(void **state)
{
    fixture *f = *state;
    start(f);
    double  before = refused("cause=\"framing\"");
    client *c      = client_new(f);
    char    more[30000];
    memset(more, 'x', sizeof more);
    send_text(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n");
    send_bytes(c, more, sizeof more);
    pump_until(f, c, 1000, c->closed);
    assert_false(c->reset);
    assert_true(has(c, "HTTP/1.1 400 Bad Request\r\n"));
    assert_true(has(c, "{\"error\":{\"message\":\"Content-Length must be one plain decimal number.\","));
    assert_true(has(c, "\r\nConnection: close\r\n"));
    assert_int_equal(0, f->n_requests);
    assert_true(refused("cause=\"framing\"") == before + 1);
    client_free(c);
}

static void a_header_value_cannot_forge_another_header(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    log_set_level(LOG_OFF);
    send_text(c, "GET /unclean HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n{"));
    log_set_level(LOG_INFO);
    assert_true(has(c, "HTTP/1.1 500 "));
    assert_false(has(c, "Set-Cookie"));
    client_free(c);
}

/* ---- streams ---- */

static void a_stream_is_chunked_and_ends_with_the_terminating_chunk(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n"));
    assert_true(has(c, "Content-Type: text/event-stream\r\n"));
    assert_true(has(c, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"));
    c->in_size = 0;
    /* one turn, one chunk */
    assert_int_equal(HTTP_WRITE_OK, http_stream_write(f->server, f->last, SPAN("data: 1\n\n")));
    assert_int_equal(HTTP_WRITE_OK, http_stream_write(f->server, f->last, SPAN("data: 2\n\n")));
    assert_int_equal(18, http_backlog(f->server, f->last));
    pump_until(f, c, 1000, c->in_size >= 24);
    assert_string_equal("12\r\ndata: 1\n\ndata: 2\n\n\r\n", c->in);
    assert_int_equal(0, http_backlog(f->server, f->last));
    c->in_size = 0;
    http_stream_write(f->server, f->last, SPAN("data: [DONE]\n\n"));
    assert_true(http_stream_end(f->server, f->last));
    assert_false(http_stream_end(f->server, f->last));
    pump_until(f, c, 1000, has(c, "0\r\n\r\n"));
    assert_string_equal("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", c->in);
    /* and the connection lives on */
    send_text(c, "GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "GET /after?"));
    assert_int_equal(0, f->n_gone);
    client_free(c);
}

static void an_aborted_stream_closes_without_the_terminating_chunk(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n"));
    http_stream_write(f->server, f->last, SPAN("data: {\"error\":{}}\n\n"));
    assert_true(http_stream_abort(f->server, f->last));
    pump_until(f, c, 1000, c->closed);
    assert_false(c->reset);
    assert_true(has(c, "data: {\"error\":{}}\n\n\r\n"));
    assert_false(has(c, "\r\n0\r\n"));
    assert_int_equal(0, f->n_gone);
    client_free(c);

    c = client_new(f);
    send_text(c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, f->n_requests == 2);
    assert_true(http_stream_abort(f->server, f->last));
    pump_until(f, c, 1000, c->closed);
    assert_int_equal(0, c->in_size);
    client_free(c);
}

static void a_stream_to_http_1_0_ends_with_the_connection(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.0\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n"));
    http_stream_write(f->server, f->last, SPAN("data: 1\n\n"));
    pump_until(f, c, 1000, has(c, "\r\n\r\ndata: 1\n\n"));
    assert_true(http_stream_end(f->server, f->last));
    pump_until(f, c, 1000, c->closed);
    assert_false(has(c, "chunked"));
    client_free(c);
}

static void a_silent_stream_says_ping(void **state)
{
    fixture *f         = *state;
    f->options.ping_ms = 60;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, count_of(c, "8\r\n: ping\n\n\r\n") == 2);
    /* one that speaks does not */
    c->in_size = 0;
    for (int i = 0; i < 15; i++) {
        http_stream_write(f->server, f->last, SPAN("data: 1\n\n"));
        pump_for(f, c, 15);
    }
    assert_int_equal(15, count_of(c, "data: 1\n\n"));
    assert_int_equal(0, count_of(c, "ping"));
    client_free(c);
}

static client *slow_client(fixture *f)
{
    client *c     = client_new(f);
    int     small = 4096;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_until(f, c, 1000, has(c, "\r\n\r\n"));
    return c;
}

static void a_writer_is_told_to_stop_and_when_to_go_on(void **state)
{
    fixture *f = *state;
    start(f);
    client    *c = slow_client(f);
    char       event[1000];
    size_t     written = 0;
    http_write got;
    memset(event, 'x', sizeof event);
    do { /* until the kernel's buffers are full too */
        f->n_writable = 0;
        while ((got = http_stream_write(f->server, f->last, (span){event, sizeof event})) == HTTP_WRITE_OK) {
            written += sizeof event;
            pump_for(f, NULL, 0); /* the client does not read */
            assert_true(written < 16 << 20);
        }
        assert_int_equal(HTTP_WRITE_FULL, got);
        written += sizeof event;
        assert_in_range(http_backlog(f->server, f->last), f->options.backlog_full_bytes,
                        f->options.backlog_full_bytes + 2000);
        pump_for(f, NULL, 100);
    } while (f->n_writable > 0);
    size_t received = 0;
    pump_until(f, c, 10000, (received += c->in_size, c->in_size = 0, f->n_writable == 1));
    assert_true(http_backlog(f->server, f->last) <= f->options.backlog_full_bytes / 2);
    assert_int_equal(HTTP_WRITE_OK, http_stream_write(f->server, f->last, SPAN("data: end\n\n")));
    pump_until(f, c, 10000, (received += c->in_size, has(c, "data: end") || (c->in_size = 0, false)));
    assert_true(received >= written);
    assert_int_equal(0, f->n_gone);
    client_free(c);
}

static void a_stream_over_the_backlog_cap_is_cancelled(void **state)
{
    fixture *f = *state;
    start(f);
    client *c = slow_client(f);
    char    event[1000];
    memset(event, 'x', sizeof event);
    size_t most = 0;
    while (http_stream_write(f->server, f->last, (span){event, sizeof event}) != HTTP_WRITE_GONE) {
        size_t backlog = http_backlog(f->server, f->last);
        most           = backlog > most ? backlog : most;
        pump_for(f, NULL, 0);
    }
    assert_int_equal(0, f->n_gone); /* not from inside the call */
    assert_in_range(most, f->options.backlog_cap_bytes - 2000, f->options.backlog_cap_bytes);
    pump_until(f, NULL, 1000, f->n_gone == 1);
    assert_int_equal(HTTP_GONE_BACKLOG, f->gone_why);
    client_free(c);
}

static void a_client_that_takes_nothing_is_cut(void **state)
{
    fixture *f          = *state;
    f->options.stall_ms = 150;
    start(f);
    client *c = slow_client(f);
    char    event[1000];
    memset(event, 'x', sizeof event);
    while (http_stream_write(f->server, f->last, (span){event, sizeof event}) == HTTP_WRITE_OK)
        pump_for(f, NULL, 0);
    int64_t full_ns = clock_now_ns(clock_system());
    pump_until(f, NULL, 2000, f->n_gone == 1);
    assert_in_range(ms_since(full_ns), 100, 2000);
    assert_int_equal(HTTP_GONE_STALLED, f->gone_why);
    client_free(c);
}

static void a_stream_with_nothing_to_send_is_not_stalled(void **state)
{
    fixture *f          = *state;
    f->options.stall_ms = 50;
    start(f);
    client *c = client_new(f);
    send_text(c, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    pump_for(f, c, 200);
    assert_int_equal(0, f->n_gone);
    http_stream_write(f->server, f->last, SPAN("data: 1\n\n"));
    pump_until(f, c, 1000, has(c, "data: 1\n\n"));
    client_free(c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_request_is_answered_and_the_connection_kept),
        TEST(head_is_answered_without_a_body_and_close_is_obeyed),
        TEST(chunked_bodies_are_joined_and_trailers_dropped),
        TEST(a_large_body_arrives_whole),
        TEST(expect_continue_is_answered_before_the_body_comes),
        TEST(pipelined_requests_are_answered_one_by_one_in_order),
        TEST(a_refused_request_gets_its_status_and_sentence_although_more_was_sent),
        TEST(a_header_value_cannot_forge_another_header),
        TEST(a_stream_is_chunked_and_ends_with_the_terminating_chunk),
        TEST(an_aborted_stream_closes_without_the_terminating_chunk),
        TEST(a_stream_to_http_1_0_ends_with_the_connection),
        TEST(a_silent_stream_says_ping),
        TEST(a_writer_is_told_to_stop_and_when_to_go_on),
        TEST(a_stream_over_the_backlog_cap_is_cancelled),
        TEST(a_client_that_takes_nothing_is_cut),
        TEST(a_stream_with_nothing_to_send_is_not_stalled),
    };
    return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
