/* Frequencies against numbers worked out by hand; tests/unit/model/test_forward.c compares them with transformers. */
#include "model/rope_frequencies.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { DIMS = 8, PAIRS = DIMS / 2 };

/* theta 10000 in 8 dimensions: 1, 0.1, 0.01, 0.001. */
static const rope_config plain = {.theta = 10000, .attention_factor = 1, .n_ctx_original = 1000};

static void check(const rope_config *rope, uint32_t n_positions, const double *expected)
{
    double frequencies[PAIRS];
    rope_frequencies(rope, DIMS, n_positions, frequencies);
    for (uint32_t i = 0; i < PAIRS; i++)
        assert_float_equal(expected[i], frequencies[i], expected[i] * 1e-6);
}

static void plain_and_linear_are_powers_of_the_base(void **state)
{
    (void)state;
    rope_config linear = plain;
    linear.scaling     = ROPE_LINEAR;
    linear.factor      = 4;
    check(&plain, 100000, (double[]){1, 0.1, 0.01, 0.001});
    check(&linear, 100000, (double[]){0.25, 0.025, 0.0025, 0.00025});
}

static void dynamic_grows_the_base_beyond_the_trained_length_only(void **state)
{
    (void)state;
    rope_config dynamic = plain;
    dynamic.scaling     = ROPE_DYNAMIC;
    dynamic.factor      = 2;
    double theta        = 10000 * pow(2 * 3 - 1, 8.0 / 6);
    check(&dynamic, 1000, (double[]){1, 0.1, 0.01, 0.001});
    check(&dynamic, 3000, (double[]){1, pow(theta, -0.25), pow(theta, -0.5), pow(theta, -0.75)});
}

/* Turns within 1000 positions: 159, 15.9, 1.59, 0.159. */
static void llama3_stretches_what_turns_seldom(void **state)
{
    (void)state;
    rope_config llama3     = plain;
    llama3.scaling         = ROPE_LLAMA3;
    llama3.factor          = 8;
    llama3.low_freq_factor = 1, llama3.high_freq_factor = 4;
    double kept = (10 / (2 * 3.14159265358979) - 1) / 3;
    check(&llama3, 1000, (double[]){1, 0.1, kept * 0.01 + (1 - kept) * 0.01 / 8, 0.001 / 8});
}

/* 32 turns at dimension 0.70, 1 turn at 2.20, so the ramp runs from 0 to 3. */
static void yarn_stretches_along_a_ramp(void **state)
{
    (void)state;
    rope_config yarn = plain;
    yarn.scaling     = ROPE_YARN;
    yarn.factor      = 4;
    yarn.beta_fast = 32, yarn.beta_slow = 1;
    check(&yarn, 1000, (double[]){1, 0.1 * (2 + 0.25) / 3, 0.01 * (1 + 0.5) / 3, 0.001 * 0.25});
}

static void longrope_has_one_list_for_short_and_one_for_long_sequences(void **state)
{
    (void)state;
    rope_config longrope = plain;
    longrope.scaling     = ROPE_LONGROPE;
    for (uint32_t i = 0; i < PAIRS; i++) {
        longrope.short_factors[i] = 2;
        longrope.long_factors[i]  = 4;
    }
    check(&longrope, 1000, (double[]){0.5, 0.05, 0.005, 0.0005});
    check(&longrope, 1001, (double[]){0.25, 0.025, 0.0025, 0.00025});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_linear_are_powers_of_the_base),
        cmocka_unit_test(dynamic_grows_the_base_beyond_the_trained_length_only),
        cmocka_unit_test(llama3_stretches_what_turns_seldom),
        cmocka_unit_test(yarn_stretches_along_a_ramp),
        cmocka_unit_test(longrope_has_one_list_for_short_and_one_for_long_sequences),
    };
    return cmocka_run_group_tests_name("rope_frequencies", tests, NULL, NULL);
}
