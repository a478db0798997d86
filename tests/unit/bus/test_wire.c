/* The codec: golden vectors decode and encode to the same bytes; everything hostile is refused. */
#include "bus/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <stdio.h>

enum { MEMORY_BYTES = 1 << 20 };

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t   n = 0;
    unsigned byte;
    while (sscanf(hex + 2 * n, "%2x", &byte) == 1)
        out[n++] = (uint8_t)byte;
    return n;
}

static void every_golden_vector_decodes_and_encodes_to_itself(void **state)
{
    (void)state;
    FILE *file = fopen(TESTS_DIR "/data/messages/golden-v1.txt", "r");
    assert_non_null(file);
    static char    line[1 << 16];
    static uint8_t bytes[1 << 15], encoded[1 << 15];
    arena         *memory = arena_new(MEMORY_BYTES, NULL);
    uint32_t       n      = 0;
    while (fgets(line, sizeof line, file)) {
        char *hex;
        if (line[0] == '#')
            continue;
        uint16_t    type = (uint16_t)strtoul(line, &hex, 10);
        size_t      size = from_hex(hex + 1, bytes);
        const void *body;
        error       err = {0};
        arena_reset(memory);
        if (!message_decode(type, (span){(const char *)bytes, size}, memory, &body, &err))
            fail_msg("type %u: %s", type, err.text);
        wire_writer out = {encoded, sizeof encoded, 0, false};
        if (!message_encode(type, body, &out, &err))
            fail_msg("type %u: %s", type, err.text);
        assert_int_equal(size, out.size);
        assert_memory_equal(bytes, encoded, size);
        n++;
    }
    fclose(file);
    assert_int_equal(2 * n_message_infos, n);
    arena_free(&memory);
}

static const struct {
    const char *does;
    uint16_t    type;
    const char *hex;
    const char *says; /* part of the error's text; NULL: accepted */
} cases[] = {
    {"an empty body takes the defaults", MSG_TEXT_REQUEST, "80", NULL},
    {"an unknown field is skipped with all that it holds", MSG_NODE_HEARTBEAT, "8201c33e93c0c4010181a17801", NULL},
    {"nothing at all", MSG_NODE_HEARTBEAT, "", "malformed or truncated"},
    {"a body that is no map", MSG_NODE_HEARTBEAT, "93010203", "expected a map"},
    {"a truncated map", MSG_NODE_HEARTBEAT, "8201", "more values than there are bytes"},
    {"trailing bytes", MSG_NODE_HEARTBEAT, "8000", "behind the msgpack value"},
    {"the byte that msgpack never uses", MSG_NODE_HEARTBEAT, "8101c1", "malformed"},
    {"a field given twice", MSG_NODE_HEARTBEAT, "8201c301c2", "given twice"},
    {"a required field that is absent", MSG_NODE_CREDIT, "80", "node.credit.n: required"},
    {"a number below its range", MSG_NODE_CREDIT, "810100", "between 1 and"},
    {"a number above its range", MSG_NODE_CREDIT, "8101ce7fffffff", "between 1 and"},
    {"a number that does not fit its type", MSG_NODE_CREDIT, "8101cf0000000100000001", "unsigned 32-bit"},
    {"a negative number where none may be", MSG_NODE_CREDIT, "8101ff", "unsigned 32-bit"},
    {"a string where a number belongs", MSG_NODE_CREDIT, "8101a131", "unsigned 32-bit"},
    {"text that is not UTF-8", MSG_NODE_BYE, "8101a2c328", "valid UTF-8"},
    {"bytes where text belongs", MSG_NODE_BYE, "8101c40141", "expected a string"},
    {"a blob of odd size", MSG_TEXT_DECODE, "8101c403010203", "four an item"},
    {"a count bomb", MSG_TEXT_REQUEST, "8102dd02faf080", "more values than there are bytes"},
    {"a nested count bomb", MSG_TEXT_REQUEST, "8102dc000adc000adc000adc000adc000adc000a", "more values"},
    {"depth beyond the limit", MSG_TEXT_REQUEST, "8102919191919191919191919191919191919191919191c0", "nested deeper"},
    {"a float that is not a number", MSG_TEXT_REQUEST, "81088101ca7fc00000", "between 0 and 100"},
    {"the least float of a range, 0.01, which is less than 0.01", MSG_TEXT_REQUEST, "81088106ca3c23d70a", NULL},
    {"the float below it", MSG_TEXT_REQUEST, "81088106ca3c23d709", "between 0.01 and 100"},
    {"an enum value from the future", MSG_TEXT_REQUEST, "8101cc63", NULL},
    {"field keys that are strings", MSG_NODE_HEARTBEAT, "81a161c3", "field number"},
};

static void hostile_bodies_are_refused_by_name(void **state)
{
    (void)state;
    arena *memory = arena_new(MEMORY_BYTES, NULL);
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint8_t     bytes[64];
        size_t      size = from_hex(cases[i].hex, bytes);
        const void *body;
        error       err = {0};
        arena_reset(memory);
        bool ok = message_decode(cases[i].type, (span){(const char *)bytes, size}, memory, &body, &err);
        if (ok != !cases[i].says || (!ok && !strstr(err.text, cases[i].says)))
            fail_msg("%s: %s", cases[i].does, ok ? "accepted" : err.text);
    }
    arena_free(&memory);
}

static void an_unknown_type_is_unsupported(void **state)
{
    (void)state;
    arena      *memory = arena_new(4096, NULL);
    const void *body;
    error       err = {0};
    assert_false(message_decode(60000, SPAN("\x80"), memory, &body, &err));
    assert_int_equal(ERR_UNSUPPORTED, err.code);
    arena_free(&memory);
}

static void the_schema_limits_what_is_sent_too(void **state)
{
    (void)state;
    uint8_t     bytes[1024];
    wire_writer out  = {bytes, sizeof bytes, 0, false};
    error       err  = {0};
    node_credit none = {.n = 0};
    assert_false(message_encode(MSG_NODE_CREDIT, &none, &out, &err));
    assert_non_null(strstr(err.text, "node.credit.n"));

    static char long_text[2000];
    memset(long_text, 'x', sizeof long_text);
    node_bye bye = {.reason = {long_text, sizeof long_text}};
    assert_false(message_encode(MSG_NODE_BYE, &bye, &out, &err));
    assert_int_equal(ERR_TOO_LARGE, err.code);

    text_delta big = {.text = {long_text, sizeof long_text}};
    assert_false(message_encode(MSG_TEXT_DELTA, &big, &out, &err));
    assert_true(out.overflow);
}

static void a_small_arena_is_an_error_not_a_crash(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 16];
    span           stops[16];
    for (size_t i = 0; i < COUNT(stops); i++)
        stops[i] = SPAN("stop");
    text_request request  = text_request_defaults;
    request.output.stop   = stops;
    request.output.n_stop = COUNT(stops);
    wire_writer out       = {bytes, sizeof bytes, 0, false};
    assert_true(message_encode(MSG_TEXT_REQUEST, &request, &out, NULL));
    arena      *memory = arena_new(sizeof(text_request) + 100, NULL);
    const void *body;
    error       err = {0};
    assert_false(message_decode(MSG_TEXT_REQUEST, (span){(const char *)bytes, out.size}, memory, &body, &err));
    assert_int_equal(ERR_NO_MEMORY, err.code);
    arena_free(&memory);
}

static void defaults_cost_no_bytes_and_come_back(void **state)
{
    (void)state;
    uint8_t     bytes[64];
    wire_writer out = {bytes, sizeof bytes, 0, false};
    assert_true(message_encode(MSG_TEXT_REQUEST, &text_request_defaults, &out, NULL));
    assert_int_equal(1, out.size);
    arena      *memory = arena_new(4096, NULL);
    const void *body;
    assert_true(message_decode(MSG_TEXT_REQUEST, (span){(const char *)bytes, out.size}, memory, &body, NULL));
    const text_request *request = body;
    assert_true(request->sampling.temperature == 1.0f && request->n == 1 && request->output.filter);
    arena_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_vector_decodes_and_encodes_to_itself),
        cmocka_unit_test(hostile_bodies_are_refused_by_name),
        cmocka_unit_test(an_unknown_type_is_unsupported),
        cmocka_unit_test(the_schema_limits_what_is_sent_too),
        cmocka_unit_test(a_small_arena_is_an_error_not_a_crash),
        cmocka_unit_test(defaults_cost_no_bytes_and_come_back),
    };
    return cmocka_run_group_tests_name("bus/wire", tests, NULL, NULL);
}
