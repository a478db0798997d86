/* Python's two ways to format: "%s" % x (and the format filter), and "{}".format(x). What the format string says keeps
 * the format string's origin, what it inserts keeps the argument's. */
#include "text/jinja_eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FORMAT_WIDTH_MAX = 100000, FORMAT_PRECISION_MAX = 100, FORMAT_NUMBER_BYTES = 512 };

/* What both languages say about one inserted value. */
typedef struct {
    uint32_t fill;  /* 0: a space, or zeros with `zero` */
    char     align; /* '<' '>' '^' '=' or 0 for the type's own */
    char     sign;  /* '+' ' ' or 0 */
    bool     alternate, zero, comma;
    int64_t  width, precision; /* -1: none */
    char     type;             /* 0: none */
} spec;

static const spec no_spec = {.width = -1, .precision = -1};

/* Pads `text` (its sign in the first `n_sign` bytes) to the width. */
static void add_padded(jinja *j, jinja_builder *out, const jinja_string *text, size_t n_sign, const spec *s, char align)
{
    int64_t  n    = (int64_t)jinja_string_n_chars(j, text);
    size_t   pad  = s->width > n ? (size_t)(s->width - n) : 0;
    uint32_t fill = s->fill ? s->fill : ' ';
    if (align == '=') {
        jinja_builder_add_string(out, jinja_string_slice(j, text, 0, n_sign));
        text = jinja_string_slice(j, text, n_sign, text->text.size);
        fill = s->fill ? s->fill : '0';
    }
    size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
    jinja_builder_add_string(out, jinja_pad(j, text, left, pad - left, fill));
}

/* Digits of |value| in base 2, 8, 10 or 16; returns where they begin in `out`, which they fill from its end. */
static char *integer_digits(char *out_end, uint64_t value, unsigned base, bool upper, bool comma)
{
    unsigned n = 0;
    *--out_end = '\0';
    do {
        if (comma && n > 0 && n % 3 == 0)
            *--out_end = ',';
        *--out_end = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
        value /= base;
        n++;
    } while (value > 0);
    return out_end;
}

static void add_number(jinja *j, jinja_builder *out, const char *digits, bool negative, const char *prefix,
                       const spec *s, bool untrusted)
{
    char   text[FORMAT_NUMBER_BYTES];
    char   sign[2] = {negative ? '-' : s->sign, '\0'};
    size_t n_sign  = strlen(sign) + strlen(prefix);
    snprintf(text, sizeof text, "%s%s%s", sign, prefix, digits);
    span copy = arena_copy(j->memory, span_of(text));
    if (!copy.data)
        jinja_fail(j, ERR_NO_MEMORY, "no memory is left for a formatted number");
    add_padded(j, out, jinja_string_new(j, copy, untrusted), n_sign, s, s->align ? s->align : s->zero ? '=' : '>');
}

static void add_integer(jinja *j, jinja_builder *out, jinja_value v, const spec *s)
{
    char     digits[100];
    int64_t  n         = jinja_to_integer(j, v, "this format needs an integer");
    uint64_t size      = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    unsigned base      = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    char    *first     = integer_digits(digits + sizeof digits, size, base, s->type == 'X', s->comma);
    char     prefix[3] = {'0', s->type, '\0'};
    int64_t  missing   = s->precision - (int64_t)strlen(first);
    for (; missing > 0 && first > digits; missing--) /* "%.3d": at least so many digits */
        *--first = '0';
    add_number(j, out, first, n < 0, s->alternate && base != 10 ? prefix : "", s, v.untrusted);
}

static void add_float(jinja *j, jinja_builder *out, jinja_value v, const spec *s)
{
    char   digits[FORMAT_NUMBER_BYTES], format[16];
    double d    = jinja_to_double(v) * (s->type == '%' ? 100 : 1);
    char   type = s->type == '%' ? 'f' : s->type ? s->type : 'g';
    snprintf(format, sizeof format, "%%%s.*%c", s->alternate ? "#" : "", type);
    if (s->type == 0 && s->precision < 0)
        jinja_format_float(digits, fabs(d));
    else
        snprintf(digits, sizeof digits, format, (int)(s->precision < 0 ? 6 : s->precision), fabs(d));
    if (s->comma) { /* group the digits before the point */
        char   grouped[FORMAT_NUMBER_BYTES];
        size_t whole = strspn(digits, "0123456789"), n = 0;
        for (size_t i = 0; digits[i] && n + 3 < sizeof grouped; i++) {
            if (i > 0 && i < whole && (whole - i) % 3 == 0)
                grouped[n++] = ',';
            grouped[n++] = digits[i];
        }
        memcpy(digits, grouped, n);
        digits[n] = '\0';
    }
    if (s->type == '%' && strlen(digits) + 1 < sizeof digits)
        memcpy(digits + strlen(digits), "%", sizeof "%");
    add_number(j, out, digits, signbit(d) && !isnan(d), "", s, v.untrusted);
}

static void add_text(jinja *j, jinja_builder *out, const jinja_string *text, const spec *s, char align)
{
    if (s->precision >= 0)
        text = jinja_string_slice(j, text, 0, jinja_string_offset(j, text, (size_t)s->precision));
    add_padded(j, out, text, 0, s, align);
}

static jinja_string *character(jinja *j, jinja_value v)
{
    if (v.kind == JINJA_STRING && jinja_string_n_chars(j, v.string) == 1)
        return v.string;
    int64_t       code = jinja_to_integer(j, v, "%c needs a number or one character");
    jinja_builder out;
    jinja_builder_start(&out, j);
    jinja_builder_add_char(&out, code >= 0 && code <= 0x10FFFF ? (uint32_t)code : UINT32_MAX, v.untrusted);
    return jinja_builder_finish(&out);
}

static void check_size(jinja *j, int64_t n, int64_t max)
{
    if (n > max)
        jinja_fail(j, ERR_INVALID, "a format's width or precision is over %lld", (long long)max);
}

/* ---- "%s" % x ---- */

typedef struct {
    jinja      *j;
    jinja_value arguments;
    size_t      next;
    span        text; /* the format */
    size_t      at;
} percent;

static jinja_value next_argument(percent *p)
{
    bool   tuple = p->arguments.kind == JINJA_TUPLE;
    size_t n     = tuple ? p->arguments.sequence->n : 1;
    if (p->next >= n)
        jinja_fail(p->j, ERR_INVALID, "not enough arguments for format string");
    return tuple ? p->arguments.sequence->items[p->next++] : (p->next++, p->arguments);
}

static char peek(const percent *p)
{
    return p->at < p->text.size ? p->text.data[p->at] : '\0';
}

static int64_t percent_number(percent *p, int64_t max)
{
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        n = jinja_to_integer(p->j, next_argument(p), "* wants an integer");
    } else
        for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
            n = n * 10 + (peek(p) - '0');
            check_size(p->j, n, max);
        }
    check_size(p->j, n, max);
    return n;
}

/* %(name): the value of that key. */
static jinja_value percent_key(percent *p)
{
    size_t begin = ++p->at;
    int    depth = 1;
    for (; p->at < p->text.size && depth > 0; p->at++)
        depth += (peek(p) == '(') - (peek(p) == ')');
    if (p->arguments.kind != JINJA_DICT || depth != 0)
        jinja_fail(p->j, ERR_INVALID, "a format with %%(name) requires a mapping");
    span         key   = {p->text.data + begin, p->at - begin - 1};
    jinja_value *found = jinja_dict_find_text(p->arguments.dict, key);
    if (!found)
        jinja_fail(p->j, ERR_INVALID, "the format wants a value for '%.*s'", SPAN_ARG(key));
    p->next = 1;
    return *found;
}

static void percent_value(percent *p, jinja_builder *out, const spec *s, jinja_value v)
{
    jinja *j     = p->j;
    char   align = s->align == '<' ? '<' : '>';
    spec   n     = *s;
    switch (s->type) {
    case 's':
        add_text(j, out, jinja_str(j, v), s, align);
        return;
    case 'r':
    case 'a':
        add_text(j, out, jinja_repr(j, v), s, align);
        return;
    case 'c':
        n.precision = -1;
        add_text(j, out, character(j, v), &n, align);
        return;
    case 'd':
    case 'i':
    case 'u':
        n.type = 'd';
        if (v.kind == JINJA_FLOAT && fabs(v.number) < 9.2e18)
            v = (jinja_value){.kind = JINJA_INT, .untrusted = v.untrusted, .integer = (int64_t)v.number};
        add_integer(j, out, v, &n);
        return;
    case 'x':
    case 'X':
    case 'o':
        add_integer(j, out, v, s);
        return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!jinja_is_number(v))
            jinja_fail_type(j, "this format needs a number", v);
        add_float(j, out, v, s);
        return;
    default:
        jinja_fail(j, ERR_INVALID, "unsupported format character '%c'", s->type >= ' ' ? s->type : '?');
    }
}

/* One conversion, from behind its %. */
static void percent_conversion(percent *p, jinja_builder *out, bool untrusted)
{
    spec        s = no_spec;
    jinja_value v = {0};
    if (peek(p) == '(')
        v = percent_key(p);
    for (bool flags = true; flags;) {
        switch (peek(p)) {
        case '-':
            s.align = '<';
            break;
        case '+':
            s.sign = '+';
            break;
        case ' ':
            s.sign = s.sign ? s.sign : ' ';
            break;
        case '#':
            s.alternate = true;
            break;
        case '0':
            s.zero = true;
            break;
        default:
            flags = false;
            continue;
        }
        p->at++;
    }
    s.width = percent_number(p, FORMAT_WIDTH_MAX);
    if (s.width < 0) {
        s.align = '<';
        s.width = s.width < -FORMAT_WIDTH_MAX ? FORMAT_WIDTH_MAX : -s.width;
    }
    if (peek(p) == '.') {
        p->at++;
        s.precision = percent_number(p, FORMAT_WIDTH_MAX);
        s.precision = s.precision < 0 ? 0 : s.precision;
    }
    while (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L')
        p->at++;
    s.type = peek(p);
    if (!s.type)
        jinja_fail(p->j, ERR_INVALID, "incomplete format");
    p->at++;
    if (s.type == '%') {
        jinja_builder_add(out, SPAN("%"), untrusted);
        return;
    }
    if (!strchr("sra", s.type))
        check_size(p->j, s.precision, FORMAT_PRECISION_MAX);
    percent_value(p, out, &s, v.kind == JINJA_MISSING ? next_argument(p) : v);
}

jinja_string *jinja_percent_format(jinja *j, const jinja_string *format, jinja_value arguments)
{
    percent       p = {.j = j, .arguments = arguments, .text = jinja_string_text(j, format)};
    jinja_builder out;
    jinja_builder_start(&out, j);
    while (p.at < p.text.size) {
        const char *found = memchr(p.text.data + p.at, '%', p.text.size - p.at);
        size_t      end   = found ? (size_t)(found - p.text.data) : p.text.size;
        jinja_builder_add_string(&out, jinja_string_slice(j, format, p.at, end));
        p.at = end;
        if (found) {
            bool untrusted = jinja_string_origin_at(j, format, p.at++);
            percent_conversion(&p, &out, untrusted);
        }
    }
    size_t n             = arguments.kind == JINJA_TUPLE ? arguments.sequence->n : 1;
    bool   subscriptable = arguments.kind == JINJA_DICT || arguments.kind == JINJA_LIST ||
                         arguments.kind == JINJA_RANGE ||
                         arguments.kind == JINJA_UNDEFINED; /* these may be left over, Python says */
    if (p.next < n && !subscriptable)
        jinja_fail(j, ERR_INVALID, "not all arguments converted during string formatting");
    return jinja_builder_finish(&out);
}

/* ---- "{}".format(x) ---- */

typedef struct {
    jinja                 *j;
    const jinja_arguments *arguments;
    size_t                 next; /* of automatic numbering */
    bool                   numbered, automatic;
} braces;

static bool is_digits(span s)
{
    for (size_t i = 0; i < s.size; i++)
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
    return s.size > 0;
}

static jinja_value brace_argument(braces *b, span name)
{
    int64_t index;
    if (name.size == 0 || is_digits(name)) {
        bool automatic = name.size == 0;
        if (automatic ? b->numbered : b->automatic)
            jinja_fail(b->j, ERR_INVALID, "format: automatic and manual field numbering can't be mixed");
        *(automatic ? &b->automatic : &b->numbered) = true;
        if (automatic)
            index = (int64_t)b->next++;
        else if (!jinja_parse_integer(name, 10, &index))
            index = INT64_MAX;
        if ((uint64_t)index >= b->arguments->n)
            jinja_fail(b->j, ERR_INVALID, "format: there is no argument %lld", (long long)index);
        return b->arguments->values[index];
    }
    for (size_t i = 0; i < b->arguments->n_keywords; i++)
        if (span_equal(b->arguments->keywords[i].name, name))
            return b->arguments->keywords[i].value;
    jinja_fail(b->j, ERR_INVALID, "format: there is no argument '%.*s'", SPAN_ARG(name));
}

/* "name.attribute[key]..." */
static jinja_value brace_field(braces *b, span field)
{
    size_t at = 0;
    while (at < field.size && field.data[at] != '.' && field.data[at] != '[')
        at++;
    jinja_value v = brace_argument(b, (span){field.data, at});
    while (at < field.size) {
        bool   attribute = field.data[at] == '.';
        size_t begin     = ++at;
        while (at < field.size && (attribute ? field.data[at] != '.' && field.data[at] != '[' : field.data[at] != ']'))
            at++;
        span   *part = jinja_take(b->j, 1, sizeof *part);
        int64_t index;
        *part = (span){field.data + begin, at - begin};
        if (part->size == 0 || (!attribute && at == field.size))
            jinja_fail(b->j, ERR_INVALID, "format: empty or unfinished attribute in a field");
        if (attribute)
            v = jinja_attribute(b->j, v, part);
        else {
            bool number = is_digits(*part) && jinja_parse_integer(*part, 10, &index);
            v           = jinja_subscript(b->j, v, number ? jinja_int(index) : jinja_text_value(b->j, *part, false));
            at++;
        }
    }
    return v;
}

static spec brace_spec(jinja *j, span text)
{
    spec   s  = no_spec;
    size_t at = 0, next = 0;
    if (text.size > 0) {
        uint32_t fill = jinja_next_char(text, &next);
        if (next < text.size && strchr("<>^=", text.data[next]) && text.data[next]) {
            s.fill  = fill;
            s.align = text.data[next];
            at      = next + 1;
        } else if (text.data[0] && strchr("<>^=", text.data[0]))
            s.align = text.data[at++];
    }
#define HERE (at < text.size ? text.data[at] : '\0')
    if (HERE == '+' || HERE == '-' || HERE == ' ') {
        s.sign = HERE == '-' ? 0 : HERE;
        at++;
    }
    s.alternate = HERE == '#';
    at += s.alternate;
    if (HERE == '0') {
        s.zero = true;
        at++;
    }
    for (; HERE >= '0' && HERE <= '9'; at++) {
        s.width = (s.width < 0 ? 0 : s.width) * 10 + (HERE - '0');
        check_size(j, s.width, FORMAT_WIDTH_MAX);
    }
    s.comma = HERE == ',';
    at += s.comma;
    if (HERE == '.') {
        s.precision = 0;
        for (at++; HERE >= '0' && HERE <= '9'; at++) {
            s.precision = s.precision * 10 + (HERE - '0');
            check_size(j, s.precision, FORMAT_WIDTH_MAX);
        }
    }
    if (at < text.size)
        s.type = text.data[at++];
#undef HERE
    if (at < text.size)
        jinja_fail(j, ERR_INVALID, "format: invalid format specifier '%.*s'", SPAN_ARG(text));
    return s;
}

static void brace_value(jinja *j, jinja_builder *out, jinja_value v, const spec *s)
{
    bool bare   = !s->type && !s->align && !s->sign && !s->zero && !s->comma && s->width < 0 && s->precision < 0;
    bool number = jinja_is_number(v) && !(v.kind == JINJA_BOOL && bare);
    if (number && s->type != 's') {
        check_size(j, s->precision, FORMAT_PRECISION_MAX);
        if (s->type == 'c')
            add_text(j, out, character(j, v), s, s->align ? s->align : '<');
        else if (jinja_is_integer(v) && (s->type == 0 || strchr("dxXob", s->type)))
            add_integer(j, out, v, s);
        else if (s->type == 0 || strchr("eEfFgG%", s->type))
            add_float(j, out, v, s);
        else
            jinja_fail(j, ERR_INVALID, "format: unknown format code '%c' for a number", s->type);
        return;
    }
    if ((s->type && s->type != 's') || s->align == '=')
        jinja_fail(j, ERR_INVALID, "format: unknown format code '%c' for '%s'", s->type ? s->type : '=',
                   jinja_type_name(v));
    if (v.kind != JINJA_STRING && !bare)
        jinja_fail(j, ERR_INVALID, "format: unsupported format string for '%s'", jinja_type_name(v));
    add_text(j, out, jinja_str(j, v), s, s->align ? s->align : '<');
}

/* A replacement field, braces off: field[!conversion][:spec]. */
static void brace_replacement(braces *b, jinja_builder *out, span inside)
{
    size_t end     = 0;
    bool   bracket = false;
    for (; end < inside.size && (bracket || (inside.data[end] != '!' && inside.data[end] != ':')); end++)
        bracket = bracket ? inside.data[end] != ']' : inside.data[end] == '[';
    jinja_value v = brace_field(b, (span){inside.data, end});
    if (end < inside.size && inside.data[end] == '!') {
        char conversion = end + 1 < inside.size ? inside.data[end + 1] : '\0';
        if (conversion != 'r' && conversion != 's')
            jinja_fail(b->j, ERR_INVALID, "format: the conversion must be !r or !s");
        v = jinja_of(conversion == 'r' ? jinja_repr(b->j, v) : jinja_str(b->j, v));
        end += 2;
    }
    if (end < inside.size && inside.data[end] != ':')
        jinja_fail(b->j, ERR_INVALID, "format: expected ':' after the conversion");
    span text = end < inside.size ? (span){inside.data + end + 1, inside.size - end - 1} : (span){"", 0};
    if (memchr(text.data, '{', text.size))
        jinja_fail(b->j, ERR_UNSUPPORTED, "format: a field inside a format specifier is not supported");
    spec s = brace_spec(b->j, text);
    brace_value(b->j, out, v, &s);
}

jinja_string *jinja_brace_format(jinja *j, const jinja_string *format, const jinja_arguments *arguments)
{
    braces        b    = {.j = j, .arguments = arguments};
    span          text = jinja_string_text(j, format);
    jinja_builder out;
    jinja_builder_start(&out, j);
    for (size_t at = 0, begin = 0; at <= text.size;) {
        if (at < text.size && text.data[at] != '{' && text.data[at] != '}') {
            at++;
            continue;
        }
        jinja_builder_add_string(&out, jinja_string_slice(j, format, begin, at));
        if (at == text.size)
            break;
        if (at + 1 < text.size && text.data[at + 1] == text.data[at]) { /* {{ and }} stand for one */
            jinja_builder_add_string(&out, jinja_string_slice(j, format, at, at + 1));
            begin = at += 2;
            continue;
        }
        const char *close = text.data[at] == '{' ? memchr(text.data + at, '}', text.size - at) : NULL;
        if (!close)
            jinja_fail(j, ERR_INVALID, "format: single '%c' in the format string", text.data[at]);
        brace_replacement(&b, &out, (span){text.data + at + 1, (size_t)(close - text.data) - at - 1});
        begin = at = (size_t)(close - text.data) + 1;
    }
    return jinja_builder_finish(&out);
}
