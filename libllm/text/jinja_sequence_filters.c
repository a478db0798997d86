/* Filters on lists, dictionaries and whatever can be walked. jinja2/filters.py is the reference. */
#include "text/jinja_eval.h"

static jinja_value iterator_new(jinja *j, size_t n)
{
    return jinja_sequence_new(j, JINJA_ITERATOR, n);
}

static jinja_value no_item(jinja *j, const char *which)
{
    span *name = jinja_take(j, 1, sizeof *name);
    *name      = span_of(which);
    return jinja_undefined(JINJA_MISSING, name);
}

/* ---- attributes by path: "a.b.0" ---- */

static jinja_value attribute_of(jinja *j, jinja_value item, jinja_value path, jinja_value otherwise)
{
    if (path.kind == JINJA_MISSING || path.kind == JINJA_NONE)
        return item;
    if (path.kind != JINJA_STRING)
        return jinja_subscript(j, item, path);
    span text = jinja_string_text(j, path.string);
    for (size_t begin = 0; begin <= text.size;) {
        const char *dot  = memchr(text.data + begin, '.', text.size - begin);
        size_t      end  = dot ? (size_t)(dot - text.data) : text.size;
        span        part = {text.data + begin, end - begin};
        int64_t     index;
        bool        number = part.size > 0;
        for (size_t i = 0; i < part.size; i++)
            number &= part.data[i] >= '0' && part.data[i] <= '9';
        jinja_value key =
            number && jinja_parse_integer(part, 10, &index) ? jinja_int(index) : jinja_text_value(j, part, false);
        item = jinja_subscript(j, item, key);
        if (item.kind == JINJA_UNDEFINED && otherwise.kind != JINJA_MISSING && otherwise.kind != JINJA_NONE)
            item = otherwise;
        begin = end + 1;
    }
    return item;
}

static jinja_value ignore_case(jinja *j, jinja_value v, bool case_sensitive)
{
    return !case_sensitive && v.kind == JINJA_STRING ? jinja_of(jinja_change_case(j, v.string, CASE_LOWER)) : v;
}

/* The keys to order or group items by. A path may name several attributes for sort: "a,b". */
static jinja_value *keys_of(jinja *j, const jinja_sequence *items, jinja_value path, jinja_value otherwise,
                            bool case_sensitive, bool several)
{
    jinja_value *keys  = jinja_take(j, items->n, sizeof *keys);
    bool         comma = several && path.kind == JINJA_STRING &&
                 jinja_find(j, jinja_string_text(j, path.string), SPAN(","), 0) != SIZE_MAX;
    jinja_sequence *paths = NULL;
    if (comma) {
        jinja_value     separator = jinja_literal(j, ",");
        jinja_arguments arguments = {.values = &separator, .n = 1};
        paths = jinja_invoke(j, jinja_find_string_method(SPAN("split")), path, &arguments, NULL).sequence;
    }
    for (size_t i = 0; i < items->n; i++) {
        jinja_value item = jinja_item(items, i);
        jinja_charge_items(j, 1);
        if (!comma) {
            keys[i] = ignore_case(j, attribute_of(j, item, path, otherwise), case_sensitive);
            continue;
        }
        keys[i] = jinja_sequence_new(j, JINJA_LIST, paths->n);
        for (size_t k = 0; k < paths->n; k++)
            keys[i].sequence->items[k] =
                ignore_case(j, attribute_of(j, item, paths->items[k], otherwise), case_sensitive);
    }
    return keys;
}

/* ---- order ---- */

/* A stable merge sort of the positions 0..n by their keys. */
static void merge_sort(jinja *j, const jinja_value *keys, bool reverse, size_t *order, size_t *scratch, size_t n)
{
    if (n < 2)
        return;
    size_t half = n / 2;
    merge_sort(j, keys, reverse, order, scratch, half);
    merge_sort(j, keys, reverse, order + half, scratch, n - half);
    memcpy(scratch, order, half * sizeof *order);
    jinja_charge_items(j, n);
    for (size_t a = 0, b = half, out = 0; a < half; out++) {
        int sign   = b >= n    ? 1
                     : reverse ? jinja_compare(j, keys[scratch[a]], keys[order[b]], "<")
                               : jinja_compare(j, keys[order[b]], keys[scratch[a]], "<");
        order[out] = sign < 0 ? order[b++] : scratch[a++];
    }
}

static size_t *sorted_order(jinja *j, const jinja_value *keys, size_t n, bool reverse)
{
    size_t *order = jinja_take(j, n, sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    merge_sort(j, keys, reverse, order, jinja_take(j, n, sizeof *order), n);
    return order;
}

static jinja_value filter_sort(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items = jinja_iterate(j, c->self);
    const jinja_value    *keys  = keys_of(j, items, c->a[2], jinja_none(), jinja_truth(c->a[1]), true);
    const size_t         *order = sorted_order(j, keys, items->n, jinja_truth(c->a[0]));
    jinja_value           list  = jinja_sequence_new(j, JINJA_LIST, items->n);
    for (size_t i = 0; i < items->n; i++)
        list.sequence->items[i] = jinja_item(items, order[i]);
    return list;
}

static jinja_value filter_dictsort(jinja *j, const jinja_call *c)
{
    if (c->self.kind != JINJA_DICT)
        jinja_fail_type(j, "dictsort needs a mapping", c->self);
    const jinja_dict *d  = c->self.dict;
    span              by = c->a[1].kind == JINJA_MISSING ? SPAN("key") : jinja_str_text(j, c->a[1]);
    if (!span_is(by, "key") && !span_is(by, "value"))
        jinja_fail(j, ERR_INVALID, "dictsort: by is \"key\" or \"value\"");
    jinja_sequence     items = {.items = span_is(by, "key") ? d->keys : d->values, .n = d->n};
    const jinja_value *keys  = keys_of(j, &items, jinja_none(), jinja_none(), jinja_truth(c->a[0]), false);
    const size_t      *order = sorted_order(j, keys, d->n, jinja_truth(c->a[2]));
    jinja_value        list  = jinja_sequence_new(j, JINJA_LIST, d->n);
    for (size_t i = 0; i < d->n; i++)
        list.sequence->items[i] = jinja_pair(j, d->keys[order[i]], d->values[order[i]]);
    return list;
}

static jinja_value filter_min_or_max(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items = jinja_iterate(j, c->self);
    const jinja_value    *keys  = keys_of(j, items, c->a[1], jinja_none(), jinja_truth(c->a[0]), false);
    bool                  max   = strcmp(c->builtin->name, "max") == 0;
    size_t                best  = 0;
    if (items->n == 0)
        return no_item(j, "the least or greatest item of an empty sequence");
    for (size_t i = 1; i < items->n; i++) {
        int order = max ? jinja_compare(j, keys[best], keys[i], ">") : jinja_compare(j, keys[i], keys[best], "<");
        best      = order < 0 ? i : best;
    }
    return jinja_item(items, best);
}

static jinja_value filter_unique(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items = jinja_iterate(j, c->self);
    const jinja_value    *keys  = keys_of(j, items, c->a[1], jinja_none(), jinja_truth(c->a[0]), false);
    jinja_value           seen = jinja_dict_new(j, JINJA_DICT, 8), out = iterator_new(j, 0);
    size_t                capacity = 0;
    for (size_t i = 0; i < items->n; i++)
        if (!jinja_dict_find(j, seen.dict, keys[i])) {
            jinja_dict_set(j, seen.dict, keys[i], jinja_none());
            jinja_append(j, out.sequence, &capacity, jinja_item(items, i));
        }
    return out;
}

static jinja_value filter_groupby(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items     = jinja_iterate(j, c->self);
    bool                  sensitive = jinja_truth(c->a[2]);
    const jinja_value    *keys      = keys_of(j, items, c->a[0], c->a[1], sensitive, false);
    const size_t         *order     = sorted_order(j, keys, items->n, false);
    jinja_value           groups    = jinja_sequence_new(j, JINJA_LIST, 0);
    size_t                n_groups = 0, n_members = 0;
    jinja_value           members = jinja_none();
    for (size_t i = 0; i < items->n; i++) {
        jinja_value item = jinja_item(items, order[i]);
        if (i == 0 || !jinja_equal(j, keys[order[i - 1]], keys[order[i]])) {
            members              = jinja_sequence_new(j, JINJA_LIST, 0);
            n_members            = 0;
            jinja_value group    = jinja_pair(j, attribute_of(j, item, c->a[0], c->a[1]), members);
            group.sequence->view = "group";
            jinja_append(j, groups.sequence, &n_groups, group);
        }
        jinja_append(j, members.sequence, &n_members, item);
    }
    return groups;
}

/* ---- one out of many ---- */

static jinja_value filter_length(jinja *j, const jinja_call *c)
{
    size_t n;
    if (c->self.kind == JINJA_LOOP) {
        jinja_loop_fill(j, c->self.loop, SIZE_MAX);
        return jinja_int((int64_t)c->self.loop->items->n);
    }
    if (!jinja_length(j, c->self, &n))
        jinja_fail_type(j, "this has no length", c->self);
    return jinja_int((int64_t)n);
}

static jinja_value filter_first(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_STRING) /* not by way of a list of all its characters */
        return c->self.string->text.size ? jinja_subscript(j, c->self, jinja_int(0))
                                         : no_item(j, "the first item of \"\"");
    if (c->self.kind == JINJA_ITERATOR) {
        jinja_sequence *s = c->self.sequence; /* takes one and leaves the rest */
        return s->next < s->n ? s->items[s->next++] : no_item(j, "the first item of nothing");
    }
    const jinja_sequence *items = jinja_iterate(j, c->self);
    return items->n ? jinja_item(items, 0) : no_item(j, "the first item of an empty sequence");
}

static jinja_value filter_last(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_ITERATOR)
        jinja_fail_type(j, "this can't be walked backwards", c->self);
    if (c->self.kind == JINJA_STRING)
        return c->self.string->text.size ? jinja_subscript(j, c->self, jinja_int(-1))
                                         : no_item(j, "the last item of \"\"");
    const jinja_sequence *items = jinja_iterate(j, c->self);
    return items->n ? jinja_item(items, items->n - 1) : no_item(j, "the last item of an empty sequence");
}

static jinja_value filter_sum(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items = jinja_iterate(j, c->self);
    jinja_value           sum   = c->a[1].kind == JINJA_MISSING ? jinja_int(0) : c->a[1];
    if (sum.kind == JINJA_STRING)
        jinja_fail(j, ERR_INVALID, "sum() can't sum strings; use join");
    for (size_t i = 0; i < items->n; i++)
        sum = jinja_binary(j, '+', sum, attribute_of(j, jinja_item(items, i), c->a[0], jinja_none()));
    return sum;
}

static jinja_value filter_join(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items     = jinja_iterate(j, c->self);
    const jinja_string   *separator = jinja_string_new(j, (span){"", 0}, false);
    if (c->a[0].kind != JINJA_MISSING)
        separator = jinja_str(j, c->a[0]);
    if (c->a[1].kind == JINJA_MISSING || c->a[1].kind == JINJA_NONE)
        return jinja_of(jinja_join(j, separator, items, false));
    jinja_sequence parts = {.items = keys_of(j, items, c->a[1], jinja_none(), true, false), .n = items->n};
    return jinja_of(jinja_join(j, separator, &parts, false));
}

/* ---- many out of many ---- */

static jinja_value copy_items(jinja *j, jinja_kind kind, const jinja_sequence *items)
{
    jinja_value list = jinja_sequence_new(j, kind, items->n);
    for (size_t i = 0; i < items->n; i++)
        list.sequence->items[i] = jinja_item(items, i);
    return list;
}

static jinja_value filter_list(jinja *j, const jinja_call *c)
{
    return copy_items(j, JINJA_LIST, jinja_iterate(j, c->self));
}

static jinja_value filter_items(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_UNDEFINED)
        return iterator_new(j, 0);
    if (c->self.kind != JINJA_DICT)
        jinja_fail_type(j, "can only get item pairs from a mapping", c->self);
    jinja_value pairs = iterator_new(j, c->self.dict->n);
    for (size_t i = 0; i < c->self.dict->n; i++)
        pairs.sequence->items[i] = jinja_pair(j, c->self.dict->keys[i], c->self.dict->values[i]);
    return pairs;
}

static jinja_value filter_reverse(jinja *j, const jinja_call *c)
{
    if (c->self.kind == JINJA_STRING)
        return jinja_slice(j, c->self, jinja_none(), jinja_none(), jinja_int(-1));
    const jinja_sequence *items = jinja_iterate(j, c->self);
    /* A generator can't be walked backwards, so Python's filter makes a list of it; of anything else, an iterator. */
    jinja_value out = jinja_sequence_new(j, c->self.kind == JINJA_ITERATOR ? JINJA_LIST : JINJA_ITERATOR, items->n);
    for (size_t i = 0; i < items->n; i++)
        out.sequence->items[i] = jinja_item(items, items->n - 1 - i);
    return out;
}

static jinja_value filter_batch(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items    = jinja_iterate(j, c->self);
    int64_t               size     = jinja_to_integer(j, c->a[0], "linecount");
    size_t                each     = size > 0 ? (size_t)size : SIZE_MAX;
    jinja_value           out      = iterator_new(j, 0);
    size_t                capacity = 0;
    for (size_t begin = 0; begin < items->n;) {
        size_t      left = items->n - begin, n = left < each ? left : each;
        bool        fill = n < each && c->a[1].kind != JINJA_MISSING && c->a[1].kind != JINJA_NONE && size > 0;
        jinja_value row  = jinja_sequence_new(j, JINJA_LIST, fill ? each : n);
        for (size_t i = 0; i < row.sequence->n; i++)
            row.sequence->items[i] = i < n ? jinja_item(items, begin + i) : c->a[1];
        jinja_append(j, out.sequence, &capacity, row);
        begin += n;
    }
    return out;
}

static jinja_value filter_slice(jinja *j, const jinja_call *c)
{
    const jinja_sequence *items  = jinja_iterate(j, c->self);
    int64_t               slices = jinja_to_integer(j, c->a[0], "slices");
    bool                  fill   = c->a[1].kind != JINJA_MISSING && c->a[1].kind != JINJA_NONE;
    if (slices == 0)
        jinja_fail(j, ERR_INVALID, "integer division or modulo by zero");
    jinja_value out  = iterator_new(j, slices > 0 ? (size_t)slices : 0);
    size_t      each = slices > 0 ? items->n / (size_t)slices : 0, extra = slices > 0 ? items->n % (size_t)slices : 0;
    for (size_t i = 0, begin = 0; i < out.sequence->n; i++) {
        size_t      n   = each + (i < extra);
        bool        pad = fill && i >= extra;
        jinja_value row = jinja_sequence_new(j, JINJA_LIST, n + pad);
        for (size_t k = 0; k < n; k++)
            row.sequence->items[k] = jinja_item(items, begin + k);
        if (pad)
            row.sequence->items[n] = c->a[1];
        out.sequence->items[i] = row;
        begin += n;
    }
    return out;
}

static const jinja_keyword *keyword(const jinja_arguments *arguments, const char *name)
{
    for (size_t i = 0; i < arguments->n_keywords; i++)
        if (span_is(arguments->keywords[i].name, name))
            return &arguments->keywords[i];
    return NULL;
}

static jinja_value filter_map(jinja *j, const jinja_call *c)
{
    const jinja_arguments *a         = c->arguments;
    const jinja_keyword   *attribute = a->n == 0 ? keyword(a, "attribute") : NULL;
    const jinja_keyword   *otherwise = keyword(a, "default");
    const jinja_builtin   *filter    = NULL;
    if (!jinja_truth(c->self))
        return iterator_new(j, 0);
    if (attribute) {
        if (a->n_keywords > 1u + (otherwise != NULL))
            jinja_fail(j, ERR_INVALID, "map with an attribute takes only a default beside it");
    } else if (a->n == 0)
        jinja_fail(j, ERR_INVALID, "map needs the name of a filter or an attribute");
    else if (!(filter = jinja_find_filter(jinja_str_text(j, a->values[0]))))
        jinja_fail(j, ERR_INVALID, "there is no filter named '%.*s'", SPAN_ARG(jinja_str_text(j, a->values[0])));
    jinja_arguments rest = {.keywords = a->keywords, .n_keywords = a->n_keywords};
    if (filter) {
        rest.values = a->values + 1;
        rest.n      = a->n - 1;
    }
    const jinja_sequence *items = jinja_iterate(j, c->self);
    jinja_value           out   = iterator_new(j, items->n);
    for (size_t i = 0; i < items->n; i++) {
        jinja_value item = jinja_item(items, i);
        jinja_enter(j);
        out.sequence->items[i] =
            filter ? jinja_invoke(j, filter, item, &rest, NULL)
                   : attribute_of(j, item, attribute->value, otherwise ? otherwise->value : jinja_none());
        jinja_leave(j);
    }
    return out;
}

/* select, reject, selectattr, rejectattr */
static jinja_value filter_select(jinja *j, const jinja_call *c)
{
    const jinja_arguments *a       = c->arguments;
    bool                   wanted  = c->builtin->name[0] == 's';
    size_t                 n_names = strstr(c->builtin->name, "attr") ? 1 : 0, capacity = 0;
    const jinja_builtin   *test = NULL;
    if (!jinja_truth(c->self))
        return iterator_new(j, 0);
    if (a->n < n_names)
        jinja_fail(j, ERR_INVALID, "%s needs the name of an attribute", c->builtin->name);
    if (a->n > n_names && !(test = jinja_find_test(jinja_str_text(j, a->values[n_names]))))
        jinja_fail(j, ERR_INVALID, "there is no test named '%.*s'", SPAN_ARG(jinja_str_text(j, a->values[n_names])));
    jinja_arguments rest = {.keywords = a->keywords, .n_keywords = a->n_keywords};
    if (test) {
        rest.values = a->values + n_names + 1;
        rest.n      = a->n - n_names - 1;
    }
    const jinja_sequence *items = jinja_iterate(j, c->self);
    jinja_value           out   = iterator_new(j, 0);
    for (size_t i = 0; i < items->n; i++) {
        jinja_value item = jinja_item(items, i);
        jinja_value v    = n_names ? attribute_of(j, item, a->values[0], jinja_none()) : item;
        jinja_charge_items(j, 1);
        if (jinja_truth(test ? jinja_invoke(j, test, v, &rest, NULL) : v) == wanted)
            jinja_append(j, out.sequence, &capacity, item);
    }
    return out;
}

static jinja_value filter_attr(jinja *j, const jinja_call *c)
{
    if (c->a[0].kind != JINJA_STRING)
        jinja_fail_type(j, "attr needs the name of an attribute", c->a[0]);
    (void)jinja_string_text(j, c->a[0].string);
    if (c->self.kind == JINJA_DICT && !jinja_find_method(JINJA_DICT, c->a[0].string->text))
        return jinja_undefined(JINJA_DICT, &c->a[0].string->text); /* attributes only, never items */
    return jinja_attribute(j, c->self, &c->a[0].string->text);
}

static const jinja_builtin filters[] = {
    {"attr", filter_attr, "name"},
    {"batch", filter_batch, "linecount fill_with="},
    {"count", filter_length, ""},
    {"dictsort", filter_dictsort, "case_sensitive= by= reverse="},
    {"first", filter_first, ""},
    {"groupby", filter_groupby, "attribute default= case_sensitive="},
    {"items", filter_items, ""},
    {"join", filter_join, "d= attribute="},
    {"last", filter_last, ""},
    {"length", filter_length, ""},
    {"list", filter_list, ""},
    {"map", filter_map, NULL},
    {"max", filter_min_or_max, "case_sensitive= attribute="},
    {"min", filter_min_or_max, "case_sensitive= attribute="},
    {"reject", filter_select, NULL},
    {"rejectattr", filter_select, NULL},
    {"reverse", filter_reverse, ""},
    {"select", filter_select, NULL},
    {"selectattr", filter_select, NULL},
    {"slice", filter_slice, "slices fill_with="},
    {"sort", filter_sort, "reverse= case_sensitive= attribute="},
    {"sum", filter_sum, "attribute= start="},
    {"unique", filter_unique, "case_sensitive= attribute="},
};

const jinja_builtin *jinja_find_filter(span name)
{
    const jinja_builtin *found = jinja_find_in(filters, COUNT(filters), name);
    return found ? found : jinja_find_text_filter(name);
}
