/* The model of AMX tiles that test_operators.c runs gemm on must end what a machine would: else it proves nothing. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tiles_model.h"

static int8_t bytes[16][64];

/* Sums 0, 1: [3][2]; a, tile 2: [3][8 bytes]; b, tile 3: [2][8 bytes]; tile 4 fits none of them. */
static tile_config shapes(void)
{
    return (tile_config){.palette = 1, .n_rows = {3, 3, 3, 2, 4}, .row_bytes = {8, 8, 8, 8, 8}};
}

static void configure(void)
{
    tile_config config = shapes();
    tile_configure(&config);
}

static void a_palette_of_zero(void)
{
    tile_configure(&(tile_config){.palette = 0});
}

static void too_many_rows(void)
{
    tile_config config = shapes();
    config.n_rows[1]   = 17;
    tile_configure(&config);
}

static void rows_without_bytes(void)
{
    tile_config config  = shapes();
    config.row_bytes[0] = 0;
    tile_configure(&config);
}

static void no_shapes_yet(void)
{
    tile_zero(0);
}

static void no_shapes_any_more(void)
{
    configure();
    tile_release();
    tile_load(0, bytes, 64);
}

static void a_tile_without_a_shape(void)
{
    configure();
    tile_store(7, bytes, 64);
}

static void shapes_without_a_product(void)
{
    configure();
    tile_dot_i8(0, 4, 3);
}

static void one_tile_twice(void)
{
    configure();
    tile_dot_i8(0, 0, 3);
}

static void faults_where_a_machine_does(void **state)
{
    (void)state;
    static void (*const faults[])(void) = {
        a_palette_of_zero,  too_many_rows,          rows_without_bytes,       no_shapes_yet,
        no_shapes_any_more, a_tile_without_a_shape, shapes_without_a_product, one_tile_twice};
    for (uint32_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        int   status;
        pid_t child = fork();
        if (child == 0) {
            faults[i]();
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
            fail_msg("fault %u was let pass", i);
        }
    }
}

static void multiplies_signed_bytes_by_fours(void **state)
{
    (void)state;
    int32_t sums[3][2] = {{7, 0}, {0, 0}, {0, -1}};
    int8_t  a[3][8]    = {{-128, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 0, 0, 0, 0, 0, -1}, {1, 1, 1, 1, 1, 1, 1, 1}};
    int8_t  b[2][8]    = {{-128, 1, 0, 0, 1, 1, 1, 1}, {0, 0, 1, 1, -1, -1, -1, 127}};
    configure();
    tile_load(0, sums, sizeof sums[0]);
    tile_load(2, a, sizeof a[0]);
    tile_load(3, b, sizeof b[0]);
    tile_dot_i8(0, 2, 3);
    tile_store(0, sums, sizeof sums[0]);
    tile_release();
    assert_int_equal(sums[0][0], 7 + 128 * 128 + 1 + 6 + 7);
    assert_int_equal(sums[0][1], -128 + 1 + 2 + 3 - 4 - 5 - 6 + 7 * 127);
    assert_int_equal(sums[1][0], -1);
    assert_int_equal(sums[1][1], -127);
    assert_int_equal(sums[2][0], -128 + 1 + 2);
    assert_int_equal(sums[2][1], -1 + 4 - 3 + 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_where_a_machine_does),
        cmocka_unit_test(multiplies_signed_bytes_by_fours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
