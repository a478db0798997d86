/* Filters on text and numbers. Those on sequences are in jinja_sequence_filters.c; jinja2/filters.py is the reference.
 */
#include "text/jinja_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

static bool is_given(jinja_value v)
{
    return v.kind != JINJA_MISSING && v.kind != JINJA_NONE;
}

static jinja_value number_of(jinja_value source, jinja_value number)
{
    number.untrusted = source.untrusted;
    return number;
}

/* ---- text ---- */

static jinja_value filter_case(jinja *j, const jinja_call *c)
{
    char       kind = c->builtin->name[0];
    jinja_case to   = kind == 'u' ? CASE_UPPER : kind == 'l' ? CASE_LOWER : CASE_CAPITALIZE;
    return jinja_of(jinja_change_case(j, jinja_str(j, c->self), to));
}

static bool ends_word(span text, size_t at)
{
    uint32_t c = jinja_next_char(text, &at);
    return jinja_is_space(c) || (c && c < 0x80 && strchr("-({[<", (int)c));
}

/* Jinja's title splits words at -, white space and opening brackets only, so "it's" stays one word. */
static jinja_value filter_title(jinja *j, const jinja_call *c)
{
    const jinja_string *s    = jinja_str(j, c->self);
    span                text = jinja_string_text(j, s);
    jinja_builder       out;
    jinja_builder_start(&out, j);
    for (size_t begin = 0, at = 0; begin < text.size; begin = at) {
        (void)jinja_next_char(text, &at);
        size_t first = at;
        for (bool done = ends_word(text, begin); at < text.size && !done;) { /* one word and what ends it */
            done = ends_word(text, at);
            (void)jinja_next_char(text, &at);
        }
        jinja_builder_add_string(&out, jinja_change_case(j, jinja_string_slice(j, s, begin, first), CASE_UPPER));
        jinja_builder_add_string(&out, jinja_change_case(j, jinja_string_slice(j, s, first, at), CASE_LOWER));
    }
    return jinja_of(jinja_builder_finish(&out));
}

static jinja_value filter_trim(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_strip(j, jinja_str(j, c->self), c->a[0], JINJA_STRIP_LEFT | JINJA_STRIP_RIGHT));
}

static jinja_value filter_replace(jinja *j, const jinja_call *c)
{
    int64_t count = is_given(c->a[2]) ? jinja_to_integer(j, c->a[2], "count") : -1;
    return jinja_of(jinja_replace(j, jinja_str(j, c->self), jinja_str_text(j, c->a[0]), jinja_str(j, c->a[1]), count));
}

static jinja_value filter_string(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_str(j, c->self));
}

/* Nothing is escaped on output here, so text marked safe is the text itself. */
static jinja_value filter_safe(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_str(j, c->self));
}

static jinja_value filter_escape(jinja *j, const jinja_call *c)
{
    static const struct {
        const char *from, *to;
    } table[]       = {{"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
    jinja_string *s = jinja_str(j, c->self);
    for (size_t i = 0; i < COUNT(table); i++)
        s = jinja_replace(j, s, span_of(table[i].from),
                          jinja_string_new(j, span_of(table[i].to), jinja_string_is_untrusted(j, s)), -1);
    return jinja_of(s);
}

static jinja_value filter_center(jinja *j, const jinja_call *c)
{
    jinja_value     width     = c->a[0].kind == JINJA_MISSING ? jinja_int(80) : c->a[0];
    jinja_arguments arguments = {.values = &width, .n = 1};
    return jinja_invoke(j, jinja_find_string_method(SPAN("center")), jinja_of(jinja_str(j, c->self)), &arguments, NULL);
}

static jinja_value filter_indent(jinja *j, const jinja_call *c)
{
    if (c->self.kind != JINJA_STRING)
        jinja_fail_type(j, "indent needs a string", c->self);
    bool          first = jinja_truth(c->a[1]), blank = jinja_truth(c->a[2]);
    bool          untrusted = jinja_string_is_untrusted(j, c->self.string);
    jinja_value   space     = c->a[0];
    jinja_builder out;
    if (space.kind != JINJA_STRING) {
        int64_t width = space.kind == JINJA_MISSING ? 4 : jinja_to_integer(j, space, "width");
        space         = jinja_repeat(j, jinja_text_value(j, SPAN(" "), untrusted), width);
    }
    const jinja_string *newline = jinja_string_new(j, SPAN("\n"), untrusted);
    jinja_value         lines   = jinja_split_lines(j, jinja_string_concat(j, c->self.string, newline), false);
    jinja_builder_start(&out, j);
    for (size_t i = 0; i < lines.sequence->n; i++) {
        const jinja_string *line = lines.sequence->items[i].string;
        if (i > 0)
            jinja_builder_add_string(&out, newline);
        if (i == 0 ? first : blank || line->text.size > 0)
            jinja_builder_add_string(&out, space.string);
        jinja_builder_add_string(&out, line);
    }
    return jinja_of(jinja_builder_finish(&out));
}

static jinja_value filter_truncate(jinja *j, const jinja_call *c)
{
    const jinja_string *end    = c->a[2].kind == JINJA_MISSING ? jinja_literal(j, "...").string : jinja_str(j, c->a[2]);
    int64_t             length = c->a[0].kind == JINJA_MISSING ? 255 : jinja_to_integer(j, c->a[0], "length");
    int64_t             leeway = is_given(c->a[3]) ? jinja_to_integer(j, c->a[3], "leeway") : 5;
    int64_t             n_end  = (int64_t)jinja_string_n_chars(j, end);
    size_t              n;
    if (length < n_end || leeway < 0)
        jinja_fail(j, ERR_INVALID, "truncate: the length is under that of the ending, or the leeway negative");
    if (!jinja_length(j, c->self, &n))
        jinja_fail_type(j, "this has no length", c->self);
    if ((int64_t)n <= (leeway > INT64_MAX - length ? INT64_MAX : length + leeway))
        return c->self;
    if (c->self.kind != JINJA_STRING)
        jinja_fail_type(j, "truncate needs a string", c->self);
    const jinja_string *s   = c->self.string;
    size_t              cut = jinja_string_offset(j, s, (size_t)(length - n_end));
    if (!jinja_truth(c->a[1])) {
        const char *space = memrchr(s->text.data, ' ', cut);
        cut               = space ? (size_t)(space - s->text.data) : cut;
    }
    return jinja_of(jinja_string_concat(j, jinja_string_slice(j, s, 0, cut), end));
}

static jinja_value filter_word_count(jinja *j, const jinja_call *c)
{
    span    text    = jinja_str_text(j, c->self);
    int64_t n       = 0;
    bool    in_word = false;
    jinja_charge_bytes(j, text.size);
    for (size_t at = 0; at < text.size;) {
        uint32_t            ch   = jinja_next_char(text, &at);
        utf8proc_category_t k    = utf8proc_category((utf8proc_int32_t)ch);
        bool                word = ch == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
                    (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
        n += word && !in_word;
        in_word = word;
    }
    return jinja_int(n);
}

static void add_quoted(jinja *j, jinja_builder *out, const jinja_string *s, bool query)
{
    span text = jinja_string_text(j, s);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char ch = (unsigned char)text.data[i];
        char          hex[4];
        bool          untrusted = jinja_string_origin_at(j, s, i);
        bool          plain     = (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') ||
                     (ch && strchr("_.-~", ch)) || (ch == '/' && !query);
        if (plain)
            jinja_builder_add(out, (span){&text.data[i], 1}, untrusted);
        else if (ch == ' ' && query)
            jinja_builder_add(out, SPAN("+"), untrusted);
        else {
            snprintf(hex, sizeof hex, "%%%02X", ch);
            jinja_builder_add(out, span_of(hex), untrusted);
        }
    }
}

static jinja_value filter_urlencode(jinja *j, const jinja_call *c)
{
    jinja_builder out;
    jinja_builder_start(&out, j);
    if (c->self.kind == JINJA_STRING || !jinja_is_iterable(c->self)) {
        add_quoted(j, &out, jinja_str(j, c->self), false);
        return jinja_of(jinja_builder_finish(&out));
    }
    const jinja_sequence *keys = jinja_iterate(j, c->self);
    for (size_t i = 0; i < keys->n; i++) {
        jinja_value key = jinja_item(keys, i), value;
        if (c->self.kind == JINJA_DICT)
            value = c->self.dict->values[i];
        else {
            const jinja_sequence *pair = jinja_iterate(j, key);
            if (pair->n != 2)
                jinja_fail(j, ERR_INVALID, "urlencode needs pairs of a key and a value");
            key   = jinja_item(pair, 0);
            value = jinja_item(pair, 1);
        }
        if (i > 0)
            jinja_builder_add(&out, SPAN("&"), false);
        add_quoted(j, &out, jinja_str(j, key), true);
        jinja_builder_add(&out, SPAN("="), false);
        add_quoted(j, &out, jinja_str(j, value), true);
    }
    return jinja_of(jinja_builder_finish(&out));
}

static jinja_value filter_format(jinja *j, const jinja_call *c)
{
    const jinja_arguments *a = c->arguments;
    jinja_value            values;
    if (a->n > 0 && a->n_keywords > 0)
        jinja_fail(j, ERR_INVALID, "format can't handle positional and keyword arguments at the same time");
    if (a->n_keywords > 0) {
        values = jinja_dict_new(j, JINJA_DICT, a->n_keywords);
        for (size_t i = 0; i < a->n_keywords; i++)
            jinja_dict_set(j, values.dict, jinja_text_value(j, a->keywords[i].name, false), a->keywords[i].value);
    } else {
        values = jinja_sequence_new(j, JINJA_TUPLE, a->n);
        for (size_t i = 0; i < a->n; i++)
            values.sequence->items[i] = a->values[i];
    }
    return jinja_of(jinja_percent_format(j, jinja_str(j, c->self), values));
}

static jinja_value filter_tojson(jinja *j, const jinja_call *c)
{
    jinja_json_style style = {.ascii          = jinja_truth(c->a[0]),
                              .sort_keys      = jinja_truth(c->a[3]),
                              .multiline      = is_given(c->a[1]),
                              .indent         = SPAN(""),
                              .item_separator = is_given(c->a[1]) ? SPAN(",") : SPAN(", "),
                              .key_separator  = SPAN(": ")};
    if (c->a[1].kind == JINJA_STRING)
        style.indent = jinja_string_text(j, c->a[1].string);
    else if (style.multiline)
        style.indent =
            jinja_str_text(j, jinja_repeat(j, jinja_literal(j, " "),
                                           jinja_to_integer(j, c->a[1], "indent needs an integer or a string")));
    if (is_given(c->a[2])) {
        const jinja_sequence *s = jinja_iterate(j, c->a[2]);
        if (s->n != 2 || jinja_item(s, 0).kind != JINJA_STRING || jinja_item(s, 1).kind != JINJA_STRING)
            jinja_fail(j, ERR_INVALID, "tojson: separators must be two strings");
        style.item_separator = jinja_str_text(j, jinja_item(s, 0));
        style.key_separator  = jinja_str_text(j, jinja_item(s, 1));
    }
    return jinja_of(jinja_json(j, c->self, &style));
}

/* ---- numbers ---- */

static jinja_value filter_abs(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_FLOAT)
        return number_of(c->self, jinja_float(fabs(c->self.number)));
    int64_t n = jinja_to_integer(j, c->self, "abs needs a number");
    if (n == INT64_MIN)
        jinja_fail(j, ERR_INVALID, "an integer does not fit in 64 bits");
    return number_of(c->self, jinja_int(n < 0 ? -n : n));
}

static bool float_to_integer(double d, int64_t *n)
{
    if (!(d > -9.2e18 && d < 9.2e18))
        return false;
    *n = (int64_t)d;
    return true;
}

static jinja_value filter_int(jinja *j, const jinja_call *c)
{
    int64_t     n;
    double      d;
    jinja_value otherwise = c->a[0].kind == JINJA_MISSING ? jinja_int(0) : c->a[0];
    if (jinja_is_integer(c->self))
        return number_of(c->self, jinja_int(jinja_to_integer(j, c->self, "int")));
    if (c->self.kind == JINJA_FLOAT)
        return float_to_integer(c->self.number, &n) ? number_of(c->self, jinja_int(n)) : otherwise;
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, c->self);
    if (c->self.kind != JINJA_STRING)
        return otherwise;
    span        text = jinja_string_text(j, c->self.string);
    int64_t     base = c->a[1].kind == JINJA_MISSING ? 10 : jinja_to_integer(j, c->a[1], "base");
    jinja_value from = {.untrusted = jinja_string_is_untrusted(j, c->self.string)};
    if (jinja_parse_integer(text, base >= 0 && base <= 36 ? (int)base : -1, &n))
        return number_of(from, jinja_int(n));
    if (jinja_parse_float(text, &d) && float_to_integer(d, &n))
        return number_of(from, jinja_int(n));
    return otherwise;
}

static jinja_value filter_float(jinja *j, const jinja_call *c)
{
    double      d;
    jinja_value otherwise = c->a[0].kind == JINJA_MISSING ? jinja_float(0) : c->a[0];
    if (jinja_is_number(c->self))
        return number_of(c->self, jinja_float(jinja_to_double(c->self)));
    if (c->self.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, c->self);
    if (c->self.kind == JINJA_STRING && jinja_parse_float(jinja_string_text(j, c->self.string), &d))
        return number_of((jinja_value){.untrusted = jinja_string_is_untrusted(j, c->self.string)}, jinja_float(d));
    return otherwise;
}

/* Python rounds the exact decimal value, half to even; glibc's printf does the same. */
static double round_decimal(double d, int64_t precision)
{
    char text[400];
    if (!isfinite(d) || precision > 300)
        return d;
    if (precision >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)(precision > 60 ? 60 : precision), d);
        return strtod(text, NULL);
    }
    double scale = pow(10, (double)-precision);
    return isfinite(scale) ? nearbyint(d / scale) * scale : 0;
}

static jinja_value filter_round(jinja *j, const jinja_call *c)
{
    if (!jinja_is_number(c->self))
        jinja_fail_type(j, "round needs a number", c->self);
    int64_t precision = c->a[0].kind == JINJA_MISSING ? 0 : jinja_to_integer(j, c->a[0], "precision");
    span    method    = c->a[1].kind == JINJA_MISSING ? SPAN("common") : jinja_str_text(j, c->a[1]);
    double  d         = jinja_to_double(c->self);
    if (span_is(method, "common")) {
        if (!jinja_is_integer(c->self))
            return number_of(c->self, jinja_float(round_decimal(d, precision)));
        if (precision >= 0)
            return number_of(c->self, jinja_int(jinja_to_integer(j, c->self, "round")));
        return number_of(c->self, jinja_int((int64_t)round_decimal(d, precision)));
    }
    if (!span_is(method, "ceil") && !span_is(method, "floor"))
        jinja_fail(j, ERR_INVALID, "round: the method must be common, ceil or floor");
    double scale = pow(10, (double)precision);
    d            = method.data[0] == 'c' ? ceil(d * scale) : floor(d * scale);
    return number_of(c->self, jinja_float(d / scale));
}

static jinja_value filter_default(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_UNDEFINED || (jinja_truth(c->a[1]) && !jinja_truth(c->self)))
        return c->a[0].kind == JINJA_MISSING ? jinja_literal(j, "") : c->a[0];
    return c->self;
}

static const jinja_builtin filters[] = {
    {"abs", filter_abs, ""},
    {"capitalize", filter_case, ""},
    {"center", filter_center, "width="},
    {"d", filter_default, "default_value= boolean="},
    {"default", filter_default, "default_value= boolean="},
    {"e", filter_escape, ""},
    {"escape", filter_escape, ""},
    {"float", filter_float, "default="},
    {"forceescape", filter_escape, ""},
    {"format", filter_format, NULL},
    {"indent", filter_indent, "width= first= blank="},
    {"int", filter_int, "default= base="},
    {"lower", filter_case, ""},
    {"replace", filter_replace, "old new count="},
    {"round", filter_round, "precision= method="},
    {"safe", filter_safe, ""},
    {"string", filter_string, ""},
    {"title", filter_title, ""},
    {"tojson", filter_tojson, "ensure_ascii= indent= separators= sort_keys="},
    {"trim", filter_trim, "chars="},
    {"truncate", filter_truncate, "length= killwords= end= leeway="},
    {"upper", filter_case, ""},
    {"urlencode", filter_urlencode, ""},
    {"wordcount", filter_word_count, ""},
};

const jinja_builtin *jinja_find_text_filter(span name)
{
    return jinja_find_in(filters, COUNT(filters), name);
}
