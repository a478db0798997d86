/* Keywords never leave, however the text is cut; files that are not rules are refused with their place. */
#include "services/postprocessor/live_filter.h"
#include "support_filter_reference.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t one(void *arg)
{
    (void)arg;
    return 0;
}

static uint8_t seeded(void *arg)
{
    return (uint8_t)random_below(arg, 256);
}

static output_filter *parse(const char *yaml)
{
    error          err;
    output_filter *f = output_filter_parse(span_of(yaml), "rules.yaml", &err);
    if (!f)
        fail_msg("%s", err.text);
    return f;
}

static uint32_t run(output_filter *f, const char *text, uint32_t longest, char *out, size_t out_bytes)
{
    arena   *memory  = arena_new(FILTER_STREAM_BYTES_MAX, NULL);
    uint32_t blocked = reference_run(f, memory, span_of(text), longest, one, NULL, out, out_bytes);
    arena_free(&memory);
    return blocked;
}

static const char rules_of_the_table[] = "rules:\n"
                                         "  - name: secrets\n"
                                         "    action: block\n"
                                         "    keywords: [bluebird, \"47 11\"]\n"
                                         "  - name: swearing\n"
                                         "    action: mask\n"
                                         "    keywords: [darn, darned hell, Ärger, bird]\n"
                                         "  - name: names\n"
                                         "    action: replace\n"
                                         "    keywords: [Ann, Bob]\n"
                                         "    replacement: \"[name]\"\n"
                                         "    case_insensitive: false\n"
                                         "    whole_words: true\n";

static const struct {
    const char *text, *out, *rule;
} table[] = {
    {"", "", NULL},
    {"nothing to see", "nothing to see", NULL},
    {"well darn it", "well **** it", NULL},
    {"Darned!", "****ed!", NULL},
    {"darned hell", "***********", NULL},
    {"darned hello", "***********o", NULL},
    {"So ein ÄRGER, ärger.", "So ein *****, *****.", NULL},
    {"Ann met Bob", "[name] met [name]", NULL},
    {"Anna met ann, bOb and Ann_", "Anna met ann, bOb and Ann_", NULL},
    {"Ann", "[name]", NULL},
    {"the BLUEBIRD flies", "the ", "secrets"},
    {"a blue bird", "a blue ****", NULL},
    {"call 47 11 now", "call ", "secrets"},
    {"call 47 1", "call 47 1", NULL},
    {"bluebirdbluebird", "", "secrets"},
    {"Ann bluebird", "[name] ", "secrets"},
};

static void text_is_masked_replaced_or_ended_at_keywords(void **state)
{
    (void)state;
    output_filter *f = parse(rules_of_the_table);
    for (size_t i = 0; i < COUNT(table); i++)
        for (uint32_t by_character = 0; by_character < 2; by_character++) {
            char     out[8192];
            arena   *memory = arena_new(FILTER_STREAM_BYTES_MAX, NULL);
            uint64_t seed   = i;
            uint32_t blocked =
                reference_run(f, memory, span_of(table[i].text), by_character ? 1 : 100, one, &seed, out, sizeof out);
            assert_string_equal(out, table[i].out);
            assert_int_equal(blocked == UINT32_MAX, table[i].rule == NULL);
            if (table[i].rule)
                assert_string_equal(output_filter_rule_name(f, blocked), table[i].rule);
            arena_free(&memory);
        }
    output_filter_release(&f);
}

static void what_may_become_a_keyword_waits_and_nothing_else_does(void **state)
{
    (void)state;
    output_filter *f      = parse(rules_of_the_table);
    arena         *memory = arena_new(FILTER_STREAM_BYTES_MAX, NULL);
    filter_stream *s      = filter_stream_new(memory, f, NULL);
    char           text[65536 * 4];
    filter_output  out = {text, 0, sizeof text};
    assert_true(filter_stream_push(s, SPAN("go to the dar"), &out));
    assert_int_equal(out.size, strlen("go to the "));
    assert_true(filter_stream_push(s, SPAN("t"), &out));
    assert_int_equal(out.size, strlen("go to the dart"));
    assert_true(filter_stream_push(s, SPAN("s blue"), &out));
    assert_int_equal(out.size, strlen("go to the darts "));
    assert_false(filter_stream_push(s, SPAN("birds of a feather"), &out));
    assert_false(filter_stream_push(s, SPAN("more"), &out));
    assert_false(filter_stream_finish(s, &out));
    assert_int_equal(out.size, strlen("go to the darts "));
    arena_free(&memory);
    output_filter_release(&f);
}

static void any_split_of_any_text_says_what_the_reference_says(void **state)
{
    (void)state;
    random_seeded random    = random_from_seed(1);
    uint32_t      n_blocked = 0, n_changed = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        static reference_case c;
        static char           wanted[65536], got[300000];
        reference_random_case(&c, seeded, &random);
        char          *yaml    = reference_yaml(c.rules, c.n_rules);
        output_filter *f       = parse(yaml);
        uint32_t       blocked = reference_filter(c.rules, c.n_rules, span_of(c.text), wanted);
        arena         *memory  = arena_new(FILTER_STREAM_BYTES_MAX, NULL);
        uint32_t       by      = reference_run(f, memory, span_of(c.text), 1 + i % 5, seeded, &random, got, sizeof got);
        if (strcmp(wanted, got) != 0 || by != blocked)
            fail_msg("%stext \"%s\": expected \"%s\" (%d), got \"%s\" (%d)", yaml, c.text, wanted, (int)blocked, got,
                     (int)by);
        n_blocked += blocked != UINT32_MAX;
        n_changed += strcmp(wanted, c.text) != 0;
        arena_free(&memory);
        output_filter_release(&f);
        free(yaml);
    }
    assert_true(n_blocked > 150 && n_changed > 1500);
}

static void occurrences_are_counted_by_rule(void **state)
{
    (void)state;
    char           out[8192];
    output_filter *f = parse(rules_of_the_table);
    run(f, "darn darned Ann bluebird darn", 100, out, sizeof out);
    assert_int_equal(output_filter_n_rules(f), 3);
    assert_int_equal(output_filter_n_matches(f, 0), 1);
    assert_int_equal(output_filter_n_matches(f, 1), 3); /* "bird" too; nothing after the block */
    assert_int_equal(output_filter_n_matches(f, 2), 1);
    output_filter_release(&f);
}

static void files_that_are_not_rules_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *error;
    } bad[] = {
        {"", "rules.yaml: empty; expected a list named rules"},
        {"rules: {", "rules.yaml:2:1: "},
        {"rules:\n  - name: \xff", "rules.yaml: byte "},
        {"[]", "rules.yaml:1:1: expected one list named rules"},
        {"rule: []", "rules.yaml:1:1: expected one list named rules"},
        {"rules: []\nmore: 1", "rules.yaml:1:1: expected one list named rules"},
        {"rules: [1]", "rules.yaml:1:9: a rule is a mapping with name, action and keywords"},
        {"rules:\n  - {name: a, action: mask}", "rules.yaml:2:5: a rule needs name, action and keywords"},
        {"rules:\n  - {name: a b, action: mask, keywords: [x]}", "rules.yaml:2:12: a rule's name is 1 to 64"},
        {"rules:\n  - {name: a, action: hide, keywords: [x]}",
         "rules.yaml:2:23: action is \"hide\"; expected block, mask or replace"},
        {"rules:\n  - {name: a, action: [mask], keywords: [x]}", "rules.yaml:2:23: action is a list"},
        {"rules:\n  - {name: a, action: mask, keywords: x}", "rules.yaml:2:39: keywords: expected a list"},
        {"rules:\n  - {name: a, action: mask, keywords: []}", "rules.yaml:2:39: keywords: expected a list"},
        {"rules:\n  - {name: a, action: mask, keywords: [x, \"\"]}", "rules.yaml:2:43: a keyword of 0 bytes"},
        {"rules:\n  - {name: a, action: mask, keywords: [[x]]}", "rules.yaml:2:40: a keyword is a list"},
        {"rules:\n  - {name: a, action: mask, keywords: [x], replacement: y}",
         "rules.yaml:2:5: a rule has a replacement exactly when its action is replace"},
        {"rules:\n  - {name: a, action: replace, keywords: [x]}",
         "rules.yaml:2:5: a rule has a replacement exactly when its action is replace"},
        {"rules:\n  - {name: a, action: mask, keywords: [x], whole_words: 1}",
         "rules.yaml:2:57: whole_words: expected true or false"},
        {"rules:\n  - {name: a, action: mask, keywords: [x], nmae: 1}", "rules.yaml:2:44: expected name, action"},
        {"rules:\n  - {name: a, name: b, action: mask, keywords: [x]}", "rules.yaml:2:15: this field is there twice"},
        {"rules:\n  - {name: a, action: mask, keywords: [x]}\n  - {name: a, action: mask, keywords: [x]}",
         "rules.yaml:3:12: rule a is there already"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        error          err = {0};
        output_filter *f   = output_filter_parse(span_of(bad[i].yaml), "rules.yaml", &err);
        assert_null(f);
        if (strncmp(err.text, bad[i].error, strlen(bad[i].error)) != 0)
            fail_msg("%s\nexpected \"%s\", got \"%s\"", bad[i].yaml, bad[i].error, err.text);
    }
    char long_keyword[512];
    int  n = snprintf(long_keyword, sizeof long_keyword, "rules:\n  - {name: a, action: mask, keywords: [%0257d]}", 0);
    assert_true(n > 0);
    error err = {0};
    assert_null(output_filter_parse(span_of(long_keyword), "rules.yaml", &err));
    assert_non_null(strstr(err.text, "a keyword of 257 bytes; expected 1 to 256"));
    assert_null(output_filter_load("/nowhere/rules.yaml", &err));
    assert_non_null(strstr(err.text, "/nowhere/rules.yaml: No such file"));
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_changed_file_is_taken_for_new_texts_and_a_bad_one_is_not(void **state)
{
    (void)state;
    error err;
    char  path[] = "/tmp/test_output_filter_XXXXXX", out[8192];
    int   fd     = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, "rules:\n  - {name: one, action: mask, keywords: [cat]}\n");
    live_filter *l = live_filter_new(path, &err);
    assert_non_null(l);
    output_filter *old = output_filter_hold(live_filter_rules(l));
    assert_false(live_filter_poll(l, false));

    write_file(path, "rules:\n  - {name: two, action: mask, keywords: [dog, elk]}\n");
    assert_true(live_filter_poll(l, false));
    run(live_filter_rules(l), "cat dog", 100, out, sizeof out);
    assert_string_equal(out, "cat ***");
    run(old, "cat dog", 100, out, sizeof out); /* a text that began before */
    assert_string_equal(out, "*** dog");
    output_filter_release(&old);

    write_file(path, "rules:\n  - {name: bad, action: mask}\n");
    assert_false(live_filter_poll(l, false));
    run(live_filter_rules(l), "cat dog", 100, out, sizeof out);
    assert_string_equal(out, "cat ***");
    unlink(path);
    assert_false(live_filter_poll(l, false));
    assert_string_equal(output_filter_rule_name(live_filter_rules(l), 0), "two");
    metric *counted = metric_find("troupe_output_filter_matches_total", "rule=\"two\"");
    assert_non_null(counted);
    assert_int_equal((int)metric_value(counted), 2);
    write_file(path, "rules: []\n");
    assert_true(live_filter_poll(l, false));
    assert_int_equal(output_filter_n_rules(live_filter_rules(l)), 0);
    live_filter_free(&l);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_masked_replaced_or_ended_at_keywords),
        cmocka_unit_test(what_may_become_a_keyword_waits_and_nothing_else_does),
        cmocka_unit_test(any_split_of_any_text_says_what_the_reference_says),
        cmocka_unit_test(occurrences_are_counted_by_rule),
        cmocka_unit_test(files_that_are_not_rules_are_refused_with_their_place),
        cmocka_unit_test(a_changed_file_is_taken_for_new_texts_and_a_bad_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
