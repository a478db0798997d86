/* Envelopes: one size, strict reading. */
#include "bus/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static envelope sample(void)
{
    envelope e = {.type             = 0x1234,
                  .protocol         = 1,
                  .attempt          = 3,
                  .incarnation      = UINT64_MAX,
                  .epoch            = 1ull << 63,
                  .sequence         = 42,
                  .deadline_unix_ms = INT64_MAX};
    for (uint8_t i = 0; i < 16; i++)
        e.request.bytes[i] = i;
    for (uint8_t i = 0; i < 25; i++)
        e.trace[i] = (uint8_t)(200 + i);
    return e;
}

static void what_was_encoded_is_decoded(void **state)
{
    (void)state;
    envelope before = sample(), after;
    uint8_t  bytes[ENVELOPE_BYTES];
    error    err;
    envelope_encode(&before, bytes);
    assert_true(envelope_decode((span){(char *)bytes, sizeof bytes}, &after, &err));
    assert_memory_equal(after.request.bytes, before.request.bytes, 16);
    assert_memory_equal(after.trace, before.trace, 25);
    assert_int_equal(after.type, before.type);
    assert_int_equal(after.protocol, before.protocol);
    assert_int_equal(after.attempt, before.attempt);
    assert_true(after.incarnation == before.incarnation && after.epoch == before.epoch &&
                after.sequence == before.sequence);
    assert_true(after.deadline_unix_ms == before.deadline_unix_ms);
}

static void every_prefix_and_every_longer_frame_is_refused(void **state)
{
    (void)state;
    envelope e                         = sample(), got;
    uint8_t  bytes[ENVELOPE_BYTES + 1] = {0};
    error    err;
    envelope_encode(&e, bytes);
    for (size_t n = 0; n <= sizeof bytes; n++)
        assert_int_equal(envelope_decode((span){(char *)bytes, n}, &got, &err), n == ENVELOPE_BYTES);
}

/* The sample with the smallest form of each integer, as other msgpack libraries write it. */
static void small_forms_of_integers_are_taken(void **state)
{
    (void)state;
    uint8_t  bytes[128] = {0x9a, 0xcd, 0x74, 0x01, 34, 1, 0xc4, 16};
    size_t   n          = 8 + 16;
    envelope e;
    error    err;
    bytes[n++] = 0;    /* attempt */
    bytes[n++] = 0xcc; /* incarnation */
    bytes[n++] = 200;
    bytes[n++] = 0xd1; /* epoch, as a signed number */
    bytes[n++] = 0x01;
    bytes[n++] = 0x00;
    bytes[n++] = 7; /* sequence */
    bytes[n++] = 0; /* deadline */
    bytes[n++] = 0xc4;
    bytes[n++] = 25;
    n += 25;
    assert_true(envelope_decode((span){(char *)bytes, n}, &e, &err));
    assert_int_equal(e.type, 34);
    assert_int_equal(e.incarnation, 200);
    assert_int_equal(e.epoch, 256);
    assert_int_equal(e.sequence, 7);
    assert_true(request_id_is_zero(&e.request));
}

typedef struct {
    const char *what;
    size_t      at;
    uint8_t     byte;
    error_code  code;
    const char *text;
} damage;

static void damage_is_refused_with_the_value_at_fault(void **state)
{
    (void)state;
    static const damage table[] = {
        {"a map", 0, 0x8a, ERR_INVALID, "array of 10"},
        {"nine values", 0, 0x99, ERR_INVALID, "array of 10"},
        {"another magic", 2, 0x75, ERR_UNSUPPORTED, "first value"},
        {"another layout", 3, 0x02, ERR_UNSUPPORTED, "first value"},
        {"a type that is nil", 4, 0xc0, ERR_INVALID, "type"},
        {"a type of 64 bits", 4, 0xcf, ERR_INVALID, "type"},
        {"a request that is text", 10, 0xd9, ERR_INVALID, "request"},
        {"a request of 17 bytes", 11, 17, ERR_INVALID, "request"},
        {"a negative attempt", 28, 0xff, ERR_INVALID, "attempt"},
        {"a negative deadline", 61, 0x80, ERR_INVALID, "deadline_unix_ms"},
        {"a trace of 24 bytes", 70, 24, ERR_INVALID, "trace"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        envelope e = sample(), got;
        uint8_t  bytes[ENVELOPE_BYTES];
        error    err;
        envelope_encode(&e, bytes);
        bytes[table[i].at] = table[i].byte;
        if (envelope_decode((span){(char *)bytes, sizeof bytes}, &got, &err))
            fail_msg("%s was taken", table[i].what);
        if (err.code != table[i].code || !strstr(err.text, table[i].text))
            fail_msg("%s: %s", table[i].what, err.text);
    }
}

static void request_ids_compare_and_print(void **state)
{
    (void)state;
    request_id a = {{0xde, 0xad}}, b = {{0xde, 0xad, 1}};
    char       text[33];
    assert_false(request_id_equal(&a, &b));
    assert_true(request_id_equal(&a, &a));
    assert_false(request_id_is_zero(&a));
    request_id_print(&b, text);
    assert_string_equal(text, "dead0100000000000000000000000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_is_decoded),
        cmocka_unit_test(every_prefix_and_every_longer_frame_is_refused),
        cmocka_unit_test(small_forms_of_integers_are_taken),
        cmocka_unit_test(damage_is_refused_with_the_value_at_fault),
        cmocka_unit_test(request_ids_compare_and_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
