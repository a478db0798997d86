/* str() and repr() of every value, as Python prints them. */
#include "text/jinja_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

/* The shortest digits that read back as the same double, in Python's layout: 1e+16 and up and below 1e-4 in exponents.
 */
int jinja_format_float(char out[JINJA_NUMBER_BYTES], double number)
{
    if (isnan(number))
        return snprintf(out, JINJA_NUMBER_BYTES, "nan");
    if (isinf(number))
        return snprintf(out, JINJA_NUMBER_BYTES, number > 0 ? "inf" : "-inf");
    char scientific[JINJA_NUMBER_BYTES];
    int  digits = 1;
    for (; digits <= 17; digits++) {
        snprintf(scientific, sizeof scientific, "%.*e", digits - 1, number);
        if (strtod(scientific, NULL) == number)
            break;
    }
    const char *e        = strchr(scientific, 'e');
    int         exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16)
        return snprintf(out, JINJA_NUMBER_BYTES, "%.*se%c%02d", (int)(e - scientific), scientific,
                        exponent < 0 ? '-' : '+', abs(exponent));
    int decimals = digits - 1 - exponent;
    return snprintf(out, JINJA_NUMBER_BYTES, "%.*f", decimals > 0 ? decimals : 1, number);
}

static bool is_printable(uint32_t c)
{
    if (c < 0x7F)
        return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

static void add_text(jinja_builder *out, const char *text, bool untrusted)
{
    jinja_builder_add(out, span_of(text), untrusted);
}

static void repr_string(jinja *j, jinja_builder *out, const jinja_string *s, bool untrusted)
{
    span text  = jinja_string_text(j, s);
    char quote = memchr(text.data, '\'', text.size) && !memchr(text.data, '"', text.size) ? '"' : '\'';
    jinja_builder_add(out, (span){&quote, 1}, untrusted);
    for (size_t at = 0, begin = 0; at < text.size; begin = at) {
        uint32_t c = jinja_next_char(text, &at);
        char     escape[12];
        if (c == '\\' || c == (uint32_t)quote)
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (is_printable(c)) {
            jinja_builder_add(out, (span){text.data + begin, at - begin}, untrusted);
            continue;
        } else
            snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        add_text(out, escape, untrusted);
    }
    jinja_builder_add(out, (span){&quote, 1}, untrusted);
}

static void repr_items(jinja *j, jinja_builder *out, const jinja_sequence *s, const char *brackets, bool untrusted)
{
    jinja_builder_add(out, (span){brackets, 1}, untrusted);
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0)
            add_text(out, ", ", untrusted);
        jinja_print_repr(j, out, s->items[i], untrusted);
    }
    if (s->n == 1 && brackets[0] == '(')
        add_text(out, ",", untrusted);
    jinja_builder_add(out, (span){brackets + 1, 1}, untrusted);
}

static void repr_dict(jinja *j, jinja_builder *out, const jinja_dict *d, bool untrusted)
{
    add_text(out, "{", untrusted);
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            add_text(out, ", ", untrusted);
        jinja_print_repr(j, out, d->keys[i], untrusted);
        add_text(out, ": ", untrusted);
        jinja_print_repr(j, out, d->values[i], untrusted);
    }
    add_text(out, "}", untrusted);
}

static void repr_range(jinja_builder *out, const jinja_sequence *s)
{
    char    text[100];
    int64_t stop = (int64_t)((uint64_t)s->start + s->n * (uint64_t)s->step);
    int     size = snprintf(text, sizeof text, "range(%lld, %lld", (long long)s->start, (long long)stop);
    if (s->step != 1)
        size += snprintf(text + size, sizeof text - (size_t)size, ", %lld", (long long)s->step);
    snprintf(text + size, sizeof text - (size_t)size, ")");
    add_text(out, text, false);
}

/* A container's punctuation has the origin of what is inside: one run, so that it reads as one text to the tokenizer.
 */
void jinja_print_repr(jinja *j, jinja_builder *out, jinja_value v, bool untrusted)
{
    char number[JINJA_NUMBER_BYTES];
    jinja_enter(j);
    switch ((jinja_kind)v.kind) {
    case JINJA_MISSING:
        break;
    case JINJA_UNDEFINED:
        add_text(out, "Undefined", untrusted);
        break;
    case JINJA_NONE:
        add_text(out, "None", untrusted);
        break;
    case JINJA_BOOL:
        add_text(out, v.boolean ? "True" : "False", untrusted);
        break;
    case JINJA_INT:
        snprintf(number, sizeof number, "%lld", (long long)v.integer);
        add_text(out, number, untrusted);
        break;
    case JINJA_FLOAT:
        jinja_format_float(number, v.number);
        add_text(out, number, untrusted);
        break;
    case JINJA_STRING:
        repr_string(j, out, v.string, untrusted);
        break;
    case JINJA_LIST:
        repr_items(j, out, v.sequence, "[]", untrusted);
        break;
    case JINJA_TUPLE:
        repr_items(j, out, v.sequence, "()", untrusted);
        break;
    case JINJA_VIEW:
        add_text(out, v.sequence->view, untrusted);
        add_text(out, "(", untrusted);
        repr_items(j, out, v.sequence, "[]", untrusted);
        add_text(out, ")", untrusted);
        break;
    case JINJA_RANGE:
        repr_range(out, v.sequence);
        break;
    case JINJA_DICT:
        repr_dict(j, out, v.dict, untrusted);
        break;
    case JINJA_NAMESPACE:
        add_text(out, "<Namespace ", untrusted);
        repr_dict(j, out, v.dict, untrusted);
        add_text(out, ">", untrusted);
        break;
    case JINJA_LOOP:
        jinja_loop_fill(j, v.loop, SIZE_MAX);
        snprintf(number, sizeof number, "<LoopContext %zu/%zu>", v.loop->index0 + 1, v.loop->items->n);
        add_text(out, number, untrusted);
        break;
    default: /* Python prints a memory address here, which no template can mean */
        jinja_fail(j, ERR_INVALID, "a '%s' object can't be printed", jinja_type_name(v));
    }
    jinja_leave(j);
}

jinja_string *jinja_repr(jinja *j, jinja_value v)
{
    jinja_builder out;
    jinja_builder_start(&out, j);
    if (v.kind != JINJA_UNDEFINED) /* str(undefined) is empty; only inside a container it has a name */
        jinja_print_repr(j, &out, v, jinja_is_untrusted(j, v));
    return jinja_builder_finish(&out);
}
