/* What every transport promises, run over each of them. */
#include "base/clock.h"
#include "bus/transport.h"
#include "bus/transport_sim.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    bus         *bus;
    sim_network *network;
    clock_source clock;
    char         endpoint[BUS_ENDPOINT_BYTES];
    transport   *server, *client;
} scene;

static transport *open_mailbox(scene *s, const char *name)
{
    transport_kind kind;
    error          err;
    assert_true(transport_kind_of(s->bus, s->endpoint, &kind, &err));
    transport *t = transport_new(s->bus, kind, name, &err);
    assert_non_null(t);
    return t;
}

static void listen_at(scene *s)
{
    error err;
    s->server = open_mailbox(s, "server");
    if (!transport_bind(s->server, 0, s->endpoint, &err))
        fail_msg("%s", err.text);
    assert_true(s->server->class->endpoint(s->server, 0, s->endpoint, sizeof s->endpoint));
}

static void call(scene *s)
{
    error err;
    s->client = open_mailbox(s, "client");
    if (!transport_connect(s->client, 3, s->endpoint, &err))
        fail_msg("%s", err.text);
}

static void open_scene(scene *s, const char *endpoint)
{
    static const bus_options insecure = {.insecure = true};
    error                    err;
    *s = (scene){.bus = bus_new(&insecure, &err), .clock = clock_virtual(1)};
    assert_non_null(s->bus);
    if (strncmp(endpoint, "sim://", 6) == 0) {
        s->network = sim_network_new(1, &s->clock, &err);
        sim_network_attach(s->network, s->bus);
    }
    if (strncmp(endpoint, "ipc://", 6) == 0)
        snprintf(s->endpoint, sizeof s->endpoint, "ipc:///tmp/troupe-test-transport-%d", (int)getpid());
    else
        snprintf(s->endpoint, sizeof s->endpoint, "%s", endpoint);
}

static void close_scene(scene *s)
{
    transport_free(&s->client);
    transport_free(&s->server);
    bus_free(&s->bus);
    sim_network_free(&s->network);
}

/* Sends, again and again while the transport is still connecting. */
static void send_surely(scene *s, transport *t, uint32_t link, span identity, const char *first, span body)
{
    error err;
    for (int i = 0; i < 5000; i++) {
        if (transport_send(t, link, identity, span_of(first), body, &err))
            return;
        assert_int_equal(err.code, ERR_NOT_READY);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    fail_msg("%s: %s", s->endpoint, err.text);
}

/* Waits for the next message, the way the runtime does: ask what is pending, then poll. */
static transport_message receive_surely(scene *s, transport *t)
{
    transport_message m;
    for (int i = 0; i < 200; i++) {
        if (transport_receive(t, &m))
            return m;
        if (s->network)
            clock_advance(&s->clock, 10 * NS_PER_MS);
        else if (!transport_pending(t)) {
            struct pollfd ready = {.fd = transport_fd(t), .events = POLLIN};
            poll(&ready, 1, 100);
        }
    }
    fail_msg("%s: nothing came", s->endpoint);
    return m;
}

static void messages_arrive_whole_in_order_and_are_answered(scene *s)
{
    char body[64], identity[TRANSPORT_IDENTITY_BYTES_MAX];
    listen_at(s);
    call(s);
    for (int i = 0; i < 300; i++) {
        snprintf(body, sizeof body, "message %d", i);
        send_surely(s, s->client, 3, (span){0}, "first", span_of(body));
    }
    size_t identity_bytes = 0;
    for (int i = 0; i < 300; i++) {
        transport_message m = receive_surely(s, s->server);
        snprintf(body, sizeof body, "message %d", i);
        assert_int_equal(m.n_frames, 2);
        assert_int_equal(m.link, 0);
        assert_true(span_is(m.envelope, "first"));
        assert_true(span_is(m.body, body));
        assert_in_range(m.identity.size, 1, TRANSPORT_IDENTITY_BYTES_MAX);
        identity_bytes = m.identity.size;
        memcpy(identity, m.identity.data, identity_bytes);
    }
    send_surely(s, s->server, 0, (span){identity, identity_bytes}, "answer", SPAN(""));
    transport_message m = receive_surely(s, s->client);
    assert_int_equal(m.link, 3);
    assert_int_equal(m.identity.size, 0);
    assert_true(span_is(m.envelope, "answer"));
    assert_int_equal(m.body.size, 0);
    assert_false(transport_receive(s->client, &m));
}

static void a_client_may_connect_before_there_is_a_server(scene *s)
{
    error err;
    if (strstr(s->endpoint, "*"))
        snprintf(s->endpoint, sizeof s->endpoint, "tcp://127.0.0.1:%d", 20000 + (int)getpid() % 6000);
    call(s);
    assert_false(transport_send(s->client, 3, (span){0}, SPAN("early"), SPAN(""), &err));
    assert_int_equal(err.code, ERR_NOT_READY);
    listen_at(s);
    send_surely(s, s->client, 3, (span){0}, "hello", SPAN("there"));
    assert_true(span_is(receive_surely(s, s->server).body, "there"));
}

static void each_connection_has_an_identity_of_its_own(scene *s)
{
    char  first[TRANSPORT_IDENTITY_BYTES_MAX];
    error err;
    listen_at(s);
    call(s);
    send_surely(s, s->client, 3, (span){0}, "one", SPAN(""));
    transport_message m           = receive_surely(s, s->server);
    size_t            first_bytes = m.identity.size;
    memcpy(first, m.identity.data, first_bytes);
    assert_true(transport_connect(s->client, 3, s->endpoint, &err));
    send_surely(s, s->client, 3, (span){0}, "two", SPAN(""));
    m = receive_surely(s, s->server);
    assert_true(span_is(m.envelope, "two"));
    assert_false(span_equal(m.identity, (span){first, first_bytes}));
}

static void a_peer_that_left_is_gone_for_the_sender(scene *s)
{
    char  identity[TRANSPORT_IDENTITY_BYTES_MAX];
    error err;
    listen_at(s);
    call(s);
    send_surely(s, s->client, 3, (span){0}, "one", SPAN(""));
    transport_message m              = receive_surely(s, s->server);
    size_t            identity_bytes = m.identity.size;
    memcpy(identity, m.identity.data, identity_bytes);
    transport_free(&s->client);
    bool sent = true;
    for (int i = 0; i < 2000 && sent; i++) { /* over a socket the news takes its time */
        sent = transport_send(s->server, 0, (span){identity, identity_bytes}, SPAN("x"), SPAN(""), &err);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    assert_false(sent);
    assert_int_equal(err.code, ERR_GONE);
    assert_false(transport_send(s->server, 0, SPAN("nobody"), SPAN("x"), SPAN(""), &err));
    assert_int_equal(err.code, ERR_GONE);
}

static void a_message_over_the_limit_is_refused_and_the_connection_stands(scene *s)
{
    error  err;
    size_t bytes = BUS_MESSAGE_BYTES_MAX;
    char  *body  = calloc(1, bytes + 1);
    assert_non_null(body);
    listen_at(s);
    call(s);
    send_surely(s, s->client, 3, (span){0}, "one", SPAN(""));
    assert_false(transport_send(s->client, 3, (span){0}, SPAN("two"), (span){body, bytes + 1}, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    body[bytes - 1] = 'z';
    send_surely(s, s->client, 3, (span){0}, "three", (span){body, bytes});
    assert_true(span_is(receive_surely(s, s->server).envelope, "one"));
    transport_message m = receive_surely(s, s->server);
    assert_true(span_is(m.envelope, "three"));
    assert_int_equal(m.body.size, bytes);
    assert_int_equal(m.body.data[bytes - 1], 'z');
    free(body);
}

static void an_endpoint_is_bound_once(scene *s)
{
    error err;
    listen_at(s);
    transport *second = open_mailbox(s, "second");
    if (strncmp(s->endpoint, "ipc://", 6) != 0) { /* a later ipc server takes the path over */
        assert_false(transport_bind(second, 0, s->endpoint, &err));
        assert_non_null(strstr(err.text, s->endpoint));
    }
    transport_free(&second);
}

static void *send_from_a_thread(void *arg)
{
    scene *s = arg;
    for (int i = 0; i < 200; i++) {
        send_surely(s, s->client, 3, (span){0}, "tick", SPAN(""));
        if (i % 10 == 0)
            nanosleep(&(struct timespec){0, 2000000}, NULL); /* let the receiver fall asleep */
    }
    return NULL;
}

static void a_sleeping_receiver_is_woken_by_each_message(scene *s)
{
    pthread_t thread;
    if (s->network)
        return; /* one thread, and nothing to sleep on */
    listen_at(s);
    call(s);
    assert_int_equal(pthread_create(&thread, NULL, send_from_a_thread, s), 0);
    transport_message m;
    for (int n = 0; n < 200;) {
        if (transport_receive(s->server, &m)) {
            n++;
            continue;
        }
        if (transport_pending(s->server))
            continue;
        struct pollfd ready = {.fd = transport_fd(s->server), .events = POLLIN};
        if (poll(&ready, 1, 5000) == 0)
            fail_msg("%s: slept through message %d", s->endpoint, n);
    }
    pthread_join(thread, NULL);
}

static void run_on_all(void (*promise)(scene *))
{
    static const char *const endpoints[] = {"queue://transport", "inproc://transport", "ipc://", "tcp://127.0.0.1:*",
                                            "sim://transport"};
    for (size_t i = 0; i < COUNT(endpoints); i++) {
#ifdef __SANITIZE_THREAD__
        if (strncmp(endpoints[i], "queue", 5) != 0 && strncmp(endpoints[i], "sim", 3) != 0)
            continue; /* libzmq is not instrumented: its locks are invisible */
#endif
        scene s;
        open_scene(&s, endpoints[i]);
        promise(&s);
        close_scene(&s);
    }
}

#define PROMISE(name)                                                                                                  \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        run_on_all(name);                                                                                              \
    }
PROMISE(messages_arrive_whole_in_order_and_are_answered)
PROMISE(a_client_may_connect_before_there_is_a_server)
PROMISE(each_connection_has_an_identity_of_its_own)
PROMISE(a_peer_that_left_is_gone_for_the_sender)
PROMISE(a_message_over_the_limit_is_refused_and_the_connection_stands)
PROMISE(an_endpoint_is_bound_once)
PROMISE(a_sleeping_receiver_is_woken_by_each_message)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_arrive_whole_in_order_and_are_answered),
        cmocka_unit_test(test_a_client_may_connect_before_there_is_a_server),
        cmocka_unit_test(test_each_connection_has_an_identity_of_its_own),
        cmocka_unit_test(test_a_peer_that_left_is_gone_for_the_sender),
        cmocka_unit_test(test_a_message_over_the_limit_is_refused_and_the_connection_stands),
        cmocka_unit_test(test_an_endpoint_is_bound_once),
        cmocka_unit_test(test_a_sleeping_receiver_is_woken_by_each_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
