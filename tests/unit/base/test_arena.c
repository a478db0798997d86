/* Arenas: aligned, zeroed, bounded, and as good as new after a reset. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static arena *arena_of(size_t bytes)
{
    error  err;
    arena *a = arena_new(bytes, &err);
    assert_non_null(a);
    return a;
}

static void everything_taken_is_aligned_and_does_not_overlap(void **state)
{
    (void)state;
    arena *a     = arena_of(64 * 1024);
    char  *above = NULL;
    for (size_t bytes = 0; bytes < 200; bytes++) {
        char *taken = arena_take(a, bytes);
        assert_non_null(taken);
        assert_int_equal((uintptr_t)taken % 16, 0);
        assert_true(taken >= above);
        memset(taken, 0xFF, bytes);
        above = taken + bytes;
    }
    arena_free(&a);
    assert_null(a);
    arena_free(&a);
}

static void a_full_arena_says_no_and_stays_usable(void **state)
{
    (void)state;
    arena *a = arena_of(100);
    assert_non_null(arena_take(a, 48));
    assert_null(arena_take(a, 53));
    assert_int_equal(arena_used(a), 48);
    assert_non_null(arena_take(a, 52));
    assert_int_equal(arena_used(a), 100);
    assert_null(arena_take(a, 1));
    assert_null(arena_copy(a, SPAN("")).data);
    assert_null(arena_format(a, "x").data);
    arena_reset(a);
    assert_non_null(arena_take(a, 100));
    arena_free(&a);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    arena *a = arena_of(4096);
    arena_take(a, 16);
    assert_null(arena_take(a, SIZE_MAX));
    assert_null(arena_take(a, SIZE_MAX - 15));
    assert_null(arena_take_array(a, SIZE_MAX / 2, 3));
    assert_null(arena_take_array(a, (size_t)1 << 33, (size_t)1 << 33));
    assert_null(arena_copy(a, (span){"x", SIZE_MAX}).data);
    assert_non_null(arena_take_array(a, 10, 8));
    arena_free(&a);
}

static void memory_is_zero_also_after_reset_and_rewind(void **state)
{
    (void)state;
    arena *a = arena_of(1024);
    memset(arena_take(a, 1024), 0xAB, 1024);
    arena_reset(a);
    for (int round = 0; round < 3; round++) {
        size_t mark  = arena_mark(a);
        char  *taken = arena_take(a, 500);
        for (size_t i = 0; i < 500; i++)
            assert_int_equal(taken[i], 0);
        memset(taken, 0xCD, 500);
        arena_rewind(a, mark);
        assert_int_equal(arena_used(a), mark);
        arena_take(a, 32);
    }
    arena_free(&a);
}

static void copies_and_formats_are_terminated(void **state)
{
    (void)state;
    arena *a    = arena_of(1024);
    span   copy = arena_copy(a, (span){"abcdef", 3});
    assert_int_equal(copy.size, 3);
    assert_string_equal(copy.data, "abc");
    span text = arena_format(a, "%s-%d", "node", 7);
    assert_int_equal(text.size, 6);
    assert_string_equal(text.data, "node-7");
    assert_string_equal(arena_copy(a, (span){NULL, 0}).data, "");
    arena_free(&a);
}

static void an_impossible_size_is_an_error_that_names_it(void **state)
{
    (void)state;
    error err;
    assert_null(arena_new((size_t)1 << 62, &err));
    assert_int_equal(err.code, ERR_NO_MEMORY);
    assert_non_null(strstr(err.text, "4611686018427387904"));
    arena *empty = arena_of(0);
    assert_null(arena_take(empty, 1));
    assert_int_equal(arena_capacity(empty), 0);
    arena_free(&empty);
}

static void memory_that_is_not_cleared_counts_as_any(void **state)
{
    (void)state;
    arena *a = arena_of(1024);
    memset(arena_take_uncleared(a, 512), 0xAB, 512);
    assert_int_equal(arena_used(a), 512);
    assert_null(arena_take_uncleared(a, 513));
    arena_reset(a);
    assert_int_equal(*(uint8_t *)arena_take_uncleared(a, 16), 0xAB);
    char *taken = arena_take(a, 512); /* what was dirtied through it is zeroed all the same */
    for (size_t i = 0; i < 512; i++)
        assert_int_equal(taken[i], 0);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_taken_is_aligned_and_does_not_overlap),
        cmocka_unit_test(a_full_arena_says_no_and_stays_usable),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(memory_is_zero_also_after_reset_and_rewind),
        cmocka_unit_test(memory_that_is_not_cleared_counts_as_any),
        cmocka_unit_test(copies_and_formats_are_terminated),
        cmocka_unit_test(an_impossible_size_is_an_error_that_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
