/* Containers and Python's protocols over them: truth, equality, order, length, iteration. See jinja_value.h. */
#include "text/jinja_value.h"

#include "base/utf8.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

void jinja_fail(jinja *j, error_code code, const char *format, ...)
{
    char    text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text[utf8_valid_prefix(span_of(text))] = '\0'; /* the cut may have fallen inside a character */
    error_set(j->err, code, "chat template, line %u: %s", j->line, text);
    longjmp(*j->failure, 1);
}

void *jinja_take(jinja *j, size_t n, size_t size)
{
    void *p = arena_take_array(j->memory, n ? n : 1, size);
    if (!p)
        jinja_fail(j, ERR_NO_MEMORY, "the values need more than the %zu bytes there are", arena_capacity(j->memory));
    return p;
}

static void charge(jinja *j, uint64_t steps)
{
    j->n_steps += steps;
    if (j->n_steps > CHAT_TEMPLATE_STEPS_MAX)
        jinja_fail(j, ERR_INVALID, "rendering takes more than %d steps", CHAT_TEMPLATE_STEPS_MAX);
}

void jinja_charge_bytes(jinja *j, size_t bytes)
{
    charge(j, bytes / 64 + 1);
}

void jinja_charge_items(jinja *j, size_t items)
{
    charge(j, items / 8 + 1);
}

void jinja_enter(jinja *j)
{
    if (++j->depth > JINJA_EVAL_DEPTH_MAX)
        jinja_fail(j, ERR_INVALID, "nested more than %d levels deep", JINJA_EVAL_DEPTH_MAX);
    charge(j, 1);
}

/* ---- sequences ---- */

jinja_value jinja_sequence_new(jinja *j, jinja_kind kind, size_t n)
{
    jinja_charge_items(j, n);
    jinja_value v     = {.kind = kind, .sequence = jinja_take(j, 1, sizeof *v.sequence)};
    v.sequence->items = jinja_take(j, n, sizeof *v.sequence->items);
    v.sequence->n     = n;
    return v;
}

jinja_value jinja_pair(jinja *j, jinja_value first, jinja_value second)
{
    jinja_value pair        = jinja_sequence_new(j, JINJA_TUPLE, 2);
    pair.sequence->items[0] = first;
    pair.sequence->items[1] = second;
    return pair;
}

jinja_value jinja_range(jinja *j, int64_t start, int64_t stop, int64_t step)
{
    uint64_t n = 0;
    if (step == 0)
        jinja_fail(j, ERR_INVALID, "range() arg 3 must not be zero");
    if (step > 0 && start < stop)
        n = ((uint64_t)stop - (uint64_t)start - 1) / (uint64_t)step + 1;
    else if (step < 0 && start > stop)
        n = ((uint64_t)start - (uint64_t)stop - 1) / (0 - (uint64_t)step) + 1;
    if (n > JINJA_RANGE_MAX)
        jinja_fail(j, ERR_INVALID, "range is longer than %d items", JINJA_RANGE_MAX);
    jinja_value v = {.kind = JINJA_RANGE, .sequence = jinja_take(j, 1, sizeof *v.sequence)};
    *v.sequence   = (jinja_sequence){.n = n, .start = start, .step = step};
    return v;
}

jinja_value jinja_item(const jinja_sequence *s, size_t i)
{
    /* Unsigned, so that the step past the last item of an extreme range wraps instead of overflowing. */
    return s->items ? s->items[i] : jinja_int((int64_t)((uint64_t)s->start + (uint64_t)i * (uint64_t)s->step));
}

void jinja_append(jinja *j, jinja_sequence *s, size_t *capacity, jinja_value item)
{
    if (s->n >= *capacity) {
        size_t       grown = *capacity ? 2 * *capacity : 8;
        jinja_value *items = jinja_take(j, grown, sizeof *items);
        if (s->n > 0)
            memcpy(items, s->items, s->n * sizeof *items);
        s->items  = items;
        *capacity = grown;
    }
    s->items[s->n++] = item;
}

static jinja_sequence *characters(jinja *j, const jinja_string *string)
{
    span            text = jinja_string_text(j, string);
    jinja_sequence *s    = jinja_sequence_new(j, JINJA_LIST, jinja_string_n_chars(j, string)).sequence;
    jinja_charge_items(j, 4 * s->n);
    uint32_t mark = 0;
    for (size_t i = 0, at = 0; i < s->n; i++) {
        size_t begin = at;
        (void)jinja_next_char(text, &at);
        while (mark < string->n_marks && string->marks[mark].end <= begin)
            mark++;
        bool untrusted = string->n_marks ? string->marks[mark].untrusted : string->untrusted;
        s->items[i]    = jinja_text_value(j, (span){text.data + begin, at - begin}, untrusted);
    }
    return s;
}

jinja_sequence *jinja_iterate(jinja *j, jinja_value v)
{
    jinja_sequence *rest;
    switch ((jinja_kind)v.kind) {
    case JINJA_STRING:
        return characters(j, v.string);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v.sequence;
    case JINJA_ITERATOR:
        rest  = jinja_take(j, 1, sizeof *rest);
        *rest = (jinja_sequence){.items = v.sequence->items + v.sequence->next, .n = v.sequence->n - v.sequence->next};
        v.sequence->next = v.sequence->n;
        return rest;
    case JINJA_DICT:
        rest  = jinja_take(j, 1, sizeof *rest);
        *rest = (jinja_sequence){.items = v.dict->keys, .n = v.dict->n};
        return rest;
    case JINJA_UNDEFINED:
        return jinja_sequence_new(j, JINJA_LIST, 0).sequence;
    default:
        jinja_fail(j, ERR_INVALID, "'%s' object is not iterable", jinja_type_name(v));
    }
}

bool jinja_is_iterable(jinja_value v)
{
    return (v.kind >= JINJA_STRING && v.kind <= JINJA_DICT) || v.kind == JINJA_UNDEFINED || v.kind == JINJA_LOOP;
}

bool jinja_length(jinja *j, jinja_value v, size_t *n)
{
    switch ((jinja_kind)v.kind) {
    case JINJA_STRING:
        *n = jinja_string_n_chars(j, v.string);
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        *n = v.sequence->n;
        return true;
    case JINJA_DICT:
        *n = v.dict->n;
        return true;
    case JINJA_UNDEFINED:
        *n = 0;
        return true;
    default:
        return false;
    }
}

/* ---- dictionaries ---- */

jinja_value jinja_dict_new(jinja *j, jinja_kind kind, size_t capacity)
{
    jinja_value v    = {.kind = kind, .dict = jinja_take(j, 1, sizeof *v.dict)};
    v.dict->keys     = jinja_take(j, capacity, sizeof *v.dict->keys);
    v.dict->values   = jinja_take(j, capacity, sizeof *v.dict->values);
    v.dict->capacity = capacity;
    return v;
}

static bool is_hashable(jinja *j, jinja_value v)
{
    if (v.kind != JINJA_TUPLE)
        return v.kind != JINJA_LIST && v.kind != JINJA_DICT && v.kind != JINJA_VIEW;
    jinja_enter(j);
    bool hashable = true;
    for (size_t i = 0; i < v.sequence->n && hashable; i++)
        hashable = is_hashable(j, v.sequence->items[i]);
    jinja_leave(j);
    return hashable;
}

jinja_value *jinja_dict_find(jinja *j, const jinja_dict *d, jinja_value key)
{
    jinja_charge_items(j, d->n);
    if (!is_hashable(j, key))
        return NULL;
    for (size_t i = 0; i < d->n; i++)
        if (jinja_equal(j, d->keys[i], key))
            return &d->values[i];
    return NULL;
}

jinja_value *jinja_dict_find_text(const jinja_dict *d, span key)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->keys[i].kind == JINJA_STRING && d->keys[i].string->text.data && span_equal(d->keys[i].string->text, key))
            return &d->values[i];
    return NULL;
}

void jinja_dict_set(jinja *j, jinja_dict *d, jinja_value key, jinja_value value)
{
    if (!is_hashable(j, key))
        jinja_fail(j, ERR_INVALID, "unhashable type: '%s'", jinja_type_name(key));
    if (key.kind == JINJA_STRING)
        (void)jinja_string_text(j, key.string); /* flat, for jinja_dict_find_text */
    jinja_value *found = jinja_dict_find(j, d, key);
    if (found) {
        *found = value;
        return;
    }
    if (d->n >= d->capacity) {
        jinja_value grown = jinja_dict_new(j, JINJA_DICT, d->capacity ? 2 * d->capacity : 8);
        if (d->n > 0) {
            memcpy(grown.dict->keys, d->keys, d->n * sizeof *d->keys);
            memcpy(grown.dict->values, d->values, d->n * sizeof *d->values);
        }
        d->keys     = grown.dict->keys;
        d->values   = grown.dict->values;
        d->capacity = grown.dict->capacity;
    }
    d->keys[d->n]     = key;
    d->values[d->n++] = value;
}

/* ---- protocols ---- */

const char *jinja_type_name(jinja_value v)
{
    static const char *const names[N_JINJA_KINDS] = {
        [JINJA_MISSING] = "missing",   [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",     [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",           [JINJA_FLOAT] = "float",
        [JINJA_STRING] = "str",        [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",       [JINJA_RANGE] = "range",
        [JINJA_VIEW] = "dict view",    [JINJA_ITERATOR] = "generator",
        [JINJA_DICT] = "dict",         [JINJA_NAMESPACE] = "Namespace",
        [JINJA_CALLABLE] = "function", [JINJA_LOOP] = "LoopContext",
        [JINJA_CYCLER] = "Cycler",
    };
    return names[v.kind];
}

void jinja_fail_undefined(jinja *j, jinja_value u)
{
    span name = u.name ? *u.name : SPAN("value");
    if (u.owner == JINJA_MISSING)
        jinja_fail(j, ERR_INVALID, "'%.*s' is undefined", SPAN_ARG(name));
    jinja_fail(j, ERR_INVALID, "'%s object' has no attribute '%.*s'", jinja_type_name((jinja_value){.kind = u.owner}),
               SPAN_ARG(name));
}

void jinja_fail_type(jinja *j, const char *what, jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, v);
    jinja_fail(j, ERR_INVALID, "%s: '%s' object", what, jinja_type_name(v));
}

bool jinja_truth(jinja_value v)
{
    switch ((jinja_kind)v.kind) {
    case JINJA_MISSING:
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v.boolean;
    case JINJA_INT:
        return v.integer != 0;
    case JINJA_FLOAT:
        return v.number != 0;
    case JINJA_STRING:
        return v.string->text.size > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v.sequence->n > 0;
    case JINJA_DICT:
        return v.dict->n > 0;
    default:
        return true; /* objects without a length, generators among them, are true in Python */
    }
}

bool jinja_is_integer(jinja_value v)
{
    return v.kind == JINJA_INT || v.kind == JINJA_BOOL;
}

bool jinja_is_number(jinja_value v)
{
    return jinja_is_integer(v) || v.kind == JINJA_FLOAT;
}

double jinja_to_double(jinja_value v)
{
    return v.kind == JINJA_FLOAT ? v.number : v.kind == JINJA_INT ? (double)v.integer : v.boolean;
}

int64_t jinja_to_integer(jinja *j, jinja_value v, const char *what)
{
    if (!jinja_is_integer(v))
        jinja_fail_type(j, what, v);
    return v.kind == JINJA_INT ? v.integer : v.boolean;
}

/* <0, 0, >0, or 2 when one is NaN. Exact also where an int has no double. */
static int compare_numbers(jinja_value a, jinja_value b)
{
    if (a.kind != JINJA_FLOAT && b.kind != JINJA_FLOAT) {
        int64_t x = a.kind == JINJA_INT ? a.integer : a.boolean, y = b.kind == JINJA_INT ? b.integer : b.boolean;
        return (x > y) - (x < y);
    }
    long double x = a.kind == JINJA_INT ? (long double)a.integer : (long double)jinja_to_double(a);
    long double y = b.kind == JINJA_INT ? (long double)b.integer : (long double)jinja_to_double(b);
    return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
}

static bool equal_sequences(jinja *j, const jinja_sequence *a, const jinja_sequence *b)
{
    if (a->n != b->n)
        return false;
    jinja_charge_items(j, a->n);
    for (size_t i = 0; i < a->n; i++)
        if (!jinja_equal(j, jinja_item(a, i), jinja_item(b, i)))
            return false;
    return true;
}

static bool equal_dicts(jinja *j, const jinja_dict *a, const jinja_dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const jinja_value *other = jinja_dict_find(j, b, a->keys[i]);
        if (!other || !jinja_equal(j, a->values[i], *other))
            return false;
    }
    return true;
}

bool jinja_equal(jinja *j, jinja_value a, jinja_value b)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return compare_numbers(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    bool equal;
    switch ((jinja_kind)a.kind) {
    case JINJA_STRING:
        if (a.string->text.size != b.string->text.size)
            return false;
        jinja_charge_bytes(j, a.string->text.size);
        return span_equal(jinja_string_text(j, a.string), jinja_string_text(j, b.string));
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
        jinja_enter(j);
        equal = a.sequence == b.sequence || equal_sequences(j, a.sequence, b.sequence);
        jinja_leave(j);
        return equal;
    case JINJA_DICT:
        jinja_enter(j);
        equal = a.dict == b.dict || equal_dicts(j, a.dict, b.dict);
        jinja_leave(j);
        return equal;
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return true;
    default:
        return a.callable == b.callable; /* the same object; all these members are pointers */
    }
}

int jinja_compare(jinja *j, jinja_value a, jinja_value b, const char *operator_text)
{
    if (jinja_is_number(a) && jinja_is_number(b))
        return compare_numbers(a, b);
    if (a.kind == JINJA_UNDEFINED || b.kind == JINJA_UNDEFINED)
        jinja_fail_undefined(j, a.kind == JINJA_UNDEFINED ? a : b);
    if (a.kind == JINJA_STRING && b.kind == JINJA_STRING) {
        span   x = jinja_string_text(j, a.string), y = jinja_string_text(j, b.string);
        size_t n = x.size < y.size ? x.size : y.size;
        jinja_charge_bytes(j, n);
        int order = memcmp(x.data, y.data, n); /* UTF-8 sorts by code point */
        return order ? (order > 0) - (order < 0) : (x.size > y.size) - (x.size < y.size);
    }
    if (a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE)) {
        jinja_enter(j);
        size_t n = a.sequence->n < b.sequence->n ? a.sequence->n : b.sequence->n;
        jinja_charge_items(j, n);
        size_t i = 0;
        while (i < n && jinja_equal(j, a.sequence->items[i], b.sequence->items[i]))
            i++;
        int order = i < n ? jinja_compare(j, a.sequence->items[i], b.sequence->items[i], operator_text)
                          : (a.sequence->n > b.sequence->n) - (a.sequence->n < b.sequence->n);
        jinja_leave(j);
        return order;
    }
    jinja_fail(j, ERR_INVALID, "'%s' not supported between instances of '%s' and '%s'", operator_text,
               jinja_type_name(a), jinja_type_name(b));
}

bool jinja_contains(jinja *j, jinja_value container, jinja_value item)
{
    if (container.kind == JINJA_STRING) {
        if (item.kind != JINJA_STRING)
            jinja_fail(j, ERR_INVALID, "'in <string>' requires string as left operand, not %s", jinja_type_name(item));
        return jinja_find(j, jinja_string_text(j, container.string), jinja_string_text(j, item.string), 0) != SIZE_MAX;
    }
    if (container.kind == JINJA_DICT) {
        if (!is_hashable(j, item))
            jinja_fail(j, ERR_INVALID, "unhashable type: '%s'", jinja_type_name(item));
        return jinja_dict_find(j, container.dict, item) != NULL;
    }
    const jinja_sequence *s = jinja_iterate(j, container);
    for (size_t i = 0; i < s->n; i++) {
        jinja_charge_items(j, 1);
        if (jinja_equal(j, jinja_item(s, i), item))
            return true;
    }
    return false;
}

bool jinja_is_untrusted(jinja *j, jinja_value v)
{
    bool untrusted = v.untrusted;
    jinja_enter(j);
    switch ((jinja_kind)v.kind) {
    case JINJA_STRING:
        untrusted = jinja_string_is_untrusted(j, v.string);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_VIEW:
    case JINJA_ITERATOR:
        for (size_t i = 0; i < v.sequence->n && !untrusted; i++)
            untrusted = jinja_is_untrusted(j, v.sequence->items[i]);
        break;
    case JINJA_DICT:
    case JINJA_NAMESPACE:
        for (size_t i = 0; i < v.dict->n && !untrusted; i++)
            untrusted = jinja_is_untrusted(j, v.dict->keys[i]) || jinja_is_untrusted(j, v.dict->values[i]);
        break;
    default:
        break;
    }
    jinja_leave(j);
    return untrusted;
}
