/* The methods of str, dict, list and tuple that templates may call. */
#include "text/jinja_eval.h"

#include <utf8proc.h>

/* ---- arguments ---- */

static int64_t integer_or(jinja *j, jinja_value v, int64_t otherwise)
{
    return v.kind == JINJA_MISSING || v.kind == JINJA_NONE ? otherwise : jinja_to_integer(j, v, "expected an integer");
}

static const jinja_string *string_argument(jinja *j, jinja_value v)
{
    if (v.kind != JINJA_STRING)
        jinja_fail_type(j, "expected a string", v);
    (void)jinja_string_text(j, v.string);
    return v.string;
}

static span text_argument(jinja *j, jinja_value v)
{
    return string_argument(j, v)->text;
}

/* The bytes that s[start:stop] covers, for find, count and the like. False when start is past the end. */
static bool window(jinja *j, const jinja_call *c, int first, size_t *begin, size_t *end)
{
    const jinja_string *s     = string_argument(j, c->self);
    int64_t             n     = (int64_t)jinja_string_n_chars(j, s);
    int64_t             start = integer_or(j, c->a[first], 0), stop = integer_or(j, c->a[first + 1], n);
    start  = start < 0 ? (start + n < 0 ? 0 : start + n) : start;
    stop   = stop < 0 ? (stop + n < 0 ? 0 : stop + n) : stop > n ? n : stop;
    *begin = jinja_string_offset(j, s, (size_t)start);
    *end   = jinja_string_offset(j, s, (size_t)stop);
    return start <= n && start <= stop;
}

static size_t find_last(jinja *j, span text, span needle, size_t begin, size_t end)
{
    jinja_charge_bytes(j, end - begin);
    if (needle.size > end - begin)
        return SIZE_MAX;
    for (size_t at = end - needle.size + 1; at-- > begin;)
        if (memcmp(text.data + at, needle.data, needle.size) == 0)
            return at;
    return SIZE_MAX;
}

/* ---- str ---- */

static jinja_value str_case(jinja *j, const jinja_call *c)
{
    static const struct {
        const char *name;
        jinja_case  to;
    } cases[] = {{"upper", CASE_UPPER},           {"lower", CASE_LOWER}, {"casefold", CASE_FOLD},
                 {"capitalize", CASE_CAPITALIZE}, {"title", CASE_TITLE}, {"swapcase", CASE_SWAP}};
    size_t i  = 0;
    while (strcmp(cases[i].name, c->builtin->name) != 0)
        i++;
    return jinja_of(jinja_change_case(j, c->self.string, cases[i].to));
}

static jinja_value str_strip(jinja *j, const jinja_call *c)
{
    int sides = c->builtin->name[0] == 'l' ? JINJA_STRIP_LEFT : c->builtin->name[0] == 'r' ? JINJA_STRIP_RIGHT : 3;
    return jinja_of(jinja_strip(j, c->self.string, c->a[0], sides));
}

static bool matches_end(jinja *j, span text, jinja_value affix, bool at_start)
{
    span a = text_argument(j, affix);
    jinja_charge_bytes(j, a.size);
    return a.size <= text.size && memcmp(at_start ? text.data : text.data + text.size - a.size, a.data, a.size) == 0;
}

static jinja_value str_starts_or_ends(jinja *j, const jinja_call *c)
{
    size_t begin, end;
    bool   at_start = c->builtin->name[0] == 's', found = false;
    if (!window(j, c, 1, &begin, &end))
        return jinja_bool(false);
    span text = {c->self.string->text.data + begin, end - begin};
    if (c->a[0].kind != JINJA_TUPLE)
        return jinja_bool(matches_end(j, text, c->a[0], at_start));
    for (size_t i = 0; i < c->a[0].sequence->n && !found; i++)
        found = matches_end(j, text, c->a[0].sequence->items[i], at_start);
    return jinja_bool(found);
}

static jinja_value str_remove_affix(jinja *j, const jinja_call *c)
{
    bool prefix = strcmp(c->builtin->name, "removeprefix") == 0;
    span text = text_argument(j, c->self), affix = text_argument(j, c->a[0]);
    if (!matches_end(j, text, c->a[0], prefix))
        return c->self;
    return jinja_of(
        jinja_string_slice(j, c->self.string, prefix ? affix.size : 0, prefix ? text.size : text.size - affix.size));
}

/* find, rfind, index, rindex */
static jinja_value str_find(jinja *j, const jinja_call *c)
{
    const char *name = c->builtin->name;
    size_t      begin, end, found = SIZE_MAX;
    span        needle = text_argument(j, c->a[0]);
    if (window(j, c, 1, &begin, &end)) {
        span text = {c->self.string->text.data, end};
        found     = name[0] == 'r' ? find_last(j, text, needle, begin, end) : jinja_find(j, text, needle, begin);
    }
    if (found == SIZE_MAX && strstr(name, "index"))
        jinja_fail(j, ERR_INVALID, "substring not found");
    if (found == SIZE_MAX)
        return jinja_int(-1);
    return jinja_int((int64_t)jinja_string_n_chars(j, jinja_string_slice(j, c->self.string, 0, found)));
}

static jinja_value str_count(jinja *j, const jinja_call *c)
{
    size_t  begin, end;
    int64_t n      = 0;
    span    needle = text_argument(j, c->a[0]);
    if (!window(j, c, 1, &begin, &end))
        return jinja_int(0);
    span text = {c->self.string->text.data, end};
    if (needle.size == 0)
        return jinja_int((int64_t)jinja_string_n_chars(j, jinja_string_slice(j, c->self.string, begin, end)) + 1);
    while ((begin = jinja_find(j, text, needle, begin)) != SIZE_MAX) {
        begin += needle.size;
        n++;
    }
    return jinja_int(n);
}

static jinja_value str_replace(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_replace(j, c->self.string, text_argument(j, c->a[0]), string_argument(j, c->a[1]),
                                  integer_or(j, c->a[2], -1)));
}

typedef struct {
    const jinja_string *s;
    jinja_value         list;
    size_t              capacity;
} pieces;

static void add_piece(jinja *j, pieces *p, size_t begin, size_t end)
{
    jinja_append(j, p->list.sequence, &p->capacity, jinja_of(jinja_string_slice(j, p->s, begin, end)));
}

static void split_at_space(jinja *j, pieces *p, int64_t max)
{
    span text = jinja_string_text(j, p->s);
    jinja_charge_bytes(j, text.size);
    for (size_t at = 0, begin = SIZE_MAX; at < text.size;) {
        size_t here  = at;
        bool   space = jinja_is_space(jinja_next_char(text, &at));
        if (!space && begin == SIZE_MAX)
            begin = here;
        if (begin != SIZE_MAX && !space && max == 0) {
            add_piece(j, p, begin, text.size); /* the rest as it is */
            return;
        }
        if (begin != SIZE_MAX && (space || at == text.size)) {
            add_piece(j, p, begin, space ? here : at);
            begin = SIZE_MAX;
            max -= max > 0;
        }
    }
}

static void reverse(jinja_sequence *s)
{
    for (size_t i = 0; i < s->n / 2; i++) {
        jinja_value v          = s->items[i];
        s->items[i]            = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = v;
    }
}

static void split_right_at_space(jinja *j, pieces *p, int64_t max)
{
    span   text = jinja_string_text(j, p->s);
    size_t end  = text.size;
    for (;;) {
        const jinja_string *rest = jinja_strip(j, jinja_string_slice(j, p->s, 0, end), jinja_none(), JINJA_STRIP_RIGHT);
        size_t              begin = end = rest->text.size;
        if (end == 0)
            break;
        if (max == 0) {
            add_piece(j, p, 0, end);
            break;
        }
        while (begin > 0) {
            size_t last = begin - 1;
            while (last > 0 && ((unsigned char)text.data[last] & 0xC0) == 0x80)
                last--;
            size_t next = last;
            if (jinja_is_space(jinja_next_char(text, &next)))
                break;
            begin = last;
        }
        jinja_charge_bytes(j, end - begin);
        add_piece(j, p, begin, end);
        end = begin;
        max -= max > 0;
    }
    reverse(p->list.sequence);
}

static jinja_value str_split(jinja *j, const jinja_call *c)
{
    bool    right = c->builtin->name[0] == 'r';
    int64_t max   = integer_or(j, c->a[1], -1);
    pieces  p     = {.s = c->self.string, .list = jinja_sequence_new(j, JINJA_LIST, 0)};
    if (c->a[0].kind == JINJA_MISSING || c->a[0].kind == JINJA_NONE) {
        (right ? split_right_at_space : split_at_space)(j, &p, max);
        return p.list;
    }
    span   text = jinja_string_text(j, p.s), separator = text_argument(j, c->a[0]);
    size_t begin = 0, end = text.size, found;
    if (separator.size == 0)
        jinja_fail(j, ERR_INVALID, "empty separator");
    if (!right) {
        for (; max != 0 && (found = jinja_find(j, text, separator, begin)) != SIZE_MAX; max -= max > 0) {
            add_piece(j, &p, begin, found);
            begin = found + separator.size;
        }
        add_piece(j, &p, begin, end);
        return p.list;
    }
    for (; max != 0 && (found = find_last(j, text, separator, 0, end)) != SIZE_MAX; max -= max > 0) {
        add_piece(j, &p, found + separator.size, end);
        end = found;
    }
    add_piece(j, &p, 0, end);
    reverse(p.list.sequence);
    return p.list;
}

static jinja_value str_partition(jinja *j, const jinja_call *c)
{
    bool right = c->builtin->name[0] == 'r';
    span text = jinja_string_text(j, c->self.string), separator = text_argument(j, c->a[0]);
    if (separator.size == 0)
        jinja_fail(j, ERR_INVALID, "empty separator");
    size_t      found        = right ? find_last(j, text, separator, 0, text.size) : jinja_find(j, text, separator, 0);
    size_t      first        = found != SIZE_MAX ? found : right ? 0 : text.size;
    size_t      last         = found != SIZE_MAX ? found + separator.size : first;
    jinja_value parts        = jinja_sequence_new(j, JINJA_TUPLE, 3);
    parts.sequence->items[0] = jinja_of(jinja_string_slice(j, c->self.string, 0, first));
    parts.sequence->items[1] = jinja_of(jinja_string_slice(j, c->self.string, first, last));
    parts.sequence->items[2] = jinja_of(jinja_string_slice(j, c->self.string, last, text.size));
    return parts;
}

static jinja_value str_split_lines(jinja *j, const jinja_call *c)
{
    return jinja_split_lines(j, c->self.string, jinja_truth(c->a[0]));
}

static jinja_value str_join(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_join(j, c->self.string, jinja_iterate(j, c->a[0]), true));
}

/* center, ljust, rjust */
static jinja_value str_justify(jinja *j, const jinja_call *c)
{
    int64_t  n    = (int64_t)jinja_string_n_chars(j, c->self.string);
    int64_t  pad  = jinja_to_integer(j, c->a[0], "width");
    uint32_t fill = ' ';
    if (c->a[1].kind != JINJA_MISSING) {
        size_t at = 0;
        if (jinja_string_n_chars(j, string_argument(j, c->a[1])) != 1)
            jinja_fail(j, ERR_INVALID, "the fill character must be exactly one character long");
        fill = jinja_next_char(c->a[1].string->text, &at);
    }
    int64_t width = pad;
    pad           = pad > n ? pad - n : 0;
    int64_t left  = c->builtin->name[0] == 'l' ? 0 : c->builtin->name[0] == 'r' ? pad : pad / 2 + (pad & width & 1);
    return jinja_of(jinja_pad(j, c->self.string, (size_t)left, (size_t)(pad - left), fill));
}

static jinja_value str_zero_fill(jinja *j, const jinja_call *c)
{
    span    text = jinja_string_text(j, c->self.string);
    int64_t n    = (int64_t)jinja_string_n_chars(j, c->self.string);
    int64_t pad  = jinja_to_integer(j, c->a[0], "width") - n;
    if (pad <= 0)
        return c->self;
    size_t        sign   = text.size > 0 && (text.data[0] == '-' || text.data[0] == '+');
    jinja_string *digits = jinja_string_slice(j, c->self.string, sign, text.size);
    return jinja_of(jinja_string_concat(j, jinja_string_slice(j, c->self.string, 0, sign),
                                        jinja_pad(j, digits, (size_t)pad, 0, '0')));
}

static bool is_letter(utf8proc_category_t k)
{
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

/* isdigit, isalpha, ...: every character is of the kind, and there is one. */
static jinja_value str_is(jinja *j, const jinja_call *c)
{
    const char *kind = c->builtin->name + 2;
    span        text = jinja_string_text(j, c->self.string);
    jinja_charge_bytes(j, text.size);
    for (size_t at = 0; at < text.size;) {
        uint32_t            ch = jinja_next_char(text, &at);
        utf8proc_category_t k  = utf8proc_category((utf8proc_int32_t)ch);
        bool                number =
            k == UTF8PROC_CATEGORY_ND || (kind[0] == 'n' && (k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO));
        bool fits = strcmp(kind, "space") == 0   ? jinja_is_space(ch)
                    : strcmp(kind, "alpha") == 0 ? is_letter(k)
                    : strcmp(kind, "alnum") == 0 ? is_letter(k) || number
                    : strcmp(kind, "ascii") == 0 ? ch < 0x80
                                                 : number;
        if (!fits)
            return jinja_bool(false);
    }
    return jinja_bool(text.size > 0 || strcmp(kind, "ascii") == 0);
}

/* islower, isupper: no character of the other case, and at least one of this. */
static jinja_value str_is_case(jinja *j, const jinja_call *c)
{
    bool lower = c->builtin->name[2] == 'l', found = false;
    span text = jinja_string_text(j, c->self.string);
    jinja_charge_bytes(j, text.size);
    for (size_t at = 0; at < text.size;) {
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)jinja_next_char(text, &at));
        if (k == UTF8PROC_CATEGORY_LT || k == (lower ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL))
            return jinja_bool(false);
        found |= k == (lower ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU);
    }
    return jinja_bool(found);
}

static jinja_value str_is_title(jinja *j, const jinja_call *c)
{
    bool in_word = false, found = false;
    span text = jinja_string_text(j, c->self.string);
    jinja_charge_bytes(j, text.size);
    for (size_t at = 0; at < text.size;) {
        utf8proc_category_t k     = utf8proc_category((utf8proc_int32_t)jinja_next_char(text, &at));
        bool                upper = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT;
        if (upper ? in_word : k == UTF8PROC_CATEGORY_LL && !in_word)
            return jinja_bool(false);
        in_word = upper || k == UTF8PROC_CATEGORY_LL;
        found |= in_word;
    }
    return jinja_bool(found);
}

static jinja_value str_format(jinja *j, const jinja_call *c)
{
    return jinja_of(jinja_brace_format(j, c->self.string, c->arguments));
}

static const jinja_builtin string_methods[] = {
    {"upper", str_case, ""},
    {"lower", str_case, ""},
    {"casefold", str_case, ""},
    {"capitalize", str_case, ""},
    {"title", str_case, ""},
    {"swapcase", str_case, ""},
    {"strip", str_strip, "chars="},
    {"lstrip", str_strip, "chars="},
    {"rstrip", str_strip, "chars="},
    {"startswith", str_starts_or_ends, "prefix start= end="},
    {"endswith", str_starts_or_ends, "suffix start= end="},
    {"removeprefix", str_remove_affix, "prefix"},
    {"removesuffix", str_remove_affix, "suffix"},
    {"find", str_find, "sub start= end="},
    {"rfind", str_find, "sub start= end="},
    {"index", str_find, "sub start= end="},
    {"rindex", str_find, "sub start= end="},
    {"count", str_count, "sub start= end="},
    {"replace", str_replace, "old new count="},
    {"split", str_split, "sep= maxsplit="},
    {"rsplit", str_split, "sep= maxsplit="},
    {"partition", str_partition, "sep"},
    {"rpartition", str_partition, "sep"},
    {"splitlines", str_split_lines, "keepends="},
    {"join", str_join, "iterable"},
    {"center", str_justify, "width fillchar="},
    {"ljust", str_justify, "width fillchar="},
    {"rjust", str_justify, "width fillchar="},
    {"zfill", str_zero_fill, "width"},
    {"isspace", str_is, ""},
    {"isalpha", str_is, ""},
    {"isalnum", str_is, ""},
    {"isascii", str_is, ""},
    {"isdigit", str_is, ""},
    {"isdecimal", str_is, ""},
    {"isnumeric", str_is, ""},
    {"islower", str_is_case, ""},
    {"isupper", str_is_case, ""},
    {"istitle", str_is_title, ""},
    {"format", str_format, NULL},
};

/* ---- dict ---- */

static jinja_value dict_get(jinja *j, const jinja_call *c)
{
    jinja_value *found = jinja_dict_find(j, c->self.dict, c->a[0]);
    return found ? *found : c->a[1].kind == JINJA_MISSING ? jinja_none() : c->a[1];
}

static jinja_value dict_view(jinja *j, const jinja_call *c)
{
    const jinja_dict *d    = c->self.dict;
    char              kind = c->builtin->name[0];
    jinja_value       view = jinja_sequence_new(j, JINJA_VIEW, d->n);
    view.sequence->view    = kind == 'k' ? "dict_keys" : kind == 'v' ? "dict_values" : "dict_items";
    for (size_t i = 0; i < d->n; i++)
        view.sequence->items[i] = kind == 'k'   ? d->keys[i]
                                  : kind == 'v' ? d->values[i]
                                                : jinja_pair(j, d->keys[i], d->values[i]);
    return view;
}

static jinja_value dict_copy(jinja *j, const jinja_call *c)
{
    const jinja_dict *d    = c->self.dict;
    jinja_value       copy = jinja_dict_new(j, JINJA_DICT, d->n);
    memcpy(copy.dict->keys, d->keys, d->n * sizeof *d->keys);
    memcpy(copy.dict->values, d->values, d->n * sizeof *d->values);
    copy.dict->n = d->n;
    jinja_charge_items(j, d->n);
    return copy;
}

/* Without a function: these would change their object, and the sandbox is an immutable one. */
static const jinja_builtin dict_methods[] = {
    {"get", dict_get, "key default="}, {"keys", dict_view, ""}, {"values", dict_view, ""}, {"items", dict_view, ""},
    {"copy", dict_copy, ""},           {"clear", NULL, NULL},   {"pop", NULL, NULL},       {"popitem", NULL, NULL},
    {"setdefault", NULL, NULL},        {"update", NULL, NULL},
};

/* ---- list, tuple ---- */

static jinja_value list_count(jinja *j, const jinja_call *c)
{
    const jinja_sequence *s = c->self.sequence;
    int64_t               n = 0;
    for (size_t i = 0; i < s->n; i++) {
        jinja_charge_items(j, 1);
        n += jinja_equal(j, jinja_item(s, i), c->a[0]);
    }
    return jinja_int(n);
}

static jinja_value list_index(jinja *j, const jinja_call *c)
{
    const jinja_sequence *s = c->self.sequence;
    for (size_t i = 0; i < s->n; i++) {
        jinja_charge_items(j, 1);
        if (jinja_equal(j, jinja_item(s, i), c->a[0]))
            return jinja_int((int64_t)i);
    }
    jinja_fail(j, ERR_INVALID, "the value is not in the list");
}

static jinja_value list_copy(jinja *j, const jinja_call *c)
{
    return jinja_slice(j, c->self, jinja_none(), jinja_none(), jinja_none());
}

static const jinja_builtin list_methods[] = {
    {"count", list_count, "value"}, {"index", list_index, "value"}, {"copy", list_copy, ""}, {"append", NULL, NULL},
    {"clear", NULL, NULL},          {"extend", NULL, NULL},         {"insert", NULL, NULL},  {"pop", NULL, NULL},
    {"remove", NULL, NULL},         {"reverse", NULL, NULL},        {"sort", NULL, NULL},
};

/* ---- cycler ---- */

static jinja_value cycler_next(jinja *j, const jinja_call *c)
{
    (void)j;
    jinja_cycler *cycler = c->self.cycler;
    jinja_value   v      = cycler->items[cycler->at];
    cycler->at           = (cycler->at + 1) % cycler->n;
    return v;
}

static jinja_value cycler_reset(jinja *j, const jinja_call *c)
{
    (void)j;
    c->self.cycler->at = 0;
    return jinja_none();
}

static const jinja_builtin cycler_methods[] = {{"next", cycler_next, ""}, {"reset", cycler_reset, ""}};

/* ---- loop ---- */

static jinja_value loop_cycle(jinja *j, const jinja_call *c)
{
    if (c->arguments->n == 0)
        jinja_fail(j, ERR_INVALID, "no items for cycling given");
    return c->arguments->values[c->self.loop->index0 % c->arguments->n];
}

static jinja_value loop_changed(jinja *j, const jinja_call *c)
{
    jinja_value now = jinja_sequence_new(j, JINJA_TUPLE, c->arguments->n);
    for (size_t i = 0; i < c->arguments->n; i++)
        now.sequence->items[i] = c->arguments->values[i];
    bool changed          = !jinja_equal(j, now, c->self.loop->changed);
    c->self.loop->changed = now;
    return jinja_bool(changed);
}

static const jinja_builtin loop_methods[] = {{"cycle", loop_cycle, NULL}, {"changed", loop_changed, NULL}};

const jinja_builtin *jinja_find_string_method(span name)
{
    return jinja_find_in(string_methods, COUNT(string_methods), name);
}

const jinja_builtin *jinja_find_method(jinja_kind kind, span name)
{
    switch (kind) {
    case JINJA_STRING:
        return jinja_find_string_method(name);
    case JINJA_DICT:
        return jinja_find_in(dict_methods, COUNT(dict_methods), name);
    case JINJA_LIST:
        return jinja_find_in(list_methods, COUNT(list_methods), name);
    case JINJA_TUPLE:
    case JINJA_RANGE:
        return jinja_find_in(list_methods, 2, name); /* count and index */
    case JINJA_CYCLER:
        return jinja_find_in(cycler_methods, COUNT(cycler_methods), name);
    case JINJA_LOOP:
        return jinja_find_in(loop_methods, COUNT(loop_methods), name);
    default:
        return NULL;
    }
}
