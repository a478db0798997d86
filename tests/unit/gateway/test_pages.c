/* The pages for people: what they are sent with, who gets them, and what the status says. */
#include "support_stage.h"

#include <stdlib.h>

static http_client *get(stage *s, const char *path, const char *headers, int status)
{
    http_client *c = http_ask(s, "GET", path, headers, NULL);
    pump_stage(s, c, 5000, c->closed);
    assert_int_equal(http_status(c), status);
    return c;
}

static void pages_come_with_their_type_and_a_strict_policy(void **state)
{
    static const struct {
        const char *path, *type;
    } table[] = {{"/", "text/html; charset=utf-8"},
                 {"/status", "text/html; charset=utf-8"},
                 {"/pages/chat.js", "text/javascript; charset=utf-8"},
                 {"/pages/status.js", "text/javascript; charset=utf-8"},
                 {"/pages/server.js", "text/javascript; charset=utf-8"},
                 {"/pages/pages.css", "text/css; charset=utf-8"},
                 {"/pages/icon.svg", "image/svg+xml"}};
    stage *s  = *state;
    stage_open(s);
    for (size_t i = 0; i < COUNT(table); i++) {
        char         wanted[128], etag[64];
        http_client *c = get(s, table[i].path, "", 200);
        snprintf(wanted, sizeof wanted, "Content-Type: %s\r\n", table[i].type);
        assert_true(http_has(c, wanted));
        assert_true(http_has(c, "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self';"));
        assert_true(http_has(c, "frame-ancestors 'none'\r\n") && http_has(c, "X-Content-Type-Options: nosniff\r\n"));
        assert_true(http_has(c, "Cache-Control: no-cache\r\n"));
        assert_false(http_has(c, "innerHTML") || http_has(c, "eval(") || http_has(c, "://") != http_has(c, "w3.org"));
        assert_int_equal(sscanf(strstr(c->in, "ETag: "), "ETag: %63s", etag), 1);
        http_close(&c);
        snprintf(wanted, sizeof wanted, "If-None-Match: %s\r\n", etag);
        c = get(s, table[i].path, wanted, 304);
        assert_true(http_has(c, etag));
        http_close(&c);
    }
    http_client *c = get(s, "/pages/other", "", 404);
    http_close(&c);
}

static void without_pages_there_is_nothing(void **state)
{
    static const char *const paths[] = {"/", "/status", "/pages/chat.js", "/status.json"};
    stage                   *s       = *state;
    s->options.pages                 = false;
    stage_open(s);
    for (size_t i = 0; i < COUNT(paths); i++) {
        http_client *c = get(s, paths[i], "", 404);
        http_close(&c);
    }
}

static void the_status_has_what_schedulers_report(void **state)
{
    stage *s          = *state;
    s->answers_status = true;
    stage_open_all(s);
    http_client *c = get(s, "/status.json", "", 200);
    assert_true(http_has(c, "\"tokens_per_s\":12.5,\"gateway\":{\"name\":\"gateway-"));
    assert_true(http_has(c, "\"answers\":true,\"report\":{\"requests\":3,\"running\":2,\"waiting\":1,"));
    assert_true(http_has(c, "\"executors_in_all\":128,"));
    assert_int_equal(http_count(c, "\"kv_blocks_used\":7,"), 128);
    assert_true(http_has(c, "\"device\":\"a \\\"device\\\"\""));
    assert_true(http_has(c, "\"role\":\"tokenizer\",\"state\":\"ready\",\"version\":\"" TROUPE_VERSION "\""));
    http_close(&c);
    c = get(s, "/status.json", "", 200); /* at once, and nobody is asked again */
    assert_int_equal(s->n_status_asked, 1);
    http_close(&c);
}

static void a_scheduler_that_does_not_answer_is_not_waited_for(void **state)
{
    stage *s = *state;
    stage_open(s);
    http_client *c = get(s, "/status.json", "", 200);
    assert_int_equal(s->n_status_asked, 1);
    assert_true(http_has(c, "\"answers\":false,\"report\":null"));
    assert_true(http_has(c, "\"state\":\"not ready\"") && http_has(c, "\"reason\":\"no tokenizer is ready\""));
    http_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages_come_with_their_type_and_a_strict_policy, stage_prepare, stage_clean_up),
        cmocka_unit_test_setup_teardown(without_pages_there_is_nothing, stage_prepare, stage_clean_up),
        cmocka_unit_test_setup_teardown(the_status_has_what_schedulers_report, stage_prepare, stage_clean_up),
        cmocka_unit_test_setup_teardown(a_scheduler_that_does_not_answer_is_not_waited_for, stage_prepare,
                                        stage_clean_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
