/* The safetensors reader on good files, on every truncation, and on one file for each thing that can be wrong. */
#include "model/safetensors.h"

#include "support_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char good_header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
                                  "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                  "\"c\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[28,36]}}   ";

static safetensors *open_image(const image *im, error *err)
{
    static uint8_t *copy; /* exactly as many bytes as there are, for the sanitizer */
    free(copy);
    copy = malloc(im->n ? im->n : 1);
    memcpy(copy, im->bytes, im->n);
    return safetensors_open_memory(copy, im->n, "test.safetensors", err);
}

static void reads_shapes_types_and_data(void **state)
{
    (void)state;
    static image im;
    error        err = {0};
    im.n             = 0;
    image_safetensors(&im, good_header, 36);
    safetensors *files = open_image(&im, &err);
    assert_non_null(files);
    assert_int_equal(3, safetensors_n_tensors(files));
    assert_true(span_is(safetensors_tensor_at(files, 0)->name, "a"));
    const safetensors_tensor *b = safetensors_require(files, "b", &err);
    assert_true(b && b->dtype == KERN_F32 && b->n_dims == 2 && b->dims[0] == 2 && b->dims[1] == 3 && b->dims[2] == 1);
    assert_true(b->n_bytes == 24 && *(const uint8_t *)b->data == 4);
    assert_null(safetensors_require(files, "c", &err));
    assert_string_equal(
        "test.safetensors: tensor c is of type I64, which is not supported; supported are F32, F16, BF16", err.text);
    assert_null(safetensors_require(files, "d", &err));
    assert_string_equal("test.safetensors: tensor d is missing", err.text);
    safetensors_close(&files);
    assert_null(files);
    safetensors_close(&files);
}

static void refuses_every_truncation_of_a_good_file(void **state)
{
    (void)state;
    static image im;
    im.n = 0;
    image_safetensors(&im, good_header, 36);
    while (im.n-- > 0) {
        error err = {0};
        assert_null(open_image(&im, &err));
        assert_non_null(strstr(err.text, "test.safetensors: "));
    }
}

static void refuses_a_file_with_one_thing_wrong_and_says_what(void **state)
{
    (void)state;
#define T(dtype, shape, offsets) "{\"t\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    static const struct {
        const char *header;
        size_t      n_data;
        const char *says;
    } cases[] = {
        {"", 0, "not valid JSON"},
        {"[]", 0, "a JSON object was expected"},
        {"{\"t\":1}", 0, "tensor t: \"dtype\" must be a string"},
        {"{\"t\":{},\"t\":{}}", 0, "duplicate object key"},
        {"{\"\\u0000\":{}}", 0, "not valid JSON"},
        {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 0, "nested deeper than 32"},
        {T("5", "[1]", "[0,4]"), 4, "tensor t: \"dtype\" must be a string"},
        {T("\"F32\"", "1", "[0,4]"), 4, "tensor t: \"shape\" must be an array"},
        {T("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "tensor t: \"shape\" must be an array of up to 8"},
        {T("\"F32\"", "[-1]", "[0,4]"), 4, "tensor t: \"shape\" must hold integers"},
        {T("\"F32\"", "[1.0]", "[0,4]"), 4, "tensor t: \"shape\" must hold integers"},
        {T("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, "tensor t: its number of elements overflows"},
        {T("\"F32\"", "[4611686018427387905]", "[0,4]"), 4,
         "tensor t: its shape and type need another number of bytes"},
        {T("\"F32\"", "[1]", "[0]"), 4, "tensor t: \"data_offsets\" must be an array of two integers"},
        {T("\"F32\"", "[1]", "[0,4,8]"), 4, "tensor t: \"data_offsets\" must be an array of two integers"},
        {T("\"F32\"", "[1]", "[4,0]"), 4, "tensor t: its data_offsets lie outside"},
        {T("\"F32\"", "[1]", "[-4,0]"), 4, "tensor t: its data_offsets lie outside"},
        {T("\"F32\"", "[1]", "[0,9223372036854775807]"), 4, "tensor t: its data_offsets lie outside"},
        {T("\"F32\"", "[2]", "[0,8]"), 4, "tensor t: its data_offsets lie outside"},
        {T("\"F32\"", "[2]", "[0,4]"), 4, "tensor t: its shape and type need another number of bytes"},
        {T("\"F32\"", "[1]", "[4,8]"), 8, "tensor t: its data overlaps another's or leaves a hole"},
        {T("\"F32\"", "[1]", "[0,4]"), 5, "1 bytes at its end belong to no tensor"},
        {"{\"t\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"u\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
         6, "tensor u: its data overlaps another's"},
    };
#undef T
    for (size_t i = 0; i < COUNT(cases); i++) {
        static image im;
        error        err = {0};
        im.n             = 0;
        image_safetensors(&im, cases[i].header, cases[i].n_data);
        if (open_image(&im, &err) || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].says, err.text);
    }
}

static void refuses_a_header_longer_than_the_file_or_the_limit(void **state)
{
    (void)state;
    static image im;
    error        err = {0};
    im.n             = 0;
    image_u64(&im, UINT64_MAX);
    image_put(&im, "{}", 2);
    assert_null(open_image(&im, &err));
    assert_string_equal("test.safetensors: its header claims 18446744073709551615 bytes, but the file has 10",
                        err.text);
    size_t   n_bytes = 8 + (size_t)17 * 1024 * 1024;
    uint8_t *large   = calloc(1, n_bytes);
    uint64_t length  = n_bytes - 8;
    memcpy(large, &length, 8);
    assert_null(safetensors_open_memory(large, n_bytes, "large", &err));
    assert_int_equal(ERR_TOO_LARGE, err.code);
    free(large);
}

/* ---- folders --------------------------------------------------------------------------------------------------- */

static char folder[64];

static void write_file(const char *name, const void *data, size_t n_bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(n_bytes, fwrite(data, 1, n_bytes, file));
    fclose(file);
}

static void write_shard(const char *name, const char *tensor)
{
    static image im;
    char         header[256];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
    im.n = 0;
    image_safetensors(&im, header, 4);
    write_file(name, im.bytes, im.n);
}

static void joins_the_shards_that_an_index_lists_and_checks_the_index(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says; /* NULL: it opens */
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"1.safetensors\"}}", NULL},
        {"{\"weight_map\":[]}", "\"weight_map\" must be an object"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}",
         "weight_map[\"a\"] must be the name of a file in the same folder"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "must be the name of a file in the same folder"},
        {"{\"weight_map\":{\"a\":\"\"}}", "must be the name of a file in the same folder"},
        {"{\"weight_map\":{\"a\":7}}", "must be the name of a file in the same folder"},
        {"{\"weight_map\":{\"a\":\"9.safetensors\"}}", "9.safetensors: No such file"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", "tensor b is not in 1.safetensors"},
        {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", "is not in"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}}", "tensor a stands in two of its files"},
    };
    write_shard("1.safetensors", "a");
    write_shard("2.safetensors", "b");
    write_shard("3.safetensors", "a");
    for (size_t i = 0; i < COUNT(cases); i++) {
        error err = {0};
        write_file("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        safetensors *files = safetensors_open_folder(folder, &err);
        if (cases[i].says ? files || !strstr(err.text, cases[i].says) : !files || !safetensors_find(files, "a"))
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].says ? cases[i].says : "", err.text);
        safetensors_close(&files);
    }
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    unlink(path);
}

static void reads_a_single_file_where_there_is_no_index(void **state)
{
    (void)state;
    error err = {0};
    assert_null(safetensors_open_folder(folder, &err));
    assert_non_null(strstr(err.text, "model.safetensors: No such file"));
    write_shard("model.safetensors", "x");
    safetensors *files = safetensors_open_folder(folder, &err);
    assert_true(files && safetensors_find(files, "x"));
    safetensors_close(&files);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/troupe-safetensors-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"1.safetensors", "2.safetensors", "3.safetensors", "model.safetensors"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_shapes_types_and_data),
        cmocka_unit_test(refuses_every_truncation_of_a_good_file),
        cmocka_unit_test(refuses_a_file_with_one_thing_wrong_and_says_what),
        cmocka_unit_test(refuses_a_header_longer_than_the_file_or_the_limit),
        cmocka_unit_test(joins_the_shards_that_an_index_lists_and_checks_the_index),
        cmocka_unit_test(reads_a_single_file_where_there_is_no_index),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_folder, remove_folder);
}
