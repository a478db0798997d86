/* Options: where a value comes from, what is refused, and what the user is told. */
#include "base/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    const char *model;
    uint64_t    port;
    uint64_t    kv_bytes;
    double      top_p;
    bool        prefix_cache;
    uint32_t    policy;
    const char *key_file;
    uint64_t    seed;
} demo_options;

static const option_row model_rows[] = {
    OPTION_STRING(demo_options, model, "--model", "FILE", "default.gguf", "GGUF file or a folder with safetensors."),
    OPTION_BYTES(demo_options, kv_bytes, "--kv-bytes", 64 << 20, 1 << 20, 1099511627776.0,
                 "Memory for keys and values of all running requests; more memory holds more requests at once and "
                 "keeps prefixes warm for longer."),
    OPTION_BOOL(demo_options, prefix_cache, "--prefix-cache", true, "Share blocks between equal prefixes."),
};

static const option_row server_rows[] = {
    OPTION_UINT(demo_options, port, "--port", "N", 8080, 0, 65535, "TCP port; 0 takes a free one."),
    OPTION_DOUBLE(demo_options, top_p, "--top-p", "P", 0.95, 0, 1, "Nucleus."),
    OPTION_CHOICE(demo_options, policy, "--policy", "continuous|dynamic|static", 1, "How steps are filled."),
    OPTION_STRING(demo_options, key_file, "--key-file", "FILE", NULL, "File with API keys."),
    OPTION_UINT(demo_options, seed, "--seed", "N", 0, 0, 18446744073709551615.0, "Seed."),
};

static demo_options options;

static const option_group groups[] = {
    {"Model", model_rows, COUNT(model_rows), &options},
    {"Server", server_rows, COUNT(server_rows), &options},
};

static bool parse(char **argv, int *n_positional, error *err)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    return option_parse(groups, COUNT(groups), argc, argv, n_positional, err);
}

#define PARSE(err, ...) parse((char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL}, NULL, err)

static int clear_environment(void **state)
{
    (void)state;
    static const char *const names[] = {"TROUPE_MODEL",        "TROUPE_PORT",   "TROUPE_KV_BYTES",
                                        "TROUPE_PREFIX_CACHE", "TROUPE_POLICY", "TROUPE_TOP_P",
                                        "TROUPE_KEY_FILE",     "TROUPE_SEED",   "TROUPE_OTHER"};
    for (size_t i = 0; i < COUNT(names); i++)
        unsetenv(names[i]);
    memset(&options, 0xEE, sizeof options);
    return 0;
}

static void without_arguments_every_field_has_its_default(void **state)
{
    (void)state;
    error err;
    assert_true(PARSE(&err));
    assert_string_equal(options.model, "default.gguf");
    assert_int_equal(options.port, 8080);
    assert_int_equal(options.kv_bytes, 64 << 20);
    assert_true(options.top_p == 0.95);
    assert_true(options.prefix_cache);
    assert_int_equal(options.policy, 1);
    assert_null(options.key_file);
}

static void the_command_line_wins_over_the_environment_over_the_default(void **state)
{
    (void)state;
    error err;
    setenv("TROUPE_PORT", "9000", 1);
    setenv("TROUPE_KV_BYTES", "2G", 1);
    setenv("TROUPE_PREFIX_CACHE", "false", 1);
    setenv("TROUPE_POLICY", "static", 1);
    setenv("TROUPE_MODEL", "", 1); /* empty is unset */
    setenv("TROUPE_OTHER", "someone else's", 1);
    assert_true(PARSE(&err, "--port", "9001"));
    assert_int_equal(options.port, 9001);
    assert_int_equal(options.kv_bytes, UINT64_C(2) << 30);
    assert_false(options.prefix_cache);
    assert_int_equal(options.policy, 2);
    assert_string_equal(options.model, "default.gguf");
}

static void both_spellings_and_the_last_of_two_values_work(void **state)
{
    (void)state;
    error err;
    assert_true(PARSE(&err, "--port=1", "--port", "2", "--model=--odd-name", "--top-p=1e-1", "--policy", "dynamic"));
    assert_int_equal(options.port, 2);
    assert_string_equal(options.model, "--odd-name");
    assert_true(options.top_p == 0.1);
    assert_int_equal(options.policy, 1);
    assert_true(PARSE(&err, "--key-file="));
    assert_string_equal(options.key_file, "");
}

static void a_bool_has_three_spellings(void **state)
{
    (void)state;
    error err;
    assert_true(PARSE(&err, "--no-prefix-cache"));
    assert_false(options.prefix_cache);
    assert_true(PARSE(&err, "--no-prefix-cache", "--prefix-cache"));
    assert_true(options.prefix_cache);
    assert_true(PARSE(&err, "--prefix-cache=0"));
    assert_false(options.prefix_cache);
    assert_true(PARSE(&err, "--prefix-cache=true"));
    assert_true(options.prefix_cache);
}

static void suffixes_are_powers_of_1024_where_the_row_takes_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t    bytes;
    } rows[] = {{"1048576", 1 << 20}, {"1024K", 1 << 20}, {"2048k", 2 << 20}, {"3M", 3 << 20}, {"1G", 1 << 30}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        error err;
        assert_true(PARSE(&err, "--kv-bytes", (char *)rows[i].text));
        assert_int_equal(options.kv_bytes, rows[i].bytes);
    }
    error err;
    assert_true(PARSE(&err, "--seed", "18446744073709551615"));
    assert_true(options.seed == UINT64_MAX);
}

static void bad_values_are_refused_with_flag_value_and_expectation(void **state)
{
    (void)state;
    static const struct {
        const char *arguments[3];
        const char *says[3];
    } rows[] = {
        {{"--port", "65536"}, {"--port", "\"65536\"", "from 0 to 65535"}},
        {{"--port", "-1"}, {"--port", "\"-1\"", "whole number"}},
        {{"--port", "80x"}, {"\"80x\""}},
        {{"--port", "1K"}, {"\"1K\""}},
        {{"--port", "0x50"}, {"\"0x50\""}},
        {{"--port", " 80"}, {"\" 80\""}},
        {{"--port", ""}, {"\"\""}},
        {{"--port", "99999999999999999999999"}, {"--port"}},
        {{"--port"}, {"--port needs a value", "--port N"}},
        {{"--model", "--port"}, {"--model needs a value"}},
        {{"--kv-bytes", "4K"}, {"\"4K\"", "from 1M to 1024G", "suffixes"}},
        {{"--kv-bytes", "17179869184G"}, {"17179869184G"}},
        {{"--kv-bytes", "1MB"}, {"\"1MB\""}},
        {{"--kv-bytes", "1T"}, {"\"1T\""}},
        {{"--top-p", "1.5"}, {"--top-p", "from 0 to 1"}},
        {{"--top-p", "nan"}, {"\"nan\""}},
        {{"--top-p", "inf"}, {"\"inf\""}},
        {{"--top-p", "0x1p-1"}, {"0x1p-1"}},
        {{"--top-p", "0.5a"}, {"0.5a"}},
        {{"--top-p", ""}, {"--top-p"}},
        {{"--prefix-cache=maybe"}, {"\"maybe\"", "neither true nor false"}},
        {{"--no-prefix-cache=true"}, {"takes no value"}},
        {{"--policy", "fast"}, {"\"fast\"", "continuous|dynamic|static"}},
        {{"--policy", "stat"}, {"\"stat\""}},
        {{"--policy", ""}, {"--policy"}},
        {{"stray"}, {"stray", "begin with --"}},
        {{"-p"}, {"-p"}},
        {{"--"}, {NULL}},
    };
    for (size_t i = 0; i + 1 < COUNT(rows); i++) {
        error err = {0};
        if (parse((char **)rows[i].arguments, NULL, &err))
            fail_msg("row %zu was accepted", i);
        assert_int_equal(err.code, ERR_INVALID);
        for (size_t s = 0; s < 3 && rows[i].says[s]; s++) {
            if (!strstr(err.text, rows[i].says[s]))
                fail_msg("row %zu: \"%s\" does not say \"%s\"", i, err.text, rows[i].says[s]);
        }
    }
    error err;
    assert_true(PARSE(&err, "--"));
}

static void a_bad_environment_value_names_the_variable(void **state)
{
    (void)state;
    error err;
    setenv("TROUPE_PORT", "http", 1);
    assert_false(PARSE(&err));
    assert_non_null(strstr(err.text, "TROUPE_PORT: \"http\""));
}

static void an_unknown_flag_suggests_the_nearest(void **state)
{
    (void)state;
    static const struct {
        const char *flag, *suggestion;
    } rows[] = {
        {"--prot", "--port"},
        {"--modle=x", "--model"},
        {"--kv-byte", "--kv-bytes"},
        {"--prefixcache", "--prefix-cache"},
        {"--pol", "--policy"},
        {"--Port", "--port"},
        {"--no-port", NULL},
        {"--temperature", NULL},
        {"--no-such-thing-at-all", NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        error err;
        char  says[64];
        assert_false(PARSE(&err, (char *)rows[i].flag, "1"));
        if (rows[i].suggestion) {
            snprintf(says, sizeof says, "did you mean %s?", rows[i].suggestion);
            if (!strstr(err.text, says))
                fail_msg("%s: \"%s\"", rows[i].flag, err.text);
        } else if (strcmp(rows[i].flag, "--no-port") != 0 && strstr(err.text, "did you mean")) {
            fail_msg("%s: \"%s\"", rows[i].flag, err.text);
        }
    }
    error err;
    char  huge[1000];
    memset(huge, '-', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_false(PARSE(&err, huge));
}

static void positional_arguments_are_counted_when_the_caller_takes_them(void **state)
{
    (void)state;
    error err;
    int   n_positional = -1;
    assert_true(parse((char *[]){"--port", "1", "serve", "--port", "2", NULL}, &n_positional, &err));
    assert_int_equal(n_positional, 3);
    assert_int_equal(options.port, 1);
    assert_true(parse((char *[]){"--", "--port", NULL}, &n_positional, &err));
    assert_int_equal(n_positional, 1);
    assert_true(parse((char *[]){"--port=3", NULL}, &n_positional, &err));
    assert_int_equal(n_positional, 0);
}

static void help_names_every_flag_default_and_variable_within_100_columns(void **state)
{
    (void)state;
    char  text[8192] = {0};
    FILE *out        = fmemopen(text, sizeof text - 1, "w");
    option_help(out, groups, COUNT(groups));
    fclose(out);
    static const char *const says[] = {
        "Model:\n",
        "\nServer:\n",
        "  --model FILE ",
        "[default default.gguf; TROUPE_MODEL]",
        "[default 64M; TROUPE_KV_BYTES]",
        "[default true; TROUPE_PREFIX_CACHE]",
        "[default 8080; TROUPE_PORT]",
        "[default 0.95; TROUPE_TOP_P]",
        "--policy continuous|dynamic|static",
        "[default dynamic; TROUPE_POLICY]",
        "[TROUPE_KEY_FILE]",
    };
    for (size_t i = 0; i < COUNT(says); i++) {
        if (!strstr(text, says[i]))
            fail_msg("help lacks \"%s\":\n%s", says[i], text);
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 100);
}

static void help_is_wanted_only_before_the_double_dash(void **state)
{
    (void)state;
    assert_true(option_wants_help(2, (char *[]){"--port", "--help"}));
    assert_true(option_wants_help(1, (char *[]){"-h"}));
    assert_false(option_wants_help(2, (char *[]){"--", "-h"}));
    assert_false(option_wants_help(0, NULL));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, clear_environment)
    const struct CMUnitTest tests[] = {
        TEST(without_arguments_every_field_has_its_default),
        TEST(the_command_line_wins_over_the_environment_over_the_default),
        TEST(both_spellings_and_the_last_of_two_values_work),
        TEST(a_bool_has_three_spellings),
        TEST(suffixes_are_powers_of_1024_where_the_row_takes_them),
        TEST(bad_values_are_refused_with_flag_value_and_expectation),
        TEST(a_bad_environment_value_names_the_variable),
        TEST(an_unknown_flag_suggests_the_nearest),
        TEST(positional_arguments_are_counted_when_the_caller_takes_them),
        TEST(help_names_every_flag_default_and_variable_within_100_columns),
        TEST(help_is_wanted_only_before_the_double_dash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
