/* The recorder's file format: what is written reads back, and nothing else reads as a record. */
#include "actor/recording.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FILE_BYTES = 1024 };

static const recording_header head = {
    .incarnation = 0x1122334455667788, .segment = 7, .unix_ms = 1234567890123, .service = "scheduler"};

static size_t add(uint8_t *file, size_t at, const record *r)
{
    record_write(r, file + at);
    return at + record_seal(file + at);
}

/* A message and a gap. */
static size_t make_file(uint8_t *file)
{
    record message = {.kind         = RECORD_IN,
                      .monotonic_ns = 5,
                      .unix_ms      = -6,
                      .node         = SPAN("scheduler-1"),
                      .peer         = SPAN("tokenizer-2"),
                      .envelope     = SPAN("an envelope"),
                      .body         = SPAN("a body")};
    record gap     = {.kind = RECORD_GAP, .n_lost = 99};
    recording_write_header(&head, file);
    return add(file, add(file, RECORDING_HEADER_BYTES, &message), &gap);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    uint8_t          file[FILE_BYTES];
    span             rest = {(char *)file, make_file(file)};
    recording_header h;
    record           r;
    error            err;
    assert_true(recording_read_header(&rest, &h, &err));
    assert_true(h.incarnation == head.incarnation && h.segment == 7 && h.unix_ms == head.unix_ms);
    assert_string_equal(h.service, "scheduler");
    assert_int_equal(recording_next(&rest, &r), RECORDING_RECORD);
    assert_true(r.kind == RECORD_IN && r.monotonic_ns == 5 && r.unix_ms == -6 && r.n_lost == 0);
    assert_true(span_is(r.node, "scheduler-1") && span_is(r.peer, "tokenizer-2"));
    assert_true(span_is(r.envelope, "an envelope") && span_is(r.body, "a body"));
    assert_int_equal(recording_next(&rest, &r), RECORDING_RECORD);
    assert_true(r.kind == RECORD_GAP && r.n_lost == 99 && r.body.size == 0);
    assert_int_equal(recording_next(&rest, &r), RECORDING_END);
}

/* How many records can be read of the first `size` bytes, and how it ended. */
static recording_state read_all(const uint8_t *file, size_t size, uint32_t *n)
{
    span             rest = {(const char *)file, size};
    recording_header h;
    record           r;
    recording_state  state = RECORDING_END;
    *n                     = 0;
    if (!recording_read_header(&rest, &h, NULL))
        return RECORDING_DAMAGED;
    while ((state = recording_next(&rest, &r)) == RECORDING_RECORD)
        ++*n;
    return state;
}

static void a_file_may_end_anywhere(void **state)
{
    (void)state;
    uint8_t file[FILE_BYTES];
    size_t  size  = make_file(file);
    size_t  first = size - RECORD_HEADER_BYTES; /* where the gap begins */
    for (size_t cut = RECORDING_HEADER_BYTES; cut <= size; cut++) {
        uint32_t        n;
        uint8_t        *copy  = malloc(cut); /* so that the address sanitizer sees a read past the end */
        recording_state ended = read_all(memcpy(copy, file, cut), cut, &n);
        bool            whole = cut == RECORDING_HEADER_BYTES || cut == first || cut == size;
        assert_int_equal(ended, whole ? RECORDING_END : RECORDING_TORN);
        assert_int_equal(n, (cut >= first) + (cut == size));
        free(copy);
    }
}

static void a_changed_bit_is_seen_wherever_it_is(void **state)
{
    (void)state;
    uint8_t  file[FILE_BYTES];
    size_t   size = make_file(file);
    uint32_t n;
    for (size_t bit = 0; bit < size * 8; bit++) {
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        recording_state ended = read_all(file, size, &n);
        assert_true(ended != RECORDING_END && n < 2);
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(read_all(file, size, &n), RECORDING_END);
}

static void what_is_no_recording_is_named(void **state)
{
    (void)state;
    static char      not_one[RECORDING_HEADER_BYTES] = "GGUF";
    uint8_t          file[FILE_BYTES];
    recording_header h;
    error            err;
    span             rest = {not_one, sizeof not_one};
    assert_false(recording_read_header(&rest, &h, &err));
    assert_int_equal(err.code, ERR_INVALID);
    make_file(file);
    file[8] = 2;
    rest    = (span){(char *)file, RECORDING_HEADER_BYTES};
    assert_false(recording_read_header(&rest, &h, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "version 2"));
    rest.size = RECORDING_HEADER_BYTES - 1;
    assert_false(recording_read_header(&rest, &h, &err));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(a_file_may_end_anywhere),
        cmocka_unit_test(a_changed_bit_is_seen_wherever_it_is),
        cmocka_unit_test(what_is_no_recording_is_named),
    };
    return cmocka_run_group_tests_name("actor/recording", tests, NULL, NULL);
}
