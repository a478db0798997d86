/* Which prefix lies in which offload slot: who is given away, stamps, pins. */
#include "kv/offload_index.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static kv_hash hash_of(uint64_t n)
{
    return (kv_hash){n, ~n};
}

static void gives_away_the_least_recently_used_slot_that_is_not_pinned(void **state)
{
    (void)state;
    bool              is_new;
    kv_offload_index *index = kv_offload_index_new(3, NULL);
    uint32_t          slots[3];
    for (uint64_t i = 0; i < 3; i++) {
        slots[i] = kv_offload_index_put(index, hash_of(i), &is_new);
        assert_true(is_new);
    }
    uint64_t stamp = kv_offload_index_stamp(index, slots[1]);
    assert_int_equal(slots[0], kv_offload_index_put(index, hash_of(0), &is_new)); /* used again */
    assert_false(is_new);
    assert_int_equal(slots[1], kv_offload_index_put(index, hash_of(7), &is_new));
    assert_true(kv_offload_index_stamp(index, slots[1]) != stamp);
    assert_int_equal(KV_NO_SLOT, kv_offload_index_find(index, hash_of(1)));
    kv_offload_index_pin(index, slots[2]);
    assert_int_equal(KV_NO_SLOT, kv_offload_index_find(index, hash_of(2)));
    assert_int_equal(slots[0], kv_offload_index_put(index, hash_of(8), &is_new));
    kv_offload_index_unpin(index, slots[2]);
    assert_int_equal(slots[2], kv_offload_index_find(index, hash_of(2)));
    kv_offload_index_check(index);
    kv_offload_index_free(&index);
}

static void dropped_slots_are_free_and_full_ones_refuse(void **state)
{
    (void)state;
    bool              is_new;
    kv_offload_index *index = kv_offload_index_new(1, NULL);
    uint32_t          slot  = kv_offload_index_put(index, hash_of(1), &is_new);
    kv_offload_index_pin(index, slot);
    assert_int_equal(KV_NO_SLOT, kv_offload_index_put(index, hash_of(2), &is_new));
    kv_offload_index_drop(index, slot);
    assert_int_equal(0, kv_offload_index_n_used(index));
    kv_offload_index_check(index);
    assert_int_equal(slot, kv_offload_index_put(index, hash_of(2), &is_new));
    assert_int_equal(1, kv_offload_index_n_used(index));
    kv_offload_index_drop(index, slot);
    kv_offload_index_check(index);
    kv_offload_index_free(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_away_the_least_recently_used_slot_that_is_not_pinned),
        cmocka_unit_test(dropped_slots_are_free_and_full_ones_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
