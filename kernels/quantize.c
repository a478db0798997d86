#include "kernels/quantize.h"

#include <assert.h>
#include <math.h>

enum { RANGES = 5, FITS = 2, LANES = 8, LEVELS = 15 };

/* Of 32 numbers: eight sums, then these in a tree, which compilers turn into vectors without changing the result. */
static float sum(const float *x)
{
    float lanes[LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        lanes[i] = (x[i] + x[i + LANES]) + (x[i + 2 * LANES] + x[i + 3 * LANES]);
    }
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static bool all_finite(const float *x)
{
    float zeros[KERN_BLOCK];
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        zeros[i] = x[i] * 0;
    }
    return sum(zeros) == 0;
}

static void put_f16(uint16_t bits, uint8_t *to)
{
    to[0] = (uint8_t)bits;
    to[1] = (uint8_t)(bits >> 8);
}

static bool is_finite_f16(uint16_t bits)
{
    return (bits & 0x7c00) != 0x7c00;
}

/* ---- Q8_0 ---- */

/* Ties away from zero, as roundf, without its call. */
static int8_t nearest(float value)
{
    float   magnitude = value < 0 ? -value : value;
    int32_t whole     = (int32_t)magnitude;
    whole += magnitude - (float)whole >= 0.5f;
    return (int8_t)(value < 0 ? -whole : whole);
}

static bool quantize_q8_0(const float *x, kern_block_q8_0 *out)
{
    float largest = 0;
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        float magnitude = x[i] < 0 ? -x[i] : x[i];
        largest         = magnitude > largest ? magnitude : largest;
    }
    float    scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
    uint16_t bits = kern_f16_of_float(scale);
    if (!is_finite_f16(bits)) {
        return false;
    }
    bool vanishes = (bits & 0x7fff) == 0 || inverse > 3e38f; /* what the scale can't tell from zeros */
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        out->quants[i] = vanishes ? 0 : nearest(x[i] * inverse);
    }
    put_f16(bits, out->scale);
    return true;
}

/* ---- Q4_1 ---- */

/* x is about scale * quant + min. */
typedef struct {
    float scale, min;
} line;

static void quants_on(const float *x, line l, float *quants)
{
    float inverse = l.scale > 0 ? 1 / l.scale : 0;
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        float at  = (x[i] - l.min) * inverse;
        at        = at > 0 ? at : 0;
        at        = at < LEVELS ? at : LEVELS;
        quants[i] = (float)(int32_t)(at + 0.5f);
    }
}

/* The line of least squares through (quant, x); the given one where all quants are the same. */
static line fit(const float *x, const float *quants, line given)
{
    float products[KERN_BLOCK], squares[KERN_BLOCK];
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        products[i] = x[i] * quants[i];
        squares[i]  = quants[i] * quants[i];
    }
    float n = KERN_BLOCK, sum_x = sum(x), sum_q = sum(quants), sum_xq = sum(products), sum_qq = sum(squares);
    float determinant = n * sum_qq - sum_q * sum_q; /* of small integers: exact */
    if (determinant <= 0) {
        return given;
    }
    return (line){(n * sum_xq - sum_q * sum_x) / determinant, (sum_qq * sum_x - sum_q * sum_xq) / determinant};
}

static line as_f16(line l)
{
    return (line){kern_float_of_f16(kern_f16_of_float(l.scale)), kern_float_of_f16(kern_f16_of_float(l.min))};
}

static float squared_error(const float *x, line l, const float *quants)
{
    float errors[KERN_BLOCK];
    for (uint32_t i = 0; i < KERN_BLOCK; i++) {
        float error = (l.scale * quants[i] + l.min) - x[i];
        errors[i]   = error * error;
    }
    return sum(errors);
}

typedef struct {
    float error;
    line  line;
    float quants[KERN_BLOCK];
} candidate;

/* Takes the line, as the block can hold it, when it is better than what is there. */
static void consider(const float *x, line l, candidate *best)
{
    candidate c = {.line = as_f16(l)};
    quants_on(x, c.line, c.quants);
    c.error = squared_error(x, c.line, c.quants);
    if (c.error < best->error) {
        *best = c;
    }
}

static bool quantize_q4_1(const float *x, kern_block_q4_1 *out)
{
    float least = x[0], most = x[0];
    for (uint32_t i = 1; i < KERN_BLOCK; i++) {
        least = x[i] < least ? x[i] : least;
        most  = x[i] > most ? x[i] : most;
    }
    candidate best = {.error = INFINITY};
    consider(x, (line){(most - least) / LEVELS, least}, &best);
    for (uint32_t range = 0; range < RANGES; range++) { /* narrower ones clip their ends and place the rest better */
        float quants[KERN_BLOCK], step = (most - least) / (float)(LEVELS + range);
        line  l = {step, (least + most) / 2 - step * (LEVELS / 2.0f)};
        for (uint32_t i = 0; i < FITS; i++) {
            quants_on(x, l, quants);
            l = fit(x, quants, l);
        }
        consider(x, l, &best);
    }
    uint16_t scale = kern_f16_of_float(best.line.scale), min = kern_f16_of_float(best.line.min);
    if (!(best.error < INFINITY) || !is_finite_f16(scale) || !is_finite_f16(min)) {
        return false;
    }
    put_f16(scale, out->scale);
    put_f16(min, out->min);
    for (uint32_t i = 0; i < KERN_BLOCK / 2; i++) {
        out->nibbles[i] = (uint8_t)((uint8_t)best.quants[i] | (uint8_t)best.quants[i + KERN_BLOCK / 2] << 4);
    }
    return true;
}

bool kern_quantize(kern_dtype dtype, const float *x, void *out, uint64_t n)
{
    assert(n % KERN_BLOCK == 0 && (dtype == KERN_Q8_0 || dtype == KERN_Q4_1));
    uint8_t *to = out;
    for (uint64_t i = 0; i < n; i += KERN_BLOCK, to += kern_dtype_block_bytes(dtype)) {
        if (!all_finite(x + i)) {
            return false;
        }
        bool ok = dtype == KERN_Q8_0 ? quantize_q8_0(x + i, (kern_block_q8_0 *)to)
                                     : quantize_q4_1(x + i, (kern_block_q4_1 *)to);
        if (!ok) {
            return false;
        }
    }
    return true;
}
