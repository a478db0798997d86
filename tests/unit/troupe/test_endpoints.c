/* Endpoints of flags: where they are cut, and what is refused. */
#include "troupe/endpoints.h"

#include "base/span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SLOTS = 4 };

static void endpoints_are_cut_at_their_commas(void **state)
{
    static const struct {
        const char *before, *text, *slots[SLOTS]; /* before: what an earlier flag gave */
    } cases[] = {
        {NULL, "tcp://a:1", {"tcp://a:1"}},
        {NULL, "tcp://a:1,ipc://b", {"tcp://a:1", "ipc://b"}},
        {NULL, ",tcp://a:1,,ipc://b,", {"tcp://a:1", "ipc://b"}},
        {"tcp://gateway:1", "a,b,c", {"tcp://gateway:1", "a", "b", "c"}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char        copy[ENDPOINTS_BYTES];
        const char *slots[SLOTS] = {cases[i].before};
        error       err;
        if (!cut_endpoints(copy, cases[i].text, slots, SLOTS, "--gateway", &err))
            fail_msg("%s: %s", cases[i].text, err.text);
        for (size_t k = 0; k < SLOTS; k++) {
            if (cases[i].slots[k])
                assert_string_equal(cases[i].slots[k], slots[k]);
            else
                assert_null(slots[k]);
        }
    }
}

static void what_is_no_list_of_endpoints_is_named(void **state)
{
    static char longest[ENDPOINTS_BYTES + 1];
    static const struct {
        const char *before, *text, *says;
    } cases[] = {
        {NULL, "", "--scheduler: an endpoint is missing"},
        {NULL, ",,", "--scheduler: an endpoint is missing"},
        {"tcp://gateway:1", ",", "--scheduler: an endpoint is missing"},
        {NULL, "a,b,c,d,e", "--scheduler: at most 4 endpoints"},
        {"tcp://gateway:1", "a,b,c,d", "--scheduler: at most 4 endpoints"},
        {NULL, longest, "--scheduler: longer than 1023 bytes"},
    };
    (void)state;
    memset(longest, 'a', ENDPOINTS_BYTES);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char        copy[ENDPOINTS_BYTES];
        const char *slots[SLOTS] = {cases[i].before};
        error       err          = {0};
        assert_false(cut_endpoints(copy, cases[i].text, slots, SLOTS, "--scheduler", &err));
        assert_string_equal(cases[i].says, err.text);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints_are_cut_at_their_commas),
        cmocka_unit_test(what_is_no_list_of_endpoints_is_named),
    };
    return cmocka_run_group_tests_name("troupe/endpoints", tests, NULL, NULL);
}
