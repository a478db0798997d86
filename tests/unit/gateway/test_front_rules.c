#include "services/gateway/front_rules.h"

#include "base/clock.h"
#include "base/metric.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const char good[] = "rules:\n"
                           "- name: hours\n"
                           "  match: keyword\n"
                           "  patterns: [opening hours, \"C++\", \"\xe8\x90\xa5\xe4\xb8\x9a\"]\n"
                           "  answer: 9 to 17\n"
                           "- name: hello\n"
                           "  match: exact\n"
                           "  pattern: Hello (you)\n"
                           "  case_insensitive: false\n"
                           "  answer: \"Hi\\n\"\n"
                           "- name: bomb\n"
                           "  match: regex\n"
                           "  pattern: \"how to build .* bomb$\"\n"
                           "  answer: No.\n"
                           "  finish: content_filter\n"
                           "- {name: slow, match: regex, pattern: \"^(a+)+$\", answer: never}\n";

static front_rules *must_parse(const char *yaml)
{
    error        err;
    front_rules *rules = front_rules_parse(span_of(yaml), "rules.yaml", &err);
    if (!rules)
        fail_msg("%s", err.text);
    return rules;
}

static void questions_find_their_rule(void **state)
{
    static const struct {
        const char *question, *rule;
    } cases[] = {
        {"What are your OPENING  hours?", "hours"},
        {"reopening hours", NULL},
        {"opening hoursx", NULL},
        {"I write C++ code", "hours"},
        {"I write C++x code", NULL},
        {"\xe4\xbd\xa0\xe4\xbb\xac\xe8\x90\xa5\xe4\xb8\x9a\xe5\x90\x97",
         "hours"}, /* inside a sentence without spaces */
        {" Hello (you)\n", "hello"},
        {"hello (you)", NULL},
        {"Hello (you)!", NULL},
        {"HOW TO BUILD a small bomb", "bomb"},
        {"how to build a bomb shelter", NULL},
        {"", NULL},
        {"\xff\xfe opening hours", NULL},
    };
    (void)state;
    front_rules *rules = must_parse(good);
    assert_int_equal(front_rules_count(rules), 4);
    for (size_t i = 0; i < COUNT(cases); i++) {
        front_answer out;
        bool         found = front_rules_match(rules, span_of(cases[i].question), &out);
        if (found != (cases[i].rule != NULL) || (found && strcmp(out.name, cases[i].rule) != 0))
            fail_msg("%s: %s", cases[i].question, found ? out.name : "nothing");
    }
    front_answer out;
    assert_true(front_rules_match(rules, SPAN("Hello (you)"), &out));
    assert_true(span_is(out.answer, "Hi\n") && out.finish == FINISH_REASON_STOP);
    assert_true(front_rules_match(rules, SPAN("how to build a bomb"), &out));
    assert_int_equal(out.finish, FINISH_REASON_CONTENT_FILTER);
    assert_true(metric_value(metric_find("troupe_front_rule_hits_total", "rule=\"hours\"")) >= 3);
    front_rules_free(&rules);
}

static void a_pattern_that_explodes_is_given_up(void **state)
{
    (void)state;
    front_rules *rules = must_parse(good);
    char         question[4096];
    front_answer out;
    int64_t      began_ns = clock_now_ns(clock_system());
    memset(question, 'a', sizeof question);
    question[sizeof question - 1] = '!';
    assert_false(front_rules_match(rules, (span){question, sizeof question}, &out));
    assert_true(clock_now_ns(clock_system()) - began_ns < 2 * NS_PER_S);
    front_rules_free(&rules);
}

static void bad_files_are_refused_with_line_and_column(void **state)
{
    static const struct {
        const char *yaml, *says;
    } cases[] = {
        {"", "rules.yaml: the file is empty"},
        {"# nothing yet\n", "rules.yaml: the file is empty"},
        {"rules: [\n", "rules.yaml: line 2, column 1"},
        {"a: b\nrules: []\n", "line 1, column 1"},
        {"rules: {}\n", "line 1, column 8"},
        {"rules:\n- 5\n", "line 2, column 3"},
        {"rules:\n- {match: exact, pattern: x, answer: y}\n", "name must be"},
        {"rules:\n- {name: \"a b\", match: exact, pattern: x, answer: y}\n", "line 2, column 10"},
        {"rules:\n- {name: a, match: fuzzy, pattern: x, answer: y}\n", "line 2, column 20"},
        {"rules:\n- {name: a, match: exact, answer: y}\n", "pattern or patterns"},
        {"rules:\n- {name: a, match: exact, pattern: x, patterns: [y], answer: y}\n", "pattern or patterns"},
        {"rules:\n- {name: a, match: exact, patterns: [], answer: y}\n", "patterns must be"},
        {"rules:\n- {name: a, match: exact, patterns: [[x]], answer: y}\n", "a pattern must be a text"},
        {"rules:\n- {name: a, match: regex, pattern: \"(\", answer: y}\n", "line 2, column 36"},
        {"rules:\n- {name: a, match: regex, pattern: \"\\\\C\", answer: y}\n", "the pattern can't be used"},
        {"rules:\n- {name: a, match: exact, pattern: x}\n", "answer has"},
        {"rules:\n- {name: a, match: exact, pattern: x, answer: y, finish: length}\n", "finish must be"},
        {"rules:\n- {name: a, match: exact, pattern: x, answer: y, case_insensitive: 1}\n", "case_insensitive must"},
        {"rules:\n- {name: a, match: exact, pattern: x, answer: y, wieght: 1}\n", "no field \"wieght\""},
        {"rules:\n- {name: a, name: b, match: exact, pattern: x, answer: y}\n", "there twice"},
        {"rules:\n- &r {name: a, match: exact, pattern: x, answer: y}\n- *r\n", "another rule has the name"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err;
        assert_null(front_rules_parse(span_of(cases[i].yaml), "rules.yaml", &err));
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: %s", cases[i].yaml, err.text);
    }
    front_rules *none = must_parse("rules: []\n");
    assert_int_equal(front_rules_count(none), 0);
    front_rules_free(&none);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_changed_file_is_read_and_a_bad_one_is_said_once(void **state)
{
    char         path[] = "/tmp/front-rules-XXXXXX";
    error        err;
    bool         changed;
    front_answer out;
    (void)state;
    close(mkstemp(path));
    write_file(path, "rules:\n- {name: a, match: exact, pattern: x, answer: one}\n");
    front_rules *rules = front_rules_load(path, &err);
    assert_non_null(rules);
    assert_true(front_rules_reload(rules, false, &changed, &err) && !changed);
    write_file(path, "rules:\n- {name: a, match: exact, pattern: x, answer: twice}\n");
    assert_true(front_rules_reload(rules, false, &changed, &err) && changed);
    assert_true(front_rules_match(rules, SPAN("x"), &out) && span_is(out.answer, "twice"));
    write_file(path, "rules:\n- {name: a, match: exact}\n");
    assert_false(front_rules_reload(rules, false, &changed, &err));
    assert_non_null(strstr(err.text, "line 2"));
    assert_true(front_rules_reload(rules, false, &changed, &err) && !changed); /* said once */
    write_file(path, "");                                                      /* in the midst of being written */
    assert_false(front_rules_reload(rules, false, &changed, &err));
    assert_true(front_rules_match(rules, SPAN("x"), &out) && span_is(out.answer, "twice"));
    unlink(path);
    assert_false(front_rules_reload(rules, false, &changed, &err));
    assert_true(front_rules_reload(rules, false, &changed, &err) && !changed);
    assert_true(front_rules_match(rules, SPAN("x"), &out));
    front_rules_free(&rules);
    assert_null(front_rules_load(path, &err));
    assert_int_equal(err.code, ERR_IO);
}

static void a_file_that_is_removed_while_it_is_read_is_an_error(void **state)
{
    char  path[] = "/tmp/front-rules-XXXXXX", removed[64];
    error err    = {0};
    int   fd     = mkstemp(path);
    (void)state;
    unlink(path);
    snprintf(removed, sizeof removed, "/proc/self/fd/%d", fd);
    assert_null(front_rules_load(removed, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "was removed"));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_find_their_rule),
        cmocka_unit_test(a_pattern_that_explodes_is_given_up),
        cmocka_unit_test(bad_files_are_refused_with_line_and_column),
        cmocka_unit_test(a_changed_file_is_read_and_a_bad_one_is_said_once),
        cmocka_unit_test(a_file_that_is_removed_while_it_is_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
