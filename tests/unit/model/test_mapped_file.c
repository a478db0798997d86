/* What can be mapped, and what the refusal of the rest says. */
#include "model/mapped_file.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/test_mapped_file.XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void maps_the_bytes_of_a_file(void **state)
{
    (void)state;
    error       err;
    mapped_file file;
    FILE       *out = fopen(path, "wb");
    assert_non_null(out);
    fwrite("a\0b", 1, 3, out);
    fclose(out);
    assert_true(mapped_file_open(&file, path, &err));
    unlink(path);
    assert_int_equal(file.size, 3);
    assert_memory_equal(file.data, "a\0b", 3);
    mapped_file_close(&file);
    assert_null(file.data);
    mapped_file_close(&file); /* closed already: nothing happens */
}

static void make_nothing(void)
{
}

static void make_empty(void)
{
    fclose(fopen(path, "wb"));
}

static void make_pipe(void)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}

static void make_directory(void)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

static void refuses_what_is_no_file_with_bytes_in_it(void **state)
{
    (void)state;
    static const struct {
        void (*make)(void);
        error_code  code;
        const char *says;
    } cases[] = {
        {make_nothing, ERR_NOT_FOUND, "No such file"},
        {make_empty, ERR_INVALID, "the file is empty"},
        {make_pipe, ERR_INVALID, "a regular file was expected"}, /* and it does not wait for a writer */
        {make_directory, ERR_INVALID, "a regular file was expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        error       err;
        mapped_file file;
        cases[i].make();
        assert_false(mapped_file_open(&file, path, &err));
        assert_int_equal(err.code, cases[i].code);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_non_null(strstr(err.text, path));
        assert_null(file.data);
        remove(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_the_bytes_of_a_file),
        cmocka_unit_test(refuses_what_is_no_file_with_bytes_in_it),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
