/* The format of packed weights on disk: what is written is read, and no damage to it is trusted. */
#include "model/weight_cache.h"

#include "model/weight_cache_writer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_WEIGHTS = 3, IMAGE_MAX = 1 << 16 };

static const weight_cache_key key = {
    .layout = "quads", .layout_version = 1, .quantization = 2, .fingerprint = 77, .source = {1000, 2000}};
static const kern_matrix shapes[N_WEIGHTS] = {
    {KERN_Q8_0, 16, 32, NULL}, {KERN_F32, 3, 50, NULL}, {KERN_Q4_K, 7, 256, NULL}};
static const size_t sizes[N_WEIGHTS] = {544, 768, 2304};

typedef struct {
    _Alignas(64) uint8_t bytes[IMAGE_MAX];
    size_t n;
} image;

static void fill(uint8_t *data, size_t n, uint32_t weight)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(i * 7 + weight);
}

static image good;

static void put_weights(weight_cache_writer *writer)
{
    static uint8_t data[4096];
    error          err = {0};
    for (uint32_t i = 0; i < N_WEIGHTS; i++) {
        fill(data, sizes[i], i);
        if (!weight_cache_append(writer, &shapes[i], data, sizes[i], &err))
            fail_msg("%s", err.text);
    }
}

static int write_good(void **state)
{
    (void)state;
    char                 path[] = "/tmp/troupe-weight-cache-XXXXXX";
    int                  fd     = mkstemp(path);
    error                err    = {0};
    weight_cache_writer *writer = fd < 0 ? NULL : weight_cache_writer_new(fd, N_WEIGHTS + 5, &err);
    if (!writer)
        return -1;
    unlink(path);
    put_weights(writer);
    if (!weight_cache_finish(writer, &key, &err))
        return -1;
    weight_cache_writer_free(&writer);
    ssize_t n = pread(fd, good.bytes, sizeof good.bytes, 0);
    close(fd);
    good.n = n < 0 ? 0 : (size_t)n;
    return good.n > 0 ? 0 : -1;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    weight_cache cache;
    error        err = {0};
    uint8_t      expected[4096];
    assert_int_equal(WEIGHT_CACHE_GOOD, weight_cache_read(good.bytes, good.n, &key, &cache, &err));
    assert_int_equal(N_WEIGHTS, cache.n_weights);
    for (uint32_t i = 0; i < N_WEIGHTS; i++) {
        kern_matrix matrix = shapes[i];
        size_t      bytes;
        assert_true(weight_cache_take(&cache, i, &matrix, &bytes, &err));
        assert_int_equal(sizes[i], bytes);
        assert_int_equal(0, (uintptr_t)matrix.host_data % KERN_WEIGHT_ALIGNMENT);
        fill(expected, bytes, i);
        assert_memory_equal(expected, matrix.host_data, bytes);
    }
}

static void a_weight_of_another_shape_is_not_taken(void **state)
{
    (void)state;
    weight_cache cache;
    error        err = {0};
    size_t       bytes;
    assert_int_equal(WEIGHT_CACHE_GOOD, weight_cache_read(good.bytes, good.n, &key, &cache, &err));
    kern_matrix others[] = {shapes[0], shapes[0], shapes[0], shapes[0]};
    others[0].dtype      = KERN_Q4_0, others[1].n_rows++, others[2].n_cols += 32;
    for (uint32_t i = 0; i < 4; i++)
        assert_false(weight_cache_take(&cache, i == 3 ? N_WEIGHTS : 0, &others[i], &bytes, &err));
}

/* Every byte of header and table, one bit at a time, and every length. */
static void no_damage_is_trusted(void **state)
{
    (void)state;
    static image damaged;
    weight_cache cache;
    error        err = {0};
    size_t       end = sizeof(weight_cache_header) + N_WEIGHTS * sizeof(weight_cache_entry);
    for (size_t at = 0; at < end; at++) {
        damaged = good;
        damaged.bytes[at] ^= (uint8_t)(1 << at % 8);
        if (weight_cache_read(damaged.bytes, damaged.n, &key, &cache, &err) == WEIGHT_CACHE_GOOD || !err.text[0])
            fail_msg("byte %zu was changed, and nobody saw it", at);
    }
    for (size_t n = 0; n < good.n; n += n < 2 * end ? 1 : 97)
        assert_int_equal(WEIGHT_CACHE_BAD, weight_cache_read(good.bytes, n, &key, &cache, &err));
}

static void damaged_weights_are_not_taken(void **state)
{
    (void)state;
    static image damaged;
    weight_cache cache;
    error        err = {0};
    for (uint32_t i = 0; i < N_WEIGHTS; i++) {
        kern_matrix matrix = shapes[i];
        size_t      bytes;
        damaged = good;
        assert_int_equal(WEIGHT_CACHE_GOOD, weight_cache_read(damaged.bytes, damaged.n, &key, &cache, &err));
        damaged.bytes[cache.entries[i].offset + sizes[i] / 2] ^= 1;
        assert_false(weight_cache_take(&cache, i, &matrix, &bytes, &err));
        assert_non_null(strstr(err.text, "damaged"));
    }
}

/* A hostile file has a good seal; its numbers are checked all the same. */
static void numbers_are_checked_also_under_a_good_seal(void **state)
{
    (void)state;
    static image          hostile;
    weight_cache          cache;
    error                 err       = {0};
    weight_cache_header  *header    = (weight_cache_header *)hostile.bytes;
    weight_cache_entry   *entries   = (weight_cache_entry *)(header + 1);
    static const uint64_t offsets[] = {0, 63, UINT64_MAX - 63, IMAGE_MAX, 64};
    for (uint32_t i = 0; i < COUNT(offsets) + 6; i++) {
        hostile = good;
        if (i < COUNT(offsets))
            entries[1].offset = offsets[i];
        else if (i == COUNT(offsets))
            entries[2].bytes = UINT64_MAX;
        else if (i == COUNT(offsets) + 1)
            entries[0].bytes += 1000; /* into the next one's place */
        else if (i == COUNT(offsets) + 2)
            entries[0].dtype = KERN_N_DTYPES;
        else if (i == COUNT(offsets) + 3)
            entries[0].n_rows = 0;
        else if (i == COUNT(offsets) + 4)
            header->data_offset = 8;
        else
            header->n_weights = 0;
        header->seal = weight_cache_seal(header, entries);
        if (weight_cache_read(hostile.bytes, hostile.n, &key, &cache, &err) != WEIGHT_CACHE_BAD)
            fail_msg("case %u was taken", i);
    }
}

static void what_is_of_another_model_or_version_is_old(void **state)
{
    (void)state;
    weight_cache     cache;
    error            err      = {0};
    weight_cache_key others[] = {key, key, key, key, key, key};
    others[0].layout[0]       = 'Q';
    others[1].layout_version++, others[2].quantization++, others[3].fingerprint++;
    others[4].source.bytes++, others[5].source.modified_ns++;
    for (size_t i = 0; i < COUNT(others); i++)
        assert_int_equal(WEIGHT_CACHE_OLD, weight_cache_read(good.bytes, good.n, &others[i], &cache, &err));
    static image next;
    next = good;
    ((weight_cache_header *)next.bytes)->version++;
    assert_int_equal(WEIGHT_CACHE_OLD, weight_cache_read(next.bytes, next.n, &key, &cache, &err));
}

/* A limit on the file's size, as a full disk; and a device that is always full. */
static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    error         err = {0};
    struct rlimit before, small;
    char          path[]  = "/tmp/troupe-weight-cache-XXXXXX";
    int           files[] = {mkstemp(path), open("/dev/full", O_RDWR)};
    unlink(path);
    assert_true(files[0] >= 0 && files[1] >= 0);
    for (int i = 0; i < 2; i++) {
        weight_cache_writer *writer = weight_cache_writer_new(files[i], N_WEIGHTS, &err);
        assert_non_null(writer);
        put_weights(writer);
        signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &before);
        small = (struct rlimit){1024, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &small);
        err = (error){0};
        assert_false(weight_cache_finish(writer, &key, &err));
        setrlimit(RLIMIT_FSIZE, &before);
        assert_non_null(strstr(err.text, i == 0 ? "File too large" : "No space left"));
        weight_cache_writer_free(&writer);
        close(files[i]);
    }
}

static void more_weights_than_there_is_room_for_are_an_error(void **state)
{
    (void)state;
    static const uint8_t data[544];
    error                err    = {0};
    weight_cache_writer *writer = weight_cache_writer_new(-1, 1, &err);
    assert_non_null(writer);
    assert_true(weight_cache_append(writer, &shapes[0], data, sizeof data, &err));
    assert_false(weight_cache_append(writer, &shapes[0], data, sizeof data, &err));
    assert_non_null(strstr(err.text, "more than 1 weights"));
    weight_cache_writer_free(&writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_weight_of_another_shape_is_not_taken),
        cmocka_unit_test(no_damage_is_trusted),
        cmocka_unit_test(damaged_weights_are_not_taken),
        cmocka_unit_test(numbers_are_checked_also_under_a_good_seal),
        cmocka_unit_test(what_is_of_another_model_or_version_is_old),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(more_weights_than_there_is_room_for_are_an_error),
    };
    return cmocka_run_group_tests(tests, write_good, NULL);
}
