#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../data/kernels/dequantize.h"
#include "kernels/dtype.h"

#define FORMAT(name)                                                                                                   \
    {                                                                                                                  \
        KERN_##name, #name, name##_bytes, sizeof name##_bytes, name##_bits, sizeof name##_bits / 4                     \
    }

static const struct {
    kern_dtype           dtype;
    const char          *name;
    const unsigned char *bytes;
    size_t               n_bytes;
    const uint32_t      *bits;
    size_t               n;
} formats[] = {FORMAT(F16),  FORMAT(BF16), FORMAT(Q4_0), FORMAT(Q4_1), FORMAT(Q5_0), FORMAT(Q5_1),   FORMAT(Q8_0),
               FORMAT(Q2_K), FORMAT(Q3_K), FORMAT(Q4_K), FORMAT(Q5_K), FORMAT(Q6_K), FORMAT(IQ4_NL), FORMAT(IQ4_XS)};

static void dequantizes_to_the_bits_of_gguf_for_python(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        float         out[512];
        unsigned char unaligned[1024];
        assert_string_equal(kern_dtype_name(formats[i].dtype), formats[i].name);
        assert_int_equal(kern_dtype_bytes(formats[i].dtype, formats[i].n), formats[i].n_bytes);
        memcpy(unaligned + 1, formats[i].bytes, formats[i].n_bytes);
        kern_dequantize(formats[i].dtype, unaligned + 1, out, formats[i].n);
        assert_memory_equal(out, formats[i].bits, formats[i].n * 4);
    }
}

static void float32_is_copied(void **state)
{
    (void)state;
    const float in[3] = {1.5f, -0.0f, 1e-40f};
    float       out[3];
    kern_dequantize(KERN_F32, in, out, 3);
    assert_memory_equal(in, out, sizeof in);
}

static void a_part_of_a_block_has_no_size(void **state)
{
    (void)state;
    assert_int_equal(kern_dtype_bytes(KERN_Q4_1, 31), 0);
    assert_int_equal(kern_dtype_bytes(KERN_Q4_1, 64), 40);
    assert_int_equal(kern_dtype_bytes(KERN_Q6_K, 128), 0);
    assert_int_equal(kern_dtype_bytes(KERN_Q6_K, 512), 420);
    assert_int_equal(kern_dtype_bytes(KERN_F32, 5), 20);
    assert_string_equal(kern_dtype_name(KERN_N_DTYPES), "unknown");
}

/* Packing rows into groups and reading one back gives what the file's block would have given. */
static void a_packed_row_is_the_row_of_the_file(void **state)
{
    (void)state;
    char         why[KERN_WHY_BYTES];
    kern_device *device = kern_device_open(&(kern_device_options){.backend = "cpu", .n_threads = 1}, why);
    for (uint32_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        uint32_t     n_cols   = (uint32_t)formats[i].n / 2;
        kern_matrix  source   = {formats[i].dtype, 2, n_cols, formats[i].bytes};
        kern_weight *weight   = kern_weight_new(device, &source, why);
        uint32_t     tokens[] = {1, 0};
        float        out[512];
        assert_non_null(weight);
        kern_embed(device, &(kern_embed_args){weight, tokens, out, 1, 2, false});
        assert_memory_equal(out, formats[i].bits + n_cols, n_cols * 4);
        assert_memory_equal(out + n_cols, formats[i].bits, n_cols * 4);
        kern_weight_free(device, &weight);
    }
    kern_device_close(&device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantizes_to_the_bits_of_gguf_for_python),
        cmocka_unit_test(float32_is_copied),
        cmocka_unit_test(a_part_of_a_block_has_no_size),
        cmocka_unit_test(a_packed_row_is_the_row_of_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
