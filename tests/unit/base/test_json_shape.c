#include "base/json_shape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void depth_and_values_are_counted_outside_of_strings(void **state)
{
    static const struct {
        const char *text;
        uint32_t    n_values, n_left;
        error_code  code;
    } cases[] = {
        {"", 0, 0, ERR_NONE},
        {"\"[[[[[,,,\\\"[[[\"", 0, 0, ERR_NONE},
        {"[1, 2, {\"a\": [3]}]", 5, 0, ERR_NONE},
        {"[1, 2, {\"a\": [3]}]", 4, 0, ERR_TOO_LARGE},
        {"[[[]]]", 9, 6, ERR_NONE},
        {"[[[[", 9, 6, ERR_TOO_LARGE}, /* deeper than three */
        {"]]]][]", 9, 8, ERR_NONE},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        error    err      = {0};
        uint32_t n_values = cases[i].n_values;
        bool     ok       = json_shape_check(span_of(cases[i].text), 3, &n_values, &err);
        if (ok != (cases[i].code == ERR_NONE) || n_values != cases[i].n_left || err.code != cases[i].code)
            fail_msg("%s: %u values left, %s", cases[i].text, n_values, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(depth_and_values_are_counted_outside_of_strings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
