/* exp, tanh and log with one definition for every CPU variant, so that their bits agree where libm's may not.
 *
 * The vector functions are for files that include a lanes_*.h first; kern_log is plain C. */
#ifndef TROUPE_KERNELS_MATH_H
#define TROUPE_KERNELS_MATH_H

#include <math.h>

#include "kernels/dtype.h"

/* Natural logarithm of a positive normal number, below 1 ulp of error: x = 2^k (1 + f), s = f / (2 + f),
 * log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)); coefficients of FreeBSD's e_log.c. */
KERN_HOST_DEVICE static inline double kern_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    /* 0x3fe6a09e is the high word of sqrt(1/2): 1 + f falls in [sqrt(1/2), sqrt(2)). */
    uint64_t shifted = bits - ((uint64_t)0x3fe6a09e << 32);
    double   k       = (double)((int64_t)shifted >> 52);
    bits             = (shifted & 0x000fffffffffffffu) + ((uint64_t)0x3fe6a09e << 32);
    memcpy(&x, &bits, 8);
    double f = x - 1, s = f / (2 + f), z = s * s, w = z * z, half = 0.5 * f * f;
    double even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    double odd  = z * (6.666666666666735130e-01 +
                      w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    return k * 6.93147180369123816490e-01 - ((half - (s * (half + even + odd) + k * 1.90821492927058770002e-10)) - f);
}

/* -log(-log(u)) of u = (word + 0.5) / 2^32: a draw from the standard Gumbel distribution. */
KERN_HOST_DEVICE static inline double kern_gumbel(uint32_t word)
{
    return -kern_log(-kern_log(((double)word + 0.5) * 0x1p-32));
}

#ifdef TROUPE_KERNELS_LANES_H

enum { KERN_EXP_TERMS = 6 };

/* e^x within 2 ulp: x = n ln 2 + r, |r| <= ln(2) / 2, a Taylor-like minimax polynomial of r (Cephes expf), times 2^n.
 * Below -87.3 the result is 0 (no subnormals), above 88.3 infinity; NaN stays NaN; exp(0) is 1. */
LANES f32x16 f32x16_exp(f32x16 x)
{
    const f32x16 lowest = f32x16_set(-87.3f), highest = f32x16_set(88.3f);
    f32x16       clamped = f32x16_min(f32x16_max(x, lowest), highest);
    i32x16       n       = i32x16_of_f32x16(f32x16_mul(clamped, f32x16_set(1.44269504088896341f)));
    f32x16       whole   = f32x16_of_i32x16(n);
    f32x16       r       = f32x16_fma(whole, f32x16_set(-0.693359375f), clamped);
    r                    = f32x16_fma(whole, f32x16_set(2.12194440e-4f), r);

    static const float terms[KERN_EXP_TERMS] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                                4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    f32x16             p                     = f32x16_set(terms[0]);
    for (int i = 1; i < KERN_EXP_TERMS; i++) {
        p = f32x16_fma(p, r, f32x16_set(terms[i]));
    }
    p             = f32x16_add(f32x16_fma(p, f32x16_mul(r, r), r), f32x16_set(1));
    f32x16 result = f32x16_times_power_of_2(p, n);
    result        = f32x16_select(f32x16_less(x, lowest), f32x16_set(0), result);
    result        = f32x16_select(f32x16_less(highest, x), f32x16_set(INFINITY), result);
    return f32x16_select(f32x16_equal(x, x), result, x);
}

/* tanh(x): an odd polynomial below 0.625 (Cephes tanhf), 1 - 2 / (e^2|x| + 1) with the sign of x above. */
LANES f32x16 f32x16_tanh(f32x16 x)
{
    f32x16 z = f32x16_mul(x, x), one = f32x16_set(1), magnitude = f32x16_abs(x);
    f32x16 p = f32x16_fma(f32x16_set(-5.70498872745e-3f), z, f32x16_set(2.06390887954e-2f));
    p        = f32x16_fma(p, z, f32x16_set(-5.37397155531e-2f));
    p        = f32x16_fma(p, z, f32x16_set(1.33314422036e-1f));
    p        = f32x16_fma(p, z, f32x16_set(-3.33332819422e-1f));

    f32x16 small = f32x16_fma(f32x16_mul(p, z), x, x);
    f32x16 power = f32x16_exp(f32x16_add(magnitude, magnitude));
    f32x16 large = f32x16_sub(one, f32x16_div(f32x16_set(2), f32x16_add(power, one)));
    large        = f32x16_select(f32x16_less(x, f32x16_set(0)), f32x16_sub(f32x16_set(0), large), large);
    return f32x16_select(f32x16_less(magnitude, f32x16_set(0.625f)), small, large);
}

enum { KERN_ERFC_TERMS = 5 };

/* x times the normal distribution's share below x, 0.5 x erfc(-x / sqrt(2)) (Hendrycks and Gimpel 2016, arXiv
 * 1606.08415). erfc within 1.5e-7: Abramowitz and Stegun, 7.1.26. */
LANES f32x16 f32x16_gelu(f32x16 x)
{
    static const float terms[KERN_ERFC_TERMS] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f,
                                                 0.254829592f};
    f32x16 zero = f32x16_set(0), one = f32x16_set(1), z = f32x16_mul(f32x16_abs(x), f32x16_set(0.70710678f));
    f32x16 t = f32x16_div(one, f32x16_fma(f32x16_set(0.3275911f), z, one)), p = f32x16_set(terms[0]);
    for (int i = 1; i < KERN_ERFC_TERMS; i++) {
        p = f32x16_fma(p, t, f32x16_set(terms[i]));
    }
    f32x16 tail  = f32x16_mul(f32x16_mul(p, t), f32x16_exp(f32x16_sub(zero, f32x16_mul(z, z)))); /* erfc(z) */
    f32x16 share = f32x16_select(f32x16_less(x, zero), tail, f32x16_sub(f32x16_set(2), tail));
    return f32x16_mul(f32x16_mul(f32x16_set(0.5f), x), share);
}

#endif
#endif
