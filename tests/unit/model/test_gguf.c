/* The GGUF reader on a good file, on every truncation of it, and on one file for each thing that can be wrong. */
#include "model/gguf.h"

#include "support_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { GGML_F32 = 0, GGML_Q4_1 = 3, GGML_IQ2_S = 22 };

static gguf *open_image(const image *im, error *err)
{
    /* Exactly as many bytes as there are: a sanitizer sees what is read behind them. */
    static uint8_t *copy;
    free(copy);
    copy = malloc(im->n ? im->n : 1);
    memcpy(copy, im->bytes, im->n);
    return gguf_open_memory(copy, im->n, "test.gguf", err);
}

static void put_good_file(image *im)
{
    image_gguf_header(im, 3, 9);
    image_key_string(im, "general.architecture", "llama");
    image_key_u32(im, "llama.block_count", 30);
    image_key_f32(im, "llama.rope.freq_base", 100000);
    image_key(im, "a.bool", GGUF_BOOL);
    image_u8(im, 1);
    image_key(im, "a.negative", GGUF_I8);
    image_u8(im, (uint8_t)-3);
    image_key(im, "a.wide", GGUF_U64);
    image_u64(im, 77);
    image_key(im, "words", GGUF_ARRAY);
    image_u32(im, GGUF_STRING);
    image_u64(im, 3);
    image_string(im, "one");
    image_string(im, "");
    image_string(im, "three");
    image_key(im, "numbers", GGUF_ARRAY);
    image_u32(im, GGUF_U32);
    image_u64(im, 2);
    image_u32(im, 5);
    image_u32(im, 6);
    image_key(im, "a.double", GGUF_F64);
    image_u64(im, 0x3ff8000000000000); /* 1.5 */
    image_tensor(im, "matrix", 2, (uint64_t[]){32, 2}, GGML_Q4_1, 0);
    image_tensor(im, "vector", 1, (uint64_t[]){3}, GGML_F32, 64);
    image_tensor(im, "exotic", 1, (uint64_t[]){256}, GGML_IQ2_S, 96);
    image_align(im, 32);
    for (int i = 0; i < 96 + 82; i++)
        image_u8(im, (uint8_t)i);
}

static void reads_every_kind_of_value_and_tensor(void **state)
{
    (void)state;
    image     im  = {.n = 0};
    error     err = {0};
    uint32_t  u   = 0;
    float     f   = 0;
    bool      b   = false;
    span      s;
    gguf_type type;
    uint64_t  n;
    put_good_file(&im);
    gguf *file = open_image(&im, &err);
    assert_non_null(file);
    assert_true(gguf_get_u32(file, "llama.block_count", &u, &err) && u == 30);
    assert_true(gguf_get_u32(file, "a.wide", &u, &err) && u == 77);
    assert_true(gguf_get_f32(file, "llama.rope.freq_base", &f, &err) && f == 100000);
    assert_true(gguf_get_f32(file, "a.double", &f, &err) && f == 1.5f);
    assert_true(gguf_get_bool(file, "a.bool", &b, &err) && b);
    assert_true(gguf_get_string(file, "general.architecture", &s, &err) && span_is(s, "llama"));
    assert_true(gguf_get_array(file, "words", &type, &n, &err) && type == GGUF_STRING && n == 3);
    assert_true(span_is(gguf_array_string(file, "words", 0), "one"));
    assert_true(span_is(gguf_array_string(file, "words", 1), ""));
    assert_true(span_is(gguf_array_string(file, "words", 2), "three"));
    assert_true(gguf_get_array(file, "numbers", &type, &n, &err) && type == GGUF_U32 && n == 2);
    assert_memory_equal(gguf_array_data(file, "numbers"), ((uint32_t[]){5, 6}), 8);
    assert_int_equal(9, gguf_n_keys(file));
    assert_int_equal(3, gguf_n_tensors(file));
    const gguf_tensor *t = gguf_require_tensor(file, "matrix", &err);
    assert_true(t && t->dtype == KERN_Q4_1 && t->n_bytes == 40 && t->dims[0] == 32 && t->dims[1] == 2 &&
                t->dims[2] == 1);
    assert_int_equal(39, ((const uint8_t *)t->data)[39]);
    t = gguf_require_tensor(file, "vector", &err);
    assert_true(t && t->dtype == KERN_F32 && t->n_bytes == 12 && *(const uint8_t *)t->data == 64);
    assert_int_equal(ERR_NONE, err.code);
    gguf_close(&file);
    assert_null(file);
    gguf_close(&file);
}

static void tells_an_absent_key_from_one_of_another_type(void **state)
{
    (void)state;
    image    im  = {.n = 0};
    error    err = {0};
    uint32_t u   = 123;
    span     s;
    put_good_file(&im);
    gguf *file = open_image(&im, &err);
    assert_false(gguf_get_u32(file, "no.such.key", &u, &err));
    assert_int_equal(ERR_NONE, err.code);
    assert_int_equal(123, u);
    assert_false(gguf_get_u32(file, "general.architecture", &u, &err));
    assert_string_equal("test.gguf: key general.architecture is of type string; an integer was expected", err.text);
    assert_false(gguf_get_u32(file, "a.negative", &u, &err));
    assert_non_null(strstr(err.text, "a.negative must be between 0 and 4294967295"));
    assert_false(gguf_get_string(file, "a.bool", &s, &err));
    assert_non_null(strstr(err.text, "is of type bool; string was expected"));
    assert_int_equal(123, u);
    gguf_close(&file);
}

static void names_a_tensor_type_that_no_kernel_reads_when_it_is_needed(void **state)
{
    (void)state;
    image im  = {.n = 0};
    error err = {0};
    put_good_file(&im);
    gguf *file = open_image(&im, &err);
    assert_null(gguf_require_tensor(file, "exotic", &err));
    assert_int_equal(ERR_UNSUPPORTED, err.code);
    assert_string_equal("test.gguf: tensor exotic is of type IQ2_S, which is not supported; supported are "
                        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS",
                        err.text);
    assert_null(gguf_require_tensor(file, "absent", &err));
    assert_string_equal("test.gguf: tensor absent is missing", err.text);
    gguf_close(&file);
}

static void refuses_every_truncation_of_a_good_file(void **state)
{
    (void)state;
    image im = {.n = 0};
    put_good_file(&im);
    for (size_t n = im.n; n-- > 0;) {
        error err  = {0};
        im.n       = n;
        gguf *file = open_image(&im, &err);
        assert_null(file);
        assert_int_equal(ERR_INVALID, err.code);
        assert_non_null(strstr(err.text, "test.gguf: "));
    }
}

/* ---- one thing wrong ------------------------------------------------------------------------------------------- */

static void bad_magic(image *im)
{
    image_gguf_header(im, 0, 0);
    im->bytes[3] = 'V';
}

static void old_version(image *im)
{
    image_gguf_header(im, 0, 0);
    im->bytes[4] = 2;
}

static void big_endian(image *im)
{
    image_gguf_header(im, 0, 0);
    memcpy(im->bytes + 4, "\0\0\0\3", 4);
}

static void many_keys(image *im)
{
    image_gguf_header(im, 0, UINT64_MAX);
}

static void many_tensors(image *im)
{
    image_gguf_header(im, UINT64_MAX / 33 + 2, 0); /* overflows when multiplied */
}

static void huge_key_length(image *im)
{
    image_gguf_header(im, 0, 1);
    image_u64(im, UINT64_MAX - 4);
    image_align(im, 64);
}

static void empty_key(image *im)
{
    image_gguf_header(im, 0, 1);
    image_key_u32(im, "", 1);
}

static void control_character_in_key(image *im)
{
    image_gguf_header(im, 0, 1);
    image_key_u32(im, "a\nb", 1);
}

static void unknown_value_type(image *im)
{
    image_gguf_header(im, 0, 1);
    image_key(im, "k", 13);
    image_u64(im, 0);
}

static void key_twice(image *im)
{
    image_gguf_header(im, 0, 3);
    image_key_u32(im, "same", 1);
    image_key_u32(im, "other", 1);
    image_key_u32(im, "same", 1);
}

static void bool_of_two(image *im)
{
    image_gguf_header(im, 0, 1);
    image_key(im, "k", GGUF_BOOL);
    image_u8(im, 2);
}

static void put_array(image *im, uint32_t element, uint64_t n)
{
    image_gguf_header(im, 0, 1);
    image_key(im, "k", GGUF_ARRAY);
    image_u32(im, element);
    image_u64(im, n);
    image_u64(im, 0);
}

static void array_of_arrays(image *im)
{
    put_array(im, GGUF_ARRAY, 1);
}

static void array_of_unknown(image *im)
{
    put_array(im, 99, 1);
}

static void array_overflow(image *im)
{
    put_array(im, GGUF_U64, UINT64_MAX / 8 + 2);
}

static void array_past_end(image *im)
{
    put_array(im, GGUF_U32, 3);
}

static void too_many_strings(image *im)
{
    put_array(im, GGUF_STRING, UINT64_MAX);
}

static void put_one_tensor(image *im, uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    image_gguf_header(im, 1, 0);
    image_tensor(im, "t", n_dims, dims, type, offset);
    image_align(im, 32);
    for (int i = 0; i < 64; i++)
        image_u8(im, 0);
}

static void no_dims(image *im)
{
    put_one_tensor(im, 0, NULL, GGML_F32, 0);
}

static void five_dims(image *im)
{
    put_one_tensor(im, 5, (uint64_t[]){1, 1, 1, 1, 1}, GGML_F32, 0);
}

static void zero_dim(image *im)
{
    put_one_tensor(im, 2, (uint64_t[]){4, 0}, GGML_F32, 0);
}

static void elements_overflow(image *im)
{
    put_one_tensor(im, 3, (uint64_t[]){1ull << 32, 1ull << 31, 2}, GGML_F32, 0);
}

static void bytes_overflow(image *im)
{
    put_one_tensor(im, 2, (uint64_t[]){1ull << 32, 1ull << 31}, GGML_F32, 0);
}

static void half_a_block(image *im)
{
    put_one_tensor(im, 2, (uint64_t[]){48, 1}, GGML_Q4_1, 0);
}

static void unaligned_offset(image *im)
{
    put_one_tensor(im, 1, (uint64_t[]){4}, GGML_F32, 8);
}

static void offset_past_end(image *im)
{
    put_one_tensor(im, 1, (uint64_t[]){4}, GGML_F32, 64);
}

static void offset_overflow(image *im)
{
    put_one_tensor(im, 1, (uint64_t[]){4}, GGML_F32, UINT64_MAX - 31);
}

static void data_past_end(image *im)
{
    put_one_tensor(im, 1, (uint64_t[]){17}, GGML_F32, 0);
}

static void exotic_data_past_end(image *im)
{
    put_one_tensor(im, 1, (uint64_t[]){256}, GGML_IQ2_S, 0);
}

static void put_two_tensors(image *im, const char *second, uint64_t offset)
{
    image_gguf_header(im, 2, 0);
    image_tensor(im, "t", 1, (uint64_t[]){12}, GGML_F32, 0);
    image_tensor(im, second, 1, (uint64_t[]){4}, GGML_F32, offset);
    image_align(im, 32);
    for (int i = 0; i < 96; i++)
        image_u8(im, 0);
}

static void tensor_twice(image *im)
{
    put_two_tensors(im, "t", 64);
}

static void overlap(image *im)
{
    put_two_tensors(im, "u", 32);
}

static void put_alignment(image *im, uint32_t alignment)
{
    image_gguf_header(im, 0, 1);
    image_key_u32(im, "general.alignment", alignment);
}

static void alignment_zero(image *im)
{
    put_alignment(im, 0);
}

static void alignment_odd(image *im)
{
    put_alignment(im, 12);
}

static void alignment_huge(image *im)
{
    put_alignment(im, 1u << 30);
}

static void alignment_text(image *im)
{
    image_gguf_header(im, 0, 1);
    image_key_string(im, "general.alignment", "32");
}

static void refuses_a_file_with_one_thing_wrong_and_says_what(void **state)
{
    (void)state;
    static const struct {
        void (*put)(image *);
        const char *says;
        error_code  code;
    } cases[] = {
        {bad_magic, "this is not a GGUF file", ERR_INVALID},
        {old_version, "GGUF version 2; version 3, little-endian, is supported", ERR_UNSUPPORTED},
        {big_endian, "(a big-endian file)", ERR_UNSUPPORTED},
        {many_keys, "more keys than the file has room for", ERR_INVALID},
        {many_tensors, "more tensors than the file has room for", ERR_INVALID},
        {huge_key_length, "the name of a key: 18446744073709551611 bytes were expected at byte 32", ERR_INVALID},
        {empty_key, "a name must have 1 to 1024 bytes", ERR_INVALID},
        {control_character_in_key, "a name must be printable ASCII", ERR_INVALID},
        {unknown_value_type, "key k: value type 13 is unknown", ERR_INVALID},
        {key_twice, "key same: it stands in the file twice", ERR_INVALID},
        {bool_of_two, "key k: a bool must be 0 or 1", ERR_INVALID},
        {array_of_arrays, "key k: arrays of arrays are not supported", ERR_INVALID},
        {array_of_unknown, "key k: value type 99 is unknown", ERR_INVALID},
        {array_overflow, "key k: the array is longer than any file", ERR_INVALID},
        {array_past_end, "key k: 12 bytes were expected", ERR_INVALID},
        {too_many_strings, "key k: the array has more strings than the file has room for", ERR_INVALID},
        {no_dims, "tensor t: a tensor must have 1 to 4 dimensions", ERR_INVALID},
        {five_dims, "tensor t: a tensor must have 1 to 4 dimensions", ERR_INVALID},
        {zero_dim, "tensor t: a dimension is zero", ERR_INVALID},
        {elements_overflow, "tensor t: its number of elements overflows 64 bits", ERR_INVALID},
        {bytes_overflow, "tensor t: its size overflows 64 bits", ERR_INVALID},
        {half_a_block, "tensor t: its first dimension 48 is not a multiple of 32, the block of Q4_1", ERR_INVALID},
        {unaligned_offset, "tensor t: its offset 8 is not a multiple of the alignment 32", ERR_INVALID},
        {offset_past_end, "tensor t: its 16 bytes at byte 128 end past the end of the file (128 bytes)", ERR_INVALID},
        {offset_overflow, "tensor t: its 16 bytes", ERR_INVALID},
        {data_past_end, "tensor t: its 68 bytes at byte 64 end past the end of the file (128 bytes)", ERR_INVALID},
        {exotic_data_past_end, "tensor t: its 82 bytes", ERR_INVALID},
        {tensor_twice, "tensor t: it stands in the file twice", ERR_INVALID},
        {overlap, "tensor u: its data overlaps another tensor's", ERR_INVALID},
        {alignment_zero, "general.alignment is 0; a multiple of 8 up to 1048576 was expected", ERR_INVALID},
        {alignment_odd, "general.alignment is 12", ERR_INVALID},
        {alignment_huge, "general.alignment is 1073741824", ERR_INVALID},
        {alignment_text, "key general.alignment is of type string; an integer was expected", ERR_INVALID},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        static image im;
        error        err = {0};
        im.n             = 0;
        cases[i].put(&im);
        gguf *file = open_image(&im, &err);
        if (file || !strstr(err.text, cases[i].says) || err.code != cases[i].code)
            fail_msg("case %zu: expected \"%s\", got \"%s\" (%s)", i, cases[i].says, err.text, error_name(err.code));
    }
}

static void honours_an_alignment_of_its_own(void **state)
{
    (void)state;
    image im  = {.n = 0};
    error err = {0};
    image_gguf_header(&im, 1, 1);
    image_key_u32(&im, "general.alignment", 128);
    image_tensor(&im, "t", 1, (uint64_t[]){1}, GGML_F32, 128);
    image_align(&im, 128);
    for (int i = 0; i < 132; i++)
        image_u8(&im, (uint8_t)i);
    gguf *file = open_image(&im, &err);
    assert_non_null(file);
    assert_int_equal(128, *(const uint8_t *)gguf_find_tensor(file, "t")->data);
    gguf_close(&file);
}

static void refuses_paths_that_are_no_readable_file(void **state)
{
    (void)state;
    char template[] = "/tmp/troupe-gguf-XXXXXX";
    int fd          = mkstemp(template);
    assert_true(fd >= 0);
    error err = {0};
    assert_null(gguf_open(template, &err));
    assert_non_null(strstr(err.text, "the file is empty"));
    assert_null(gguf_open("/tmp", &err));
    assert_string_equal("/tmp: a regular file was expected here", err.text);
    close(fd);
    unlink(template);
    assert_null(gguf_open(template, &err));
    assert_int_equal(ERR_NOT_FOUND, err.code);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_kind_of_value_and_tensor),
        cmocka_unit_test(tells_an_absent_key_from_one_of_another_type),
        cmocka_unit_test(names_a_tensor_type_that_no_kernel_reads_when_it_is_needed),
        cmocka_unit_test(refuses_every_truncation_of_a_good_file),
        cmocka_unit_test(refuses_a_file_with_one_thing_wrong_and_says_what),
        cmocka_unit_test(honours_an_alignment_of_its_own),
        cmocka_unit_test(refuses_paths_that_are_no_readable_file),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
