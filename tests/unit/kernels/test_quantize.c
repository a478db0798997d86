/* Floats into blocks: how far off they may be, and what is refused. tests/unit/model/test_quantization.c compares the
 * bytes with those of another implementation. */
#include "kernels/quantize.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N = 64 * KERN_BLOCK };

static const kern_dtype dtypes[] = {KERN_Q8_0, KERN_Q4_1};

/* About normal, another standard deviation and mean each block. */
static void fill(float *x, uint64_t seed)
{
    for (uint32_t i = 0; i < N; i++) {
        float sum = 0;
        for (uint32_t k = 0; k < 12; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(seed >> 40) * 0x1p-24f - 0.5f;
        }
        x[i] = ldexpf(sum, (int)(i / KERN_BLOCK % 20) - 12) + ldexpf(1, (int)(i / KERN_BLOCK % 3) - 12);
    }
}

static double squared_error(const float *x, const float *y)
{
    double sum = 0;
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    return sum;
}

static void q8_0_is_within_half_a_step(void **state)
{
    (void)state;
    float   x[N], y[N];
    uint8_t blocks[N / KERN_BLOCK * sizeof(kern_block_q8_0)];
    fill(x, 1);
    assert_true(kern_quantize(KERN_Q8_0, x, blocks, N));
    kern_dequantize(KERN_Q8_0, blocks, y, N);
    for (uint32_t i = 0; i < N; i += KERN_BLOCK) {
        float largest = 0;
        for (uint32_t j = i; j < i + KERN_BLOCK; j++) {
            largest = fmaxf(largest, fabsf(x[j]));
        }
        for (uint32_t j = i; j < i + KERN_BLOCK; j++) { /* half a step, and the scale's own rounding */
            assert_true(fabsf(x[j] - y[j]) <= largest / 127 * 0.5f + largest * 0x1p-11f + 0x1p-25f * 127);
        }
    }
}

/* What llama.cpp's plain rule makes of a block: the range from min to max in 15 steps. */
static double plain_q4_1_error(const float *x)
{
    float least = x[0], most = x[0], y[KERN_BLOCK];
    for (uint32_t i = 1; i < KERN_BLOCK; i++) {
        least = fminf(least, x[i]);
        most  = fmaxf(most, x[i]);
    }
    float scale = kern_float_of_f16(kern_f16_of_float((most - least) / 15));
    float min   = kern_float_of_f16(kern_f16_of_float(least));
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        float quant = scale > 0 ? fminf(fmaxf(floorf((x[i] - min) / scale + 0.5f), 0), 15) : 0;
        y[i]        = scale * quant + min;
    }
    return squared_error(x, y);
}

static void q4_1_is_better_than_the_plain_range(void **state)
{
    (void)state;
    float   x[N], y[N];
    double  found = 0, plain = 0;
    uint8_t blocks[N / KERN_BLOCK * sizeof(kern_block_q4_1)];
    fill(x, 2);
    assert_true(kern_quantize(KERN_Q4_1, x, blocks, N));
    kern_dequantize(KERN_Q4_1, blocks, y, N);
    for (uint32_t i = 0; i < N; i += KERN_BLOCK) {
        double of_block = plain_q4_1_error(x + i);
        assert_true(squared_error(x + i, y + i) <= of_block * 1.0001);
        found += squared_error(x + i, y + i) / of_block;
        plain += 1;
    }
    assert_true(found < 0.85 * plain);
}

static void numbers_that_fit_come_back_as_they_were(void **state)
{
    (void)state;
    float   x[KERN_BLOCK], y[KERN_BLOCK];
    uint8_t block[sizeof(kern_block_q8_0)];
    for (uint32_t d = 0; d < 2; d++) {
        for (uint32_t kind = 0; kind < 3; kind++) { /* zeros; all the same; a grid */
            for (uint32_t i = 0; i < KERN_BLOCK; i++) {
                float grid = d == 0 ? (float)i - 127 : (float)(i % 16); /* Q8_0 by ones from -127 on */
                x[i]       = kind == 0 ? 0 : kind == 1 ? -127.0f / 128 : grid;
            }
            assert_true(kern_quantize(dtypes[d], x, block, KERN_BLOCK));
            kern_dequantize(dtypes[d], block, y, KERN_BLOCK);
            assert_memory_equal(x, y, sizeof x);
        }
    }
}

static void refuses_what_a_block_can_not_hold(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e8f};
    float              x[N];
    uint8_t            blocks[N / KERN_BLOCK * sizeof(kern_block_q8_0)];
    for (uint32_t d = 0; d < 2; d++) {
        for (uint32_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            fill(x, 3);
            x[N - 7] = bad[i];
            assert_false(kern_quantize(dtypes[d], x, blocks, N));
        }
        fill(x, 3);
        x[0] = 1e-42f, x[1] = -0.0f; /* what vanishes is no error */
        assert_true(kern_quantize(dtypes[d], x, blocks, N));
        for (uint32_t i = 0; i < N; i++) {
            x[i] = 1e-42f;
        }
        assert_true(kern_quantize(dtypes[d], x, blocks, N));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_is_within_half_a_step),
        cmocka_unit_test(q4_1_is_better_than_the_plain_range),
        cmocka_unit_test(numbers_that_fit_come_back_as_they_were),
        cmocka_unit_test(refuses_what_a_block_can_not_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
