/* Redis' URL: what is understood, and what is refused with a reason. */
#include "store/redis_address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

static void good_urls_give_host_port_user_and_database(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host, *user;
        uint16_t    port;
        uint32_t    database;
        bool        is_unix, is_numeric;
    } rows[] = {
        {"redis://redis", "redis", "", 6379, 0, false, false},
        {"redis://redis:7000", "redis", "", 7000, 0, false, false},
        {"redis://redis:7000/", "redis", "", 7000, 0, false, false},
        {"redis://redis/15", "redis", "", 6379, 15, false, false},
        {"redis://127.0.0.1:65535/0", "127.0.0.1", "", 65535, 0, false, true},
        {"redis://[::1]:7000/2", "::1", "", 7000, 2, false, true},
        {"redis://[fe80::1]", "fe80::1", "", 6379, 0, false, true},
        {"redis://troupe@cache.internal:1", "cache.internal", "troupe", 1, 0, false, false},
        {"unix:/run/redis/redis.sock", "/run/redis/redis.sock", "", 0, 0, true, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        redis_address address;
        error         err;
        if (!redis_address_parse(rows[i].url, &address, &err))
            fail_msg("%s: %s", rows[i].url, err.text);
        assert_string_equal(address.host, rows[i].host);
        assert_string_equal(address.user, rows[i].user);
        assert_int_equal(address.port, rows[i].port);
        assert_int_equal(address.database, rows[i].database);
        assert_int_equal(address.is_unix, rows[i].is_unix);
        assert_int_equal(address.is_numeric, rows[i].is_numeric);
    }
}

static void bad_urls_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const struct {
        const char *url, *says;
    } rows[] = {
        {"", "none of"},
        {"redis", "none of"},
        {"memory", "none of"},
        {"rediss://host", "none of"},
        {"http://host", "none of"},
        {"redis://", "host is empty"},
        {"redis://:6379", "host is empty"},
        {"redis:///1", "host is empty"},
        {"redis://host:0", "port 0"},
        {"redis://host:65536", "port \"65536\""},
        {"redis://host:6379x", "port \"6379x\""},
        {"redis://host:-1", "port \"-1\""},
        {"redis://host/x", "database \"x\""},
        {"redis://host/1/2", "database \"1/2\""},
        {"redis://host/99999999999999999999", "database"},
        {"redis://user:secret@host", "password does not belong"},
        {"redis://:secret@host", "password does not belong"},
        {"redis://@host", "user name is empty"},
        {"redis://[::1", NULL},
        {"redis://[nonsense]:1", "not an IPv6 address"},
        {"redis://[::1]x", "port \"x\""},
        {"unix:", "path is empty"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        redis_address address;
        error         err     = {0};
        bool          is_good = redis_address_parse(rows[i].url, &address, &err);
        if (rows[i].says && (is_good || !strstr(err.text, rows[i].says)))
            fail_msg("%s: %s", rows[i].url, is_good ? "accepted" : err.text);
        assert_null(strstr(err.text, "secret"));
    }
    char  long_url[1000] = "redis://";
    error err;
    memset(long_url + 8, 'h', 900);
    assert_false(redis_address_parse(long_url, &(redis_address){0}, &err));
    memcpy(long_url, "unix:///", 8);
    assert_false(redis_address_parse(long_url, &(redis_address){0}, &err));
}

static void a_look_up_finds_this_host_and_can_be_dropped(void **state)
{
    (void)state;
    char               ip[REDIS_HOST_BYTES];
    error              err;
    redis_lookup_state found  = REDIS_LOOKUP_PENDING;
    redis_lookup      *lookup = redis_lookup_start("localhost", &err);
    assert_non_null(lookup);
    for (int i = 0; i < 2000 && (found = redis_lookup_poll(lookup, ip, &err)) == REDIS_LOOKUP_PENDING; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(found, REDIS_LOOKUP_FOUND);
    assert_true(strcmp(ip, "127.0.0.1") == 0 || strcmp(ip, "::1") == 0);
    redis_lookup_free(&lookup);
    assert_null(lookup);
    redis_lookup_free(&lookup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_urls_give_host_port_user_and_database),
        cmocka_unit_test(bad_urls_are_refused_with_a_reason),
        cmocka_unit_test(a_look_up_finds_this_host_and_can_be_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
