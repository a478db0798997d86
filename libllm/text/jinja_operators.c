/* Python's arithmetic on the values of templates. Integers have 64 bits; past that is an error, never a wrong number.
 */
#include "text/jinja_eval.h"

#include <math.h>

_Noreturn static void fail_overflow(jinja *j)
{
    jinja_fail(j, ERR_INVALID, "an integer does not fit in 64 bits");
}

static const char *operator_text(uint8_t token)
{
    static const char single[][2] = {"+", "-", "*", "/", "%"};
    for (size_t i = 0; i < COUNT(single); i++)
        if (single[i][0] == (char)token)
            return single[i];
    return token == TOKEN_POWER ? "**" : "//";
}

_Noreturn static void fail_operands(jinja *j, uint8_t token, jinja_value a, jinja_value b)
{
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, a.kind == JINJA_UNDEFINED ? a : b);
    jinja_fail(j, ERR_INVALID, "unsupported operand type(s) for %s: '%s' and '%s'", operator_text(token),
               jinja_type_name(a), jinja_type_name(b));
}

static int64_t integer_power(jinja *j, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            fail_overflow(j);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base))
            fail_overflow(j);
    }
    return result;
}

static int64_t floor_divide(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static jinja_value integer_binary(jinja *j, uint8_t token, int64_t a, int64_t b)
{
    int64_t result;
    bool    overflow = false;
    switch (token) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case TOKEN_POWER:
        result = integer_power(j, a, b);
        break;
    default: /* floor division and modulo */
        if (b == 0)
            jinja_fail(j, ERR_INVALID, "integer division or modulo by zero");
        if (b == -1) { /* INT64_MIN / -1 traps */
            overflow = token != '%' && __builtin_sub_overflow(0, a, &result);
            result   = token == '%' ? 0 : result;
        } else
            result = token == '%' ? a - floor_divide(a, b) * b : floor_divide(a, b);
    }
    if (overflow)
        fail_overflow(j);
    return jinja_int(result);
}

static jinja_value float_binary(jinja *j, uint8_t token, double a, double b)
{
    if (b == 0 && (token == '/' || token == '%' || token == TOKEN_FLOOR_DIVIDE))
        jinja_fail(j, ERR_INVALID, "division by zero");
    double rest = token == '%' || token == TOKEN_FLOOR_DIVIDE ? fmod(a, b) : 0;
    switch (token) {
    case '+':
        return jinja_float(a + b);
    case '-':
        return jinja_float(a - b);
    case '*':
        return jinja_float(a * b);
    case '/':
        return jinja_float(a / b);
    case '%':
        if (rest != 0 && (rest < 0) != (b < 0))
            rest += b;
        return jinja_float(rest != 0 ? rest : copysign(0, b));
    case TOKEN_FLOOR_DIVIDE:
        if (rest != 0 && (rest < 0) != (b < 0))
            return jinja_float(round((a - rest) / b) - 1);
        return jinja_float(round((a - rest) / b));
    default:
        if (a == 0 && b < 0)
            jinja_fail(j, ERR_INVALID, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b))
            jinja_fail(j, ERR_INVALID, "a negative number to a fractional power is complex");
        return jinja_float(pow(a, b));
    }
}

static jinja_value number_binary(jinja *j, uint8_t token, jinja_value a, jinja_value b)
{
    jinja_value result;
    bool        integers = jinja_is_integer(a) && jinja_is_integer(b) && token != '/';
    int64_t     exponent = integers && token == TOKEN_POWER ? jinja_to_integer(j, b, "exponent") : 0;
    if (integers && exponent >= 0)
        result = integer_binary(j, token, jinja_to_integer(j, a, "operand"), jinja_to_integer(j, b, "operand"));
    else
        result = float_binary(j, token, jinja_to_double(a), jinja_to_double(b));
    result.untrusted = a.untrusted || b.untrusted;
    return result;
}

jinja_value jinja_repeat(jinja *j, jinja_value v, int64_t n)
{
    size_t times = n > 0 ? (size_t)n : 0;
    if (v.kind == JINJA_STRING) {
        jinja_builder out;
        jinja_builder_start(&out, j);
        for (size_t i = 0; i < times && v.string->text.size > 0; i++)
            jinja_builder_add_string(&out, v.string);
        return jinja_of(jinja_builder_finish(&out));
    }
    size_t size = v.sequence->n, total;
    if (__builtin_mul_overflow(size, times, &total))
        fail_overflow(j);
    jinja_value result = jinja_sequence_new(j, (jinja_kind)v.kind, total);
    for (size_t i = 0; i < total; i++)
        result.sequence->items[i] = v.sequence->items[i % size];
    return result;
}

static bool can_repeat(jinja_value v)
{
    return v.kind == JINJA_STRING || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

static jinja_value concat_sequences(jinja *j, jinja_value a, jinja_value b)
{
    jinja_value result = jinja_sequence_new(j, (jinja_kind)a.kind, a.sequence->n + b.sequence->n);
    memcpy(result.sequence->items, a.sequence->items, a.sequence->n * sizeof *a.sequence->items);
    memcpy(result.sequence->items + a.sequence->n, b.sequence->items, b.sequence->n * sizeof *b.sequence->items);
    return result;
}

jinja_value jinja_binary(jinja *j, uint8_t token, jinja_value a, jinja_value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return number_binary(j, token, a, b);
    if (token == '+' && a.kind == JINJA_STRING && b.kind == JINJA_STRING)
        return jinja_of(jinja_string_concat(j, a.string, b.string));
    if (token == '+' && a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE))
        return concat_sequences(j, a, b);
    if (token == '*' && can_repeat(a) && jinja_is_integer(b))
        return jinja_repeat(j, a, jinja_to_integer(j, b, "factor"));
    if (token == '*' && jinja_is_integer(a) && can_repeat(b))
        return jinja_repeat(j, b, jinja_to_integer(j, a, "factor"));
    if (token == '%' && a.kind == JINJA_STRING)
        return jinja_of(jinja_percent_format(j, a.string, b));
    fail_operands(j, token, a, b);
}
