/* Log lines as a collector and as a person see them. stderr is a pipe while a test runs. */
#include "base/log.h"

#include "base/metric.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static clock_source virtual_clock;
static int          saved_stderr, pipe_read;
static char         seen[1 << 20];

static int redirect(void **state)
{
    (void)state;
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) != 0)
        return -1;
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    pipe_read     = ends[0];
    virtual_clock = clock_virtual(INT64_C(1795812601123) * NS_PER_MS); /* 2026-11-27T20:50:01.123Z */
    log_set_clock(&virtual_clock);
    log_set_level(LOG_INFO);
    log_set_format(LOG_FORMAT_JSON);
    log_set_thread_service("scheduler");
    return 0;
}

static int restore(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_read);
    log_set_clock(NULL);
    return 0;
}

/* What was written since the last call. */
static const char *written(void)
{
    ssize_t n           = read(pipe_read, seen, sizeof seen - 1);
    seen[n > 0 ? n : 0] = '\0';
    return seen;
}

static int count_lines(const char *text)
{
    int n = 0;
    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

static void a_json_line_has_time_level_service_message_and_typed_fields(void **state)
{
    (void)state;
    log_warn("lost executor", "node=%s missed_ms=%u", "executor-3f2a", 1500u);
    assert_string_equal(written(), "{\"ts\":\"2026-11-27T20:50:01.123Z\",\"level\":\"warn\",\"service\":\"scheduler\","
                                   "\"msg\":\"lost executor\",\"node\":\"executor-3f2a\",\"missed_ms\":1500}\n");
    log_info("ready", " ");
    assert_string_equal(written(), "{\"ts\":\"2026-11-27T20:50:01.123Z\",\"level\":\"info\",\"service\":\"scheduler\","
                                   "\"msg\":\"ready\"}\n");
}

static void a_text_line_reads_like_a_sentence(void **state)
{
    (void)state;
    log_set_format(LOG_FORMAT_TEXT);
    log_warn("lost executor", "node=%s", "executor-3f2a");
    assert_string_equal(written(), "20:50:01.123 warn  scheduler  lost executor  node=executor-3f2a\n");
    log_error("ready", " ");
    assert_string_equal(written(), "20:50:01.123 error scheduler  ready\n");
}

static void fields_are_cut_into_pairs_however_odd_their_values(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *json;
    } rows[] = {
        {"a=1 b=2", "\"a\":1,\"b\":2"},
        {"a=", "\"a\":\"\""},
        {"a= b=x", "\"a\":\"\",\"b\":\"x\""},
        {"a=\"two words\" b=1", "\"a\":\"two words\",\"b\":1"},
        {"a=\"say \"hi\" to x=\" b=1", "\"a\":\"say \\\"hi\\\" to x=\",\"b\":1"},
        {"a=two words b=1", "\"a\":\"two words\",\"b\":1"},
        {"a=\"never closed", "\"a\":\"never closed\""},
        {"a=\"\"", "\"a\":\"\""},
        {"a=\"5\"", "\"a\":\"5\""},
        {"just words", "\"detail\":\"just words\""},
        {"a=-1.5 b=1e-05 c=007 d=12e4567 e=1. f=- g=0 h=0.5", "\"a\":-1.5,\"b\":1e-05,\"c\":\"007\",\"d\":\"12e4567\","
                                                              "\"e\":\"1.\",\"f\":\"-\",\"g\":0,\"h\":0.5"},
        {"a=1e+10 b=nan c=inf d=18446744073709551615",
         "\"a\":1e+10,\"b\":\"nan\",\"c\":\"inf\",\"d\":18446744073709551615"},
        {"e=\x01\xFF\n", "\"e\":\"\\u0001\xEF\xBF\xBD\\n\""},
        {"url=tcp://x:1?q=2 b=1", "\"url\":\"tcp://x:1?q=2\",\"b\":1"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char expected[512];
        clock_advance(&virtual_clock, NS_PER_S);
        log_info("m", "%s", rows[i].fields);
        snprintf(expected, sizeof expected, "\"msg\":\"m\",%s}\n", rows[i].json);
        const char *line = written();
        if (!strstr(line, expected))
            fail_msg("row %zu: %s lacks %s", i, line, expected);
    }
}

static void control_characters_never_reach_the_terminal(void **state)
{
    (void)state;
    log_set_format(LOG_FORMAT_TEXT);
    log_info("m", "name=%s", "\x1b[31mred\nforged\xC2\x9B\xFF \xC3\xA9");
    assert_string_equal(written(),
                        "20:50:01.123 info  scheduler  m  name=\\x1b[31mred\\x0aforged\\xc2\\x9b\\xff \xC3\xA9\n");
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    log_debug("quiet", " ");
    log_set_level(LOG_ERROR);
    log_warn("quiet", " ");
    log_error("loud", " ");
    assert_int_equal(count_lines(written()), 1);
    log_set_level(LOG_OFF);
    log_error("quiet", " ");
    log_set_level(LOG_DEBUG);
    log_debug("loud", " ");
    assert_int_equal(count_lines(written()), 1);
}

static void a_call_site_is_limited_and_confesses_later(void **state)
{
    (void)state;
    for (int second = 0; second < 3; second++) {
        int n_lines = second == 2 ? 1 : 100;
        for (int i = 0; i < n_lines; i++)
            log_info("flood", "i=%d", i);
        const char *lines = written();
        assert_int_equal(count_lines(lines), second == 2 ? 1 : LOG_BURST);
        if (second == 0)
            assert_null(strstr(lines, "dropped"));
        else
            assert_non_null(strstr(lines, "\"msg\":\"flood\",\"dropped\":80,\"i\":0}"));
        log_info("another call site", " ");
        assert_int_equal(count_lines(written()), 1);
        clock_advance(&virtual_clock, NS_PER_S);
    }
    assert_true(metric_value(metric_find("troupe_log_lines_dropped_total", "")) == 160);
    log_set_format(LOG_FORMAT_TEXT);
    for (int i = 0; i < LOG_BURST + 4; i++) {
        if (i == LOG_BURST + 3)
            clock_advance(&virtual_clock, NS_PER_S);
        log_info("flood", "i=%d", i);
    }
    assert_non_null(strstr(written(), "flood  i=23  dropped=3\n"));
}

static void what_was_dropped_last_is_said_too(void **state)
{
    (void)state;
    for (int i = 0; i < LOG_BURST + 7; i++)
        log_warn("a flood that ends", "i=%d", i);
    written();
    log_say_dropped();
    assert_int_equal(count_lines(written()), 0); /* it may go on */
    clock_advance(&virtual_clock, NS_PER_S);
    log_say_dropped();
    const char *line = written();
    assert_int_equal(count_lines(line), 1);
    assert_non_null(strstr(line, "\"level\":\"warn\""));
    assert_non_null(strstr(line, "\"msg\":\"lines were dropped\",\"lines\":7,\"of\":\"a flood that ends\"}"));
    log_say_dropped();
    assert_int_equal(count_lines(written()), 0);
}

static void a_line_over_the_bound_stays_valid_json_and_says_so(void **state)
{
    (void)state;
    static char huge[3 * LOG_LINE_BYTES];
    memset(huge, '\n', sizeof huge - 1); /* doubles when escaped */
    for (int length = 1000; length < 5000; length += 7) {
        clock_advance(&virtual_clock, NS_PER_S);
        log_info("m", "before=1 big=%.*s", length, huge);
        const char *line = written();
        assert_true(strlen(line) <= LOG_LINE_BYTES);
        assert_int_equal(count_lines(line), 1);
        if (2 * length > LOG_LINE_BYTES)
            assert_non_null(strstr(line, "\"msg\":\"m\",\"before\":1,\"cut\":true}\n"));
    }
    log_info(huge, " ");
    assert_int_equal(count_lines(written()), 1);
    log_set_format(LOG_FORMAT_TEXT);
    log_info("m", "big=%s", huge);
    const char *line = written();
    assert_int_equal(count_lines(line), 1);
    assert_true(strlen(line) <= LOG_LINE_BYTES);
}

static void level_names_are_read_in_any_case(void **state)
{
    (void)state;
    log_level level;
    assert_true(log_level_from_name("debug", &level) && level == LOG_DEBUG);
    assert_true(log_level_from_name("WARN", &level) && level == LOG_WARN);
    assert_true(log_level_from_name("off", &level) && level == LOG_OFF);
    assert_false(log_level_from_name("loud", &level));
    assert_false(log_level_from_name("", &level));
}

static void without_a_reader_logging_does_not_fail_or_change_errno(void **state)
{
    (void)state;
    errno = 42;
    log_info("errno", " ");
    assert_int_equal(errno, 42);
    int closed = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    log_info("nobody reads this", " ");
    dup2(closed, STDERR_FILENO);
    close(closed);
    assert_int_equal(errno, 42);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, redirect, restore)
    const struct CMUnitTest tests[] = {
        TEST(a_json_line_has_time_level_service_message_and_typed_fields),
        TEST(a_text_line_reads_like_a_sentence),
        TEST(fields_are_cut_into_pairs_however_odd_their_values),
        TEST(control_characters_never_reach_the_terminal),
        TEST(lines_below_the_level_are_not_written),
        TEST(a_call_site_is_limited_and_confesses_later),
        TEST(what_was_dropped_last_is_said_too),
        TEST(a_line_over_the_bound_stays_valid_json_and_says_so),
        TEST(level_names_are_read_in_any_case),
        TEST(without_a_reader_logging_does_not_fail_or_change_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
