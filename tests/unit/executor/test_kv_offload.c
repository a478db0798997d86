/* The second tier alone, with its thread and its file: bytes come back as they were, or not at all. */
#include "executor/kv_offload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_BLOCKS = 48, N_SAVED = 40 };

static kern_device   *device;
static kern_kv_cache *cache;
static size_t         block_bytes;

static int set_up(void **state)
{
    (void)state;
    char          why[KERN_WHY_BYTES];
    kern_kv_shape shape = {2, N_BLOCKS, 2, 16, KERN_F16};
    device              = kern_device_open(&(kern_device_options){.backend = "cpu", .n_threads = 1}, why);
    assert_non_null(device);
    cache       = kern_kv_cache_new(device, &shape, why);
    block_bytes = kern_kv_block_bytes(&shape);
    assert_non_null(cache);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kern_kv_cache_free(device, &cache);
    kern_device_close(&device);
    return 0;
}

static void fill_block(uint32_t block, int byte)
{
    void *bytes = malloc(block_bytes);
    memset(bytes, byte, block_bytes);
    kern_kv_block(device, &(kern_kv_block_args){.cache = cache, .block = block, .host = bytes, .into_cache = true});
    free(bytes);
}

static bool block_is(uint32_t block, int byte)
{
    unsigned char *bytes = malloc(block_bytes);
    bool           same  = true;
    kern_kv_block(device, &(kern_kv_block_args){.cache = cache, .block = block, .host = bytes});
    for (size_t i = 0; i < block_bytes; i++)
        same = same && bytes[i] == byte;
    free(bytes);
    return same;
}

static kv_offload *new_tier(const kv_offload_options *options)
{
    error       err = {0};
    kv_offload *o   = kv_offload_new(options, device, cache, block_bytes, &err);
    if (!o)
        fail_msg("%s", err.text);
    return o;
}

static void blocks_come_back_from_memory_and_disk(void **state)
{
    (void)state;
    static kv_offload_report report;
    for (uint32_t disk = 0; disk < 2; disk++) {
        kv_offload *o = new_tier(&(kv_offload_options){.memory_bytes = disk ? 0 : N_SAVED * block_bytes,
                                                       .disk_bytes   = disk ? N_SAVED * block_bytes : 0,
                                                       .folder       = disk ? "/tmp" : NULL});
        assert_int_equal(N_SAVED, kv_offload_n_slots(o));
        for (uint32_t i = 0; i < N_SAVED; i++) {
            fill_block(0, (int)i + 1);
            kv_offload_save(o, &(kv_offload_move){.block = 0, .slot = i, .stamp = 100 + i});
            if (disk)
                kv_offload_wait_written(o, i);
        }
        if (disk)
            kv_offload_damage(o, 3);
        for (uint32_t i = 0; i < N_SAVED; i++) /* slot 5 is asked for under another stamp */
            assert_true(kv_offload_load(o, &(kv_offload_move){.block = i, .slot = i, .stamp = 100 + i + (i == 5)}));
        kv_offload_collect(o, true, &report);
        assert_int_equal(disk ? 2 : 1, report.n_not_loaded);
        assert_int_equal(N_SAVED - report.n_not_loaded, report.n_loaded);
        for (uint32_t i = 0; i < N_SAVED; i++)
            if (i != 5 && (i != 3 || !disk))
                assert_true(block_is(i, (int)i + 1));
        kv_offload_forget(o);
        assert_true(kv_offload_load(o, &(kv_offload_move){.block = 1, .slot = 1, .stamp = 101}));
        kv_offload_collect(o, true, &report);
        assert_int_equal(1, report.n_not_loaded);
        kv_offload_free(&o);
    }
}

static void sizes_that_can_not_be_are_refused(void **state)
{
    (void)state;
    const kv_offload_options refused[] = {
        {.memory_bytes = 1},
        {.folder = "/tmp"},
        {.disk_bytes = 1 << 20},
        {.folder = "/tmp", .disk_bytes = 1},
        {.folder = "/nonexistent", .disk_bytes = 1 << 20},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        error err = {0};
        assert_null(kv_offload_new(&refused[i], device, cache, block_bytes, &err));
        assert_non_null(strstr(err.text, "--kv-offload-"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_come_back_from_memory_and_disk),
        cmocka_unit_test(sizes_that_can_not_be_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
