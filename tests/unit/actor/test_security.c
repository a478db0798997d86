/* CURVE over loopback tcp, and the ZAP handler behind it: who has which key, and what it lets him be. Each process is a
 * bus of its own. */
#include "support_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/troupe-test-security-XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[8][256];
    static int  next;
    char       *path = paths[next++ % 8];
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

static void public_key_of(const char *name, char key[64])
{
    char  text[512] = "";
    FILE *file      = fopen(in_folder(name), "r");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_true(n > 0);
    assert_int_equal(sscanf(strstr(text, "public-key"), "public-key = \"%63[^\"]\"", key), 1);
}

static int make_keys(void **state)
{
    (void)state;
    static const char *const names[] = {"server", "drafter", "executor", "stranger"};
    char                     key[64];
    if (!mkdtemp(folder))
        return -1;
    for (size_t i = 0; i < COUNT(names); i++)
        if (!bus_write_keypair(in_folder(names[i]), NULL))
            return -1;
    FILE *peers = fopen(in_folder("peers"), "w");
    public_key_of("drafter.pub", key);
    fprintf(peers, "%s drafter\n", key);
    public_key_of("executor.pub", key);
    fprintf(peers, "%s executor\n", key);
    return fclose(peers);
}

static int remove_keys(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

typedef struct {
    bus   *server_bus, *client_bus;
    player server, client;
    actor *listening, *calling;
} scene;

/* `finds_key`: the client has no file with the server's key, but finds it in the endpoint. */
static void open_scene_with(scene *s, const char *client_key, bool finds_key)
{
    error       err;
    bus_options server_options = {.secret_key_file = in_folder("server"), .peers_file = in_folder("peers")};
    bus_options client_options = {.secret_key_file = in_folder(client_key),
                                  .server_key_file = finds_key ? NULL : in_folder("server.pub")};
    char        endpoint[BUS_ENDPOINT_BYTES];
    *s            = (scene){0};
    s->server_bus = bus_new(&server_options, &err);
    s->client_bus = bus_new(client_key[0] ? &client_options : &(bus_options){.insecure = true}, &err);
    assert_non_null(s->server_bus);
    assert_non_null(s->client_bus);
    actor_options listening = {.bind = {"tcp://127.0.0.1:*"}, .bus = s->server_bus};
    s->listening            = actor_new(&scheduler_class, &s->server, &listening, &err);
    if (!s->listening)
        fail_msg("%s", err.text);
    assert_true(actor_endpoint(s->listening, 0, endpoint, sizeof endpoint));
    assert_non_null(strchr(endpoint, '#'));
    if (!finds_key)
        *strchr(endpoint, '#') = '\0';
    actor_options calling = {.connect = {endpoint}, .credits = 4, .bus = s->client_bus};
    s->client.answers     = true;
    s->calling            = actor_new(&drafter_class, &s->client, &calling, &err);
    if (!s->calling)
        fail_msg("%s", err.text);
    s->server.requests_to_send = 100;
    assert_true(actor_start(s->listening, &err) && actor_start(s->calling, &err));
}

static void open_scene(scene *s, const char *client_key)
{
    open_scene_with(s, client_key, false);
}

static void close_scene(scene *s)
{
    actor *both[] = {s->calling, s->listening};
    for (size_t i = 0; i < COUNT(both); i++) {
        actor_stop(both[i]);
        actor_join(both[i]);
        actor_free(&both[i]);
    }
    bus_free(&s->client_bus);
    bus_free(&s->server_bus);
}

static void a_known_key_speaks_as_its_role(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    scene s;
    open_scene(&s, "drafter");
    wait_for_count(&s.server.n_replies, 100);
    assert_int_equal(s.server.n_out_of_order, 0);
    close_scene(&s);
}

static void a_server_that_is_not_the_usual_one_is_known_by_the_key_in_its_endpoint(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    scene s;
    open_scene_with(&s, "drafter", true);
    wait_for_count(&s.server.n_replies, 100);
    close_scene(&s);
}

static void a_key_of_another_role_is_refused(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    scene s;
    open_scene(&s, "executor"); /* but the node says that it is a drafter */
    nanosleep(&(struct timespec){1, 0}, NULL);
    close_scene(&s);
    assert_int_equal(s.server.n_up, 0);
    assert_int_equal(s.client.n_up, 0);
}

static void an_unknown_key_or_none_gets_no_message_through(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    static const char *const keys[] = {"stranger", ""};
    for (size_t i = 0; i < COUNT(keys); i++) {
        scene s;
        open_scene(&s, keys[i]);
        nanosleep(&(struct timespec){1, 0}, NULL);
        close_scene(&s);
        assert_int_equal(s.server.n_up, 0);
        assert_int_equal(s.client.n_up, 0);
    }
}

static void tcp_without_keys_is_refused_unless_insecure(void **state)
{
    (void)state;
    NOT_UNDER_TSAN();
    static const struct {
        const char *endpoint, *secret, *server, *peers, *complaint;
        bool        connects;
    } table[] = {
        {"tcp://127.0.0.1:*", NULL, NULL, NULL, "--bus-secret-key", false},
        {"tcp://127.0.0.1:*", "server", NULL, NULL, "--bus-peers", false},
        {"tcp://127.0.0.1:9", NULL, NULL, NULL, "--bus-secret-key", true},
        {"tcp://127.0.0.1:9", "drafter", NULL, NULL, "--bus-server-key", true},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        error         err;
        player        p       = {0};
        bus_options   keys    = {.secret_key_file = table[i].secret ? in_folder(table[i].secret) : NULL};
        actor_options options = {.bus = bus_new(&keys, &err)};
        assert_non_null(options.bus);
        *(table[i].connects ? &options.connect[0] : &options.bind[0]) = table[i].endpoint;
        assert_null(actor_new(&drafter_class, &p, &options, &err));
        assert_int_equal(err.code, ERR_UNAUTHORIZED);
        if (!strstr(err.text, table[i].complaint))
            fail_msg("%zu: %s", i, err.text);
        bus_free(&options.bus);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_known_key_speaks_as_its_role),
        cmocka_unit_test(a_server_that_is_not_the_usual_one_is_known_by_the_key_in_its_endpoint),
        cmocka_unit_test(a_key_of_another_role_is_refused),
        cmocka_unit_test(an_unknown_key_or_none_gets_no_message_through),
        cmocka_unit_test(tcp_without_keys_is_refused_unless_insecure),
    };
    return cmocka_run_group_tests(tests, make_keys, remove_keys);
}
