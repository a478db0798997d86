/* traceparent: what W3C Trace Context level 1 calls valid is read, all else is not. */
#include "trace/trace_context.h"

#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define IDS "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"

static void a_header_is_read_as_the_specification_says(void **state)
{
    static const struct {
        const char *header;
        bool        valid, sampled;
    } cases[] = {
        {"00-" IDS "-01", true, true},
        {"00-" IDS "-00", true, false},
        {"00-" IDS "-ff", true, true},  /* other flags mean nothing */
        {"00-" IDS "-fe", true, false}, /* and are dropped */
        {"cc-" IDS "-01", true, true},
        {"cc-" IDS "-01-what-the-future-brings", true, true},
        {"cc-" IDS "-01.what-the-future-brings", false, false},
        {"01-" IDS "-01-", true, true},
        {"00-" IDS "-01-", false, false},
        {"00-" IDS "-01-00", false, false},
        {"ff-" IDS "-01", false, false},
        {"FE-" IDS "-01", false, false},
        {"0-" IDS "-01", false, false},
        {"00-" IDS "-1", false, false},
        {"00-" IDS "-0x", false, false},
        {"00-" IDS, false, false},
        {"00_" IDS "-01", false, false},
        {"00-" IDS "_01", false, false},
        {"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01", false, false},
        {"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false, false},
        {"00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01", false, false},
        {"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01", false, false},
        {"00-0af7651916cd43dd8448eb211c80319-0b7ad6b7169203331-01", false, false},
        {"00-00000000000000000000000000000000-b7ad6b7169203331-01", false, false},
        {"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false, false},
        {"", false, false},
        {"-", false, false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t context[TRACE_CONTEXT_BYTES] = {0xaa};
        char    id[TRACE_ID_TEXT];
        if (trace_context_parse(span_of(cases[i].header), context) != cases[i].valid)
            fail_msg("%s: expected %s", cases[i].header, cases[i].valid ? "valid" : "invalid");
        if (!cases[i].valid) {
            assert_int_equal(context[0], 0xaa); /* untouched */
            continue;
        }
        trace_id_print(context, id);
        assert_string_equal(id, "0af7651916cd43dd8448eb211c80319c");
        assert_memory_equal(context + TRACE_ID_BYTES, "\xb7\xad\x6b\x71\x69\x20\x33\x31", TRACE_SPAN_ID_BYTES);
        assert_int_equal(context[TRACE_CONTEXT_BYTES - 1], cases[i].sampled);
        assert_true(trace_context_is_valid(context));
    }
}

static void a_context_of_an_envelope_needs_both_ids(void **state)
{
    uint8_t context[TRACE_CONTEXT_BYTES] = {0};
    char    id[TRACE_ID_TEXT];
    (void)state;
    assert_false(trace_context_is_valid(context));
    trace_id_print(context, id);
    assert_string_equal(id, "-");
    context[15] = 1;
    assert_false(trace_context_is_valid(context));
    trace_id_print(context, id);
    assert_string_equal(id, "00000000000000000000000000000001");
    context[23] = 1;
    assert_true(trace_context_is_valid(context));
    context[15] = 0;
    assert_false(trace_context_is_valid(context));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read_as_the_specification_says),
        cmocka_unit_test(a_context_of_an_envelope_needs_both_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
