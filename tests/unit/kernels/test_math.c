/* The shared exp, tanh, log and 16-bit floats against libm and against each other, over the whole range. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/lanes_portable.h"

#include "kernels/lanes_partial.h"
#include "kernels/math.h"

static float one_exp(float x)
{
    float out[16];
    f32x16_store(out, f32x16_exp(f32x16_set(x)));
    return out[7];
}

static float one_tanh(float x)
{
    float out[16];
    f32x16_store(out, f32x16_tanh(f32x16_set(x)));
    return out[7];
}

static void exp_is_within_3_ulp(void **state)
{
    (void)state;
    for (double x = -87.29; x < 88.29; x += 0.00371) {
        double wanted = exp((double)(float)x);
        if (fabs((double)one_exp((float)x) - wanted) > wanted * 3 * 0x1p-24 * 2) {
            fail_msg("exp(%.9g) is %.9g", x, (double)one_exp((float)x));
        }
    }
}

static void exp_has_exact_edges(void **state)
{
    (void)state;
    assert_true(one_exp(0) == 1 && one_exp(-0.0f) == 1);
    assert_true(one_exp(-INFINITY) == 0 && one_exp(-88) == 0 && one_exp(-1e30f) == 0);
    assert_true(one_exp(INFINITY) == INFINITY && one_exp(89) == INFINITY);
    assert_true(isnan(one_exp(NAN)));
}

static void tanh_is_within_1e_7(void **state)
{
    (void)state;
    for (double x = -20; x < 20; x += 0.00137) {
        double wanted = tanh((double)(float)x);
        if (fabs((double)one_tanh((float)x) - wanted) > 1.5e-7 ||
            fabs((double)one_tanh((float)x) - wanted) > fabs(wanted) * 4e-7) {
            fail_msg("tanh(%.9g) is %.9g", x, (double)one_tanh((float)x));
        }
    }
    assert_true(one_tanh(INFINITY) == 1 && one_tanh(-INFINITY) == -1 && isnan(one_tanh(NAN)) && one_tanh(0) == 0);
}

static float one_gelu(float x)
{
    float out[16];
    f32x16_store(out, f32x16_gelu(f32x16_set(x)));
    return out[7];
}

static void gelu_is_within_3e_7_of_its_argument(void **state)
{
    (void)state;
    for (double x = -20; x < 20; x += 0.00137) {
        double wanted = 0.5 * (double)(float)x * erfc(-(double)(float)x * sqrt(0.5));
        if (fabs((double)one_gelu((float)x) - wanted) > 3e-7 * fabs(x) + 1e-9) {
            fail_msg("gelu(%.9g) is %.9g, not %.9g", x, (double)one_gelu((float)x), wanted);
        }
    }
    assert_true(one_gelu(INFINITY) == INFINITY && isnan(one_gelu(NAN)) && one_gelu(0) == 0 && one_gelu(-1e30f) == 0);
}

static void log_is_within_2_ulp_of_libm(void **state)
{
    (void)state;
    for (double x = 1e-300; x < 1e300; x *= 1.0137) {
        assert_true(fabs(kern_log(x) - log(x)) <= fabs(log(x)) * 0x1p-51);
    }
    for (double x = 0.5; x < 2; x += 0.00013) {
        assert_true(fabs(kern_log(x) - log(x)) <= fabs(log(x)) * 0x1p-51);
    }
    assert_true(kern_log(1) == 0);
}

static void gumbel_draws_are_finite_and_rise_with_the_word(void **state)
{
    (void)state;
    assert_true(kern_gumbel(0) > -3.2 && kern_gumbel(0) < -3.1);
    assert_true(kern_gumbel(UINT32_MAX) > 22.8 && kern_gumbel(UINT32_MAX) < 22.9);
    for (uint32_t word = 0; word < UINT32_MAX - 100000; word += 99991) {
        assert_true(kern_gumbel(word) < kern_gumbel(word + 99991));
    }
}

/* Every half becomes a float and back; every float between two halves rounds to the nearer, the even one at the middle.
 */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7c00; half++) {
        float here = kern_float_of_f16((uint16_t)half), next = kern_float_of_f16((uint16_t)(half + 1));
        assert_int_equal(kern_f16_of_float(here), half);
        assert_int_equal(kern_f16_of_float(-here), half | 0x8000);
        if (half + 1 < 0x7c00) {
            float middle = (here + next) / 2;
            assert_int_equal(kern_f16_of_float(middle), half + (half & 1));
            assert_int_equal(kern_f16_of_float(nextafterf(middle, INFINITY)), half + 1);
            assert_int_equal(kern_f16_of_float(nextafterf(middle, 0)), half);
        }
    }
    assert_int_equal(kern_f16_of_float(65519.99f), 0x7bff);
    assert_int_equal(kern_f16_of_float(65520), 0x7c00);
    assert_int_equal(kern_f16_of_float(INFINITY), 0x7c00);
    assert_true(isnan(kern_float_of_f16(kern_f16_of_float(NAN))));
    assert_int_equal(kern_bf16_of_float(1.00390625f), 0x3f80); /* a tie */
    assert_int_equal(kern_bf16_of_float(1.01171875f), 0x3f82);
    assert_true(isnan(kern_float_of_bf16(kern_bf16_of_float(NAN))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_3_ulp),
        cmocka_unit_test(exp_has_exact_edges),
        cmocka_unit_test(tanh_is_within_1e_7),
        cmocka_unit_test(gelu_is_within_3e_7_of_its_argument),
        cmocka_unit_test(log_is_within_2_ulp_of_libm),
        cmocka_unit_test(gumbel_draws_are_finite_and_rise_with_the_word),
        cmocka_unit_test(halves_round_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
