#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

static const struct {
    kern_device_options options;
    const char         *sentence; /* a part of it */
} refused[] = {
    {{.backend = "tpu"}, "no backend 'tpu'"},
    {{.backend = "cpu", .variant = "mmx"}, "no variant 'mmx'"},
    {{.backend = "ref", .variant = "avx2"}, "no variants"},
    {{.backend = "cpu", .n_threads = 100000}, "at most"},
    {{.backend = "cuda", .library = "/nowhere/libcuda_kernels.so"}, "/nowhere/libcuda_kernels.so"},
    {{.backend = "cuda", .library = "libm.so.6"}, "not a kernel library"},
};

static void refuses_with_a_sentence(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char why[KERN_WHY_BYTES] = "";
        assert_null(kern_device_open(&refused[i].options, why));
        if (!strstr(why, refused[i].sentence)) {
            fail_msg("'%s' does not say '%s'", why, refused[i].sentence);
        }
    }
}

static void opens_the_best_cpu_variant_and_every_other(void **state)
{
    (void)state;
    const char *names[8];
    char        why[KERN_WHY_BYTES];
    uint32_t    n = kern_cpu_variants(names, 8);
    assert_true(n >= 1);
    assert_string_equal(names[n - 1], "portable");

    kern_device *best = kern_device_open(&(kern_device_options){.backend = "cpu"}, why);
    assert_non_null(best);
    assert_string_equal(kern_device_variant(best), names[0]);
    kern_device_close(&best);
    assert_null(best);
    for (uint32_t i = 0; i < n; i++) {
        char copy[32];
        strcpy(copy, names[i]);
        kern_device *device = kern_device_open(&(kern_device_options){"cpu", copy, NULL, 1, 0}, why);
        assert_non_null(device);
        memset(copy, 'x', sizeof copy); /* the device keeps no pointer to its options */
        assert_string_equal(kern_device_variant(device), names[i]);
        assert_non_null(strstr(kern_device_name(device), "1 thread"));
        assert_true(kern_is_host(device));
        kern_device_close(&device);
    }
}

static void memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4096, 5 << 20};
    char                why[KERN_WHY_BYTES];
    kern_device        *device = kern_device_open(&(kern_device_options){.backend = "cpu", .n_threads = 1}, why);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *memory = kern_alloc(device, sizes[i]);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++) {
            assert_int_equal(memory[j], 0);
        }
        kern_free(device, memory);
    }
    assert_null(kern_alloc(device, SIZE_MAX - 100));
    kern_device_close(&device);
}

static void refuses_weights_and_caches_it_cannot_hold(void **state)
{
    (void)state;
    static const kern_matrix   matrices[] = {{KERN_Q4_1, 4, 33, ""},
                                             {KERN_Q4_K, 4, 288, ""},
                                             {KERN_F32, 0, 4, ""},
                                             {KERN_N_DTYPES, 1, 32, ""},
                                             {KERN_F32, 3, 0, ""}};
    static const kern_kv_shape shapes[]   = {{1, 4, 2, 64, KERN_Q8_0},
                                             {0, 4, 2, 64, KERN_F16},
                                             {1, 0, 2, 64, KERN_F16},
                                             {4096, 1u << 31, 64, 4096, KERN_F32}};
    static const char *const   backends[] = {"cpu", "ref"};
    for (uint32_t b = 0; b < 2; b++) {
        char         why[KERN_WHY_BYTES];
        kern_device *device = kern_device_open(&(kern_device_options){.backend = backends[b], .n_threads = 1}, why);
        for (uint32_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
            why[0] = 0;
            assert_null(kern_weight_new(device, &matrices[i], why));
            assert_true(strlen(why) > 20);
        }
        for (uint32_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            why[0] = 0;
            assert_null(kern_kv_cache_new(device, &shapes[i], why));
            assert_true(strlen(why) > 20);
        }
        kern_device_close(&device);
    }
}

/* Where the file has integers of 6 bits, packed weights have bytes: at most 4 of 110. */
static void packed_weights_take_about_the_bytes_of_the_file(void **state)
{
    (void)state;
    static unsigned char data[32 * 512 * 4];
    char                 why[KERN_WHY_BYTES];
    kern_device         *device = kern_device_open(&(kern_device_options){.backend = "cpu", .n_threads = 1}, why);
    for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
        kern_weight *weight     = kern_weight_new(device, &(kern_matrix){dtype, 32, 512, data}, why);
        size_t       file_bytes = kern_dtype_bytes(dtype, 32 * 512);
        bool         has_6_bits = dtype >= KERN_Q3_K && dtype != KERN_Q6_K && dtype != KERN_IQ4_NL;
        assert_in_range(kern_weight_bytes(weight), file_bytes, file_bytes + (has_6_bits ? file_bytes * 4 / 110 : 0));
        kern_weight_free(device, &weight);
        assert_null(weight);
    }
    kern_device_close(&device);
}

/* A weight over the packed bytes of another reads as that one does. */
static void a_weight_borrows_packed_bytes(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "ref"};
    static unsigned char     data[48 * 512 * 4];
    static float             rows[2][3 * 512];
    static const uint32_t    tokens[] = {0, 17, 47};
    char                     why[KERN_WHY_BYTES];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 37 % 59); /* no NaNs in any format */
    }
    for (size_t b = 0; b < 2; b++) {
        kern_device *device = kern_device_open(&(kern_device_options){.backend = backends[b], .n_threads = 1}, why);
        assert_true(kern_device_weight_layout(device).name && kern_device_weight_layout(device).version > 0);
        for (kern_dtype dtype = 0; dtype < KERN_N_DTYPES; dtype++) {
            kern_weight *owner  = kern_weight_new(device, &(kern_matrix){dtype, 48, 512, data}, why);
            size_t       bytes  = kern_weight_bytes(owner);
            kern_matrix  packed = {dtype, 48, 512, kern_weight_packed(owner)};
            kern_weight *weight = kern_weight_borrow(device, &packed, bytes, why);
            assert_non_null(weight);
            assert_int_equal(bytes, kern_weight_bytes(weight));
            kern_embed(device, &(kern_embed_args){owner, tokens, rows[0], 1, 3});
            kern_embed(device, &(kern_embed_args){weight, tokens, rows[1], 1, 3});
            assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
            kern_weight_free(device, &weight);
            assert_null(kern_weight_borrow(device, &packed, bytes - 1, why));
            assert_non_null(strstr(why, "has"));
            packed.host_data = (const char *)packed.host_data + 32;
            assert_null(kern_weight_borrow(device, &packed, bytes, why));
            packed.n_rows = 0;
            assert_null(kern_weight_borrow(device, &packed, 0, why));
            kern_weight_free(device, &owner);
        }
        assert_null(kern_weight_borrow(device, &(kern_matrix){KERN_N_DTYPES, 1, 32, data}, 32, why));
        kern_device_close(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_with_a_sentence),
        cmocka_unit_test(opens_the_best_cpu_variant_and_every_other),
        cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(refuses_weights_and_caches_it_cannot_hold),
        cmocka_unit_test(a_weight_borrows_packed_bytes),
        cmocka_unit_test(packed_weights_take_about_the_bytes_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
